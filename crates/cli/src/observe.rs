//! Who watches a run from here: the line of progress, the stream of events; and the metrics file, read back.

use crate::error::CliError;
use crate::output::{Output, count, duration};
use crate::report::Point;
use luthier_train::{Event, Flow, Observer};
use serde_json::Value;
use std::path::Path;

/// Seconds of rate that the time left is taken from: the last steps tell more than the first.
const RATE_MEMORY: f64 = 0.9;

/// All events of a metrics file; none where there is no file. A last line that a crash cut short is left out.
pub fn read(path: &Path) -> Result<Vec<Value>, CliError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(CliError::io("read", path, &error)),
    }
}

/// The losses of a kind of event: `step` or `eval`.
pub fn curve(events: &[Value], kind: &str) -> Vec<Point> {
    let of_kind = events.iter().filter(|event| event["event"] == kind);
    of_kind
        .filter_map(|event| Some(Point { step: event["step"].as_u64()?, loss: event["loss"].as_f64()? }))
        .collect()
}

/// Shows a run to people and programs.
pub struct Screen<'a> {
    output: &'a Output,
    /// Seconds and tokens a step, averaged.
    rate: Option<(f64, f64)>,
}

impl<'a> Screen<'a> {
    /// For an output.
    pub fn new(output: &'a Output) -> Self {
        Self { output, rate: None }
    }

    fn average(&mut self, seconds: f64, tokens: f64) -> (f64, f64) {
        let mix = |old: f64, new: f64| RATE_MEMORY * old + (1.0 - RATE_MEMORY) * new;
        let (s, t) = self.rate.map_or((seconds, tokens), |(s, t)| (mix(s, seconds), mix(t, tokens)));
        self.rate = Some((s, t));
        (s, t / s.max(1e-9))
    }
}

impl Observer for Screen<'_> {
    fn on(&mut self, event: &Event) -> Flow {
        self.output.event(&to_json(event));
        if !self.output.json() {
            self.show(event);
        }
        Flow::Continue // Ctrl-C is heard by the run itself
    }
}

impl Screen<'_> {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Start { step, steps, trainable_parameters, base_parameters } => {
                let share = *trainable_parameters as f64 / (*base_parameters).max(1) as f64 * 100.0;
                let from = if *step > 0 { format!(", from step {step}") } else { String::new() };
                self.output.note(&format!(
                    "training {} parameters ({share:.2} % of the base's {}) for {steps} steps{from}",
                    count(*trainable_parameters as u64),
                    count(*base_parameters as u64)
                ));
            }
            Event::Step { step, steps, loss, all_tokens, seconds, .. } => {
                let (a_step, rate) = self.average(*seconds, *all_tokens as f64);
                let left = duration(a_step * steps.saturating_sub(*step) as f64);
                let rate = count(rate.round() as u64);
                self.output.progress(|| {
                    format!("step {step}/{steps}  loss {loss:.4}  {rate} tokens/s  {left} left")
                });
            }
            Event::Eval { step, loss, perplexity, best, metrics, .. } => {
                let best = if *best && *step > 0 { ", the best so far" } else { "" };
                let rest = match metrics {
                    Some(metrics) => metrics.listed().map(|(n, v)| format!("{n} {v:.4}")).collect(),
                    None => vec![format!("perplexity {perplexity:.2}")],
                };
                let rest = rest.join(", ");
                self.output.note(&format!("step {step}: held-out loss {loss:.4}, {rest}{best}"));
            }
            Event::Note { message } => self.output.note(message),
            Event::Saved { .. } => {}
        }
    }
}

/// An event as programs read it.
pub fn to_json(event: &Event) -> Value {
    serde_json::to_value(event).expect("an event is plain data with text keys")
}
