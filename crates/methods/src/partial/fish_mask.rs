//! FISH mask: the elements with the largest Fisher information train, all others stay as they are.
//!
//! `F = sum over M samples of (d log p(y | x) / d theta)^2`, one sample at a time with the data's labels; the share
//! `keep` of all elements with the largest `F` is updated throughout the run.
//!
//! - Paper: Sung 2021, <https://arxiv.org/abs/2111.09839>, sections 3.1 and 3.2; share 0.5 % and 1,024 samples are the
//!   authors' defaults.
//! - Differs from the authors' code: the mask is on the *update*, so that neither decay nor momentum moves a masked
//!   element; theirs masks the gradient.
use crate::parts::whole_base::trains_the_base;
use luthier_contract::{
    BaseParam, Card, Class, Direction, Error, Hook, Master, Method, Paper, Scope, Site, Training,
    Unmergeable, Update,
};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::num::NonZeroUsize;

/// `[method.fish-mask]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FishMask {
    /// Share of all elements that trains.
    pub keep: f64,
    /// Samples from which the information is estimated.
    pub samples: NonZeroUsize,
}

impl Default for FishMask {
    fn default() -> Self {
        Self { keep: 0.005, samples: NonZeroUsize::new(1024).expect("1024 is not 0") }
    }
}

/// FISH mask's card.
pub static CARD: Card = Card {
    id: "fish-mask",
    name: "FISH mask",
    name_zh: "费舍尔稀疏掩码",
    class: Class::Partial,
    family: "mask",
    principle: "the elements with the largest Fisher information train under a fixed mask",
    principle_zh: "以费舍尔信息最大的元素为固定掩码，只更新这些元素",
    position: "single elements of any tensor",
    position_zh: "任意张量中的单个元素",
    characteristics: "a sparse update that is small to store and send; memory of training is that of full \
                      fine-tuning, and the mask costs a pass over some samples first",
    characteristics_zh: "更新稀疏，存储与传输量小；训练显存与全参数微调相同，且需先遍历部分样本估计掩码",
    paper: Paper { cite: "Sung 2021", arxiv: "2111.09839" },
    references: &[69],
    equation: "W' = W + mask o update, mask = top share of sum (dlog p)^2",
    parameters: "keep N",
    hooks: &[Hook::Base, Hook::Update],
    mergeable: true,
};

impl Method for FishMask {
    trains_the_base!(CARD);

    fn check(&self, _: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        if self.keep > 0.0 && self.keep <= 1.0 {
            return Ok(());
        }
        let (got, expected) = (self.keep.to_string(), "a share above 0 and at most 1".to_string());
        Err(Error::Setting { method: CARD.id, key: "keep".into(), got, expected })
    }

    fn trains(&self, _: &BaseParam) -> Training {
        Training::Trained(Master::F32)
    }

    fn update(&self) -> Update {
        let direction = Direction::Masked { keep: self.keep, samples: self.samples.get() };
        Update { direction, ..Update::default() }
    }
}

#[cfg(test)]
luthier_testkit::laws!(|| luthier_testkit::Case::new(FishMask::default()));
