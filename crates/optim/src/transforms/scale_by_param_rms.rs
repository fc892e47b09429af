//! `u = max(e, rms(p)) u`: a tensor moves in proportion to its own size.
//!
//! Shazeer 2018, <https://arxiv.org/abs/1804.04235>, section 8; AdaLomo's effective rate (Lv 2023,
//! <https://arxiv.org/abs/2310.10195>, algorithm 1).
use super::{Transform, Whole, root_mean_square, whole};
use crate::chain::Step;
use luthier_tensor::scale_assign;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct ScaleByParamRms {
    /// `e`: what a tensor of zeros moves by.
    pub smallest: f64,
}

impl ScaleByParamRms {
    fn run(&self, whole: Whole<'_>, _: &Step) {
        scale_assign(whole.update, root_mean_square(whole.param).max(self.smallest));
    }
}

impl Transform for ScaleByParamRms {
    fn name(&self) -> &'static str {
        "size"
    }
    whole!();
}
