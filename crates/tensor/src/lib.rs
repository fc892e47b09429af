//! Tensors with accounts, counter-based random numbers and the gradient tape.
//!
//! Knows no neural network. A [`Tensor`] is contiguous, row-major and reference
//! counted; every buffer belongs to an [`Account`], so that the peak of each
//! account is measured and can be held against a plan. The [`Tape`] records a
//! node only where a parent needs a gradient, frees saved values as the walk uses
//! them, and hands each leaf's gradient to a [`Sink`] the moment it is complete.
mod account;
mod arith;
mod buffer;
mod checkpoint;
mod dtype;
mod flops;
mod param;
mod rng;
mod tape;
mod tensor;

pub use account::{Account, Peak, peak, reset_peak, usage};
pub use arith::{add_assign, scale_assign, to_dtype};
pub use buffer::trim;
pub use checkpoint::Block;
pub use dtype::{DType, Element, Float};
pub use flops::{add_flops, flops};
pub use half::{bf16, f16};
pub use param::{Param, ParamId};
pub use rng::{Key, Stream};
pub use tape::{Backward, Saved, Sink, Tape, Var};
pub use tensor::Tensor;
