//! MeZO: fine-tuning with forward runs only.
//!
//! ```text
//! g = (L(theta + eps z) - L(theta - eps z)) / (2 eps),   theta' = theta - eta g z,   z ~ N(0, I)
//! ```
//! `z` is made again from its seed, so that memory is that of inference.
//!
//! - Paper: Malladi 2023, <https://arxiv.org/abs/2305.17333>, algorithm 1.
//! - It trains every weight, or a LoRA where `[method.mezo.lora]` is there.
//! - Defaults of the authors: full, eps 1e-3 and rate 1e-6 or 1e-7; LoRA, eps 1e-2 and rate 5e-5 or 1e-4; constant rate,
//!   no clipping, 20,000 steps of 16 samples. Weights are f32: bf16 is too coarse for eps.
use crate::low_rank::lora::Lora;
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Estimator, Hook, Master, Method, Paper, ParamSpec,
    Params, Scope, Site, Training, Unmergeable, Update,
};
use luthier_tensor::{Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[method.mezo]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mezo {
    /// Distance `eps` of the two runs.
    pub eps: f64,
    /// A LoRA that trains instead of the base's weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
}

impl Default for Mezo {
    fn default() -> Self {
        Self { eps: 1e-3, lora: None }
    }
}

/// MeZO's card.
pub static CARD: Card = Card {
    id: "mezo",
    name: "MeZO",
    name_zh: "内存高效零阶优化",
    class: Class::Full,
    family: "full",
    principle: "two forward runs along a random direction give a step: no backward, no gradients, no state",
    principle_zh: "沿随机方向做两次前向得到一步更新：无反向传播、无梯度、无优化器状态",
    position: "all weights, or a LoRA's; only the update is changed",
    position_zh: "全部权重，或一个 LoRA 的权重；只改变更新方式",
    characteristics: "the memory of inference, and any loss that can be computed; slow: twenty to a hundred times the \
                      steps of backpropagation; use it where not even LOMO fits",
    characteristics_zh: "显存等同推理，损失不必可微；收敛慢，步数是反向传播的二十到一百倍；适合连 LOMO 也放不下的场合",
    paper: Paper { cite: "Malladi 2023", arxiv: "2305.17333" },
    references: &[74],
    equation: "theta' = theta - eta ((L(theta + eps z) - L(theta - eps z)) / 2 eps) z",
    parameters: "N, or LoRA's",
    hooks: &[Hook::Base, Hook::Estimator],
    mergeable: true,
};

impl Method for Mezo {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        if !(self.eps.is_finite() && self.eps > 0.0) {
            let (got, expected) = (self.eps.to_string(), "a number above 0".to_string());
            return Err(Error::Setting { method: CARD.id, key: "eps".into(), got, expected });
        }
        self.lora.as_ref().map_or(Ok(()), |lora| lora.check_as("mezo.lora", sites, base))
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        self.lora.as_ref().map_or_else(Vec::new, |lora| lora.declare(scope))
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        self.lora.as_ref().map_or(0, |lora| lora.count(scope))
    }

    fn cost(&self, site: &Site, n: usize) -> Cost {
        let forward_flops = self.lora.as_ref().map_or(0, |lora| lora.cost(site, n).forward_flops);
        Cost { forward_flops, ..Cost::default() }
    }

    fn trains(&self, param: &BaseParam) -> Training {
        self.lora.as_ref().map_or(Training::Trained(Master::F32), |lora| lora.trains(param))
    }

    fn linear(&self, tape: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        self.lora.as_ref().map_or_else(Delta::default, |lora| lora.linear(tape, site, params, context))
    }

    fn update(&self) -> Update {
        Update { estimator: Estimator::Spsa { eps: self.eps }, ..Update::default() }
    }

    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        self.lora.as_ref().map_or_else(|| Ok(weight.clone()), |lora| lora.merge(site, tensors, weight))
    }

    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        match &self.lora {
            Some(lora) => lora.adapter_config(base_name, sites),
            None => crate::own_file::config(CARD.id, base_name, self),
        }
    }

    fn tensor_key(&self, site: &Site, name: &str) -> String {
        self.lora.as_ref().map_or_else(String::new, |lora| lora.tensor_key(site, name))
    }

    fn base_key(&self, param: &BaseParam) -> String {
        self.lora.as_ref().map_or_else(|| param.name.clone(), |lora| lora.base_key(param))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::Case;

    luthier_testkit::laws!(|| Case::new(Mezo::default()));

    mod over_lora {
        use super::*;
        luthier_testkit::laws!(|| {
            let rank = std::num::NonZeroUsize::new(2).unwrap();
            Case::new(Mezo { eps: 1e-2, lora: Some(Lora { rank, ..Lora::default() }) })
        });
    }
}
