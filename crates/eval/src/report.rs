//! The result of an evaluation.
use crate::answer::{Pattern, Prediction, answers};
use crate::error::Error;
use crate::loss::held_out;
use crate::statistics::{Interval, bootstrap, wilson};
use luthier_data::{Example, Sample};
use luthier_decode::{Generator, Settings};
use serde::{Deserialize, Serialize};

/// What to evaluate.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Most rows of either kind; all if none.
    pub limit: Option<usize>,
    /// How answers are generated; none are if absent.
    pub answers: Option<Settings>,
    /// Where in an answer the result stands; the whole answer is compared if absent.
    pub pattern: Option<Pattern>,
    /// Seed of the bootstrap.
    pub seed: u64,
}

/// The result. Intervals are 95 %, over rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// Rows with a loss.
    pub rows: usize,
    /// Mean cross-entropy of a target token, in nats.
    pub loss: f64,
    /// Its interval: bootstrap.
    pub loss_interval: Interval,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Its interval.
    pub perplexity_interval: Interval,
    /// Target tokens.
    pub tokens: usize,
    /// Answers generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<usize>,
    /// Share of answers whose result is the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_match: Option<f64>,
    /// Its interval: Wilson's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_match_interval: Option<Interval>,
    /// Share of answers that end in the pattern; without one, that the model ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<f64>,
    /// Its interval: Wilson's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_interval: Option<Interval>,
}

/// Loss on `samples`, answers to `examples`. `progress` hears (what, done, of).
pub fn evaluate(
    generator: &Generator<'_>,
    samples: &[Sample],
    examples: &[Example],
    options: &Options,
    progress: &mut dyn FnMut(&str, usize, usize),
) -> Result<(EvalReport, Vec<Prediction>), Error> {
    let limit = options.limit.unwrap_or(usize::MAX);
    let (samples, examples) = (&samples[..samples.len().min(limit)], &examples[..examples.len().min(limit)]);
    let rows =
        held_out(generator.model, generator.adapters, samples, &mut |n| progress("loss", n, samples.len()))?;
    let mut report = loss_report(&rows, options.seed)?;
    let Some(settings) = options.answers.as_ref().filter(|_| !examples.is_empty()) else {
        return Ok((report, Vec::new()));
    };
    let heard = &mut |n| progress("answers", n, examples.len());
    let predictions = answers(generator, examples, options.pattern.as_ref(), settings, heard)?;
    let n = predictions.len();
    let share = |holds: fn(&Prediction) -> bool| {
        let hits = predictions.iter().filter(|p| holds(p)).count();
        (Some(hits as f64 / n as f64), Some(wilson(hits, n)))
    };
    (report.exact_match, report.exact_match_interval) = share(|p| p.correct);
    (report.answered, report.answered_interval) = share(|p| p.answered);
    report.answers = Some(n);
    Ok((report, predictions))
}

fn loss_report(rows: &[crate::RowLoss], seed: u64) -> Result<EvalReport, Error> {
    let rows = rows.iter().filter(|r| r.tokens > 0).map(|r| (r.sum, r.tokens as f64)).collect::<Vec<_>>();
    if rows.is_empty() {
        return Err(Error::Empty);
    }
    let (sum, tokens) = rows.iter().fold((0.0, 0.0), |s, r| (s.0 + r.0, s.1 + r.1));
    let (loss, loss_interval) = (sum / tokens, bootstrap(&rows, seed));
    Ok(EvalReport {
        rows: rows.len(),
        loss,
        loss_interval,
        perplexity: loss.exp(),
        perplexity_interval: loss_interval.map(f64::exp),
        tokens: tokens as usize,
        answers: None,
        exact_match: None,
        exact_match_interval: None,
        answered: None,
        answered_interval: None,
    })
}
