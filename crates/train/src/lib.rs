//! Training: the loop, its events, checkpoints and resume.
//!
//! [`Session`] is a run in progress; [`train`] is the loop, the same for all
//! methods; what only watches is an [`Observer`].
mod adapter_file;
mod base;
mod checkpoint;
mod data_spec;
mod error;
pub mod estimators;
mod event;
mod facts;
mod fisher;
mod merge;
mod model_folder;
mod output;
mod prepare;
mod proof;
mod run;
mod session;
mod task;
mod train_loop;
mod update;

pub use adapter_file::{AdapterFile, base_name, open_adapted, read_adapter, save_adapter};
pub use base::{Base, load_weights};
pub use checkpoint::{Checkpoints, Found, Restored};
pub use data_spec::data_spec;
pub use error::Error;
pub use estimators::Stepped;
pub use event::{Event, Flow, Metrics, Observer};
pub use facts::Facts;
pub use fisher::fill as fill_mask;
pub use merge::{MergeError, MergeFormat, Merged, merge};
pub use model_folder::{save_model, write_model};
pub use prepare::{Prepared, base_path, open_base, prepare};
pub use proof::{Held, Interval, Proof, held};
pub use run::{Finished, Options, PeakBytes, run};
pub use session::{Evaluated, Gradients, Judging, Limits, Session, Summed};
pub use task::{
    TaskFile, fit, head_of, labels_of, open_as_saved, open_for_adapter, open_for_task, plain_objective,
};
pub use train_loop::{Outcome, Plan, Save, Stopped, train};
pub use update::{estimator, leaves};
