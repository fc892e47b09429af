//! `luthier data`: the doctor.

use crate::args::DataArgs;
use crate::commands::load_run;
use crate::error::CliError;
use crate::output::Output;
use luthier_data::{Style, inspect, render_report};
use luthier_platform::terminal::{self, Stream};
use luthier_train::{data_spec, fit, open_base};

/// Runs the command. A set that is refused as a whole is shown first, to people; a program gets one object, the error.
pub fn run(args: &DataArgs, output: &Output) -> Result<(), CliError> {
    let run = load_run(&args.run)?;
    let mut data = data_spec(&run)?;
    let base = open_base(&run)?;
    if let Some(note) = fit(&mut data, &base) {
        output.note(&note);
    }
    let (report, refused) = inspect(&data, &base.tokenizer, args.show)?;
    if refused.is_none() || !output.json() {
        let style = if terminal::colour(Stream::Out) { Style::Ansi } else { Style::Plain };
        output.result(
            || serde_json::to_value(&report).expect("a report is plain data with text keys"),
            || render_report(&report, style, terminal::width(Stream::Out)),
        );
    }
    refused.map_or(Ok(()), |error| Err(error.into()))
}
