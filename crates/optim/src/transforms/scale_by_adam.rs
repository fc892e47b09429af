//! Adam's direction: `u = m_hat / (sqrt(v_hat) + eps)`, with
//! `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`, `m_hat = m / (1 - b1^t)`, `v_hat = v / (1 - b2^t)`.
//!
//! Kingma 2015, <https://arxiv.org/abs/1412.6980>, algorithm 1.
use super::{Chunk, Real, Slot, Transform, both};
use crate::chain::Step;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct ScaleByAdam {
    /// `b1`, `b2`.
    pub betas: [f64; 2],
    /// Added to the root, as PyTorch does.
    pub eps: f64,
}

impl ScaleByAdam {
    fn run<T: Real>(&self, chunk: Chunk<'_, T>, step: &Step) {
        let [b1, b2] = self.betas;
        let t = step.t as f64 + 1.0;
        let (m_scale, v_scale) = (T::of(1.0 / (1.0 - b1.powf(t))), T::of(1.0 / (1.0 - b2.powf(t)).sqrt()));
        let (b1, c1, b2, c2, eps) = (T::of(b1), T::of(1.0 - b1), T::of(b2), T::of(1.0 - b2), T::of(self.eps));
        let [m, v] = chunk.slots else { unreachable!("two slots are declared") };
        for ((u, m), v) in chunk.update.iter_mut().zip(m.iter_mut()).zip(v.iter_mut()) {
            *m = b1 * *m + c1 * *u;
            *v = b2 * *v + c2 * *u * *u;
            *u = *m * m_scale / (v.sqrt() * v_scale + eps);
        }
    }
}

impl Transform for ScaleByAdam {
    fn name(&self) -> &'static str {
        "adam"
    }
    fn slots(&self, shape: &[usize]) -> Vec<Slot> {
        vec![("m", shape.to_vec()), ("v", shape.to_vec())]
    }
    both!();
}
