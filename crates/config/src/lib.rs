//! The types of `run.toml`: what a user may write, what it means when it is left out, and where a mistake stands.
//!
//! Reading has two stages. [`RawConfig`] is what was written, checked for names, types and ranges, with no look at the
//! disk. [`Run`] is what that means on this machine: paths are absolute and exist, one of two exclusive keys is chosen,
//! every default is filled in. [`Run::to_toml`] writes the second stage back as a file that gives the same run.
//!
//! Choices are tables named after the thing that they choose (`[method.lora]`, `[optimizer.adamw]`). The table of a
//! method is opaque here ([`Choice`]): only the method knows its keys.
//!
//! Every error has a [`Place`]: file, line, column and the text to underline, or the `--set` that is at fault.

mod choice;
mod document;
mod error;
mod find;
mod forms;
mod nearest;
mod numbers;
mod place;
mod read;
mod run;
mod settings;

pub use choice::Choice;
pub use error::Error;
pub use nearest::nearest;
pub use numbers::{NonNegative, Positive, Share};
pub use place::Place;
pub use run::{Base, Batch, Data, Eval, Length, RawConfig, Run, Template, Train};
pub use settings::{
    AdamW, ClassWeights, Clip, Compute, Constant, Cosine, Format, Linear, LossOn, Optimizer, Schedule, Sgd,
    Storage, Task, Warmup,
};
