//! Answers of a task's head against the data's labels, and the metrics of many of them.
use crate::metrics::{Confusion, EntityCounts, calibration_error, f1, pearson, share, softmax, spearman};
use luthier_data::{Label, LabelSet};

/// One row, answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Judged {
    /// One label.
    Class {
        /// The right one.
        gold: u32,
        /// The answered one.
        answered: u32,
        /// Its probability.
        confidence: f64,
    },
    /// Independent labels.
    Labels {
        /// Which hold.
        gold: Vec<bool>,
        /// Which are answered: those of probability one half or more.
        answered: Vec<bool>,
    },
    /// A number.
    Value {
        /// The right one.
        gold: f64,
        /// The answered one.
        answered: f64,
    },
    /// A label for each word.
    Tags {
        /// The right ones.
        gold: Vec<u32>,
        /// The answered ones.
        answered: Vec<u32>,
        /// Entities found, there and answered; none where no label is of an entity.
        entities: Option<EntityCounts>,
    },
}

/// The index of the largest; of equal ones the first.
fn largest(scores: &[f64]) -> usize {
    (0..scores.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0)
}

/// Whether labels mark entities: all but one begin with `B-`, `I-` or another place of the known schemes.
pub fn are_entities(names: &[String]) -> bool {
    names.iter().any(|n| n.starts_with("B-") || n.starts_with("I-"))
}

impl Judged {
    /// A row's label against the head's scores: `[labels]`, or `[words, labels]` for tags. None for texts, whose tokens
    /// are judged by their loss.
    pub fn of(label: &Label, scores: &[f64], names: &LabelSet) -> Option<Self> {
        let width = names.len().max(1);
        Some(match label {
            Label::Class(gold) => {
                let best = largest(scores);
                Self::Class { gold: *gold, answered: best as u32, confidence: softmax(scores)[best] }
            }
            Label::Classes(gold) => {
                Self::Labels { gold: gold.clone(), answered: scores.iter().map(|z| *z >= 0.0).collect() }
            }
            Label::Value(gold) => Self::Value { gold: *gold, answered: scores[0] },
            Label::Tokens(tags) if !names.is_empty() => {
                let gold = tags.iter().copied().filter(|&t| t != luthier_data::IGNORED).collect::<Vec<_>>();
                let answered = scores.chunks(width).map(|row| largest(row) as u32).collect::<Vec<_>>();
                Self::tags(gold, answered, names)
            }
            Label::Tokens(_) | Label::Next => return None,
        })
    }

    /// Tags with their entities.
    pub(crate) fn tags(gold: Vec<u32>, answered: Vec<u32>, names: &LabelSet) -> Self {
        let texts =
            |tags: &[u32]| tags.iter().map(|&t| names.names()[t as usize].as_str()).collect::<Vec<_>>();
        let entities =
            are_entities(names.names()).then(|| EntityCounts::of(&texts(&gold), &texts(&answered)));
        Self::Tags { gold, answered, entities }
    }

    /// Whether the row as a whole is answered rightly; none for numbers.
    pub fn is_right(&self) -> Option<bool> {
        match self {
            Self::Class { gold, answered, .. } => Some(gold == answered),
            Self::Labels { gold, answered } => Some(gold == answered),
            Self::Tags { gold, answered, .. } => Some(gold == answered),
            Self::Value { .. } => None,
        }
    }
}

/// A metric's name and value.
pub type Score = (&'static str, f64);

/// The metrics of some rows of one kind, the one to choose by first. None of no rows.
pub fn scores<'a>(rows: impl Iterator<Item = &'a Judged> + Clone, labels: usize) -> Vec<Score> {
    match rows.clone().next() {
        None => Vec::new(),
        Some(Judged::Class { .. }) => of_classes(rows, labels),
        Some(Judged::Labels { .. }) => of_labels(rows, labels),
        Some(Judged::Value { .. }) => of_values(rows),
        Some(Judged::Tags { entities, .. }) => of_tags(rows, entities.is_some()),
    }
}

/// How often which class was answered for which, of rows with one label or of words.
pub fn confusion<'a>(rows: impl Iterator<Item = &'a Judged>, labels: usize) -> Option<Confusion> {
    let mut pairs = Vec::new();
    for row in rows {
        match row {
            Judged::Class { gold, answered, .. } => pairs.push((*gold, *answered)),
            Judged::Tags { gold, answered, .. } => {
                pairs.extend(gold.iter().copied().zip(answered.iter().copied()));
            }
            Judged::Labels { .. } | Judged::Value { .. } => return None,
        }
    }
    Some(Confusion::of(labels, pairs.into_iter()))
}

fn of_classes<'a>(rows: impl Iterator<Item = &'a Judged> + Clone, labels: usize) -> Vec<Score> {
    let table = confusion(rows.clone(), labels).unwrap_or(Confusion { counts: Vec::new() });
    let confident = rows.filter_map(|row| match row {
        Judged::Class { gold, answered, confidence } => Some((*confidence, gold == answered)),
        _ => None,
    });
    let mut found = vec![("accuracy", table.accuracy()), ("macro-f1", table.macro_f1())];
    if labels == 2 {
        found.push(("f1", table.f1(1)));
    }
    found.extend([("matthews", table.matthews()), ("calibration-error", calibration_error(confident))]);
    found
}

/// Of each label: right answers, rows with it, rows answered with it.
pub(crate) fn label_counts<'a>(rows: impl Iterator<Item = &'a Judged>, labels: usize) -> Vec<[u64; 3]> {
    let mut counts = vec![[0; 3]; labels];
    for row in rows {
        if let Judged::Labels { gold, answered } = row {
            for ((counts, gold), answered) in counts.iter_mut().zip(gold).zip(answered) {
                let add = [*gold && *answered, *gold, *answered];
                counts.iter_mut().zip(add).for_each(|(n, is)| *n += u64::from(is));
            }
        }
    }
    counts
}

fn of_labels<'a>(rows: impl Iterator<Item = &'a Judged> + Clone, labels: usize) -> Vec<Score> {
    let counts = label_counts(rows.clone(), labels);
    let each = counts.iter().map(|[h, g, p]| f1(*h as f64, *g as f64, *p as f64)).sum::<f64>();
    let total = |i: usize| counts.iter().map(|c| c[i] as f64).sum::<f64>();
    let (all, right) = rows.fold((0.0, 0.0), |(n, r), row| (n + 1.0, r + right(row)));
    vec![
        ("micro-f1", f1(total(0), total(1), total(2))),
        ("macro-f1", share(each, labels as f64)),
        ("exact", share(right, all)),
    ]
}

fn right(row: &Judged) -> f64 {
    f64::from(u8::from(row.is_right() == Some(true)))
}

fn of_values<'a>(rows: impl Iterator<Item = &'a Judged>) -> Vec<Score> {
    let (mut gold, mut answered) = (Vec::new(), Vec::new());
    for row in rows {
        if let Judged::Value { gold: g, answered: a } = row {
            gold.push(*g);
            answered.push(*a);
        }
    }
    let squares = gold.iter().zip(&answered).map(|(g, a)| (g - a) * (g - a)).sum::<f64>();
    vec![
        ("pearson", pearson(&gold, &answered)),
        ("spearman", spearman(&gold, &answered)),
        ("squared-error", squares / gold.len() as f64),
    ]
}

fn of_tags<'a>(rows: impl Iterator<Item = &'a Judged> + Clone, has_entities: bool) -> Vec<Score> {
    let (mut words, mut right) = (0.0, 0.0);
    let mut counts = EntityCounts::default();
    for row in rows {
        if let Judged::Tags { gold, answered, entities } = row {
            words += gold.len() as f64;
            right += gold.iter().zip(answered).filter(|(a, b)| a == b).count() as f64;
            if let Some(entities) = entities {
                counts.add(entities);
            }
        }
    }
    let accuracy = ("accuracy", share(right, words));
    if !has_entities {
        return vec![accuracy];
    }
    let [precision, recall, f1] = counts.scores();
    vec![("entity-f1", f1), ("entity-precision", precision), ("entity-recall", recall), accuracy]
}

/// Whether more of a metric is better.
pub fn more_is_better(metric: &str) -> bool {
    !matches!(metric, "calibration-error" | "squared-error" | "loss")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn names(n: usize) -> LabelSet {
        LabelSet::new((0..n).map(|i| format!("l{i}")).collect())
    }

    fn value(scores: &[Score], name: &str) -> f64 {
        scores.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no {name} in {scores:?}")).1
    }

    #[test]
    fn rows_come_to_the_metrics_of_their_lists() {
        let all: Value = serde_json::from_str(include_str!("../golden/metrics.json")).unwrap();
        for case in all["classes"].as_array().unwrap() {
            let logits: Vec<Vec<f64>> = serde_json::from_value(case["logits"].clone()).unwrap();
            let gold: Vec<f64> = serde_json::from_value(case["gold"].clone()).unwrap();
            let labels = names(logits[0].len());
            let row = |(g, z): (&f64, &Vec<f64>)| Judged::of(&Label::Class(*g as u32), z, &labels).unwrap();
            let rows = gold.iter().zip(&logits).map(row).collect::<Vec<_>>();
            let found = scores(rows.iter(), labels.len());
            for (ours, theirs) in [
                ("accuracy", "accuracy"),
                ("macro-f1", "macro"),
                ("matthews", "matthews"),
                ("calibration-error", "calibration"),
            ] {
                assert!((value(&found, ours) - case[theirs].as_f64().unwrap()).abs() < 1e-12, "{ours}");
            }
        }
        for case in all["many"].as_array().unwrap() {
            let bits = |key: &str| -> Vec<Vec<u8>> { serde_json::from_value(case[key].clone()).unwrap() };
            let labels = names(bits("gold")[0].len());
            let row = |(g, p): (&Vec<u8>, &Vec<u8>)| {
                let scores = p.iter().map(|b| f64::from(*b) - 0.5).collect::<Vec<_>>();
                Judged::of(&Label::Classes(g.iter().map(|b| *b == 1).collect()), &scores, &labels).unwrap()
            };
            let rows = bits("gold").iter().zip(&bits("predicted")).map(row).collect::<Vec<_>>();
            let found = scores(rows.iter(), labels.len());
            for (ours, theirs) in [("micro-f1", "micro"), ("macro-f1", "macro"), ("exact", "exact")] {
                assert!((value(&found, ours) - case[theirs].as_f64().unwrap()).abs() < 1e-12, "{ours}");
            }
            let counts = label_counts(rows.iter(), labels.len());
            for (counts, want) in counts.iter().zip(case["each"].as_array().unwrap()) {
                assert_eq!(counts[1] as f64, want[3].as_f64().unwrap());
            }
        }
    }

    #[test]
    fn numbers_and_tags() {
        let row = |g: f64, a: f64| Judged::of(&Label::Value(g), &[a], &LabelSet::default()).unwrap();
        let found = scores([row(1.0, 2.0), row(2.0, 2.5), row(3.0, 5.0)].iter(), 0);
        assert_eq!((value(&found, "spearman"), value(&found, "squared-error")), (1.0, 5.25 / 3.0));
        let tags = LabelSet::new(["O", "B-x", "I-x"].map(str::to_owned).to_vec());
        let label = Label::Tokens(vec![luthier_data::IGNORED, 1, 2, luthier_data::IGNORED, 0]);
        let row = Judged::of(&label, &[0.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 3.0, 0.0], &tags).unwrap();
        let found = scores(std::iter::once(&row), 3);
        // The words are answered B-x I-x B-x: one entity found of one, and one too many.
        assert_eq!(value(&found, "entity-precision"), 0.5);
        assert_eq!((value(&found, "entity-recall"), value(&found, "accuracy")), (1.0, 2.0 / 3.0));
    }
}
