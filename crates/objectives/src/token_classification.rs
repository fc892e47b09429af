//! Classification of tokens: cross-entropy on the first token of each word (Devlin 2019, arXiv 1810.04805, section 5.3),
//! divided by their number, or by the sum of their class weights.
use crate::classification::weight_of;
use crate::{Loss, Objective};
use luthier_data::Batch;
use luthier_kernels::label_loss::cross_entropy;
use luthier_models::{Model, Run};
use luthier_tensor::Tape;

/// One label a labelled token.
#[derive(Clone, Debug, Default)]
pub struct TokenClassification {
    /// Share of the target that is spread over all labels, from 0 to below 1.
    pub smoothing: f64,
    /// One weight a label; all 1 if none.
    pub weights: Option<Vec<f64>>,
}

impl Objective for TokenClassification {
    fn weight(&self, _: &Run, batch: &Batch) -> f64 {
        weight_of(&batch.targets, self.weights.as_deref())
    }

    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss {
        let logits = model.token_logits(tape, run, &batch.target_rows);
        let scores = logits.value().clone();
        let loss = cross_entropy(tape, &logits, &batch.targets, self.smoothing, self.weights.as_deref());
        Loss {
            sum: loss.sum,
            tokens: batch.targets.len(),
            weight: self.weight(run, batch),
            each: loss.rows,
            counts: batch.count_by_sample(&batch.target_rows),
            scores: Some(scores),
        }
    }
}
