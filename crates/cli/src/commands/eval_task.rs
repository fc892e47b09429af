//! `luthier eval` on a task's head: metrics with intervals, classes, predictions, and a test against another result.

use crate::args::EvalArgs;
use crate::commands::load_run;
use crate::error::CliError;
use crate::opened::{Opened, compute_dtype, dtype, is_adapter};
use crate::output::{Output, count};
use luthier_config::Run;
use luthier_data::{DataSpec, Dataset, EvalSpec, LabelSet, Task, load};
use luthier_eval::{
    Answered, Comparison, Interval, Judged, Metric, TaskReport, answered, assess, compare, read_answered,
    task_report, write_answered,
};
use luthier_train::{Base, PeakBytes, TaskFile, base_path, data_spec, fit, open_for_task, plain_objective};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Labels whose confusion is shown as a table.
const SHOWN_CONFUSION: usize = 12;
/// Labels that are shown one by one.
const SHOWN_CLASSES: usize = 40;

/// What is measured, and how its rows are read.
struct Subject {
    base: PathBuf,
    adapter: Option<PathBuf>,
    task: Task,
    labels: LabelSet,
    data: DataSpec,
    compute: luthier_tensor::DType,
}

/// Runs the command if its subject answers a task; says whether it did.
pub fn run(args: &EvalArgs, output: &Output) -> Result<bool, CliError> {
    let is_run =
        Path::new(&args.subject).extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("toml"));
    let subject = if is_run { of_run(args)? } else { of_model(args)? };
    let Some(subject) = subject else { return Ok(false) };
    if args.answer.is_some() {
        return Err(CliError::input(
            "no-questions",
            format!("a model for {} generates no answers", subject.task.name()),
        )
        .help("leave --answer out; --predictions FILE writes what it says of each row"));
    }
    measure(args, subject, output).map(|()| true)
}

/// The run's own result, or the one that is named; none of a language model's run.
fn of_run(args: &EvalArgs) -> Result<Option<Subject>, CliError> {
    let run = load_run(&crate::args::RunArgs { run: args.subject.clone().into(), set: args.set.clone() })?;
    let data = data_spec(&run)?;
    if data.task == Task::Lm {
        return Ok(None);
    }
    let (base, adapter) = result_of(args, &run)?;
    let file = match &adapter {
        Some(folder) => TaskFile::read(folder)?,
        None => TaskFile::of_config(&Base::open(&base)?.config.0),
    };
    let labels = LabelSet::new(file.map(|f| f.labels).unwrap_or_default());
    let compute = compute_dtype(run.compute);
    Ok(Some(Subject { base, adapter, task: data.task, labels, data, compute }))
}

fn result_of(args: &EvalArgs, run: &Run) -> Result<(PathBuf, Option<PathBuf>), CliError> {
    let (own, model) = (run.output.join("adapter"), run.output.join("model"));
    match (&args.adapter, args.base_only) {
        (Some(given), _) => Ok((base_path(run)?, Some(given.clone()))),
        (None, true) => Ok((base_path(run)?, None)),
        (None, false) if is_adapter(&own) => Ok((base_path(run)?, Some(own))),
        (None, false) if model.join("config.json").is_file() => Ok((model, None)),
        (None, false) => {
            let message = format!("{} holds no result of this run yet", run.output.display());
            Err(CliError::input("no-result", message).help("train it first"))
        }
    }
}

/// A model or an adapter that says what it answers; none if it is a language model.
fn of_model(args: &EvalArgs) -> Result<Option<Subject>, CliError> {
    let (base, adapter) = crate::opened::find(&args.subject, args.adapter.as_deref())?;
    let file = match &adapter {
        Some(folder) => TaskFile::read(folder)?,
        None => TaskFile::of_config(&Base::open(&base)?.config.0),
    };
    let Some((task, labels)) = file.and_then(|f| Some((f.task()?, f.labels))) else { return Ok(None) };
    if task == Task::Lm || args.data.is_none() {
        return Ok(None); // the other command says that data is missing
    }
    let data = DataSpec { max_tokens: 1024, task, ..DataSpec::default() };
    let compute = dtype(args.compute);
    Ok(Some(Subject { base, adapter, task, labels: LabelSet::new(labels), data, compute }))
}

fn measure(args: &EvalArgs, subject: Subject, output: &Output) -> Result<(), CliError> {
    let Subject { base, adapter, task, labels, mut data, compute } = subject;
    if let Some(file) = &args.data {
        data.train = vec![file.clone()];
        data.eval = EvalSpec::Files(vec![file.clone()]);
    }
    let tokenizer = Base::open(&base)?;
    if let Some(note) = fit(&mut data, &tokenizer) {
        output.note(&note);
    }
    if task.has_labels() && !labels.is_empty() {
        data.labels = Some(labels.names().to_vec());
    }
    let dataset: Dataset = load(&data, &tokenizer.tokenizer)?;
    drop(tokenizer);
    if dataset.eval.is_empty() {
        return Err(CliError::input("no-held-out", "there is no held-out data")
            .help("name some by --data FILE, or by data.eval"));
    }
    let opened = Opened::of(open_for_task(&base, task, &dataset.labels)?, adapter, compute)?;
    if !opened.base.spec.head.missing.is_empty() && opened.adapter.is_none() {
        output.warn("the base has no head for this task: it answers by random values");
    }
    let limit = args.limit.map_or(usize::MAX, usize::from).min(dataset.eval.len());
    let samples = &dataset.eval[..limit];
    let objective = plain_objective(task, &opened.base);
    let assessed = assess(&opened.model, &opened.adapters, objective.as_ref(), samples, &mut |n| {
        output.progress(|| format!("rows: {n} of {limit}"));
    })?;
    let pairs = samples.iter().zip(&assessed);
    let judged: Vec<Judged> =
        pairs.filter_map(|(s, a)| Judged::of(&s.label, &a.scores, &dataset.labels)).collect();
    let mut report = task_report(&assessed, &judged, &dataset.labels, 0)?;
    let is_one_label =
        matches!(task, Task::Classification { multi_label: false } | Task::TokenClassification);
    let counts = dataset.report.labels.as_ref().and_then(|l| l.eval.as_ref());
    // The most frequent label of the training rows, where they were read beside the held-out ones.
    report.majority = counts.filter(|_| is_one_label && args.data.is_none()).map(|c| c.majority);
    let rows = answered(&assessed, &judged, &dataset.texts, &dataset.labels);
    if let Some(path) = &args.predictions {
        write_answered(path, &rows)?;
    }
    let against =
        args.against.as_ref().map(|path| against(path, &judged, &rows, &dataset.labels)).transpose()?;
    output.result(
        || {
            let mut result = serde_json::to_value(&report).expect("plain data with text keys");
            result["task"] = json!(task.name());
            result["base"] = json!(opened.base.path);
            result["adapter"] = json!(opened.adapter);
            result["peak_bytes"] = json!(PeakBytes::now());
            if let Some(comparison) = &against {
                result["against"] = json!(comparison);
            }
            for Metric { name, value, .. } in &report.metrics {
                result[name.replace('-', "_")] = json!(value);
            }
            result
        },
        || describe(&report, against.as_ref()),
    );
    Ok(())
}

fn against(
    path: &Path,
    judged: &[Judged],
    rows: &[Answered],
    labels: &LabelSet,
) -> Result<Comparison, CliError> {
    Ok(compare(judged, rows, &read_answered(path)?, labels, 0)?)
}

fn describe(report: &TaskReport, against: Option<&Comparison>) -> String {
    let mut out = String::new();
    let range =
        |i: Option<Interval>| i.map(|i| format!(" ({:.4} to {:.4})", i.low, i.high)).unwrap_or_default();
    let _ = writeln!(out, "{:<20}{} (in brackets: 95 % intervals)", "rows", count(report.rows as u64));
    let _ = writeln!(out, "{:<20}{:.4}{}", "loss", report.loss, range(Some(report.loss_interval)));
    for Metric { name, value, interval } in &report.metrics {
        let value = value.map_or_else(|| "not defined".to_owned(), |v| format!("{v:.4}{}", range(*interval)));
        let _ = writeln!(out, "{name:<20}{value}");
    }
    if let Some(majority) = report.majority {
        let _ = writeln!(out, "{:<20}{majority:.4}", "always the largest");
    }
    classes(report, &mut out);
    confusion(report, &mut out);
    if let Some(comparison) = against {
        out.push_str(&compared(comparison));
    }
    out
}

fn classes(report: &TaskReport, out: &mut String) {
    if report.classes.is_empty() {
        return;
    }
    let width = report.classes.iter().map(|c| c.label.chars().count()).max().unwrap_or(0).clamp(8, 30);
    let _ = writeln!(out, "\n{:<width$}  precision   recall       f1  support", "");
    for class in report.classes.iter().take(SHOWN_CLASSES) {
        let name: String = class.label.chars().take(width).collect();
        let (p, r, f) = (class.precision, class.recall, class.f1);
        let _ = writeln!(out, "{name:<width$}  {p:>9.4}{r:>9.4}{f:>9.4}{:>9}", count(class.support));
    }
    if report.classes.len() > SHOWN_CLASSES {
        let _ = writeln!(out, "... and {} more", report.classes.len() - SHOWN_CLASSES);
    }
}

fn confusion(report: &TaskReport, out: &mut String) {
    let Some(table) = report.confusion.as_ref().filter(|_| report.labels.len() <= SHOWN_CONFUSION) else {
        return;
    };
    let short = |name: &String| name.chars().take(12).collect::<String>();
    let _ = write!(out, "\n{:<14}", "is \\ answered");
    for name in &report.labels {
        let _ = write!(out, "{:>13}", short(name));
    }
    out.push('\n');
    for (name, row) in report.labels.iter().zip(&table.counts) {
        let _ = write!(out, "{:<14}", short(name));
        for n in row {
            let _ = write!(out, "{:>13}", count(*n));
        }
        out.push('\n');
    }
}

fn compared(comparison: &Comparison) -> String {
    let mut out = String::from("\nagainst the other, on the same rows:\n");
    for d in &comparison.metrics {
        let range = d.interval.map(|i| format!(" ({:+.4} to {:+.4})", i.low, i.high)).unwrap_or_default();
        let _ = writeln!(
            out,
            "{:<20}{:.4}, other {:.4}: {:+.4}{range}, p = {:.4}",
            d.name, d.own, d.other, d.difference, d.p
        );
    }
    if let (Some((own, other)), Some(p)) = (comparison.only_right, comparison.mcnemar) {
        let _ =
            writeln!(out, "only this right on {own} rows, only the other on {other}: McNemar p = {p:.2e}");
    }
    out
}
