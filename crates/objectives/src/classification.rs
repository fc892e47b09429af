//! Classification of whole segments: one label of several, or any number of independent ones.
//!
//! One label: softmax cross-entropy as PyTorch's `cross_entropy`, with label smoothing (Szegedy 2016, arXiv 1512.00567,
//! section 7) and class weights; weighted losses are divided by the sum of the rows' weights. Independent labels: binary
//! cross-entropy of each, divided by rows times labels, as PyTorch's `binary_cross_entropy_with_logits`.
use crate::{Loss, Objective};
use luthier_data::{Batch, Label};
use luthier_kernels::label_loss::{binary_cross_entropy, cross_entropy};
use luthier_models::{Model, Run};
use luthier_tensor::Tape;

/// One label a row.
#[derive(Clone, Debug, Default)]
pub struct Classification {
    /// Share of the target that is spread over all labels, from 0 to below 1.
    pub smoothing: f64,
    /// One weight a label; all 1 if none.
    pub weights: Option<Vec<f64>>,
}

/// Independent labels.
#[derive(Clone, Copy, Debug, Default)]
pub struct MultiLabel;

/// Sum of the weights of some targets.
pub(crate) fn weight_of(targets: &[u32], weights: Option<&[f64]>) -> f64 {
    weights.map_or(targets.len() as f64, |w| targets.iter().map(|t| w[*t as usize]).sum())
}

fn classes(batch: &Batch) -> Vec<u32> {
    let class = |label: &Label| match label {
        Label::Class(class) => *class,
        other => panic!("a class for each row of the task, not {other:?}"),
    };
    batch.labels.iter().map(class).collect()
}

impl Objective for Classification {
    fn weight(&self, _: &Run, batch: &Batch) -> f64 {
        weight_of(&classes(batch), self.weights.as_deref())
    }

    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss {
        let targets = classes(batch);
        let logits = model.class_logits(tape, run);
        let scores = logits.value().clone();
        let loss = cross_entropy(tape, &logits, &targets, self.smoothing, self.weights.as_deref());
        Loss {
            sum: loss.sum,
            tokens: targets.len(),
            weight: weight_of(&targets, self.weights.as_deref()),
            each: loss.rows,
            counts: vec![1; targets.len()],
            scores: Some(scores),
        }
    }
}

impl Objective for MultiLabel {
    fn weight(&self, _: &Run, batch: &Batch) -> f64 {
        holds(batch).len() as f64
    }

    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss {
        let targets = holds(batch);
        let logits = model.class_logits(tape, run);
        let scores = logits.value().clone();
        let loss = binary_cross_entropy(tape, &logits, &targets);
        Loss {
            sum: loss.sum,
            tokens: targets.len(),
            weight: targets.len() as f64,
            each: loss.rows,
            counts: vec![scores.cols(); batch.samples()],
            scores: Some(scores),
        }
    }
}

/// 1 where a label holds, row by row.
fn holds(batch: &Batch) -> Vec<f32> {
    let row = |label: &Label| match label {
        Label::Classes(holds) => holds.iter().map(|h| f32::from(u8::from(*h))).collect::<Vec<_>>(),
        other => panic!("labels for each row of the task, not {other:?}"),
    };
    batch.labels.iter().flat_map(row).collect()
}
