//! Predictions on disk, and two of them compared row by row.
use crate::error::Error;
use crate::judge::{Judged, scores};
use crate::metrics::softmax;
use crate::statistics::{Interval, mcnemar, percentiles, resamples};
use crate::task::Assessed;
use luthier_data::LabelSet;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// A row's label in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// A number.
    Number(f64),
    /// One label.
    One(String),
    /// Labels that hold, or the tags of words.
    Many(Vec<String>),
}

/// One held-out row, answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The row, from 0.
    pub row: usize,
    /// What it says.
    pub texts: Vec<String>,
    /// What is right.
    pub label: Said,
    /// What the model answers.
    pub predicted: Said,
    /// Mean loss of the row.
    pub loss: f64,
    /// Probability of each label in the order of the head, where there is one answer a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probabilities: Vec<f64>,
}

/// The rows as predictions, in their order.
pub fn answered(
    assessed: &[Assessed],
    judged: &[Judged],
    texts: &[Vec<String>],
    labels: &LabelSet,
) -> Vec<Answered> {
    let name = |i: u32| labels.names()[i as usize].clone();
    let held = |holds: &[bool]| {
        let all = holds.iter().zip(labels.names()).filter(|(h, _)| **h);
        Said::Many(all.map(|(_, name)| name.clone()).collect())
    };
    let tags = |tags: &[u32]| Said::Many(tags.iter().map(|&t| name(t)).collect());
    let sigmoid = |z: &f64| 1.0 / (1.0 + (-z).exp());
    let row = |(row, (judged, assessed)): (usize, (&Judged, &Assessed))| {
        let (label, predicted, probabilities) = match judged {
            Judged::Class { gold, answered, .. } => {
                (Said::One(name(*gold)), Said::One(name(*answered)), softmax(&assessed.scores))
            }
            Judged::Labels { gold, answered } => {
                (held(gold), held(answered), assessed.scores.iter().map(sigmoid).collect())
            }
            Judged::Value { gold, answered } => (Said::Number(*gold), Said::Number(*answered), Vec::new()),
            Judged::Tags { gold, answered, .. } => (tags(gold), tags(answered), Vec::new()),
        };
        let loss = assessed.losses.iter().sum::<f64>() / assessed.losses.len().max(1) as f64;
        Answered {
            row,
            texts: texts.get(row).cloned().unwrap_or_default(),
            label,
            predicted,
            loss,
            probabilities,
        }
    };
    judged.iter().zip(assessed).enumerate().map(row).collect()
}

/// One JSON object a line.
pub fn write_answered(path: &Path, rows: &[Answered]) -> Result<(), Error> {
    let write = |file: &mut std::fs::File| {
        let mut out = std::io::BufWriter::new(file);
        for row in rows {
            serde_json::to_writer(&mut out, row)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    luthier_platform::fs::atomic_write(path, write)
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// What [`write_answered`] wrote.
pub fn read_answered(path: &Path) -> Result<Vec<Answered>, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    let rows = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(line, text): (usize, &str)| {
        serde_json::from_str(text).map_err(|e| Error::Predictions {
            path: path.to_owned(),
            line,
            reason: e.to_string(),
        })
    };
    rows.map(row).collect()
}

/// The difference of a metric between two results on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The metric.
    pub name: String,
    /// Of the first.
    pub own: f64,
    /// Of the other.
    pub other: f64,
    /// `own - other`
    pub difference: f64,
    /// Its 95 % interval: paired bootstrap, both on the same resampled rows.
    pub interval: Option<Interval>,
    /// Two-sided: twice the smaller share of resamples on either side of no difference.
    pub p: f64,
}

/// Two results on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Every metric.
    pub metrics: Vec<Difference>,
    /// Rows that only the first, and only the other answers rightly; none for numbers.
    pub only_right: Option<(u64, u64)>,
    /// McNemar's exact test of those.
    pub mcnemar: Option<f64>,
}

/// Compares `judged` with the predictions of another model on the same rows.
pub fn compare(
    judged: &[Judged],
    own: &[Answered],
    other: &[Answered],
    labels: &LabelSet,
    seed: u64,
) -> Result<Comparison, Error> {
    if own.len() != other.len() {
        return Err(Error::OtherRows { reason: format!("{} rows, expected {}", other.len(), own.len()) });
    }
    let differs = |(a, b): (&Answered, &Answered)| a.label != b.label || a.texts != b.texts;
    if let Some(row) = own.iter().zip(other).position(differs) {
        return Err(Error::OtherRows { reason: format!("row {row} has another text or label") });
    }
    let theirs = judged
        .iter()
        .zip(other)
        .map(|(own, row)| rejudge(own, row, labels))
        .collect::<Result<Vec<_>, _>>()?;
    let all = (0..judged.len()).collect::<Vec<_>>();
    let on = |rows: &[Judged], pick: &[usize]| scores(pick.iter().map(|&i| &rows[i]), labels.len());
    let (whole, other_whole) = (on(judged, &all), on(&theirs, &all));
    let draws = resamples(judged.len(), seed)
        .map(|pick| {
            let (a, b) = (on(judged, &pick), on(&theirs, &pick));
            a.iter().zip(&b).map(|((_, a), (_, b))| a - b).collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    let metrics = whole.iter().zip(&other_whole).enumerate();
    // Confidences are not in the other file where rows are judged anew.
    let metrics = metrics.filter(|(_, ((name, _), _))| *name != "calibration-error");
    let difference = |(i, ((name, a), (_, b))): (usize, (&(&str, f64), &(&str, f64)))| {
        // The result itself counts as one more draw, so that a share is never 0 (Davison and Hinkley 1997, section 4.4).
        let side = |holds: fn(f64) -> bool| {
            (draws.iter().filter(|d| holds(d[i])).count() + 1) as f64 / (draws.len() + 1) as f64
        };
        Difference {
            name: (*name).to_owned(),
            own: *a,
            other: *b,
            difference: a - b,
            interval: percentiles(draws.iter().map(|d| d[i])),
            p: (2.0 * side(|d| d <= 0.0).min(side(|d| d >= 0.0))).min(1.0),
        }
    };
    let right = |rows: &[Judged]| rows.iter().map(Judged::is_right).collect::<Option<Vec<_>>>();
    let only = right(judged).zip(right(&theirs)).map(|(a, b)| {
        let count = |own: bool| a.iter().zip(&b).filter(|(a, b)| **a == own && **b != own).count() as u64;
        (count(true), count(false))
    });
    Ok(Comparison {
        metrics: metrics.map(difference).collect(),
        only_right: only,
        mcnemar: only.map(|(a, b)| mcnemar(a, b)),
    })
}

/// The other's answer to a row.
fn rejudge(own: &Judged, row: &Answered, labels: &LabelSet) -> Result<Judged, Error> {
    let wrong = || Error::OtherRows { reason: format!("row {} has an answer of another kind", row.row) };
    let index = |name: &String| {
        labels
            .index(name)
            .ok_or_else(|| Error::OtherRows { reason: format!("row {} answers `{name}`", row.row) })
    };
    Ok(match (own, &row.predicted) {
        (Judged::Class { gold, .. }, Said::One(name)) => {
            let confidence = row.probabilities.iter().copied().fold(0.0, f64::max);
            Judged::Class { gold: *gold, answered: index(name)?, confidence }
        }
        (Judged::Value { gold, .. }, Said::Number(answered)) => {
            Judged::Value { gold: *gold, answered: *answered }
        }
        (Judged::Labels { gold, .. }, Said::Many(names)) => {
            let mut answered = vec![false; gold.len()];
            for name in names {
                answered[index(name)? as usize] = true;
            }
            Judged::Labels { gold: gold.clone(), answered }
        }
        (Judged::Tags { gold, .. }, Said::Many(names)) if names.len() == gold.len() => {
            let answered = names.iter().map(index).collect::<Result<Vec<_>, _>>()?;
            Judged::tags(gold.clone(), answered, labels)
        }
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_data::Label;

    fn case(right: impl Fn(usize) -> bool) -> (Vec<Assessed>, Vec<Judged>) {
        let labels = names();
        (0..200)
            .map(|i| {
                let gold = i % 2;
                let answer = if right(i) { gold } else { 1 - gold };
                let scores = vec![f64::from(u8::from(answer == 0)), f64::from(u8::from(answer == 1))];
                let judged = Judged::of(&Label::Class(gold as u32), &scores, &labels).unwrap();
                (Assessed { losses: vec![0.5], scores }, judged)
            })
            .unzip()
    }

    fn names() -> LabelSet {
        LabelSet::new(vec!["no".into(), "yes".into()])
    }

    #[test]
    fn a_better_model_is_told_from_a_worse_one_and_from_itself() {
        let labels = names();
        let texts = (0..200).map(|i| vec![format!("row {i}")]).collect::<Vec<_>>();
        let (a, own) = case(|i| i % 10 != 0);
        let (b, other) = case(|i| i % 4 != 0);
        let (a, b) = (answered(&a, &own, &texts, &labels), answered(&b, &other, &texts, &labels));
        let found = compare(&own, &a, &b, &labels, 0).unwrap();
        let accuracy = &found.metrics[0];
        assert_eq!((accuracy.name.as_str(), accuracy.own, accuracy.other), ("accuracy", 0.9, 0.75));
        let interval = accuracy.interval.unwrap();
        assert!(interval.low > 0.05 && interval.high < 0.25 && accuracy.p < 0.01, "{accuracy:?}");
        // 20 rows wrong in the first, 50 in the other, 10 in both.
        assert_eq!(found.only_right, Some((40, 10)));
        assert!(found.mcnemar.unwrap() < 1e-4);
        let same = compare(&own, &a, &a, &labels, 0).unwrap();
        assert_eq!((same.metrics[0].difference, same.metrics[0].p, same.mcnemar), (0.0, 1.0, Some(1.0)));
    }

    #[test]
    fn predictions_return_from_disk_and_other_rows_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let labels = names();
        let texts = vec![vec!["a".to_owned(), "b".to_owned()]; 200];
        let (assessed, judged) = case(|_| true);
        let rows = answered(&assessed, &judged, &texts, &labels);
        let path = folder.path().join("rows.jsonl");
        write_answered(&path, &rows).unwrap();
        let mut read = read_answered(&path).unwrap();
        assert_eq!(read, rows);
        read[7].texts[0] = "other".into();
        let refused = compare(&judged, &rows, &read, &labels, 0).unwrap_err();
        assert!(refused.to_string().contains("row 7"), "{refused}");
        let refused = compare(&judged, &rows, &read[..5], &labels, 0).unwrap_err();
        assert!(refused.to_string().contains("5 rows, expected 200"), "{refused}");
        std::fs::write(&path, "{\"row\": 0}\n").unwrap();
        assert!(matches!(read_answered(&path), Err(Error::Predictions { line: 1, .. })));
    }
}
