//! IA3: trained vectors scale keys, values and the inner activations of the MLP.
//!
//! ```text
//! k = l_k o (W_k x),   v = l_v o (W_v x),   y = W_down (l_ff o h)      all l start at one
//! ```
//! - Paper: Liu 2022, <https://arxiv.org/abs/2205.05638>, section 3.3.
//! - Names, layout and the places by default are PEFT's (`IA3Config`, 0.21; `k_proj`, `v_proj`, `down_proj` of Llama): a
//!   site of `feedforward` is scaled at its input, others at their output, bias included.
//! - The paper's further losses for choices (unlikelihood and length-normalised) are objectives, not part of the method.
//! - Default rate of the authors: 3e-3.
use crate::peft;
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Init, Method, Paper, ParamSpec, Params, Role,
    Scope, Site, SiteKind, Targets, Unmergeable,
};
use luthier_tensor::{Account, Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `[method.ia3]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ia3 {
    /// Sites that are scaled: names or patterns.
    pub targets: Targets,
    /// Those among them whose input is scaled.
    pub feedforward: Targets,
}

impl Default for Ia3 {
    fn default() -> Self {
        let names = |all: &[&str]| Targets::Many(all.iter().map(|n| (*n).to_string()).collect());
        Self { targets: names(&["k", "v", "down"]), feedforward: names(&["down"]) }
    }
}

const NAME: &str = "ia3_l";

/// IA3's card.
pub static CARD: Card = Card {
    id: "ia3",
    name: "(IA)3",
    name_zh: "激活缩放微调",
    class: Class::Additional,
    family: "adapter",
    principle: "activations are inhibited and amplified by trained vectors",
    principle_zh: "用可训练向量对激活做抑制与放大",
    position: "keys and values of attention, inner activations of the MLP",
    position_zh: "注意力的键与值、前馈网络的内部激活",
    characteristics: "a vector a site: the smallest adapters that are still useful, many tasks in one batch, no latency \
                      once merged; little freedom for tasks far from the base",
    characteristics_zh: "每处一个向量：仍有效用的最小适配器，同一批可混合多任务，合并后无延迟；离底座远的任务自由度不足",
    paper: Paper { cite: "Liu 2022", arxiv: "2205.05638" },
    references: &[72],
    equation: "k = l_k o (W_k x), v = l_v o (W_v x), y = W_down (l_ff o h)",
    parameters: "d_out, or d_in in the MLP",
    hooks: &[Hook::Linear],
    mergeable: true,
};

impl Ia3 {
    /// Whether the site's input is scaled; none where it is not adapted.
    fn at(&self, site: &Site) -> Option<bool> {
        self.targets.matches(site).then(|| self.feedforward.matches(site))
    }

    fn factors(tensors: &[(&'static str, Tensor)]) -> Vec<f64> {
        tensors.iter().find(|(n, _)| *n == NAME).expect("declared above").1.to_f64_vec()
    }

    /// From PEFT's config.
    pub(crate) fn read(file: peft::Keys<'_>) -> Result<Self, peft::ReadError> {
        file.refuse(&["modules_to_save", "exclude_modules", "fan_in_fan_out"])?;
        Ok(Self { targets: file.targets()?, feedforward: file.targets_in("feedforward_modules")? })
    }
}

impl Method for Ia3 {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        self.targets.check(CARD.id, sites)?;
        let outside = |s: &&Site| matches!(s.kind, SiteKind::Head | SiteKind::Embed) && self.at(s).is_some();
        match sites.iter().find(outside) {
            None => Ok(()),
            Some(site) => {
                let (got, expected) = (site.path.clone(), "linear sites of the blocks".to_string());
                Err(Error::Setting { method: CARD.id, key: "targets".into(), got, expected })
            }
        }
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let Scope::Site(site) = scope else { return Vec::new() };
        let shape = match self.at(site) {
            None => return Vec::new(),
            Some(true) => vec![1, site.d_in],
            Some(false) => vec![site.d_out, 1],
        };
        vec![ParamSpec { name: NAME, shape, init: Init::Ones, role: Role::Trainable }]
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) => {
                self.at(site).map_or(0, |feedforward| if feedforward { site.d_in } else { site.d_out })
            }
            _ => 0,
        }
    }

    /// No product; an output's scale keeps the output before it.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let saved = match self.at(site) {
            Some(false) => n * site.d_out,
            _ => 0,
        };
        Cost { saved_elements: saved as u64, ..Cost::default() }
    }

    fn linear(&self, _: &Tape, site: &Site, params: &Params, _: &Context) -> Delta {
        let factor = Some(params.get(NAME).clone());
        match self.at(site) {
            Some(true) => Delta { in_scale: factor, ..Delta::default() },
            _ => Delta { out_scale: factor, ..Delta::default() },
        }
    }

    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        let (l, d_in, by_column) =
            (Self::factors(tensors), weight.cols().max(1), self.at(site) == Some(true));
        let values = weight.to_f64_vec().into_iter().enumerate();
        let values = values.map(|(i, w)| w * if by_column { l[i % d_in] } else { l[i / d_in] });
        let values = values.collect::<Vec<_>>();
        Ok(Tensor::from_f64(weight.shape(), &values, weight.dtype(), Account::Workspace))
    }

    fn merge_bias(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        bias: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        if self.at(site) == Some(true) {
            return Ok(bias.clone());
        }
        let values = bias.to_f64_vec().into_iter().zip(Self::factors(tensors)).map(|(b, l)| b * l);
        let values = values.collect::<Vec<_>>();
        Ok(Tensor::from_f64(bias.shape(), &values, bias.dtype(), Account::Workspace))
    }

    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        json!({
            "auto_mapping": null,
            "base_model_name_or_path": base_name,
            "exclude_modules": null,
            "fan_in_fan_out": false,
            "feedforward_modules": peft::names_of(sites, &|s| self.at(s) == Some(true)),
            "inference_mode": true,
            "init_ia3_weights": true,
            "modules_to_save": null,
            "peft_type": "IA3",
            "peft_version": peft::VERSION,
            "revision": null,
            "target_modules": peft::names_of(sites, &|s| self.at(s).is_some()),
            "task_type": "CAUSAL_LM",
        })
    }

    fn tensor_key(&self, site: &Site, name: &str) -> String {
        format!("base_model.model.{}.{name}", site.module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::Case;

    luthier_testkit::laws!(|| Case::new(Ia3::default()));
}
