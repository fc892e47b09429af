//! After a run: what the model says before and after, and the page about it.

use crate::error::CliError;
use crate::observe;
use crate::opened::{Opened, compute_dtype};
use crate::output::{bytes, count};
use crate::report::{Report, Sample};
use luthier_config::Run;
use luthier_platform::fs::atomic_write;
use luthier_train::{Base, Finished, PeakBytes, open_base};
use std::io::Write;
use std::path::PathBuf;

/// Longest answer that the report shows.
const ANSWER_TOKENS: usize = 80;

/// What the model is asked.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// A rendered conversation.
    Tokens(Vec<u32>),
    /// A text to go on with.
    Text(&'static str),
}

/// The answers of the base and of the result to the same prompts.
pub fn samples(run: &Run, finished: &Finished, prompts: Vec<Prompt>) -> Result<Vec<Sample>, CliError> {
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let compute = compute_dtype(run.compute);
    let before = Opened::of(open_base(run)?, None, compute)?;
    let (mut ids, mut texts) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => [before.tokenizer().start(), before.tokenizer().encode(text)?].concat(),
        };
        texts.push(before.tokenizer().decode(&tokens)?.trim().to_owned());
        ids.push(tokens);
    }
    let old = before.answers(ids.clone(), ANSWER_TOKENS)?;
    drop(before); // one model at a time in memory
    let after = match (&finished.adapter, &finished.model) {
        (None, Some(model)) => Opened::of(Base::open(model)?, None, compute)?,
        (adapter, _) => Opened::of(open_base(run)?, adapter.clone(), compute)?,
    };
    let new = after.answers(ids, ANSWER_TOKENS)?;
    let pairs = texts.into_iter().zip(old).zip(new);
    Ok(pairs.map(|((prompt, old), new)| Sample { prompt, before: old.text, after: new.text }).collect())
}

/// Writes `report.html` into the output folder, and says where.
pub fn report(run: &Run, finished: &Finished, samples: Vec<Sample>) -> Result<PathBuf, CliError> {
    let read = |name: &str| {
        let path = run.output.join(name);
        std::fs::read_to_string(&path).map_err(|error| CliError::io("read", &path, &error))
    };
    let events = observe::read(&run.output.join("metrics.jsonl"))?;
    let page = Report {
        title: format!("{} on {}", finished.method, base_name(run)),
        figures: figures(finished),
        train: observe::curve(&events, "step"),
        eval: observe::curve(&events, "eval"),
        memory: accounts(&finished.peak_bytes),
        memory_total: finished.peak_bytes.total as u64,
        samples,
        settings: read("resolved.toml")?,
    };
    let path = run.output.join("report.html");
    atomic_write(&path, |file| file.write_all(page.to_html().as_bytes()))
        .map_err(|error| CliError::io("write", &path, &error))?;
    Ok(path)
}

fn base_name(run: &Run) -> String {
    match &run.base {
        luthier_config::Base::Path(path) => {
            path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
        }
        luthier_config::Base::Hub(id) => id.clone(),
    }
}

fn figures(finished: &Finished) -> Vec<(String, String)> {
    let mut figures = Vec::new();
    let mut add = |name: &str, value: String| figures.push((name.to_owned(), value));
    if let Some(proof) = &finished.proof {
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        let (low, high) = (proof.fall_interval.low, proof.fall_interval.high);
        add(&format!("{} loss", proof.rows), format!("{:.4} → {:.4}", proof.before.loss, proof.after.loss));
        add(
            "lower by (95 % interval)",
            format!("{} % ({} to {})", percent(proof.fall), percent(low), percent(high)),
        );
        for metric in &proof.metrics {
            let value = |v: Option<f64>| v.map_or_else(|| "not defined".to_owned(), |v| format!("{v:.4}"));
            let range =
                metric.interval.map(|i| format!(" ({:.4} to {:.4})", i.low, i.high)).unwrap_or_default();
            add(metric.name, format!("{} → {}{range}", value(metric.before), value(metric.after)));
        }
        if let Some(majority) = proof.majority {
            add("always the largest label", format!("{majority:.4}"));
        }
        if proof.metrics.is_empty() {
            add("perplexity", format!("{:.2} → {:.2}", proof.before.perplexity, proof.after.perplexity));
        }
        add("largest change of a logit", format!("{:.3}", proof.largest_logit_change));
    }
    add("trained parameters", count(finished.trainable_parameters as u64));
    add("parameters of the base", count(finished.base_parameters as u64));
    add("steps", finished.outcome.step.to_string());
    add("tokens a second", count(finished.tokens_per_s.round() as u64));
    add("compute", finished.compute.clone());
    if let Some(resident) = finished.peak_rss {
        add("largest resident set", bytes(resident));
    }
    figures
}

/// Peak bytes by account, in the order to show.
fn accounts(peak: &PeakBytes) -> Vec<(String, u64)> {
    [
        ("base", peak.base),
        ("adapter", peak.adapter),
        ("gradient", peak.gradient),
        ("optimizer", peak.optimizer),
        ("activation", peak.activation),
        ("workspace", peak.workspace),
    ]
    .map(|(name, held)| (name.to_owned(), held as u64))
    .to_vec()
}
