//! What a row asks of the model, and the labels of a data set.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::problem::ProblemKind;

/// A token that carries no label: special tokens, and all but the first token of a word.
pub const IGNORED: u32 = u32::MAX;

/// What the model learns to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// The next token.
    #[default]
    Lm,
    /// One of several labels, or (`multi_label`) any number of them.
    Classification {
        /// Whether labels are independent of each other.
        multi_label: bool,
    },
    /// A number.
    Regression,
    /// A label for each word.
    TokenClassification,
    /// The tokens that were hidden.
    MaskedLm,
}

impl Task {
    /// Whether rows carry labels of a finite set.
    pub fn has_labels(self) -> bool {
        matches!(self, Self::Classification { .. } | Self::TokenClassification)
    }

    /// The name in run.toml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lm => "lm",
            Self::Classification { .. } => "classification",
            Self::Regression => "regression",
            Self::TokenClassification => "token-classification",
            Self::MaskedLm => "masked-lm",
        }
    }
}

/// What a sample is to be answered with.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Label {
    /// The next tokens: those that are labelled.
    #[default]
    Next,
    /// One class.
    Class(u32),
    /// For each label, whether it holds [labels].
    Classes(Vec<bool>),
    /// A number.
    Value(f64),
    /// A class for each token, or [`IGNORED`] [tokens]. Of a text to be masked: the token itself.
    Tokens(Vec<u32>),
}

impl Label {
    /// Numbers that count in the loss; none of its own for [`Label::Next`].
    pub(crate) fn targets(&self) -> Option<usize> {
        match self {
            Self::Next => None,
            Self::Class(_) | Self::Value(_) => Some(1),
            Self::Classes(all) => Some(all.len()),
            Self::Tokens(all) => Some(all.iter().filter(|&&t| t != IGNORED).count()),
        }
    }
}

/// A label as a row writes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// One name; a number or truth value as its text.
    One(String),
    /// Several names.
    Many(Vec<String>),
    /// A number to predict.
    Number(f64),
}

impl Written {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
            Self::Number(_) => &[],
        }
    }

    /// As text, for a hash.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Number(value) => value.to_string(),
            other => other.names().join("\u{1f}"),
        }
    }
}

/// The names of the labels in the order of the head's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LabelSet {
    names: Vec<String>,
    #[serde(skip)]
    index: BTreeMap<String, u32>,
    /// Names are no numbers, so that a whole number in the data is an index.
    #[serde(skip)]
    by_index: bool,
}

impl LabelSet {
    /// The names as given.
    pub fn new(names: Vec<String>) -> Self {
        let index = names.iter().enumerate().map(|(i, name)| (name.clone(), i as u32)).collect();
        let by_index = !names.is_empty() && names.iter().all(|n| n.parse::<i64>().is_err());
        Self { names, index, by_index }
    }

    /// The distinct names, whole numbers in their order, all else in the alphabet's.
    pub fn found<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let distinct = names.collect::<BTreeSet<_>>();
        let mut sorted = distinct.into_iter().map(str::to_owned).collect::<Vec<_>>();
        if sorted.iter().all(|n| n.parse::<i64>().is_ok()) {
            sorted.sort_by_key(|n| n.parse::<i64>().unwrap_or(i64::MAX));
        }
        Self::new(sorted)
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none: nothing is classified.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Index of a label as it is written: by its name, or, where no name is a number, by a number.
    pub fn index(&self, written: &str) -> Option<u32> {
        let by_index = || {
            let index = written.trim().parse::<u32>().ok().filter(|_| self.by_index)?;
            ((index as usize) < self.names.len()).then_some(index)
        };
        self.index.get(written).copied().or_else(by_index)
    }

    /// Whether every one of `names` is known.
    pub fn covers<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        names.all(|name| self.index(name).is_some())
    }

    fn require(&self, written: &str) -> Result<u32, ProblemKind> {
        self.index(written)
            .ok_or_else(|| ProblemKind::Label { got: written.to_owned(), known: shown(&self.names) })
    }

    /// A row's label under a task.
    pub(crate) fn label(&self, written: &Written, task: Task) -> Result<Label, ProblemKind> {
        match (task, written) {
            (Task::Classification { multi_label: false }, Written::One(name)) => {
                self.require(name).map(Label::Class)
            }
            (Task::Classification { multi_label: true }, written) => {
                let mut holds = vec![false; self.names.len()];
                for name in written.names() {
                    holds[self.require(name)? as usize] = true;
                }
                Ok(Label::Classes(holds))
            }
            (Task::Regression, Written::Number(value)) => Ok(Label::Value(*value)),
            (Task::Classification { .. }, _) => {
                Err(ProblemKind::Type { expected: "one label", got: "a list; set `multi_label = true`" })
            }
            _ => Err(ProblemKind::Type { expected: "a number", got: "a label" }),
        }
    }

    /// The tags of words.
    pub(crate) fn tags(&self, tags: &[String]) -> Result<Vec<u32>, ProblemKind> {
        tags.iter().map(|tag| self.require(tag)).collect()
    }
}

/// At most eight names, and the count of the rest.
fn shown(names: &[String]) -> String {
    let text = names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 8 { format!("{text} and {} more", names.len() - 8) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> LabelSet {
        LabelSet::found(names.iter().copied())
    }

    #[test]
    fn numbers_sort_as_numbers_and_names_by_the_alphabet() {
        assert_eq!(set(&["10", "9", "-1", "9"]).names(), ["-1", "9", "10"]);
        assert_eq!(set(&["neg", "10", "a"]).names(), ["10", "a", "neg"]);
    }

    #[test]
    fn a_number_is_an_index_only_where_no_name_is_one() {
        let named = LabelSet::new(vec!["no".into(), "yes".into()]);
        assert_eq!([named.index("yes"), named.index("0"), named.index("2")], [Some(1), Some(0), None]);
        assert_eq!(set(&["1", "2"]).index("0"), None);
        assert_eq!(set(&["1", "2"]).index("2"), Some(1));
    }

    #[test]
    fn labels_by_task() {
        let labels = set(&["a", "b", "c"]);
        let (one, many) =
            (Task::Classification { multi_label: false }, Task::Classification { multi_label: true });
        let (a, ca) = (Written::One("a".into()), Written::Many(vec!["c".into(), "a".into()]));
        assert_eq!(labels.label(&a, one), Ok(Label::Class(0)));
        assert_eq!(labels.label(&ca, many), Ok(Label::Classes(vec![true, false, true])));
        assert_eq!(labels.label(&a, many), Ok(Label::Classes(vec![true, false, false])));
        assert_eq!(labels.label(&Written::Number(2.5), Task::Regression), Ok(Label::Value(2.5)));
        assert!(matches!(labels.label(&ca, one), Err(ProblemKind::Type { .. })));
        assert!(matches!(labels.label(&Written::One("d".into()), one), Err(ProblemKind::Label { .. })));
        assert!(matches!(labels.label(&a, Task::Regression), Err(ProblemKind::Type { .. })));
    }
}
