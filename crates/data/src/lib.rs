//! From files of rows to batches of tokens with their targets, and the doctor that looks at them before anything trains.
//!
//! ```text
//! file -> rows (read) -> records (format) -> layouts (template) -> samples (sample) -> batches (batch, sampler)
//! ```
//!
//! [`load`] runs the chain for a [`DataSpec`] and returns a [`Dataset`]: samples to train on, samples and examples to
//! evaluate on, and the [`Report`].

mod batch;
mod benchmark;
mod dataset;
mod error;
mod findings;
#[cfg(test)]
mod fixtures;
mod format;
mod label_report;
mod problem;
mod read;
mod render;
mod report;
mod sample;
mod sampler;
mod set;
mod split;
mod task;
mod template;
mod tokenizer;

pub use batch::{Batch, MicroLimit, micro_batches};
pub use dataset::{DataSpec, Dataset, EvalSpec, TemplateChoice, inspect, load};
pub use error::Error;
pub use format::{Fields, Format, Message, Record, Role};
pub use label_report::{LabelCounts, LabelReport, Values};
pub use problem::{Problem, ProblemKind, Problems, SHOWN_PROBLEMS};
pub use read::{Row, Rows, read_rows, rows_of};
pub use render::{Style, render_report};
pub use report::{
    Bin, FileReport, Finding, Lengths, Level, Piece, Preview, Report, SetReport, TemplateReport, pieces_of,
};
pub use sample::{Example, Loss, Sample, prompt_tokens};
pub use sampler::{BatchSize, Cursor, Sampler};
pub use task::{IGNORED, Label, LabelSet, Task, Written};
pub use template::{Layout, Rendering, Template, TemplateSource};
pub use tokenizer::{GgufTokenizer, SpecialIds, Streamer, Tokenizer, TokenizerFiles};
