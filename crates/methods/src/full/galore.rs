//! GaLore: Adam in the space of a gradient's leading singular vectors.
//!
//! ```text
//! every T steps P = leading r singular vectors of G;   R = P^T G;   W' = W - eta scale P adam(R)
//! ```
//! for matrices inside blocks (`G P` and `N P^T` where a matrix has more rows than columns); all other tensors have
//! plain Adam. State of an `m x n` matrix, m <= n: `m r + 2 n r` in place of `2 m n`.
//!
//! - Paper: Zhao 2024, <https://arxiv.org/abs/2403.03507>, algorithms 1 and 2.
//! - Moments are not reset at a new basis, as in the authors' code.
//! - `per-layer = true` updates inside backward as LOMO does (the paper's section 4.2): no gradients are held.
//! - Defaults: rank 128, T 200, scale 0.25 are the authors' for pre-training a small model; rank 4 to 16 and scale 4 theirs
//!   for GLUE.
use crate::full::full_ft::MasterWeights;
use crate::parts::whole_base::trains_the_base;
use luthier_contract::{
    BaseParam, Card, Class, Direction, Error, Estimator, Group, Hook, Method, Paper, Scope, Site, SiteKind,
    Trained, Training, Unmergeable, Update,
};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::num::{NonZeroU64, NonZeroUsize};

/// `[method.galore]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Galore {
    /// Singular vectors `r` that are kept. More is closer to AdamW, and more state.
    pub rank: NonZeroUsize,
    /// Steps `T` between two bases.
    pub every: NonZeroU64,
    /// Factor of what is projected back.
    pub scale: f64,
    /// Whether each tensor is updated inside backward and its gradient freed.
    pub per_layer: bool,
    /// How trained weights are held.
    pub master: MasterWeights,
}

impl Default for Galore {
    fn default() -> Self {
        Self {
            rank: NonZeroUsize::new(128).expect("128 is not 0"),
            every: NonZeroU64::new(200).expect("200 is not 0"),
            scale: 0.25,
            per_layer: false,
            master: MasterWeights::default(),
        }
    }
}

/// GaLore's card.
pub static CARD: Card = Card {
    id: "galore",
    name: "GaLore",
    name_zh: "梯度低秩投影",
    class: Class::Full,
    family: "full",
    principle: "Adam runs in the space of the gradient's leading singular vectors: gradients become low-rank",
    principle_zh: "在梯度主奇异向量张成的子空间中运行 Adam：训练中梯度趋于低秩",
    position: "matrices of the blocks are projected; embeddings, norms and head have plain Adam",
    position_zh: "块内矩阵做投影；词嵌入、归一化与输出头用普通 Adam",
    characteristics: "full-rank weights with low-rank optimizer state; every T steps a singular value decomposition; \
                      rank, T and scale must suit the rate; use it where AdamW's state does not fit",
    characteristics_zh: "权重满秩而优化器状态低秩；每 T 步做一次奇异值分解；秩、T 与缩放需和学习率配合；适合 AdamW 状态放不下时",
    paper: Paper { cite: "Zhao 2024", arxiv: "2403.03507" },
    references: &[60],
    equation: "W' = W - eta s P adam(P^T G)",
    parameters: "N",
    hooks: &[Hook::Base, Hook::Update],
    mergeable: true,
};

impl Method for Galore {
    trains_the_base!(CARD);

    fn check(&self, _: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        if self.scale.is_finite() && self.scale > 0.0 {
            return Ok(());
        }
        let (got, expected) = (self.scale.to_string(), "a number above 0".to_string());
        Err(Error::Setting { method: CARD.id, key: "scale".into(), got, expected })
    }

    fn trains(&self, _: &BaseParam) -> Training {
        Training::Trained(self.master.held())
    }

    fn update(&self) -> Update {
        let estimator = if self.per_layer { Estimator::Fused } else { Estimator::Backward };
        let (rank, every) = (self.rank.get(), self.every.get());
        Update { estimator, direction: Direction::Projected { rank, every, scale: self.scale } }
    }

    fn group(&self, tensor: Trained<'_>) -> Group {
        let inner = |p: &BaseParam| p.site.is_some_and(SiteKind::is_inner_linear) && p.shape.len() == 2;
        Group { projected: matches!(tensor, Trained::Base(p) if inner(p)), ..Group::default() }
    }
}

#[cfg(test)]
luthier_testkit::laws!(|| luthier_testkit::Case::new(Galore::default()));
