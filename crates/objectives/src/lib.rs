//! From a batch to a loss: a sum and what to divide by, never a mean.
//!
//! A mean of micro-batch means would weigh a token by the company it keeps.
pub mod classification;
pub mod lm;
pub mod masked_lm;
pub mod regression;
pub mod token_classification;

use luthier_data::Batch;
use luthier_models::{Model, Run};
use luthier_tensor::{Tape, Tensor, Var};
use std::fmt;

/// The loss of a micro-batch.
#[derive(Debug)]
pub struct Loss {
    /// `[1]`, summed over what counts: tokens, labels or numbers.
    pub sum: Var,
    /// How many count.
    pub tokens: usize,
    /// What divides the sum of a whole step: `tokens`, or the sum of their class weights.
    pub weight: f64,
    /// Loss of each that counts, in the order of the batch: without smoothing and class weights.
    pub each: Vec<f64>,
    /// How many of `each` are of each sample of the batch.
    pub counts: Vec<usize>,
    /// Scores `[rows, labels]` of a task's head: a row a sample, or one a labelled token. None where they are the
    /// vocabulary's.
    pub scores: Option<Tensor>,
}

/// What is optimised.
pub trait Objective: fmt::Debug + Send + Sync {
    /// What will divide the loss of a batch: known before the forward run. `run` holds the batch's tokens.
    fn weight(&self, run: &Run, batch: &Batch) -> f64;
    /// Runs the model forward. `run` holds the batch's tokens.
    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss;
}

/// An objective's row: its file.
pub static OBJECTIVES: &[&str] = &["lm", "masked_lm", "classification", "regression", "token_classification"];
