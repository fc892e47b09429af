//! Bad rows: all are counted, the first twenty are kept with file, line and field.

use std::fmt;
use std::path::PathBuf;

/// Problems that are kept and shown; the rest are counted.
pub const SHOWN_PROBLEMS: usize = 20;

/// One bad row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line on which the row starts, from 1.
    pub line: u64,
    /// The column, when one is at fault.
    pub field: Option<String>,
    /// What is wrong.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if let Some(field) = &self.field {
            write!(f, "field `{field}`: ")?;
        }
        write!(f, "{}", self.kind)
    }
}

/// What can be wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The JSON does not parse.
    #[error("not JSON: {what}")]
    Json {
        /// The parser's reason, with its column.
        what: String,
    },
    /// The JSON value is not an object.
    #[error("expected an object, got {got}")]
    NotAnObject {
        /// The value's kind.
        got: &'static str,
    },
    /// A column is missing or null.
    #[error("missing")]
    Missing,
    /// A column has another type than the format needs.
    #[error("expected {expected}, got {got}")]
    Type {
        /// What the format needs.
        expected: &'static str,
        /// The value's kind.
        got: &'static str,
    },
    /// A CSV row has another number of fields than its header.
    #[error("expected {expected} fields as in the header, got {got}")]
    FieldCount {
        /// Fields of the header.
        expected: usize,
        /// Fields of the row.
        got: usize,
    },
    /// The CSV does not parse.
    #[error("not CSV: {what}")]
    Csv {
        /// The reason.
        what: String,
    },
    /// A row is longer than the limit.
    #[error("row of {bytes} bytes, limit {limit}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The text holds a character that no tokenizer or template should see.
    #[error("holds the character U+{code:04X}")]
    Character {
        /// The character's code point.
        code: u32,
    },
    /// A message has a role that is not known.
    #[error("unknown role `{got}`")]
    Role {
        /// The role.
        got: String,
    },
    /// A message part is not text.
    #[error("message part of type `{got}`, only text is supported")]
    Part {
        /// The part's type.
        got: String,
    },
    /// A label that is none of the known ones.
    #[error("label `{got}` is none of: {known}")]
    Label {
        /// The label.
        got: String,
        /// Some of the known ones.
        known: String,
    },
    /// Words and tags differ in number.
    #[error("{tags} tags for {words} words")]
    Tags {
        /// Words.
        words: usize,
        /// Tags.
        tags: usize,
    },
    /// A conversation has no turn to learn.
    #[error("no assistant turn")]
    NoAssistant,
    /// The chat template refused the conversation.
    #[error("the chat template refuses it: {what}")]
    Template {
        /// The template's reason.
        what: String,
    },
    /// The tokenizer refused the text.
    #[error("the tokenizer refuses it: {what}")]
    Tokenize {
        /// The reason.
        what: String,
    },
}

/// Bad rows of a whole load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<Problem>,
    total: u64,
}

impl Problems {
    /// Counts a bad row and keeps it while there is room.
    pub fn push(&mut self, problem: Problem) {
        self.total += 1;
        if self.shown.len() < SHOWN_PROBLEMS {
            self.shown.push(problem);
        }
    }

    /// Adds another file's bad rows behind these.
    pub fn extend(&mut self, other: Self) {
        self.total += other.total;
        let room = SHOWN_PROBLEMS - self.shown.len();
        self.shown.extend(other.shown.into_iter().take(room));
    }

    /// The rows that were kept, in the order of the files.
    pub fn shown(&self) -> &[Problem] {
        &self.shown
    }

    /// How many rows are bad.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether every row was good.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// One line a kept problem, and one for the rest.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.shown.iter().map(ToString::to_string).collect();
        let rest = self.total - self.shown.len() as u64;
        if rest > 0 {
            lines.push(format!("and {rest} more"));
        }
        lines
    }

    /// The way out of the first problem.
    pub(crate) fn help(&self) -> Option<String> {
        let first = self.shown.first()?;
        Some(match &first.kind {
            ProblemKind::Json { .. } | ProblemKind::NotAnObject { .. } => {
                "every row must be one JSON object; a .jsonl file holds one a line".into()
            }
            ProblemKind::Missing | ProblemKind::Type { .. } => {
                "correct the rows, or name the columns with `fields` under [data]".into()
            }
            ProblemKind::FieldCount { .. } | ProblemKind::Csv { .. } => {
                "quote fields that hold commas, quotes or line breaks, and double the quotes inside them"
                    .into()
            }
            ProblemKind::TooLong { .. } => "split the text into shorter rows".into(),
            ProblemKind::Character { .. } => "remove the character; it often means a wrong encoding".into(),
            ProblemKind::Role { .. } => {
                "roles are system, developer, user, assistant and tool (sharegpt: human, gpt)".into()
            }
            ProblemKind::Part { .. } => "leave out rows with images or sound".into(),
            ProblemKind::Label { .. } => {
                "correct the rows, or name every label in `labels` under [data]; a test split without labels cannot be used"
                    .into()
            }
            ProblemKind::Tags { .. } => "give every word one tag".into(),
            ProblemKind::NoAssistant => "add the answer that is to be learnt, or remove the row".into(),
            ProblemKind::Template { .. } => {
                "reorder the turns as the template wants, or set `template = \"chatml\"` under [data]".into()
            }
            ProblemKind::Tokenize { .. } => "look at the row that is named; shorten it or remove it".into(),
        })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.shown.first(), self.total) {
            (Some(first), 1) => write!(f, "{first}"),
            (Some(first), total) => write!(f, "{total} bad rows, the first at {first}"),
            (None, _) => write!(f, "no bad rows"),
        }
    }
}
