//! What a method says about the update: how a direction is found, what becomes of it, and when it is applied.
//!
//! All of it is data. The training loop builds its estimator and its chain of transforms from it, so that a method
//! knows no optimizer and an optimizer no method.
use crate::param::ParamSpec;
use crate::site::{BaseParam, Site};
use luthier_tensor::{Param, Tensor};

/// How training moves what trains.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Update {
    /// How the direction of a step is found.
    pub estimator: Estimator,
    /// What becomes of it before it is added.
    pub direction: Direction,
}

/// How the direction of a step is found, and when it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Estimator {
    /// Gradients of the whole step are summed, then everything is updated at once.
    #[default]
    Backward,
    /// Each tensor is updated inside the backward run, the moment its gradient is complete, and the gradient is freed.
    /// A step is one micro-batch; clipping by norm takes a second pass.
    Fused,
    /// Two forward runs at `theta + eps z` and `theta - eps z`; the direction is `z` times the slope between them.
    Spsa {
        /// Distance `eps`.
        eps: f64,
    },
}

/// What becomes of a gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Direction {
    /// What `[optimizer]` makes of it.
    #[default]
    Optimizer,
    /// Divided by the root of a factored second moment, normalised by tensor, scaled to the tensor's own size
    /// (AdaLomo). `[optimizer.sgd]` gives rate and decay.
    Factored {
        /// Exponent of the moment's memory: `beta_t = 1 - t^exponent`.
        exponent: f64,
        /// Added to squared gradients.
        eps: f64,
        /// Smallest size of a tensor that its update is scaled by.
        smallest: f64,
        /// Root mean square to which an update is cut.
        clip: f64,
    },
    /// `[optimizer]` runs in the space of the leading singular vectors of [projected](Group::projected) matrices.
    Projected {
        /// Singular vectors that are kept.
        rank: usize,
        /// Steps between two bases.
        every: u64,
        /// Factor of what is projected back.
        scale: f64,
    },
    /// Only the elements whose squared gradients, summed over samples one by one, are largest are updated.
    Masked {
        /// Share of all elements that stays.
        keep: f64,
        /// Samples looked at.
        samples: usize,
    },
}

/// A tensor that trains.
#[derive(Clone, Copy, Debug)]
pub enum Trained<'a> {
    /// One that the method added, at a site unless the model shares it.
    Added(Option<&'a Site>, &'a ParamSpec),
    /// One of the base.
    Base(&'a BaseParam),
}

/// What is particular to the update of one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// Factor of the learning rate.
    pub rate: f64,
    /// Whether [`Direction::Projected`] projects it.
    pub projected: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self { rate: 1.0, projected: false }
    }
}

/// A step that has just been made, as [`Method::after_step`](crate::Method::after_step) sees it.
pub struct Done<'a> {
    /// Steps done, this one included.
    pub t: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Mean gradient of a trained tensor in this step, before clipping, in f64; none where nothing reached it.
    pub gradient: &'a dyn Fn(&Param) -> Option<Vec<f64>>,
}

impl std::fmt::Debug for Done<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Done({} of {})", self.t, self.steps)
    }
}

/// Values of a tensor after a change of its own method.
pub fn replace(param: &Param, values: &[f64]) {
    let old = param.value();
    param.set(Tensor::from_f64(old.shape(), values, old.dtype(), old.account()));
}
