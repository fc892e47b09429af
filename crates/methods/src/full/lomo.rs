//! LOMO: stochastic gradient descent inside the backward run.
//!
//! `W' = W - eta c dL/dW`, applied the moment the gradient of a tensor is complete, which is then freed: at most two
//! gradients live at once, and there is no optimizer state.
//!
//! - Paper: Lv 2023, <https://arxiv.org/abs/2306.09782>, section 3 and algorithm 1; clipping by norm `c` in a second pass:
//!   section 3.2.1.
//! - Without clipping it is SGD bit for bit. A tied embedding is updated once, when both of its gradients have come.
//! - Differs from the authors' code: no loss scaling, since gradients are summed in f32; weights are f32 by default, or
//!   bf16 with stochastic rounding in place of fp16.
//! - Defaults of the authors: rate 0.03, linear, warm-up 0.1, clip 1.0 (`[optimizer.sgd]`).
use crate::full::full_ft::MasterWeights;
use crate::parts::whole_base::trains_the_base;
use luthier_contract::{
    BaseParam, Card, Class, Error, Estimator, Hook, Method, Paper, Scope, Site, Training, Unmergeable, Update,
};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[method.lomo]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Lomo {
    /// How trained weights are held.
    pub master: MasterWeights,
}

/// LOMO's card.
pub static CARD: Card = Card {
    id: "lomo",
    name: "LOMO",
    name_zh: "低内存优化",
    class: Class::Full,
    family: "full",
    principle: "each weight is updated inside the backward run and its gradient freed: no gradients, no state",
    principle_zh: "在反向传播中逐张量更新并立即释放梯度：不存梯度，也没有优化器状态",
    position: "all weights; the update is fused into backward",
    position_zh: "全部权重；更新融合进反向传播",
    characteristics: "full fine-tuning in the memory of inference and activations; plain SGD is sensitive to its rate, \
                      a step is one micro-batch, and clipping by norm doubles its time",
    characteristics_zh: "以接近推理加激活的显存做全参数微调；SGD 对学习率敏感，一步只能有一个微批，按范数裁剪使耗时加倍",
    paper: Paper { cite: "Lv 2023", arxiv: "2306.09782" },
    references: &[56],
    equation: "W' = W - eta c dL/dW, as soon as dL/dW is there",
    parameters: "N",
    hooks: &[Hook::Base, Hook::Update, Hook::Estimator],
    mergeable: true,
};

impl Method for Lomo {
    trains_the_base!(CARD);

    fn check(&self, _: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        Ok(())
    }

    fn trains(&self, _: &BaseParam) -> Training {
        Training::Trained(self.master.held())
    }

    fn update(&self) -> Update {
        Update { estimator: Estimator::Fused, ..Update::default() }
    }
}

#[cfg(test)]
luthier_testkit::laws!(|| luthier_testkit::Case::new(Lomo::default()));
