//! Reverse mode: gradients of all micro-batches are summed, then every tensor is updated at once.
use super::{Estimator, Stepped};
use crate::session::{Session, Summed};
use luthier_contract::Done;
use luthier_optim::Leaf;
use luthier_tensor::{Account, Param, Tape, Tensor};
use std::collections::BTreeMap;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct Backward;

impl Estimator for Backward {
    fn step(&self, session: &mut Session, rows: &[usize]) -> Stepped {
        let Summed { loss, tokens, weight, all_tokens, gradients: mut sums } = session.gradients(rows);
        if let Some(adapter) = &session.adapter {
            // The penalty belongs to the mean loss, so that its gradient is summed once for each part of it.
            let tape = Tape::new();
            if let Some(penalty) = adapter.method.penalty(&tape, adapter) {
                tape.backward(penalty, if weight > 0.0 { weight } else { 1.0 }, &mut sums);
            }
        }
        // A leaf that nothing reached in this step has gradient zero.
        let zero = |leaf: &Leaf| {
            let value = leaf.param.value();
            Tensor::zeros(value.shape(), value.dtype().accumulator(), Account::Gradient)
        };
        let leaves = session.leaves.iter();
        let gradients =
            leaves.map(|l| sums.take(l.param.id()).unwrap_or_else(|| zero(l))).collect::<Vec<_>>();
        // One division, by what counts in the whole step: nothing where no token was masked.
        let mean = if weight > 0.0 { 1.0 / weight } else { 1.0 };
        let step = session.this_step();
        let grad_norm = session.chain.update(&mut session.leaves, &gradients, mean, &step);
        if let Some(adapter) = &session.adapter {
            let ids = session.leaves.iter().map(|l| l.param.id());
            let by_id = ids.zip(&gradients).collect::<BTreeMap<_, _>>();
            let gradient = |param: &Param| {
                let sum = by_id.get(&param.id())?.to_f64_vec();
                Some(sum.into_iter().map(|g| g * mean).collect())
            };
            let done = Done { t: session.t + 1, steps: session.schedule.steps as u64, gradient: &gradient };
            adapter.method.after_step(adapter, &done);
        }
        Stepped { loss: loss * mean, tokens, all_tokens, grad_norm, lr: step.lr }
    }
}
