//! Language modelling: cross-entropy of the next token, on labelled tokens only.
use crate::{Loss, Objective};
use luthier_data::Batch;
use luthier_models::{Model, Run};
use luthier_tensor::Tape;

/// `sum over labelled tokens of -log p(token | tokens before it in its segment)`.
#[derive(Clone, Copy, Debug)]
pub struct LanguageModelling;

impl Objective for LanguageModelling {
    fn weight(&self, _: &Run, batch: &Batch) -> f64 {
        batch.targets.len() as f64
    }

    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss {
        let loss = model.loss(tape, run, &batch.target_rows, &batch.targets);
        Loss {
            sum: loss.sum,
            tokens: batch.targets.len(),
            weight: self.weight(run, batch),
            each: loss.rows,
            counts: batch.count_by_sample(&batch.target_rows),
            scores: None,
        }
    }
}
