//! Regression: squared error of one number a segment, the only output of a classifier with one label (as transformers has
//! it). Divided by the rows: PyTorch's `mse_loss`.
use crate::{Loss, Objective};
use luthier_data::{Batch, Label};
use luthier_kernels::label_loss::squared_error;
use luthier_models::{Model, Run};
use luthier_tensor::Tape;

/// `sum over rows of (score - number)^2`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Regression;

impl Objective for Regression {
    fn weight(&self, _: &Run, batch: &Batch) -> f64 {
        batch.samples() as f64
    }

    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss {
        let value = |label: &Label| match label {
            Label::Value(value) => *value,
            other => panic!("a number for each row of the task, not {other:?}"),
        };
        let targets = batch.labels.iter().map(value).collect::<Vec<_>>();
        let scores = model.class_logits(tape, run);
        let values = scores.value().clone();
        let loss = squared_error(tape, &scores, &targets);
        Loss {
            sum: loss.sum,
            tokens: targets.len(),
            weight: targets.len() as f64,
            each: loss.rows,
            counts: vec![1; targets.len()],
            scores: Some(values),
        }
    }
}
