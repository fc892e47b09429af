//! A task's head on held-out rows: metrics with intervals, classes, confusion.
use crate::error::Error;
use crate::judge::{Judged, confusion, label_counts, scores};
use crate::metrics::{ClassScore, Confusion, EntityCounts};
use crate::statistics::{Interval, bootstrap, percentiles, resamples};
use luthier_contract::{Context, Mode, Segments};
use luthier_data::{Batch, LabelSet, MicroLimit, Sample, micro_batches};
use luthier_models::{Applied, Model, Run};
use luthier_objectives::Objective;
use luthier_tensor::Tape;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most tokens in one forward run: bounds memory, and is enough to fill the machine.
const TOKENS_AT_ONCE: usize = 4096;

/// One row's losses and scores.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessed {
    /// Of each token, label or number that counts.
    pub losses: Vec<f64>,
    /// Of the head: `[labels]`, or `[words, labels]`; empty where they are the vocabulary's.
    pub scores: Vec<f64>,
}

/// A run of the model over a batch.
pub fn run_of(model: &Model, adapters: &[Applied], batch: &Batch, mode: Mode, recompute: bool) -> Run {
    let has_types = model.spec().wiring.token_types > 1 && !batch.types.is_empty();
    let context = Context {
        tokens: batch.tokens.as_slice().into(),
        positions: batch.positions.as_slice().into(),
        segments: Segments::new(batch.segments.clone()),
        token_types: has_types.then(|| batch.types.as_slice().into()),
        mode,
    };
    Run { context: Arc::new(context), adapters: adapters.to_vec(), recompute }
}

/// Losses and scores of the rows of a batch, without gradients.
pub fn assess_batch(
    model: &Model,
    adapters: &[Applied],
    objective: &dyn Objective,
    batch: &Batch,
) -> Vec<Assessed> {
    let run = run_of(model, adapters, batch, Mode::Eval, false);
    let loss = objective.loss(model, &Tape::off(), &run, batch);
    let scores = loss.scores.map(|s| (s.cols(), s.to_f64_vec()));
    // A row of scores for each token that counts, or one a sample: independent labels count one by one in that row.
    let by_token = scores.as_ref().is_some_and(|(width, all)| all.len() / (*width).max(1) == loss.each.len());
    let rows_of = |sample: usize| match &scores {
        Some(_) if by_token => loss.counts[sample],
        Some(_) => 1,
        None => 0,
    };
    let (mut each, mut row) = (loss.each.into_iter(), 0);
    let assessed = |sample: usize| {
        let rows = row..row + rows_of(sample);
        row = rows.end;
        let cut = |(width, all): &(usize, Vec<f64>)| all[rows.start * width..rows.end * width].to_vec();
        Assessed {
            losses: each.by_ref().take(loss.counts[sample]).collect(),
            scores: scores.as_ref().map(cut).unwrap_or_default(),
        }
    };
    (0..batch.samples()).map(assessed).collect()
}

/// Losses and scores of every sample, in their order. `on_rows` hears how many rows are done.
pub fn assess(
    model: &Model,
    adapters: &[Applied],
    objective: &dyn Objective,
    samples: &[Sample],
    on_rows: &mut dyn FnMut(usize),
) -> Result<Vec<Assessed>, Error> {
    let order = (0..samples.len()).collect::<Vec<_>>();
    let limit = MicroLimit { samples: None, tokens: Some(TOKENS_AT_ONCE) };
    let mut rows = Vec::with_capacity(samples.len());
    for part in micro_batches(&order, samples, limit) {
        let batch = Batch::new(part.iter().map(|&i| &samples[i]));
        rows.extend(assess_batch(model, adapters, objective, &batch));
        if let Some(row) = rows.iter().position(|r: &Assessed| r.losses.iter().any(|l| !l.is_finite())) {
            return Err(Error::NotFinite { row });
        }
        on_rows(rows.len());
    }
    Ok(rows)
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Its value; none where it is not defined, as a correlation with a constant.
    pub value: Option<f64>,
    /// Its 95 % interval: bootstrap over rows.
    pub interval: Option<Interval>,
}

/// What a head makes of held-out rows. Intervals are 95 %, over rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Rows.
    pub rows: usize,
    /// Mean loss of what counts, without smoothing and class weights.
    pub loss: f64,
    /// Its interval.
    pub loss_interval: Interval,
    /// The metrics, the one to choose by first.
    pub metrics: Vec<Metric>,
    /// What always answering with the training set's most frequent label scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub majority: Option<f64>,
    /// Each label's (entity type's) scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassScore>,
    /// Names of the confusion's rows and columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// What was answered where what was right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion>,
}

/// Names a metric's values over resamples.
fn with_intervals(judged: &[Judged], labels: usize, seed: u64) -> Vec<Metric> {
    let whole = scores(judged.iter(), labels);
    let draws = resamples(judged.len(), seed)
        .map(|pick| scores(pick.iter().map(|&i| &judged[i]), labels))
        .collect::<Vec<_>>();
    let metric = |(i, (name, value)): (usize, &(&str, f64))| Metric {
        name: (*name).to_owned(),
        value: value.is_finite().then_some(*value),
        interval: percentiles(draws.iter().map(|draw| draw[i].1)),
    };
    whole.iter().enumerate().map(metric).collect()
}

/// The report of some rows.
pub fn task_report(
    assessed: &[Assessed],
    judged: &[Judged],
    labels: &LabelSet,
    seed: u64,
) -> Result<TaskReport, Error> {
    let sums = assessed.iter().filter(|a| !a.losses.is_empty());
    let sums = sums.map(|a| (a.losses.iter().sum::<f64>(), a.losses.len() as f64)).collect::<Vec<_>>();
    if sums.is_empty() {
        return Err(Error::Empty);
    }
    let (sum, count) = sums.iter().fold((0.0, 0.0), |s, r| (s.0 + r.0, s.1 + r.1));
    let confusion =
        confusion(judged.iter(), labels.len()).filter(|_| !judged.is_empty() && !labels.is_empty());
    Ok(TaskReport {
        rows: assessed.len(),
        loss: sum / count,
        loss_interval: bootstrap(&sums, seed),
        metrics: with_intervals(judged, labels.len(), seed),
        majority: None,
        classes: classes(judged, labels, confusion.as_ref()),
        labels: if confusion.is_some() { labels.names().to_vec() } else { Vec::new() },
        confusion,
    })
}

fn classes(judged: &[Judged], labels: &LabelSet, confusion: Option<&Confusion>) -> Vec<ClassScore> {
    match judged.first() {
        Some(Judged::Labels { .. }) => {
            let counts = label_counts(judged.iter(), labels.len());
            let score = |(name, [h, g, p]): (&String, &[u64; 3])| ClassScore::of(name, *h, *g, *p);
            labels.names().iter().zip(&counts).map(score).collect()
        }
        Some(Judged::Tags { entities: Some(_), .. }) => {
            let mut all = EntityCounts::default();
            for row in judged {
                if let Judged::Tags { entities: Some(entities), .. } = row {
                    all.add(entities);
                }
            }
            all.each()
        }
        _ => confusion.map(|c| c.each(labels.names())).unwrap_or_default(),
    }
}
