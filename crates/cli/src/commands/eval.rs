//! `luthier eval`: loss, perplexity and exact answers on held-out data.

use crate::args::EvalArgs;
use crate::commands::load_run;
use crate::error::CliError;
use crate::opened::{Opened, compute_dtype, dtype, is_adapter};
use crate::output::{Output, count};
use luthier_data::{DataSpec, Dataset, EvalSpec, load};
use luthier_decode::{Sampling, Settings, Stop};
use luthier_eval::{EvalReport, Interval, Options, Pattern, evaluate, write_predictions};
use luthier_train::{Base, PeakBytes, data_spec, open_base};
use serde_json::{Value, json};
use std::path::Path;

/// Runs the command.
pub fn run(args: &EvalArgs, output: &Output) -> Result<(), CliError> {
    if super::eval_task::run(args, output)? {
        return Ok(());
    }
    if args.against.is_some() || (args.predictions.is_some() && args.answer.is_none()) {
        return Err(CliError::input("no-labels", "a language model says nothing of rows but its answers")
            .help("give --answer PATTERN; --against compares classifiers"));
    }
    let is_run =
        Path::new(&args.subject).extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("toml"));
    let (opened, data) = if is_run { of_run(args)? } else { of_model(args)? };
    if !opened.model.spec().generates() {
        return Err(CliError::input(
            "no-task",
            "the model is an encoder that says of no task what it answers",
        )
        .help("give the run.toml that trained it, or an adapter with its labels.json"));
    }
    let dataset: Dataset = load(&data, opened.tokenizer())?;
    if dataset.eval.is_empty() {
        return Err(CliError::input("no-held-out", "there is no held-out data")
            .help("name some by --data FILE, or by data.eval"));
    }
    if args.answer.is_some() && dataset.examples.is_empty() {
        return Err(CliError::input("no-questions", "the data has no questions to answer")
            .help("--answer needs rows with a prompt and an answer"));
    }
    let answers = Settings {
        sampling: Sampling::greedy(),
        stop: Stop { max_tokens: args.max_tokens, ..Stop::default() },
        ..Settings::default()
    };
    let options = Options {
        limit: args.limit.map(usize::from),
        answers: args.answer.is_some().then_some(answers),
        pattern: args.answer.as_deref().map(pattern).transpose()?,
        seed: 0,
    };
    let (report, predictions) =
        evaluate(&opened.generator(), &dataset.eval, &dataset.examples, &options, &mut |what, done, of| {
            output.progress(|| format!("{what}: {done} of {of}"));
        })?;
    if let Some(path) = &args.predictions {
        write_predictions(path, &predictions)?;
    }
    output.result(|| to_json(&opened, &report), || describe(&report));
    Ok(())
}

/// A bare mark stands before a number: `####` is `#### n`.
fn pattern(text: &str) -> Result<Pattern, CliError> {
    let is_whole = text == "gsm8k" || text.ends_with(" n") || text.contains(['(', '\\', '[']);
    Ok(if is_whole { Pattern::parse(text)? } else { Pattern::parse(&format!("{text} n"))? })
}

fn of_run(args: &EvalArgs) -> Result<(Opened, DataSpec), CliError> {
    let run = load_run(&crate::args::RunArgs { run: args.subject.clone().into(), set: args.set.clone() })?;
    let mut data = data_spec(&run)?;
    if let Some(file) = &args.data {
        only(&mut data, file);
    }
    let compute = compute_dtype(run.compute);
    let model = run.output.join("model");
    let own = run.output.join("adapter");
    let adapter = match (&args.adapter, args.base_only) {
        (Some(given), _) => Some(given.clone()),
        (None, false) if is_adapter(&own) => Some(own),
        (None, false) if model.join("config.json").is_file() => {
            return Ok((Opened::of(Base::open(&model)?, None, compute)?, data));
        }
        _ => None,
    };
    if adapter.is_none() && !args.base_only {
        let message = format!("{} holds no result of this run yet", run.output.display());
        return Err(
            CliError::input("no-result", message).help("train it first, or measure the base by --base-only")
        );
    }
    Ok((Opened::of(open_base(&run)?, adapter, compute)?, data))
}

fn of_model(args: &EvalArgs) -> Result<(Opened, DataSpec), CliError> {
    let (base, adapter) = crate::opened::find(&args.subject, args.adapter.as_deref())?;
    let file = args.data.as_ref().ok_or_else(|| {
        CliError::input("no-held-out", "a model needs data to be measured on")
            .help("name some by --data FILE, or give a run.toml")
    })?;
    let mut data = DataSpec { max_tokens: 1024, ..DataSpec::default() };
    only(&mut data, file);
    Ok((Opened::of(Base::open(&base)?, adapter.filter(|_| !args.base_only), dtype(args.compute))?, data))
}

/// The file is the held-out data; as training data it is not looked at.
fn only(data: &mut DataSpec, file: &Path) {
    data.train = vec![file.to_owned()];
    data.eval = EvalSpec::Files(vec![file.to_owned()]);
}

fn to_json(opened: &Opened, report: &EvalReport) -> Value {
    let mut result = serde_json::to_value(report).expect("plain data with text keys");
    result["base"] = json!(opened.base.path);
    result["adapter"] = json!(opened.adapter);
    result["peak_bytes"] = json!(PeakBytes::now());
    result
}

fn describe(report: &EvalReport) -> String {
    let EvalReport { loss, loss_interval, perplexity, perplexity_interval, .. } = report;
    let mut lines = vec![
        format!(
            "loss        {loss:.4} (95 % interval {:.4} to {:.4})",
            loss_interval.low, loss_interval.high
        ),
        format!(
            "perplexity  {perplexity:.3} ({:.3} to {:.3})",
            perplexity_interval.low, perplexity_interval.high
        ),
        format!("tokens      {} of {} rows", count(report.tokens as u64), report.rows),
    ];
    let mut share = |name: &str, share: Option<f64>, interval: Option<Interval>| {
        if let (Some(share), Some(Interval { low, high })) = (share, interval) {
            lines.push(format!(
                "{name:<10}  {:.1} % ({:.1} to {:.1})",
                share * 100.0,
                low * 100.0,
                high * 100.0
            ));
        }
    };
    share("exact", report.exact_match, report.exact_match_interval);
    share("answered", report.answered, report.answered_interval);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_mark_stands_before_a_number() {
        for text in ["####", "#### n", "gsm8k", r"#### (\d+)"] {
            let found = pattern(text).expect("a pattern").find("so\n#### 42");
            assert_eq!(found.map(|found| found.value).as_deref(), Some("42"), "{text}");
        }
    }
}
