//! `u = u / max(1, rms(u) / d)`: no tensor's update is larger than `d` in the root mean square.
//!
//! Shazeer 2018, <https://arxiv.org/abs/1804.04235>, algorithm 4; AdaLomo's grouped normalisation (Lv 2023,
//! <https://arxiv.org/abs/2310.10195>, section 3.3).
use super::{Transform, Whole, root_mean_square, whole};
use crate::chain::Step;
use luthier_tensor::scale_assign;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct ClipByRms {
    /// `d`
    pub threshold: f64,
}

impl ClipByRms {
    fn run(&self, whole: Whole<'_>, _: &Step) {
        let over = root_mean_square(whole.update) / self.threshold;
        if over > 1.0 {
            scale_assign(whole.update, 1.0 / over);
        }
    }
}

impl Transform for ClipByRms {
    fn name(&self) -> &'static str {
        "rms"
    }
    whole!();
}
