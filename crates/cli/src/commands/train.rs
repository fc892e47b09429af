//! `luthier train`: a run.toml, start to end.

use crate::args::TrainArgs;
use crate::commands::{load_run, unready};
use crate::error::CliError;
use crate::output::Output;

/// Runs the command.
pub fn run(args: &TrainArgs, _output: &Output) -> Result<(), CliError> {
    let _run = load_run(&args.run)?;
    Err(unready("train"))
}
