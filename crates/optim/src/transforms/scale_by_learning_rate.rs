//! The last link: `u = -lr u`.
use super::{Chunk, Real, Transform, both};
use crate::chain::Step;

/// Reads the rate from [`Step::lr`].
#[derive(Clone, Copy, Debug)]
pub struct ScaleByLearningRate;

impl ScaleByLearningRate {
    fn run<T: Real>(&self, chunk: Chunk<'_, T>, step: &Step) {
        let rate = T::of(-step.lr);
        for u in chunk.update.iter_mut() {
            *u *= rate;
        }
    }
}

impl Transform for ScaleByLearningRate {
    fn name(&self) -> &'static str {
        "lr"
    }
    both!();
}
