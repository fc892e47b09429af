//! Heavy-ball momentum: `b = mu b + u`, `u = b`.
//!
//! Polyak 1964; PyTorch's SGD with `dampening = 0`, whose first buffer is the first gradient as well, since `b` starts
//! at zero.
use super::{Chunk, Real, Slot, Transform, both};
use crate::chain::Step;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct ScaleByMomentum {
    /// `mu`
    pub momentum: f64,
}

impl ScaleByMomentum {
    fn run<T: Real>(&self, chunk: Chunk<'_, T>, _: &Step) {
        let mu = T::of(self.momentum);
        let [buffer] = chunk.slots else { unreachable!("one slot is declared") };
        for (u, b) in chunk.update.iter_mut().zip(buffer.iter_mut()) {
            *b = mu * *b + *u;
            *u = *b;
        }
    }
}

impl Transform for ScaleByMomentum {
    fn name(&self) -> &'static str {
        "momentum"
    }
    fn slots(&self, shape: &[usize]) -> Vec<Slot> {
        vec![("b", shape.to_vec())]
    }
    both!();
}
