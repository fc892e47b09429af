//! How the direction of a step is found, and when it is applied: one estimator a file, each owns all passes of a step.
mod backward;
mod fused;
mod spsa;

pub use backward::Backward;
pub use fused::Fused;
pub use spsa::Spsa;

use crate::session::Session;
use std::fmt;

/// What one step saw.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// Mean loss of the tokens that count, before the step.
    pub loss: f64,
    /// Tokens that count.
    pub tokens: usize,
    /// All tokens.
    pub all_tokens: usize,
    /// Norm of the mean gradient before clipping, or what stands for it.
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
}

/// Makes steps.
pub trait Estimator: fmt::Debug + Send + Sync {
    /// One step on the samples `rows`: forward runs, directions and updates.
    fn step(&self, session: &mut Session, rows: &[usize]) -> Stepped;
}
