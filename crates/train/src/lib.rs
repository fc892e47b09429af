//! Training: the loop, its events, checkpoints and resume.
//!
//! [`Session`] is a run in progress; [`train`] is the loop, the same for all
//! methods; what only watches is an [`Observer`].
mod base;
mod error;
mod event;
mod session;
mod train_loop;

pub use base::Base;
pub use error::Error;
pub use event::{Event, Flow, Observer};
pub use session::{Gradients, Limits, Session};
pub use train_loop::{Outcome, Plan, Save, Stopped, train};
