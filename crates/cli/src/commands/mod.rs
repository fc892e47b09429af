//! One file a command: parse, call, print.

mod bench;
mod chat;
mod data;
mod eval;
mod eval_task;
mod generate;
mod merge;
mod methods;
mod pull;
mod quickstart;
mod train;

pub use bench::BenchArgs;

use crate::args::{Cli, Command, RunArgs};
use crate::error::CliError;
use crate::output::Output;
use luthier_config::Run;

/// Runs the command.
pub fn run(cli: Cli, output: &Output) -> Result<(), CliError> {
    if let Some(threads) = cli.threads {
        set_threads(threads.get());
    }
    match cli.command {
        Command::Quickstart(args) => quickstart::run(&args, output),
        Command::Train(args) => train::run(&args, output),
        Command::Data(args) => data::run(&args, output),
        Command::Eval(args) => eval::run(&args, output),
        Command::Generate(args) => generate::run(&args, output),
        Command::Chat(args) => chat::run(&args, output),
        Command::Merge(args) => merge::run(&args, output),
        Command::Pull(args) => pull::run(&args, output),
        Command::Bench(args) => bench::run(&args, output),
        Command::Methods(args) => methods::run(&args, output),
    }
}

/// Sets the width of the one pool that all kernels share.
pub fn set_threads(threads: usize) {
    // The pool is made once; the command line is read before any kernel runs.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// The configuration that a command is given, with its `--set`s, and the width of the pool that it asks for.
pub fn load_run(args: &RunArgs) -> Result<Run, CliError> {
    let run = Run::load(&args.run, &args.set, &luthier_methods::ids())?;
    if let Some(threads) = run.threads {
        set_threads(threads.get()); // without effect where --threads came first
    }
    Ok(run)
}
