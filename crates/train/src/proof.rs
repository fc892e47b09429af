//! Proof of a result: what is on disk is what was trained, and it does something.
use crate::adapter_file::read_adapter;
use crate::base::Base;
use crate::error::Error;
use crate::session::{Evaluated, Session};
use luthier_contract::Mode;
use luthier_data::{Batch, Sample};
use luthier_eval::{Judged, Score, percentiles, scores};
use luthier_models::Head;
use luthier_tensor::{Key, Stream, Tape};
use serde::Serialize;
use std::path::Path;

/// Resamples of the bootstrap: the 2.5 % quantile then has fifty beyond it.
const RESAMPLES: u64 = 2000;
/// Training rows looked at where none are held out.
const TRAIN_ROWS: usize = 8;
/// Tokens of the row on which logits are compared.
const PROBE_TOKENS: usize = 64;
/// Relative difference of losses that rounding a trained model to bf16 may make: it keeps eight bits.
const ROUNDING: f64 = 0.02;

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// A loss on rows that it was not trained on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Mean over labelled tokens.
    pub loss: f64,
    /// 95 % interval of the mean: bootstrap over rows.
    pub interval: Interval,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Rows.
    pub rows: usize,
    /// Labelled tokens.
    pub tokens: usize,
}

/// What was shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proof {
    /// `held-out`, or `train` where nothing is held out.
    pub rows: &'static str,
    /// Of the base.
    pub before: Held,
    /// Of the result, read back from disk.
    pub after: Held,
    /// By what share the loss fell.
    pub fall: f64,
    /// 95 % interval of the share: paired bootstrap, both losses on the same resampled rows.
    pub fall_interval: Interval,
    /// The largest difference of any next-token logit between base and result on one row.
    pub largest_logit_change: f64,
    /// Metrics of a task before and after, the one to choose by first; none of language models.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Shown>,
    /// What always answering with the training set's most frequent label scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority: Option<f64>,
    /// Loss read back from disk less loss in memory: 0 for an adapter, rounding to bf16 for a whole model.
    pub read_back_difference: f64,
}

/// A metric before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Of the base under the head's first values; none where it is not defined.
    pub before: Option<f64>,
    /// Of the result.
    pub after: Option<f64>,
    /// 95 % interval of `after`: bootstrap over rows.
    pub interval: Option<Interval>,
}

/// Mean loss of rows with its interval; each row is the losses of its labelled tokens.
pub fn held(losses: &[Vec<f64>]) -> Held {
    let rows = sums(losses);
    let loss = ratio(rows.iter().copied());
    let interval = quantiles(resample(rows.len()).map(|pick| ratio(pick.into_iter().map(|i| rows[i]))));
    let tokens = losses.iter().map(Vec::len).sum();
    Held { loss, interval, perplexity: loss.exp(), rows: rows.len(), tokens }
}

/// Sum and count of each row.
fn sums(losses: &[Vec<f64>]) -> Vec<(f64, f64)> {
    losses.iter().map(|row| (row.iter().sum(), row.len() as f64)).collect()
}

/// Sum over count: rows of many tokens weigh more, as in training.
fn ratio(rows: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (sum, count) = rows.fold((0.0, 0.0), |(s, n), (a, b)| (s + a, n + b));
    sum / f64::max(count, 1.0)
}

/// The same resamples for every caller with as many rows, so that differences are paired.
fn resample(rows: usize) -> impl Iterator<Item = Vec<usize>> {
    let key = Key::new(0, Stream::Sampling).at("bootstrap");
    let pick = move |r, i| (key.uniform(r, i as u64) * rows as f64) as usize;
    (0..RESAMPLES).map(move |r| (0..rows).map(|i| pick(r, i).min(rows - 1)).collect())
}

fn quantiles(values: impl Iterator<Item = f64>) -> Interval {
    let mut all = values.collect::<Vec<_>>();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    Interval { low: at(0.025), high: at(0.975) }
}

/// What the base does, measured before anything trains.
#[derive(Debug)]
pub(crate) struct Before {
    rows: &'static str,
    samples: Vec<Sample>,
    losses: Vec<Vec<f64>>,
    judged: Vec<Judged>,
    logits: Vec<f64>,
}

impl Before {
    /// Measures with the adapter off, on a session at step 0.
    pub(crate) fn measure(session: &mut Session) -> Self {
        let adapter = session.adapter.take();
        let (rows, samples) = if session.held_out.is_empty() {
            ("train", session.samples.iter().take(TRAIN_ROWS).cloned().collect())
        } else {
            ("held-out", session.held_out.clone())
        };
        let assessed = session.assess(&samples);
        let judged = session.judge(&samples, &assessed);
        let losses = assessed.into_iter().map(|a| a.losses).collect();
        let logits = logits(session, &samples);
        session.adapter = adapter;
        Self { rows, samples, losses, judged, logits }
    }

    /// What the base does, as an evaluation tells it.
    pub(crate) fn evaluated(&self, labels: usize) -> Evaluated {
        let Held { loss, tokens, .. } = self.held();
        Evaluated { loss, tokens, scores: scores(self.judged.iter(), labels) }
    }

    pub(crate) fn held(&self) -> Held {
        held(&self.losses)
    }

    /// Puts what was read back from disk into `session`, and shows what it does. `memory` is the loss of the result on
    /// the held-out rows before it was written, where the loop has just measured it.
    pub(crate) fn prove(
        self,
        mut session: Session,
        base: &Base,
        storage: Option<luthier_tensor::DType>,
        result: &Path,
        memory: Option<f64>,
    ) -> Result<Proof, Error> {
        let mean = |losses: &[Vec<f64>]| {
            let tokens = losses.iter().map(Vec::len).sum::<usize>();
            losses.iter().flatten().sum::<f64>() / tokens.max(1) as f64
        };
        let memory = memory.unwrap_or_else(|| mean(&session.losses(&self.samples)));
        session.leaves.clear(); // optimizer state is no longer needed; a whole model is about to be read
        let is_adapter = session.adapter.is_some();
        read_back(&mut session, base, storage, result)?;
        let assessed = session.assess(&self.samples);
        let judged = session.judge(&self.samples, &assessed);
        let losses = assessed.into_iter().map(|a| a.losses).collect::<Vec<_>>();
        let read = mean(&losses);
        let tolerance = if is_adapter { 0.0 } else { ROUNDING * memory.abs().max(1.0) };
        // Written so that a loss that is no number does not pass.
        if (read - memory).abs() <= tolerance {
            let now = logits(&session, &self.samples);
            let change = now.iter().zip(&self.logits).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
            let labels = session.judging.labels.len();
            self.conclude(&losses, &judged, labels, change, read - memory)
        } else {
            Err(Error::ReadBack { read, memory })
        }
    }

    fn conclude(
        self,
        losses: &[Vec<f64>],
        judged: &[Judged],
        labels: usize,
        change: f64,
        difference: f64,
    ) -> Result<Proof, Error> {
        if change == 0.0 && losses == self.losses {
            let reason = "no logit of a held-out row and no loss has changed".to_string();
            return Err(Error::NoEffect { reason });
        }
        let (before, after) = (sums(&self.losses), sums(losses));
        let fall = |pick: &[usize]| {
            let of = |rows: &[(f64, f64)]| ratio(pick.iter().map(|&i| rows[i]));
            1.0 - of(&after) / of(&before)
        };
        let all = (0..before.len()).collect::<Vec<_>>();
        Ok(Proof {
            rows: self.rows,
            before: held(&self.losses),
            after: held(losses),
            fall: fall(&all),
            fall_interval: quantiles(resample(all.len()).map(|pick| fall(&pick))),
            largest_logit_change: change,
            metrics: shown(&self.judged, judged, labels),
            majority: None,
            read_back_difference: difference,
        })
    }
}

fn shown(before: &[Judged], after: &[Judged], labels: usize) -> Vec<Shown> {
    let (old, new) = (scores(before.iter(), labels), scores(after.iter(), labels));
    let draws = resample(after.len()).map(|pick| scores(pick.iter().map(|&i| &after[i]), labels));
    let draws = if after.is_empty() { Vec::new() } else { draws.collect::<Vec<_>>() };
    let defined = |value: f64| Some(value).filter(|v| v.is_finite());
    let one = |(i, ((name, before), (_, after))): (usize, (&Score, &Score))| Shown {
        name,
        before: defined(*before),
        after: defined(*after),
        interval: percentiles(draws.iter().map(|d| d[i].1)).map(|i| Interval { low: i.low, high: i.high }),
    };
    old.iter().zip(&new).enumerate().map(one).collect()
}

/// Replaces model and adapter of `session` by those on disk; frozen weights are shared where nothing of the base trains.
fn read_back(
    session: &mut Session,
    base: &Base,
    storage: Option<luthier_tensor::DType>,
    result: &Path,
) -> Result<(), Error> {
    let compute = session.compute();
    if session.adapter.take().is_some() {
        let file = read_adapter(result)?;
        if !session.model.trained().is_empty() {
            session.model = base.load(compute, storage, &|p| file.trains(p))?;
        }
        session.adapter = Some(file.apply(&session.model)?);
    } else {
        session.model =
            reopen(result, session)?.load(compute, None, &|_| luthier_contract::Training::Frozen)?;
    }
    Ok(())
}

/// A whole model on disk, with the head that the session trains.
fn reopen(result: &Path, session: &Session) -> Result<Base, Error> {
    match session.model.spec().head.kind {
        Head::Lm => Base::open(result),
        kind => Base::open_for(result, kind),
    }
}

/// Logits of the first row: of the next token at its first tokens, or of its labels.
fn logits(session: &Session, samples: &[Sample]) -> Vec<f64> {
    let Some(first) = samples.first() else { return Vec::new() };
    let n = first.tokens.len().min(PROBE_TOKENS);
    let sample = Sample { tokens: first.tokens[..n].to_vec(), labelled: vec![false; n], ..Sample::default() };
    let run = session.run(&Batch::new([&sample]), Mode::Eval);
    if session.model.spec().head.kind.labels().is_some() {
        return session.model.class_logits(&Tape::off(), &run).value().to_f64_vec();
    }
    let hidden = session.model.hidden(&Tape::off(), &run);
    session.model.logits(hidden.value(), &run).to_f64_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_covers_the_mean_and_narrows_with_rows() {
        let rows = |n: usize| (0..n).map(|i| vec![1.0 + (i % 5) as f64; 1 + i % 3]).collect::<Vec<_>>();
        let (few, many) = (held(&rows(15)), held(&rows(1500)));
        for h in [few, many] {
            assert!(h.interval.low < h.loss && h.loss < h.interval.high);
        }
        // Ten times narrower: the root of a hundred times the rows.
        let width = |h: Held| h.interval.high - h.interval.low;
        assert!((width(few) / width(many) / 10.0 - 1.0).abs() < 0.2);
    }

    #[test]
    fn tokens_weigh_alike_whatever_row_they_are_in() {
        assert_eq!(held(&[vec![1.0], vec![3.0, 3.0, 3.0]]).loss, 2.5);
    }
}
