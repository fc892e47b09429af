//! `luthier train`: a run.toml, start to end.

use crate::args::TrainArgs;
use crate::commands::load_run;
use crate::error::CliError;
use crate::finish::{Prompt, report, samples};
use crate::observe::Screen;
use crate::output::{Output, bytes, count, duration};
use luthier_config::{Run, Task};
use luthier_platform::interrupt;
use luthier_train::{Finished, Options, Stopped};
use serde_json::{Value, json};

/// Held-out questions that the report answers before and after.
const SHOWN: usize = 3;

/// Runs the command.
pub fn run(args: &TrainArgs, output: &Output) -> Result<(), CliError> {
    let run = load_run(&args.run)?;
    interrupt::install();
    let options = Options { resume: args.resume, overwrite: args.overwrite };
    let finished = luthier_train::run(&run, options, &mut [&mut Screen::new(output)])?;
    if finished.outcome.stopped == Some(Stopped::Asked) {
        let step = finished.outcome.step;
        return Err(CliError::failed("interrupted", format!("interrupted; saved at step {step}"))
            .help(format!("go on with: luthier train {} --resume", again(args))));
    }
    output.progress(|| "writing the report".to_owned());
    let prompts = prompts(&finished);
    let samples = samples(&run, &finished, prompts)?;
    let path = report(&run, &finished, samples)?;
    output.result(
        || {
            let mut done = done(&run, &finished);
            done["report"] = json!(path);
            done
        },
        || {
            let next = match run.task {
                Task::Lm => format!("Talk to it: luthier chat {}", run.output.display()),
                _ => format!("Look closer: luthier eval {} --predictions FILE", again(args)),
            };
            format!("{}\nreport  {}\n\n{next}", describe(&finished), path.display())
        },
    );
    Ok(())
}

/// The arguments that name the same run.
fn again(args: &TrainArgs) -> String {
    let mut words = vec![args.run.run.display().to_string()];
    words.extend(args.run.set.iter().map(|set| format!("--set '{set}'")));
    words.join(" ")
}

fn prompts(finished: &Finished) -> Vec<Prompt> {
    finished
        .examples
        .iter()
        .take(SHOWN)
        .map(|example| Prompt::Tokens(example.prompt_tokens.clone()))
        .collect()
}

/// The last event of the stream.
pub fn done(run: &Run, finished: &Finished) -> Value {
    let mut event = json!({"event": "done", "steps": finished.outcome.step, "seed": run.seed});
    let all = serde_json::to_value(finished).expect("plain data with text keys");
    if let (Some(event), Value::Object(all)) = (event.as_object_mut(), all) {
        event.extend(all);
    }
    event
}

/// What came of the run, for people.
pub fn describe(finished: &Finished) -> String {
    let mut lines = Vec::new();
    let why = match finished.outcome.stopped {
        Some(Stopped::Patience) => ": the held-out loss got no better",
        _ => "",
    };
    lines.push(format!("done    {} steps in {}{why}", finished.outcome.step, duration(finished.seconds)));
    if let Some(proof) = &finished.proof {
        let percent = |share: f64| share * 100.0;
        lines.push(format!(
            "loss    {:.4} -> {:.4} on {} rows: {:.1} % lower (95 % interval {:.1} to {:.1} %)",
            proof.before.loss,
            proof.after.loss,
            proof.rows,
            percent(proof.fall),
            percent(proof.fall_interval.low),
            percent(proof.fall_interval.high)
        ));
        if proof.metrics.is_empty() {
            lines.push(format!("ppl     {:.2} -> {:.2}", proof.before.perplexity, proof.after.perplexity));
        }
        for metric in &proof.metrics {
            let value = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
            let range = metric.interval.map(|i| format!(" (95 % interval {:.4} to {:.4})", i.low, i.high));
            let (before, after) = (value(metric.before), value(metric.after));
            lines.push(format!("{} {before} -> {after}{}", metric.name, range.unwrap_or_default()));
        }
        if let Some(majority) = proof.majority {
            lines.push(format!("always the most frequent label: {majority:.4}"));
        }
    }
    lines.push(format!(
        "trained {} of {} parameters, {} tokens/s",
        count(finished.trainable_parameters as u64),
        count(finished.base_parameters as u64),
        count(finished.tokens_per_s.round() as u64)
    ));
    lines.push(format!("memory  {} at most", bytes(finished.peak_bytes.total as u64)));
    if let Some(result) = finished.adapter.as_ref().or(finished.model.as_ref()) {
        lines.push(format!("result  {}", result.display()));
    }
    lines.join("\n")
}
