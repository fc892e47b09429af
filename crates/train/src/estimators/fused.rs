//! LOMO's way: a tensor is updated inside the backward run, the moment its gradient is complete, and the gradient is
//! freed.
//!
//! Lv 2023, <https://arxiv.org/abs/2306.09782>, section 3 and algorithm 1. What
//! divides the loss is known before the walk back; the step is one micro-batch. Clipping by the norm over all tensors needs
//! the norm first: a pass that only measures, then a second forward and backward with the same random draws.
use super::{Estimator, Stepped};
use crate::session::Session;
use luthier_contract::Mode;
use luthier_data::Batch;
use luthier_objectives::Loss;
use luthier_optim::{Chain, Direction, Leaf, Step, square_sum};
use luthier_tensor::{Account, ParamId, Sink, Tape, Tensor};
use std::collections::BTreeMap;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct Fused;

impl Estimator for Fused {
    fn step(&self, session: &mut Session, rows: &[usize]) -> Stepped {
        let batch = Batch::new(rows.iter().map(|&i| &session.samples[i]));
        let step = session.this_step();
        let (mut factor, mut norm) = (1.0, None);
        if session.chain.clip().is_some() {
            let mut squares = Squares::default();
            let (tape, loss) = forward(session, &batch);
            let mean = mean(loss.weight);
            tape.backward(loss.sum, 1.0, &mut squares);
            let measured = squares.0.sqrt() * mean;
            factor = session.chain.clipping(measured);
            norm = Some(measured);
        }
        // What divides the loss is known before the walk: the seed is one, so that every gradient is the sum that
        // ordinary training would divide.
        let (tape, loss) = forward(session, &batch);
        let (sum, tokens, mean) = (loss.sum.value().item(), loss.tokens, mean(loss.weight));
        let mut leaves = std::mem::take(&mut session.leaves);
        let at = leaves.iter().enumerate().map(|(i, l)| (l.param.id(), i)).collect();
        let (scale, reached) = (mean * factor, vec![false; leaves.len()]);
        let mut apply =
            Apply { chain: &session.chain, leaves: &mut leaves, at, scale, step, squares: 0.0, reached };
        tape.backward(loss.sum, 1.0, &mut apply);
        let squares = apply.finish();
        session.leaves = leaves;
        let grad_norm = norm.unwrap_or_else(|| squares.sqrt() * mean);
        Stepped { loss: sum * mean, tokens, all_tokens: batch.tokens.len(), grad_norm, lr: step.lr }
    }
}

fn mean(weight: f64) -> f64 {
    if weight > 0.0 { 1.0 / weight } else { 1.0 }
}

/// The forward run of the step, the same at every call.
fn forward(session: &Session, batch: &Batch) -> (Tape, Loss) {
    let mode = Mode::Train { seed: session.seed, step: session.t, pass: 0, first_row: 0 };
    let tape = Tape::new();
    let loss = session.objective.loss(&session.model, &tape, &session.run(batch, mode), batch);
    (tape, loss)
}

/// Sum of all squares; gradients are dropped.
#[derive(Debug, Default)]
struct Squares(f64);

impl Sink for Squares {
    fn leaf(&mut self, _: ParamId, gradient: Tensor) {
        self.0 += square_sum(&gradient);
    }
}

/// Updates and frees.
struct Apply<'a> {
    chain: &'a Chain,
    leaves: &'a mut [Leaf],
    at: BTreeMap<ParamId, usize>,
    scale: f64,
    step: Step,
    squares: f64,
    reached: Vec<bool>,
}

impl Apply<'_> {
    /// Leaves that nothing reached have gradient zero: decay and momentum go on.
    fn finish(self) -> f64 {
        for (leaf, _) in self.leaves.iter_mut().zip(&self.reached).filter(|(_, reached)| !**reached) {
            let value = leaf.param.value();
            let zero = Tensor::zeros(value.shape(), value.dtype().accumulator(), Account::Gradient);
            drop(value);
            self.chain.update_leaf(leaf, Direction::Gradient(&zero), self.scale, &self.step);
        }
        self.squares
    }
}

impl Sink for Apply<'_> {
    fn leaf(&mut self, id: ParamId, gradient: Tensor) {
        let Some(&i) = self.at.get(&id) else { return };
        self.squares += square_sum(&gradient);
        self.reached[i] = true;
        let direction = Direction::Gradient(&gradient);
        self.chain.update_leaf(&mut self.leaves[i], direction, self.scale, &self.step);
    }
}
