//! Optimizers as chains of gradient transforms.
//!
//! A [`Chain`] takes the gradients of a whole step, clips them together, and runs
//! its links one after another over small chunks of each tensor, so that a chain
//! reads and writes memory once, however many links it has. State is declared by
//! the links, as a method's tensors are: one list serves allocation, checkpoint
//! and plan.
// Every link has the one form `run(&self, chunk, step)` that `both!` calls, also one without state.
#![allow(clippy::trivially_copy_pass_by_ref, clippy::unused_self)]

mod aliases;
mod chain;
mod eigen;
mod schedule;
pub mod transforms;

pub use aliases::{Projection, adalomo, adamw, galore, sgd};
pub use chain::{Chain, Direction, Leaf, Step, TRANSFORMS, TransformRow, square_sum};
pub use schedule::{Schedule, Shape};
