//! Tasks and metrics on held-out data.
//!
//! [`assess`] runs a task's head, [`task_report`] gives its metrics, [`compare`] tests two results on the same rows.
//!
//! [`held_out`] measures the loss row by row; [`answers`] generates and compares; [`evaluate`] does both and gives an
//! [`EvalReport`], whose shares and losses come with 95 % intervals over the rows.
mod answer;
mod compare;
mod error;
mod judge;
mod loss;
pub mod metrics;
mod report;
mod statistics;
mod task;

pub use answer::{Found, Pattern, Prediction, answers, write_predictions};
pub use compare::{Answered, Comparison, Difference, Said, answered, compare, read_answered, write_answered};
pub use error::Error;
pub use judge::{Judged, Score, are_entities, confusion, more_is_better, scores};
pub use loss::{RowLoss, held_out};
pub use report::{EvalReport, Options, evaluate};
pub use statistics::{Interval, bootstrap, mcnemar, percentiles, resamples, wilson};
pub use task::{Assessed, Metric, TaskReport, assess, assess_batch, run_of, task_report};
