//! What a run tells those who watch it.
use serde::Serialize;

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
