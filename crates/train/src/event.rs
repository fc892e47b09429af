//! What a run tells those who watch it.
use crate::session::Evaluated;
use luthier_eval::Score;
use serde::Serialize;
use std::collections::BTreeMap;

/// Something that happened. One line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Training begins, or goes on.
    Start {
        /// Steps done already.
        step: u64,
        /// Steps of the run.
        steps: u64,
        /// Elements that train.
        trainable_parameters: usize,
        /// Elements of the base.
        base_parameters: usize,
    },
    /// An optimizer step is done.
    Step {
        /// Steps done, this one included.
        step: u64,
        /// Steps of the run.
        steps: u64,
        /// Mean loss of the tokens that count, before the step.
        loss: f64,
        /// Tokens that count.
        tokens: usize,
        /// All tokens of the step.
        all_tokens: usize,
        /// Norm of the mean gradient before clipping.
        grad_norm: f64,
        /// Learning rate.
        lr: f64,
        /// Wall time of the step.
        seconds: f64,
    },
    /// Held-out data was evaluated.
    Eval {
        /// Steps done.
        step: u64,
        /// Mean loss of the tokens that count.
        loss: f64,
        /// Its exponential.
        perplexity: f64,
        /// Tokens that count.
        tokens: usize,
        /// Whether it is the best so far.
        best: bool,
        /// Metrics of a task, by name.
        #[serde(flatten, skip_serializing_if = "Option::is_none")]
        metrics: Option<Metrics>,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Steps done.
        step: u64,
        /// Its folder.
        folder: String,
    },
    /// Something that the user should know and that stops nothing.
    Note {
        /// In plain words.
        message: String,
    },
}

/// Metrics of a task on held-out rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// The one to choose by.
    pub metric: &'static str,
    /// All by name; one that is not defined is left out.
    pub metrics: BTreeMap<&'static str, f64>,
}

impl Metrics {
    /// Of scores, the first to choose by; none of none.
    pub fn of(scores: &[Score]) -> Option<Self> {
        let metric = scores.first()?.0;
        Some(Self { metric, metrics: scores.iter().copied().filter(|(_, v)| v.is_finite()).collect() })
    }

    /// Each name and value, the one to choose by first.
    pub fn listed(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let first = self.metrics.get_key_value(self.metric);
        let rest = self.metrics.iter().filter(|(name, _)| **name != self.metric);
        first.into_iter().chain(rest).map(|(name, value)| (*name, *value))
    }
}

impl Event {
    /// Of held-out rows.
    pub fn eval(step: u64, found: &Evaluated, best: bool) -> Self {
        let Evaluated { loss, tokens, .. } = *found;
        Self::Eval { step, loss, perplexity: loss.exp(), tokens, best, metrics: Metrics::of(&found.scores) }
    }
}

/// Whether the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It saves and stops.
    Stop,
}

/// Someone who watches a run.
pub trait Observer: Send {
    /// Sees every event, also after another observer asked to stop.
    fn on(&mut self, event: &Event) -> Flow;
}
