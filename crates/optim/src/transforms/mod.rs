//! One link a file. Most links see one chunk of one tensor at a time; a few need a tensor whole.
pub mod add_decayed_weights;
pub mod clip_by_rms;
pub mod mask_updates;
pub mod project_gradient;
pub mod scale_by_adam;
pub mod scale_by_factored_rms;
pub mod scale_by_learning_rate;
pub mod scale_by_momentum;
pub mod scale_by_param_rms;

use crate::chain::Step;
use luthier_tensor::Tensor;
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

/// One tensor on its way through the chain.
pub struct Whole<'a> {
    /// The candidate update, of the parameter's shape; f32 (f64 on the reference path).
    pub update: &'a mut Tensor,
    /// The parameter before the step, in its own type.
    pub param: &'a Tensor,
    /// The link's own state, in the order in which it was declared.
    pub slots: &'a mut [Tensor],
}

/// State of one parameter: its name and its shape. Zero at first.
pub type Slot = (&'static str, Vec<usize>);

/// How much a link sees at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Element by element: neighbouring links run over one chunk together. Its state has the parameter's shape.
    Elements,
    /// The tensor.
    Tensor,
}

/// One link of a chain.
pub trait Transform: fmt::Debug + Send + Sync {
    /// Prefix of its state in the checkpoint: `{path}.{name}.{slot}`.
    fn name(&self) -> &'static str;
    /// How much it sees at once.
    fn reach(&self) -> Reach {
        Reach::Elements
    }
    /// What it remembers for a parameter of this shape.
    fn slots(&self, shape: &[usize]) -> Vec<Slot> {
        let _ = shape;
        Vec::new()
    }
    /// Changes a chunk of updates in place. For links that go element by element.
    fn run_f32(&self, chunk: Chunk<'_, f32>, step: &Step) {
        let _ = (chunk, step);
    }
    /// The same in f64.
    fn run_f64(&self, chunk: Chunk<'_, f64>, step: &Step) {
        let _ = (chunk, step);
    }
    /// Changes a whole update in place. For links that see the tensor.
    fn run_whole(&self, whole: Whole<'_>, step: &Step) {
        let _ = (whole, step);
    }
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

/// Implements a link that sees the tensor by one `run`, which looks at the update's type itself.
macro_rules! whole {
    () => {
        fn reach(&self) -> crate::transforms::Reach {
            crate::transforms::Reach::Tensor
        }
        fn run_whole(&self, whole: Whole<'_>, step: &Step) {
            self.run(whole, step);
        }
    };
}
pub(crate) use whole;

/// `sqrt(mean of squares)` of a tensor in any float type, summed in f64 in the elements' order.
pub(crate) fn root_mean_square(t: &Tensor) -> f64 {
    (crate::chain::square_sum(t) / t.numel().max(1) as f64).sqrt()
}
