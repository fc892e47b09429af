//! The binary `luthier`: parses a command line, calls the crates below, prints what they return.

#![allow(unreachable_pub, reason = "a binary has no outside; `pub` marks what a module offers to the others")]

mod args;
mod commands;
mod error;
mod finish;
mod observe;
mod opened;
mod output;
mod report;
mod snippet;

use args::Cli;
use clap::Parser;
use clap::error::ErrorKind;
use error::CliError;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::new(cli.json, cli.quiet);
    match guarded(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(error.exit)
        }
    }
}

/// Runs the command; a panic is our own bug and becomes an error like any other, so that machines can read it.
fn guarded(cli: Cli, output: &Output) -> Result<(), CliError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commands::run(cli, output)))
        .unwrap_or_else(|_| Err(CliError::bug()))
}

/// What clap has to say: help and version are results, the rest is a wrong input.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        Output::new(true, false).failure(&CliError::usage(error));
    } else {
        let _ = error.print();
    }
    ExitCode::from(error::INPUT)
}
