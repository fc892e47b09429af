//! Tasks and metrics on held-out data.
//!
//! [`held_out`] measures the loss row by row; [`answers`] generates and compares; [`evaluate`] does both and gives an
//! [`EvalReport`], whose shares and losses come with 95 % intervals over the rows.
mod answer;
mod error;
mod loss;
mod report;
mod statistics;

pub use answer::{Found, Pattern, Prediction, answers, write_predictions};
pub use error::Error;
pub use loss::{RowLoss, held_out};
pub use report::{EvalReport, Options, evaluate};
pub use statistics::{Interval, bootstrap, wilson};
