//! The last link of sparse training: elements whose mask is zero stay as they are, bit for bit.
//!
//! It masks the update, not the gradient: a masked gradient still lets momentum and decay move a weight.
use super::{Chunk, Real, Slot, Transform, both};
use crate::chain::Step;

/// The mask is its state, `keep`, 1 or 0, filled before the first step.
#[derive(Clone, Copy, Debug)]
pub struct MaskUpdates;

impl MaskUpdates {
    fn run<T: Real>(&self, chunk: Chunk<'_, T>, _: &Step) {
        let [keep] = chunk.slots else { unreachable!("one slot is declared") };
        // Adding -0 changes no number, a zero of either sign included.
        let nothing = T::of(-0.0);
        for (u, k) in chunk.update.iter_mut().zip(keep.iter()) {
            if *k <= T::of(0.0) {
                *u = nothing;
            }
        }
    }
}

impl Transform for MaskUpdates {
    fn name(&self) -> &'static str {
        "mask"
    }
    fn slots(&self, shape: &[usize]) -> Vec<Slot> {
        vec![("keep", shape.to_vec())]
    }
    both!();
}
