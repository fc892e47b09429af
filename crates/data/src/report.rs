//! What the doctor found.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::label_report::LabelReport;
use crate::sample::Sample;
use crate::task::{IGNORED, Label, LabelSet};
use crate::template::TemplateSource;
use crate::tokenizer::Tokenizer;

/// All findings about a data set; `luthier data` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Every file, train before eval.
    pub files: Vec<FileReport>,
    /// The chat template in use.
    pub template: TemplateReport,
    /// The samples that are trained on.
    pub train: SetReport,
    /// The held-out samples, if there are any.
    pub eval: Option<SetReport>,
    /// Held-out rows whose content is also trained on.
    pub shared_rows: u64,
    /// Held-out rows whose prompt is also trained on.
    pub shared_prompts: u64,
    /// Labels, or numbers to predict, where rows carry them.
    pub labels: Option<LabelReport>,
    /// What deserves attention, the gravest first.
    pub findings: Vec<Finding>,
    /// The first training samples, token by token.
    pub previews: Vec<Preview>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileReport {
    /// Its path.
    pub path: PathBuf,
    /// `train`, `eval`, or `train and eval` where a fraction is split off.
    pub used_for: &'static str,
    /// Rows.
    pub rows: u64,
    /// The encoding that was read.
    pub encoding: String,
    /// The format.
    pub format: &'static str,
    /// How the format was settled.
    pub why: String,
}

/// The chat template in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TemplateReport {
    /// Where it comes from.
    pub source: TemplateSource,
    /// Whether any row is a conversation, so that the template is used at all.
    pub is_used: bool,
    /// Conversations whose earlier turns the template rewrites; each turn became its own sample.
    pub split_conversations: u64,
    /// Answers that got an end token which the template does not write.
    pub ended_answers: u64,
}

/// One set of samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetReport {
    /// Rows in the files.
    pub rows: u64,
    /// Samples after dropping.
    pub samples: u64,
    /// Tokens of the samples.
    pub tokens: u64,
    /// Tokens that are targets.
    pub targets: u64,
    /// Targets among tokens, 0 to 1.
    pub trained_share: f64,
    /// Samples cut at `max_tokens`.
    pub truncated: u64,
    /// Samples without a target after the cut.
    pub dropped: u64,
    /// Rows that repeat an earlier row of the set.
    pub duplicates: u64,
    /// Rows whose last answer is empty.
    pub empty_answers: u64,
    /// Rows whose last prompt is empty.
    pub empty_prompts: u64,
    /// Rows whose content spells out a special token.
    pub spelt_specials: u64,
    /// Tokens (or characters, where the tokenizer drops them) that are unknown, 0 to 1.
    pub unknown_share: f64,
    /// Lengths of the samples in tokens.
    pub lengths: Lengths,
}

/// Lengths of samples in tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// Nineteen of twenty are not longer.
    pub p95: u64,
    /// The longest.
    pub max: u64,
    /// Counts by powers of two.
    pub histogram: Vec<Bin>,
}

/// One bar of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// The smallest length in it.
    pub from: u64,
    /// The largest length in it.
    pub to: u64,
    /// Samples in it.
    pub count: u64,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The result is likely not what was meant.
    Warning,
    /// Good to know.
    Note,
}

/// Something that deserves attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How grave.
    pub level: Level,
    /// A stable name for machines.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
}

/// A sample as the model sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// Its file.
    pub path: PathBuf,
    /// Line of its row, from 1.
    pub line: u64,
    /// Tokens of the whole sample.
    pub tokens: u64,
    /// What it is to be answered with, where that is not its own tokens.
    pub answer: Option<String>,
    /// The first of them as text.
    pub pieces: Vec<Piece>,
}

/// A token as text, or several that make one character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Piece {
    /// The text.
    pub text: String,
    /// How many tokens it takes.
    pub tokens: u32,
    /// Whether it is a target.
    pub labelled: bool,
}

/// A sample's label in words.
pub(crate) fn answer_of(label: &Label, names: &LabelSet) -> Option<String> {
    let name = |class: usize| names.names().get(class).cloned();
    match label {
        Label::Next => None,
        Label::Class(class) => name(*class as usize),
        Label::Classes(holds) => {
            let held = holds.iter().enumerate().filter(|(_, h)| **h).filter_map(|(i, _)| name(i));
            Some(held.collect::<Vec<_>>().join(", "))
        }
        Label::Value(value) => Some(value.to_string()),
        Label::Tokens(_) if names.is_empty() => None,
        Label::Tokens(tags) => {
            let tags = tags.iter().filter(|&&t| t != IGNORED).filter_map(|&t| name(t as usize));
            Some(tags.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Text pieces of a sample's first `limit` tokens.
pub fn pieces_of(sample: &Sample, tokenizer: &Tokenizer, limit: usize) -> Result<Vec<Piece>, Error> {
    let shown = sample.tokens.len().min(limit);
    let runs = tokenizer.whole_characters(&sample.tokens[..shown])?;
    let piece = |(range, text): (std::ops::Range<usize>, String)| Piece {
        text,
        tokens: range.len() as u32,
        labelled: match &sample.label {
            Label::Next => sample.labelled[range.start],
            Label::Tokens(all) => all[range.start] != IGNORED,
            _ => false,
        },
    };
    Ok(runs.into_iter().map(piece).collect())
}

impl Lengths {
    /// Counts the lengths of samples.
    pub fn of(samples: &[Sample]) -> Self {
        let mut lengths: Vec<u64> = samples.iter().map(|s| s.tokens.len() as u64).collect();
        lengths.sort_unstable();
        let (Some(&min), Some(&max)) = (lengths.first(), lengths.last()) else { return Self::default() };
        let quantile = |share: f64| lengths[((lengths.len() - 1) as f64 * share).ceil() as usize];
        let mut histogram: Vec<Bin> = Vec::new();
        let mut from = 1_u64 << min.max(1).ilog2();
        while from <= max {
            let to = from * 2 - 1;
            let count = lengths.iter().filter(|&&n| (from..=to).contains(&n)).count() as u64;
            histogram.push(Bin { from, to, count });
            from *= 2;
        }
        Self { min, median: lengths[lengths.len() / 2], p95: quantile(0.95), max, histogram }
    }
}
