//! One file a command: parse, call, print.

mod pull;
mod train;

use crate::args::{Cli, Command, RunArgs};
use crate::error::CliError;
use crate::output::Output;
use luthier_config::Run;

/// Methods that can stand under `[method]`.
const METHODS: [&str; 2] = ["lora", "full-ft"];

/// Runs the command.
pub fn run(cli: Cli, output: &Output) -> Result<(), CliError> {
    if let Some(threads) = cli.threads {
        set_threads(threads.get());
    }
    match cli.command {
        Command::Quickstart(_) => Err(unready("quickstart")),
        Command::Train(args) => train::run(&args, output),
        Command::Data(_) => Err(unready("data")),
        Command::Eval(_) => Err(unready("eval")),
        Command::Generate(_) => Err(unready("generate")),
        Command::Chat(_) => Err(unready("chat")),
        Command::Merge(_) => Err(unready("merge")),
        Command::Pull(args) => pull::run(&args, output),
        Command::Methods(_) => Err(unready("methods")),
    }
}

/// Sets the width of the one pool that all kernels share.
pub fn set_threads(threads: usize) {
    // The pool is made once; the command line is read before any kernel runs.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

fn unready(command: &str) -> CliError {
    CliError::failed("unready", format!("`luthier {command}` is not part of this build"))
}

/// The configuration that a command is given, with its `--set`s, and the width of the pool that it asks for.
pub fn load_run(args: &RunArgs) -> Result<Run, CliError> {
    let run = Run::load(&args.run, &args.set, &METHODS)?;
    if let Some(threads) = run.threads {
        set_threads(threads.get()); // without effect where --threads came first
    }
    Ok(run)
}
