//! One file a command: parse, call, print.

mod data;
mod methods;
mod pull;
mod train;

use crate::args::{Cli, Command, RunArgs};
use crate::error::CliError;
use crate::output::Output;
use crate::spec;
use luthier_config::Run;
use luthier_train::Base;

/// Runs the command.
pub fn run(cli: Cli, output: &Output) -> Result<(), CliError> {
    if let Some(threads) = cli.threads {
        set_threads(threads.get());
    }
    match cli.command {
        Command::Quickstart(_) => Err(unready("quickstart")),
        Command::Train(args) => train::run(&args, output),
        Command::Data(args) => data::run(&args, output),
        Command::Eval(_) => Err(unready("eval")),
        Command::Generate(_) => Err(unready("generate")),
        Command::Chat(_) => Err(unready("chat")),
        Command::Merge(_) => Err(unready("merge")),
        Command::Pull(args) => pull::run(&args, output),
        Command::Methods(args) => methods::run(&args, output),
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
    let run = Run::load(&args.run, &args.set, &spec::method_ids())?;
    if let Some(threads) = run.threads {
        set_threads(threads.get()); // without effect where --threads came first
    }
    Ok(run)
}

/// The base that a configuration names: a folder, a file, or a model that was pulled.
pub fn open_base(run: &Run) -> Result<Base, CliError> {
    let path = match &run.base {
        luthier_config::Base::Path(path) => path.clone(),
        luthier_config::Base::Hub(id) => luthier_hub::resolve(id).map_err(|error| CliError {
            place: Some(Box::new(run.place("base"))),
            ..CliError::from(error)
        })?,
    };
    Ok(Base::open(&path)?)
}
