//! AdaLomo: LOMO with an adaptive rate, whose second moment of a matrix is held as row and column means.
//!
//! ```text
//! b = 1 - t^c,   R, K = row and column means of g^2, remembered by b
//! u = g / sqrt(R K^T / mean(R)),   u = u / max(1, rms(u) / d)
//! W' = W (1 - eta_W lambda) - eta_W u,   eta_W = eta max(e, rms(W))
//! ```
//! - Paper: Lv 2023, <https://arxiv.org/abs/2310.10195>, algorithm 1; `c = -0.8`, `d = 1`, squares plus 1e-30, `e = 1e-3`:
//!   the authors' defaults. Tensors that are no matrices keep their second moment whole.
//! - `[optimizer.sgd]` gives rate and decay; the authors train without clipping by norm (`clip = "none"`).
use crate::full::full_ft::MasterWeights;
use crate::parts::whole_base::trains_the_base;
use luthier_contract::{
    BaseParam, Card, Class, Direction, Error, Estimator, Hook, Method, Paper, Scope, Site, Training,
    Unmergeable, Update,
};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[method.adalomo]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct AdaLomo {
    /// How trained weights are held.
    pub master: MasterWeights,
}

/// AdaLomo's card.
pub static CARD: Card = Card {
    id: "adalomo",
    name: "AdaLomo",
    name_zh: "自适应低内存优化",
    class: Class::Full,
    family: "full",
    principle: "LOMO with a factored second moment and updates normalised by tensor",
    principle_zh: "在 LOMO 上加入分解的二阶矩，并按张量归一化更新",
    position: "all weights; the update is fused into backward",
    position_zh: "全部权重；更新融合进反向传播",
    characteristics: "close to AdamW's quality with a state of one row and one column a matrix; robust to its rate; a \
                      step is one micro-batch",
    characteristics_zh: "质量接近 AdamW，每个矩阵的状态只有一行一列；对学习率不敏感；一步只能有一个微批",
    paper: Paper { cite: "Lv 2023", arxiv: "2310.10195" },
    references: &[73],
    equation: "W' = W - eta max(e, rms(W)) u, u = clip(g / sqrt(v)), v of rank one",
    parameters: "N",
    hooks: &[Hook::Base, Hook::Update, Hook::Estimator],
    mergeable: true,
};

impl Method for AdaLomo {
    trains_the_base!(CARD);

    fn check(&self, _: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        Ok(())
    }

    fn trains(&self, _: &BaseParam) -> Training {
        Training::Trained(self.master.held())
    }

    fn update(&self) -> Update {
        Update {
            estimator: Estimator::Fused,
            direction: Direction::Factored { exponent: -0.8, eps: 1e-30, smallest: 1e-3, clip: 1.0 },
        }
    }
}

#[cfg(test)]
luthier_testkit::laws!(|| luthier_testkit::Case::new(AdaLomo::default()));
