//! One link a file. A link sees one chunk of one tensor at a time.
pub mod add_decayed_weights;
pub mod scale_by_adam;
pub mod scale_by_learning_rate;
pub mod scale_by_momentum;

use crate::chain::Step;
use std::fmt;

/// The number type of a chunk: f32, or f64 on the reference path.
pub trait Real:
    Copy
    + Send
    + Sync
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
{
    /// From a setting.
    fn of(x: f64) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }
}

/// A chunk of one tensor on its way through the chain.
pub struct Chunk<'a, T> {
    /// The candidate update; the gradient at first.
    pub update: &'a mut [T],
    /// The parameter before the step.
    pub param: &'a [T],
    /// The link's own state, in the order in which it was declared.
    pub slots: &'a mut [&'a mut [T]],
}

/// One link of a chain.
pub trait Transform: fmt::Debug + Send + Sync {
    /// Prefix of its state in the checkpoint: `{path}.{name}.{slot}`.
    fn name(&self) -> &'static str;
    /// Names of the tensors that it remembers for each parameter, each of the parameter's shape, zero at first.
    fn slots(&self) -> &'static [&'static str] {
        &[]
    }
    /// Changes a chunk of updates in place.
    fn run_f32(&self, chunk: Chunk<'_, f32>, step: &Step);
    /// The same in f64.
    fn run_f64(&self, chunk: Chunk<'_, f64>, step: &Step);
}

/// Implements both number types of [`Transform`] by one generic `run`.
macro_rules! both {
    () => {
        fn run_f32(&self, chunk: Chunk<'_, f32>, step: &Step) {
            self.run(chunk, step);
        }
        fn run_f64(&self, chunk: Chunk<'_, f64>, step: &Step) {
            self.run(chunk, step);
        }
    };
}
pub(crate) use both;
