//! LoRA+: LoRA whose B learns faster than its A.
//!
//! `y = x W^T + s x A^T B^T` as in LoRA, with rates `eta_A = eta` and `eta_B = ratio eta`: with one rate for both, wide
//! models learn their features too slowly.
//!
//! - Paper: Hayou 2024, <https://arxiv.org/abs/2402.12354>, section 4; ratio 16 is the authors' for hard tasks.
//! - Groups as in the authors' code and PEFT's `create_loraplus_optimizer`: B and all tensors of one axis take the
//!   larger rate. PEFT's own rate for embeddings has no counterpart, since embeddings are no targets here.
use crate::low_rank::lora::Lora;
use crate::parts::over_lora::{apart, as_lora, together};
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Group, Hook, Method, Paper, ParamSpec, Params,
    Scope, Site, Trained, Training, Unmergeable,
};
use luthier_tensor::{Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[method.lora-plus]`: LoRA's settings, and the ratio.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct LoraPlus {
    /// What is LoRA+'s own.
    pub own: Own,
    /// LoRA's settings.
    pub lora: Lora,
}

/// LoRA+'s own settings.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Own {
    /// B's learning rate over A's, which is the optimizer's.
    pub ratio: f64,
}

impl Default for Own {
    fn default() -> Self {
        Self { ratio: 16.0 }
    }
}

impl TryFrom<Value> for LoraPlus {
    type Error = serde_json::Error;

    fn try_from(table: Value) -> Result<Self, Self::Error> {
        let (own, lora) = apart(table, &["ratio"])?;
        Ok(Self { own, lora })
    }
}

impl From<LoraPlus> for Value {
    fn from(method: LoraPlus) -> Self {
        together(&method.own, &method.lora)
    }
}

/// LoRA+'s card.
pub static CARD: Card = Card {
    id: "lora-plus",
    name: "LoRA+",
    name_zh: "双学习率低秩适配",
    class: Class::Additional,
    family: "low-rank",
    principle: "LoRA whose B has a larger learning rate than A: features of wide models are then learnt efficiently",
    principle_zh: "LoRA 中 B 的学习率大于 A：使宽模型的特征学习更有效率",
    position: "parallel to any linear layer; only the update differs from LoRA's",
    position_zh: "与任意线性层并联；仅更新方式不同于 LoRA",
    characteristics: "1 to 2 % better and up to twice as quick to learn as LoRA at the same cost; one more number to \
                      choose, and A's rate should be lower than LoRA's",
    characteristics_zh: "成本与 LoRA 相同，效果高 1–2%，学习最多快一倍；多一个需选择的比值，A 的学习率应低于 LoRA",
    paper: Paper { cite: "Hayou 2024", arxiv: "2402.12354" },
    references: &[95],
    equation: "W' = W + s B A, eta_B = ratio eta_A",
    parameters: "r (d_in + d_out)",
    hooks: &[Hook::Linear, Hook::Update],
    mergeable: true,
};

impl Method for LoraPlus {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        if !(self.own.ratio.is_finite() && self.own.ratio > 0.0) {
            let (got, expected) = (self.own.ratio.to_string(), "a number above 0".to_string());
            return Err(Error::Setting { method: CARD.id, key: "ratio".into(), got, expected });
        }
        self.lora.check_as(CARD.id, sites, base)
    }

    fn group(&self, tensor: Trained<'_>) -> Group {
        let faster = match tensor {
            Trained::Added(_, spec) => spec.name.starts_with("lora_B") || spec.shape.len() == 1,
            Trained::Base(param) => param.shape.len() == 1,
        };
        Group { rate: if faster { self.own.ratio } else { 1.0 }, ..Group::default() }
    }

    as_lora!(declare, count, cost, trains, linear, merge, adapter_config, keys);
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::{Case, spec};

    luthier_testkit::laws!(|| {
        let lora = Lora { rank: std::num::NonZeroUsize::new(2).unwrap(), ..Lora::default() };
        Case::new(LoraPlus { lora, ..LoraPlus::default() })
    });

    #[test]
    fn b_is_faster_and_a_is_not() {
        let method: LoraPlus =
            serde_json::from_value(serde_json::json!({ "ratio": 4.0, "rank": 2 })).unwrap();
        assert_eq!(method.lora.rank.get(), 2);
        let site = spec(0).sites().remove(1);
        let specs = method.declare(Scope::Site(&site));
        let rates = specs.iter().map(|s| method.group(Trained::Added(Some(&site), s)).rate);
        assert_eq!(rates.collect::<Vec<_>>(), [1.0, 4.0]);
        let again = serde_json::to_value(&method).unwrap();
        assert_eq!((again["ratio"].as_f64(), again["rank"].as_u64()), (Some(4.0), Some(2)));
        assert!(serde_json::from_value::<LoraPlus>(serde_json::json!({ "ration": 4.0 })).is_err());
    }
}
