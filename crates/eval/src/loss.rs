//! The held-out loss.
use crate::error::Error;
use luthier_contract::{Context, Mode, Segments};
use luthier_data::{Batch, MicroLimit, Sample, micro_batches};
use luthier_models::{Applied, Model, Run};
use luthier_objectives::{Objective, lm::LanguageModelling};
use luthier_tensor::Tape;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most tokens in one forward run: bounds memory, and is enough to fill the machine.
const TOKENS_AT_ONCE: usize = 2048;

/// The loss of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowLoss {
    /// Cross-entropy summed over its targets, in nats.
    pub sum: f64,
    /// Its targets.
    pub tokens: usize,
}

/// The loss of every sample, in their order. `adapters` apply to all of them. `on_rows` hears how many rows are done.
pub fn held_out(
    model: &Model,
    adapters: &[Applied],
    samples: &[Sample],
    on_rows: &mut dyn FnMut(usize),
) -> Result<Vec<RowLoss>, Error> {
    let limit = model.spec().max_positions;
    if let Some((row, sample)) = samples.iter().enumerate().find(|(_, s)| s.tokens.len() > limit) {
        return Err(Error::TooLong { row, tokens: sample.tokens.len(), limit });
    }
    let order = (0..samples.len()).collect::<Vec<_>>();
    let limit = MicroLimit { samples: None, tokens: Some(TOKENS_AT_ONCE) };
    let mut rows = Vec::with_capacity(samples.len());
    for part in micro_batches(&order, samples, limit) {
        let batch = Batch::new(part.iter().map(|&i| &samples[i]));
        rows.extend(batch_losses(model, adapters, &batch));
        if let Some(row) = rows.iter().position(|r: &RowLoss| !r.sum.is_finite()) {
            return Err(Error::NotFinite { row });
        }
        on_rows(rows.len());
    }
    Ok(rows)
}

fn batch_losses(model: &Model, adapters: &[Applied], batch: &Batch) -> Vec<RowLoss> {
    let mut rows = vec![RowLoss::default(); batch.samples()];
    if batch.targets.is_empty() {
        return rows;
    }
    let context = Context {
        tokens: batch.tokens.clone().into(),
        positions: batch.positions.clone().into(),
        segments: Segments::new(batch.segments.clone()),
        token_types: None,
        mode: Mode::Eval,
    };
    let run = Run { context: Arc::new(context), adapters: adapters.to_vec(), recompute: false };
    let loss = LanguageModelling.loss(model, &Tape::off(), &run, batch);
    for (&row, loss) in batch.target_rows.iter().zip(&loss.each) {
        let segment = batch.segments.partition_point(|&start| start <= row) - 1;
        rows[segment].sum += loss;
        rows[segment].tokens += 1;
    }
    rows
}
