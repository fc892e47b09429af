//! From a batch to a loss: a sum and what to divide by, never a mean.
//!
//! A mean of micro-batch means would weigh a token by the company it keeps.
pub mod lm;

use luthier_data::Batch;
use luthier_models::{Model, Run};
use luthier_tensor::{Tape, Var};
use std::fmt;

/// The loss of a micro-batch.
#[derive(Debug)]
pub struct Loss {
    /// `[1]`, summed over the tokens that count.
    pub sum: Var,
    /// How many tokens count.
    pub tokens: usize,
    /// Loss of each token that counts, in the order of the batch.
    pub each: Vec<f64>,
}

/// What is optimised.
pub trait Objective: fmt::Debug + Send + Sync {
    /// Tokens that will count: known before the forward run, since they divide the loss.
    fn tokens(&self, batch: &Batch) -> usize;
    /// Runs the model forward. `run` holds the batch's tokens.
    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss;
}

/// An objective's row: its file.
pub static OBJECTIVES: &[&str] = &["lm"];
