//! The tasks of GLUE (Wang 2019, arXiv 1804.07461) and CLUE (Xu 2020, arXiv 2004.05986) in the form in which their files
//! are published: which columns hold the texts and the label, and what the labels are called.
//!
//! Labels stand in the order in which the published models number them, so that heads can be compared. The files of the
//! test splits carry no labels and cannot be measured on.

use serde_json::Value;

use super::format::{Fault, Record, required};
use crate::problem::ProblemKind;
use crate::read::{Layout, Row, kind_of};
use crate::task::{Task, Written};

/// One task's files.
#[derive(Debug)]
pub(crate) struct Benchmark {
    /// The name in run.toml.
    pub(crate) name: &'static str,
    /// How the file is laid out.
    pub(crate) layout: Layout,
    /// Where the texts are.
    texts: Texts,
    /// The column of the label.
    label: &'static str,
    /// Labels as written and as named; none for numbers and for labels that the data lists.
    labels: &'static [(&'static str, &'static str)],
    /// Rows with this label have none that annotators agreed on, and are passed over.
    undecided: Option<&'static str>,
    /// Whether the label is a number.
    is_number: bool,
}

#[derive(Debug)]
enum Texts {
    /// One or two columns.
    Columns(&'static [&'static str]),
    /// A column in which two spans are marked: the noun by underlines, the pronoun by brackets.
    Spans,
    /// A list of keywords joined by spaces, and a column.
    Keywords(&'static str),
}

/// A header names the columns.
const HEADER: Layout = Layout::Tabs { columns: None, skips_short: false };
const NLI: &[(&str, &str)] =
    &[("entailment", "entailment"), ("neutral", "neutral"), ("contradiction", "contradiction")];
const ENTAILS: &[(&str, &str)] = &[("entailment", "entailment"), ("not_entailment", "not_entailment")];
const SENTENCES: Texts = Texts::Columns(&["sentence1", "sentence2"]);

/// One row a task.
pub(crate) static BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        layout: Layout::Tabs {
            columns: Some(&["source", "label", "mark", "sentence"]), // no header
            skips_short: false,
        },
        ..glue(
            "glue-cola",
            Texts::Columns(&["sentence"]),
            "label",
            &[("0", "unacceptable"), ("1", "acceptable")],
        )
    },
    glue("glue-sst2", Texts::Columns(&["sentence"]), "label", &[("0", "negative"), ("1", "positive")]),
    glue(
        "glue-mrpc",
        Texts::Columns(&["#1 String", "#2 String"]),
        "Quality",
        &[("0", "not_equivalent"), ("1", "equivalent")],
    ),
    Benchmark { is_number: true, ..glue("glue-stsb", SENTENCES, "score", &[]) },
    Benchmark {
        // A handful of the published lines are broken.
        layout: Layout::Tabs { columns: None, skips_short: true },
        ..glue(
            "glue-qqp",
            Texts::Columns(&["question1", "question2"]),
            "is_duplicate",
            &[("0", "not_duplicate"), ("1", "duplicate")],
        )
    },
    Benchmark { undecided: Some("-"), ..glue("glue-mnli", SENTENCES, "gold_label", NLI) },
    glue("glue-qnli", Texts::Columns(&["question", "sentence"]), "label", ENTAILS),
    glue("glue-rte", SENTENCES, "label", ENTAILS),
    glue("glue-wnli", SENTENCES, "label", &[("0", "not_entailment"), ("1", "entailment")]),
    clue("clue-afqmc", SENTENCES, "label", &[("0", "different"), ("1", "same")]),
    clue("clue-tnews", Texts::Columns(&["sentence"]), "label_desc", &[]),
    clue("clue-iflytek", Texts::Columns(&["sentence"]), "label_des", &[]),
    Benchmark { undecided: Some("-"), ..clue("clue-cmnli", SENTENCES, "label", NLI) },
    Benchmark { undecided: Some("-"), ..clue("clue-ocnli", SENTENCES, "label", NLI) },
    clue("clue-wsc", Texts::Spans, "label", &[("false", "false"), ("true", "true")]),
    clue("clue-csl", Texts::Keywords("abst"), "label", &[("0", "wrong"), ("1", "right")]),
];

const fn glue(
    name: &'static str,
    texts: Texts,
    label: &'static str,
    labels: &'static [(&'static str, &'static str)],
) -> Benchmark {
    Benchmark { name, layout: HEADER, texts, label, labels, undecided: None, is_number: false }
}

const fn clue(
    name: &'static str,
    texts: Texts,
    label: &'static str,
    labels: &'static [(&'static str, &'static str)],
) -> Benchmark {
    Benchmark { name, layout: Layout::Objects, texts, label, labels, undecided: None, is_number: false }
}

impl Benchmark {
    /// The row of a name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        BENCHMARKS.iter().find(|b| b.name == name)
    }

    /// Names of the labels in their order; none where the data lists them or holds numbers.
    pub(crate) fn labels(&self) -> Option<Vec<String>> {
        (!self.labels.is_empty()).then(|| self.labels.iter().map(|(_, name)| (*name).to_owned()).collect())
    }

    /// Whether the format fits a task.
    pub(crate) fn fits(&self, task: Task) -> bool {
        match task {
            Task::Regression => self.is_number,
            Task::Classification { multi_label } => !self.is_number && !multi_label,
            _ => false,
        }
    }

    /// Reads one row; none if it carries no label.
    pub(crate) fn record(&self, row: &Row) -> Result<Option<Record>, Fault> {
        let written = required(row, self.label)?;
        let written = written.trim();
        if self.undecided == Some(written) {
            return Ok(None);
        }
        let at = || Some(self.label.to_owned());
        let label = if self.is_number {
            let wrong = || (at(), ProblemKind::Type { expected: "a number", got: "a string" });
            Written::Number(written.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(wrong)?)
        } else if self.labels.is_empty() {
            Written::One(written.to_owned())
        } else {
            let name = self.labels.iter().find(|(own, _)| *own == written);
            let known = || self.labels.iter().map(|(own, _)| *own).collect::<Vec<_>>().join(", ");
            let wrong = || (at(), ProblemKind::Label { got: written.to_owned(), known: known() });
            Written::One(name.ok_or_else(wrong)?.1.to_owned())
        };
        let texts = match self.texts {
            Texts::Columns(columns) => columns.iter().map(|c| required(row, c)).collect::<Result<_, _>>()?,
            Texts::Spans => vec![marked(row)?],
            Texts::Keywords(column) => vec![keywords(row)?, required(row, column)?],
        };
        Ok(Some(Record::Labelled { texts, label }))
    }
}

fn keywords(row: &Row) -> Result<String, Fault> {
    let fault = |kind| (Some("keyword".to_owned()), kind);
    match row.fields.get("keyword") {
        None | Some(Value::Null) => Err(fault(ProblemKind::Missing)),
        Some(Value::Array(words)) => Ok(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
        Some(other) => Err(fault(ProblemKind::Type { expected: "a list", got: kind_of(other) })),
    }
}

/// The text with `_` around the first span and `[ ]` around the second, as CLUE's own baseline marks them.
fn marked(row: &Row) -> Result<String, Fault> {
    let text = required(row, "text")?.chars().collect::<Vec<_>>();
    let fault = |kind| (Some("target".to_owned()), kind);
    let target = row.fields.get("target").ok_or_else(|| fault(ProblemKind::Missing))?;
    let span = |which: &str| {
        let start = target.get(format!("{which}_index"))?.as_u64()? as usize;
        let length = target.get(format!("{which}_text"))?.as_str()?.chars().count();
        let end = start.checked_add(length)?;
        (end <= text.len()).then_some((start, end))
    };
    let wrong = || fault(ProblemKind::Type { expected: "two spans of the text", got: kind_of(target) });
    let (noun, pronoun) = (span("span1").ok_or_else(wrong)?, span("span2").ok_or_else(wrong)?);
    let mut out = String::new();
    for at in 0..=text.len() {
        for (end, mark) in [(noun.1, '_'), (pronoun.1, ']')] {
            if at == end {
                out.push(mark);
            }
        }
        for (start, mark) in [(noun.0, '_'), (pronoun.0, '[')] {
            if at == start {
                out.push(mark);
            }
        }
        out.extend(text.get(at));
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
