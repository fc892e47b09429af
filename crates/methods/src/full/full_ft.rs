//! Full fine-tuning: every weight of the base trains.
//!
//! `W' = W - eta * update(dL/dW)`. Nothing is added, so the result is a base model itself.
//!
//! - Sources: instruction tuning as in Wei 2022 (arXiv 2109.01652); mixed precision with f32 master weights as in
//!   Micikevicius 2018 (arXiv 1710.03740), section 3.1; bf16 weights alone with stochastic rounding as in
//!   Zamirai 2020 (arXiv 2010.06192), section 4.
//! - Memory: 16 bytes a parameter in f32 (weight, gradient, two moments).
use luthier_contract::{
    BaseParam, Card, Class, Error, Hook, Master, Method, Paper, Scope, Site, Training, Unmergeable,
};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `[method.full-ft]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FullFt {
    /// How trained weights are held.
    pub master: MasterWeights,
}

/// How trained weights are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MasterWeights {
    /// In f32: exact small updates, 4 bytes a parameter.
    #[default]
    F32,
    /// In bf16, updated with stochastic rounding: 2 bytes a parameter.
    Bf16Stochastic,
}

/// Full fine-tuning's card.
pub static CARD: Card = Card {
    id: "full-ft",
    name: "full fine-tuning",
    name_zh: "全参数微调",
    class: Class::Full,
    family: "full",
    principle: "every weight of the base trains on the task's loss",
    principle_zh: "以任务损失更新底座的全部权重",
    position: "all weights of all blocks, embedding and head",
    position_zh: "所有块的全部权重、词嵌入与输出头",
    characteristics: "the most capacity and the reference for quality; the most memory (16 bytes a parameter with \
                      AdamW in f32) and one whole model a task; use it when data is plenty and memory allows",
    characteristics_zh: "容量最大，是质量的参照；显存最多（f32 的 AdamW 每参数 16 字节），每个任务一份完整模型；数据充足且显存允许时使用",
    paper: Paper { cite: "Wei 2022", arxiv: "2109.01652" },
    references: &[8, 15, 105, 106, 107, 145, 155],
    equation: "W' = W - eta update(dL/dW)",
    parameters: "N",
    hooks: &[Hook::Base],
    mergeable: true,
};

impl MasterWeights {
    /// For the contract.
    pub(crate) const fn held(self) -> Master {
        match self {
            Self::F32 => Master::F32,
            Self::Bf16Stochastic => Master::Bf16,
        }
    }
}

impl Method for FullFt {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, _: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        Ok(())
    }

    fn count(&self, _: Scope<'_>) -> usize {
        0 // it adds nothing: what trains is the base's own
    }

    fn trains(&self, _: &BaseParam) -> Training {
        Training::Trained(self.master.held())
    }

    fn merge(&self, _: &Site, _: &[(&'static str, Tensor)], weight: &Tensor) -> Result<Tensor, Unmergeable> {
        Ok(weight.clone())
    }

    fn adapter_config(&self, base_name: &str, _: &[Site]) -> Value {
        json!({ "luthier_type": CARD.id, "version": 1, "base_model_name_or_path": base_name })
    }

    fn base_key(&self, param: &BaseParam) -> String {
        param.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::Case;

    luthier_testkit::laws!(|| Case::new(FullFt::default()));
    luthier_testkit::encoder_laws!(|| Case::new(FullFt::default()));
}
