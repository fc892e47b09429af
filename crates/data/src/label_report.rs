//! What the doctor says of labels: how many of each, what the largest alone would score, what contradicts itself.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::report::{Finding, Level};
use crate::set::Set;
use crate::split::ContentHash;
use crate::task::{IGNORED, Label, LabelSet};

/// Below this many rows a label is hardly learnt.
const FEW: u64 = 8;

/// Labels of a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// Names in the order of the head's outputs; none where numbers are predicted.
    pub names: Vec<String>,
    /// Of the training rows.
    pub train: LabelCounts,
    /// Of the held-out rows.
    pub eval: Option<LabelCounts>,
}

/// Labels of one set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LabelCounts {
    /// Rows (words, where words are tagged) with each label.
    pub counts: Vec<u64>,
    /// Share of the most frequent label of the training set: what always answering with it scores.
    pub majority: f64,
    /// Rows whose text stands elsewhere in the set with another label.
    pub contradictions: u64,
    /// Numbers to predict, where there are no labels.
    pub values: Option<Values>,
}

/// Numbers to predict.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Values {
    /// The smallest.
    pub min: f64,
    /// Their mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
    /// Standard deviation: the root of the squared error of always answering with the mean.
    pub deviation: f64,
}

pub(crate) fn labels(train: &Set, eval: &Set, names: &LabelSet) -> Option<LabelReport> {
    let is_labelled = |set: &Set| set.samples().any(|s| !matches!(s.label, Label::Next));
    if names.is_empty() && !train.samples().any(|s| matches!(s.label, Label::Value(_))) {
        return None;
    }
    let trained = counts(train, names.len(), None);
    // The earliest of equals, as a model that knows nothing else would choose.
    let most = (0..names.len()).max_by_key(|&i| (trained.counts[i], std::cmp::Reverse(i)));
    let eval = is_labelled(eval).then(|| counts(eval, names.len(), most));
    Some(LabelReport { names: names.names().to_vec(), train: counts(train, names.len(), most), eval })
}

fn counts(set: &Set, labels: usize, majority: Option<usize>) -> LabelCounts {
    let mut found = LabelCounts { counts: vec![0; labels], ..LabelCounts::default() };
    let (mut values, mut all) = (Vec::new(), 0);
    for sample in set.samples() {
        let mut count = |label: usize| found.counts[label] += 1;
        match &sample.label {
            Label::Class(class) => {
                count(*class as usize);
                all += 1;
            }
            Label::Classes(holds) => {
                (0..labels).filter(|&i| holds[i]).for_each(&mut count);
                all += 1;
            }
            Label::Tokens(tags) if labels > 0 => {
                let tags = tags.iter().filter(|&&tag| tag != IGNORED);
                tags.for_each(|&tag| {
                    count(tag as usize);
                    all += 1;
                });
            }
            Label::Value(value) => values.push(*value),
            Label::Tokens(_) | Label::Next => {}
        }
    }
    let share = |label: usize| found.counts[label] as f64 / f64::max(f64::from(all), 1.0);
    found.majority = majority.map_or(0.0, share);
    found.values = (!values.is_empty()).then(|| summary(&values));
    found.contradictions = contradictions(set);
    found
}

fn summary(values: &[f64]) -> Values {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    Values {
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        mean,
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        deviation: (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt(),
    }
}

fn contradictions(set: &Set) -> u64 {
    let mut answers: BTreeMap<ContentHash, (ContentHash, u64, bool)> = BTreeMap::new();
    for part in &set.parts {
        let entry = answers.entry(part.prompt).or_insert((part.content, 0, false));
        entry.1 += 1;
        entry.2 |= entry.0 != part.content;
    }
    answers.values().filter(|(_, _, differ)| *differ).map(|(_, rows, _)| rows).sum()
}

/// What deserves a sentence.
pub(crate) fn findings(report: &LabelReport, list: &mut Vec<Finding>) {
    let mut add = |level, code, message: String| list.push(Finding { level, code, message });
    let quoted = |wanted: &dyn Fn(u64) -> bool| {
        let names = report.names.iter().zip(&report.train.counts).filter(|(_, n)| wanted(**n));
        names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>()
    };
    let list_of = |names: Vec<String>| {
        let rest = names.len().saturating_sub(8);
        let shown = names.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        if rest > 0 { format!("{shown} and {rest} more") } else { shown }
    };
    let never = quoted(&|n| n == 0);
    if !never.is_empty() {
        add(Level::Warning, "label-never", format!("no training row has the label {}", list_of(never)));
    }
    let few = quoted(&|n| n > 0 && n < FEW);
    if !few.is_empty() {
        let message = format!("fewer than {FEW} training rows have the label {}", list_of(few));
        add(Level::Note, "label-few", message);
    }
    if report.train.contradictions > 0 {
        let rows = report.train.contradictions;
        let message = format!("{rows} training rows have a text that is labelled differently elsewhere");
        add(Level::Warning, "contradictions", message);
    }
    if report.train.values.is_some_and(|v| v.deviation == 0.0) {
        add(Level::Warning, "one-value", "every training row has the same number".to_owned());
    }
}
