//! Decoupled weight decay: `u += lambda p`, before the learning rate.
//!
//! Loshchilov 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2. Before a direction's own scaling it is L2
//! regularisation, as in PyTorch's SGD.
use super::{Chunk, Real, Transform, both};
use crate::chain::Step;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct AddDecayedWeights {
    /// `lambda`
    pub weight_decay: f64,
}

impl AddDecayedWeights {
    fn run<T: Real>(&self, chunk: Chunk<'_, T>, _: &Step) {
        let decay = T::of(self.weight_decay);
        for (u, &p) in chunk.update.iter_mut().zip(chunk.param) {
            *u += decay * p;
        }
    }
}

impl Transform for AddDecayedWeights {
    fn name(&self) -> &'static str {
        "decay"
    }
    both!();
}
