//! `luthier data`: the doctor.

use crate::args::DataArgs;
use crate::commands::load_run;
use crate::error::CliError;
use crate::output::Output;
use crate::spec;
use luthier_data::{Style, load, render_report};
use luthier_platform::terminal::{self, Stream};
use luthier_train::open_base;

/// Runs the command.
pub fn run(args: &DataArgs, output: &Output) -> Result<(), CliError> {
    let run = load_run(&args.run)?;
    let data = spec::data(&run)?;
    let base = open_base(&run)?;
    let mut report = load(&data, &base.tokenizer)?.report;
    report.previews.truncate(args.show);
    let style = if terminal::colour(Stream::Out) { Style::Ansi } else { Style::Plain };
    output.result(
        || serde_json::to_value(&report).expect("a report is plain data with text keys"),
        || render_report(&report, style, terminal::width(Stream::Out)),
    );
    Ok(())
}
