//! VeRA: one pair of random frozen factors for all layers; each layer trains two vectors.
//!
//! ```text
//! y = x W^T + b o (B (d o (A x)))      A [r, most d_in], B [most d_out, r] shared; d [r], b [d_out] trained
//! ```
//! A layer narrower than the widest takes the first columns of A and the first rows of B. `b` starts at zero, so that
//! step 0 is the base model.
//!
//! - Paper: Kopiczko 2024, <https://arxiv.org/abs/2310.11454>, equation 2.
//! - Names, layout and first values are PEFT's (`VeraConfig`, 0.21). The factors are saved once with the adapter
//!   (`save_projection`), since their generator is not torch's.
//! - Defaults: rank 256, `d` at 0.1 are PEFT's; the rate should be about ten times LoRA's (section 4).
use crate::peft;
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Init, LowRank, Method, Paper, ParamSpec,
    Params, Role, Scope, Site, SiteKind, Targets, Unmergeable,
};
use luthier_tensor::{Account, Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::num::NonZeroUsize;

/// `[method.vera]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vera {
    /// Rank `r` of the shared factors. It costs time and no parameters but `r` a layer.
    pub rank: NonZeroUsize,
    /// First value of `d`.
    pub d_initial: f64,
    /// Probability of dropping an element of the update's input.
    pub dropout: f64,
    /// Sites: `"all-linear"`, names, patterns.
    pub targets: Targets,
}

impl Default for Vera {
    fn default() -> Self {
        let rank = NonZeroUsize::new(256).expect("256 is not 0");
        Self { rank, d_initial: 0.1, dropout: 0.0, targets: Targets::default() }
    }
}

const A: &str = "vera_A";
const B: &str = "vera_B";
const LAMBDA_B: &str = "vera_lambda_b";
const LAMBDA_D: &str = "vera_lambda_d";

/// VeRA's card.
pub static CARD: Card = Card {
    id: "vera",
    name: "VeRA",
    name_zh: "向量随机矩阵适配",
    class: Class::Additional,
    family: "low-rank",
    principle: "random factors are frozen and shared by all layers; each layer trains two scaling vectors",
    principle_zh: "所有层共享一对冻结的随机低秩矩阵，每层只训练两个缩放向量",
    position: "parallel to any linear layer of the block",
    position_zh: "与块内任意线性层并联",
    characteristics: "ten times fewer trained parameters than LoRA, so that many adapters fit beside one base; a high \
                      rank costs time, and hard tasks need more freedom; use a rate about ten times LoRA's",
    characteristics_zh: "可训练参数约为 LoRA 的十分之一，一个底座旁可放很多适配器；秩高则耗时，难任务自由度不足；学习率约为 LoRA 的十倍",
    paper: Paper { cite: "Kopiczko 2024", arxiv: "2310.11454" },
    references: &[89],
    equation: "W' = W + diag(b) B diag(d) A",
    parameters: "r + d_out",
    hooks: &[Hook::Linear],
    mergeable: true,
};

impl Vera {
    fn adapts(&self, site: &Site) -> bool {
        self.targets.matches(site)
    }

    /// The widest input and output among adapted sites; none without any.
    fn widest(&self, sites: &[Site]) -> Option<[usize; 2]> {
        let adapted = || sites.iter().filter(|s| self.adapts(s));
        Some([adapted().map(|s| s.d_in).max()?, adapted().map(|s| s.d_out).max()?])
    }

    /// From PEFT's config.
    pub(crate) fn read(file: peft::Keys<'_>) -> Result<Self, peft::ReadError> {
        file.refuse(&["layers_to_transform", "modules_to_save"])?;
        Ok(Self {
            rank: file.rank("r")?,
            d_initial: file.number("d_initial", 0.1)?,
            dropout: file.number("vera_dropout", 0.0)?,
            targets: file.targets()?,
        })
    }
}

impl Method for Vera {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        self.targets.check(CARD.id, sites)?;
        let refuse = |key: &str, got: String, expected: &str| {
            Err(Error::Setting { method: CARD.id, key: key.into(), got, expected: expected.into() })
        };
        let outside = |s: &&Site| matches!(s.kind, SiteKind::Head | SiteKind::Embed) && self.adapts(s);
        if let Some(site) = sites.iter().find(outside) {
            return refuse("targets", site.path.clone(), "linear sites of the blocks");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", self.dropout.to_string(), "a probability below 1");
        }
        if !self.d_initial.is_finite() || self.d_initial == 0.0 {
            return refuse("d_initial", self.d_initial.to_string(), "a number that is not 0");
        }
        Ok(())
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let r = self.rank.get();
        let spec = |name, shape: &[usize], init, role| ParamSpec { name, shape: shape.to_vec(), init, role };
        match scope {
            Scope::Model(sites) => self.widest(sites).map_or_else(Vec::new, |[d_in, d_out]| {
                vec![
                    spec(A, &[r, d_in], Init::KaimingUniform { fan_in: d_in }, Role::Frozen),
                    spec(B, &[d_out, r], Init::KaimingUniform { fan_in: r }, Role::Frozen),
                ]
            }),
            Scope::Site(site) if self.adapts(site) => vec![
                spec(LAMBDA_B, &[site.d_out], Init::Zeros, Role::Trainable),
                spec(LAMBDA_D, &[r], Init::Constant(self.d_initial), Role::Trainable),
            ],
            _ => Vec::new(),
        }
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) if self.adapts(site) => self.rank.get() + site.d_out,
            _ => 0,
        }
    }

    fn count_frozen(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Model(sites) => self.widest(sites).map_or(0, |[i, o]| self.rank.get() * (i + o)),
            _ => 0,
        }
    }

    /// As LoRA forward; backward the same two products for `dx`, and one for `b`.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        if !self.adapts(site) {
            return Cost::default();
        }
        let r = self.rank.get();
        let once = 2 * (n * r * (site.d_in + site.d_out)) as u64;
        let for_b = 2 * (n * r * site.d_out) as u64;
        Cost { forward_flops: once, backward_flops: once + for_b, saved_elements: (n * r) as u64 }
    }

    fn linear(&self, _: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        let low_rank = LowRank {
            dropout: context.dropout(self.dropout, &site.path),
            middle: Some(params.get(LAMBDA_D).clone()),
            out: Some(params.get(LAMBDA_B).clone()),
            ..LowRank::new(params.get(A).clone(), params.get(B).clone(), 1.0)
        };
        Delta { low_rank: Some(low_rank), ..Delta::default() }
    }

    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        let find = |name| &tensors.iter().find(|(n, _)| *n == name).expect("declared above").1;
        let (r, widest) = (self.rank.get(), find(A).dim(1));
        let (a, d) = (find(A).to_f64_vec(), find(LAMBDA_D).to_f64_vec());
        let (b, out) = (find(B).to_f64_vec(), find(LAMBDA_B).to_f64_vec());
        let a =
            (0..r * site.d_in).map(|e| (e / site.d_in, e % site.d_in)).map(|(k, j)| d[k] * a[k * widest + j]);
        let b = (0..site.d_out * r).map(|e| out[e / r] * b[e]);
        let make = |shape: &[usize], values: Vec<f64>| {
            Tensor::from_f64(shape, &values, luthier_tensor::DType::F64, Account::Workspace)
        };
        let (a, b) = (make(&[r, site.d_in], a.collect()), make(&[site.d_out, r], b.collect()));
        Ok(peft::add_product(weight, &b, &a, 1.0))
    }

    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        json!({
            "auto_mapping": null,
            "base_model_name_or_path": base_name,
            "bias": "none",
            "d_initial": self.d_initial,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "modules_to_save": null,
            "peft_type": "VERA",
            "peft_version": peft::VERSION,
            "projection_prng_key": 0,
            "r": self.rank,
            "revision": null,
            "save_projection": true,
            "target_modules": peft::names_of(sites, &|s| self.adapts(s)),
            "task_type": "CAUSAL_LM",
            "vera_dropout": self.dropout,
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

    luthier_testkit::laws!(|| {
        let rank = NonZeroUsize::new(5).unwrap();
        Case::new(Vera { rank, dropout: 0.25, ..Vera::default() })
    });
}
