//! Rows to records: which columns hold the prompt, the answer, the conversation or the text.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::benchmark::Benchmark;
use crate::error::Error;
use crate::problem::ProblemKind;
use crate::read::{Layout, Row, Rows};
use crate::task::{Task, Written};
pub use chat::{Message, Role};
use chat::{conversation, fault_type};
use labelled::Labelled;

mod chat;
mod labelled;

/// The form of a file's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Recognised by the columns.
    #[default]
    Auto,
    /// `instruction`, `input` (may be empty), `output`; `system` is read when present.
    Alpaca,
    /// A prompt and its completion; `system` is read when present.
    PromptCompletion,
    /// The same as prompt-completion with the columns `question` and `answer`.
    QuestionAnswer,
    /// `messages`: a list of `{role, content}`.
    Messages,
    /// `conversations`: a list of `{from, value}`.
    Sharegpt,
    /// `text`, or a plain text file.
    Text,
    /// One or two texts and a label, or a number.
    Classification,
    /// `tokens` and `tags`: lists of one length.
    TokenClassification,
    /// One word and its tag a line, sentences apart by an empty line.
    Conll,
    /// A published benchmark's own files: `glue-cola`.
    Benchmark(&'static str),
}

impl Format {
    /// A published benchmark's format by its name.
    pub fn benchmark(name: &str) -> Option<Self> {
        Benchmark::find(name).map(|b| Self::Benchmark(b.name))
    }

    /// How a file of this format is laid out.
    pub(crate) fn layout(self) -> Layout {
        match self {
            Self::Conll => Layout::Words,
            Self::Benchmark(name) => Benchmark::find(name).map_or(Layout::Objects, |b| b.layout),
            _ => Layout::Objects,
        }
    }

    /// Whether a task can learn from its rows.
    fn fits(self, task: Task) -> bool {
        match self {
            Self::Auto => true,
            Self::Classification => matches!(task, Task::Classification { .. } | Task::Regression),
            Self::TokenClassification | Self::Conll => task == Task::TokenClassification,
            Self::Benchmark(name) => Benchmark::find(name).is_some_and(|b| b.fits(task)),
            Self::Text => matches!(task, Task::Lm | Task::MaskedLm),
            _ => task == Task::Lm,
        }
    }

    /// The name in run.toml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Alpaca => "alpaca",
            Self::PromptCompletion => "prompt-completion",
            Self::QuestionAnswer => "question-answer",
            Self::Messages => "messages",
            Self::Sharegpt => "sharegpt",
            Self::Text => "text",
            Self::Classification => "classification",
            Self::TokenClassification => "token-classification",
            Self::Conll => "conll",
            Self::Benchmark(name) => name,
        }
    }
}

/// Names of the columns, where they are not the format's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// prompt-completion: the prompt.
    pub prompt: Option<String>,
    /// prompt-completion: the completion.
    pub completion: Option<String>,
    /// All but text: the system message.
    pub system: Option<String>,
    /// alpaca: the instruction.
    pub instruction: Option<String>,
    /// alpaca: the input.
    pub input: Option<String>,
    /// alpaca: the output.
    pub output: Option<String>,
    /// messages and sharegpt: the list.
    pub messages: Option<String>,
    /// text and classification: the text.
    pub text: Option<String>,
    /// classification: the second text.
    pub pair: Option<String>,
    /// classification: the label.
    pub label: Option<String>,
    /// token-classification: the words.
    pub tokens: Option<String>,
    /// token-classification: their tags.
    pub tags: Option<String>,
}

impl Fields {
    fn pairs(&self) -> [(&'static str, Option<&str>); 12] {
        [
            ("prompt", self.prompt.as_deref()),
            ("completion", self.completion.as_deref()),
            ("system", self.system.as_deref()),
            ("instruction", self.instruction.as_deref()),
            ("input", self.input.as_deref()),
            ("output", self.output.as_deref()),
            ("messages", self.messages.as_deref()),
            ("text", self.text.as_deref()),
            ("pair", self.pair.as_deref()),
            ("label", self.label.as_deref()),
            ("tokens", self.tokens.as_deref()),
            ("tags", self.tags.as_deref()),
        ]
    }

    fn is_set(&self, key: &str) -> bool {
        self.pairs().iter().any(|(name, value)| *name == key && value.is_some())
    }
}

/// What one row says, whatever its form was.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Record {
    /// A conversation with at least one assistant turn.
    Chat {
        /// The turns.
        messages: Vec<Message>,
        /// The row's `tools`, as templates see them.
        tools: Option<Value>,
    },
    /// Text to learn as it stands.
    Text(String),
    /// One or two texts and what they are to be answered with.
    Labelled {
        /// The texts.
        texts: Vec<String>,
        /// The label.
        label: Written,
    },
    /// Words and their tags, as many.
    Tagged {
        /// The words.
        words: Vec<String>,
        /// The tags.
        tags: Vec<String>,
    },
}

/// A format with the columns that it reads in one file, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recognised {
    pub(crate) format: Format,
    columns: Columns,
    /// One sentence for the report.
    pub(crate) why: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Columns {
    Alpaca { instruction: String, input: String, output: String, system: String },
    Pair { prompt: String, completion: String, system: String },
    Chat { messages: String, system: String },
    Text { text: String },
    Labelled { columns: Labelled, task: Task },
    Benchmark(&'static str),
}

/// Pairs of columns that are a prompt and its answer in common data sets.
const PAIRS: [(&str, &str); 8] = [
    ("prompt", "completion"),
    ("question", "answer"),
    ("prompt", "response"),
    ("query", "response"),
    ("problem", "solution"),
    ("instruction", "response"),
    ("input", "output"),
    ("source", "target"),
];

/// Settles a file's format: the one that was set, the one that `fields` imply, or the only one that fits the columns.
pub(crate) fn recognise(
    path: &Path,
    rows: &Rows,
    format: Format,
    fields: &Fields,
    task: Task,
) -> Result<Recognised, Error> {
    if !format.fits(task) {
        return Err(Error::FormatTask { format: format.name(), task: task.name() });
    }
    let is_labelled = task.has_labels() || task == Task::Regression;
    if is_labelled {
        return labelled_rows(path, rows, format, fields, task);
    }
    if rows.is_text {
        return Ok(Recognised {
            format: Format::Text,
            columns: Columns::Text { text: "text".to_owned() },
            why: "the file is plain text".to_owned(),
        });
    }
    let columns = columns_of(rows);
    let (format, why) = match format {
        Format::Auto => match implied(fields) {
            Some((format, key)) => (format, format!("`fields.{key}` is set")),
            None => return by_columns(path, &columns, fields),
        },
        format => (format, "`format` is set".to_owned()),
    };
    check_fields(format, fields)?;
    let defaults = match format {
        Format::QuestionAnswer => ("question", "answer"),
        _ => PAIRS.into_iter().find(|(p, c)| columns.contains(p) && columns.contains(c)).unwrap_or(PAIRS[0]),
    };
    let list = if format == Format::Sharegpt {
        ["conversations", "messages"]
    } else {
        ["messages", "conversations"]
    };
    let list = list.into_iter().find(|name| columns.contains(name)).unwrap_or(list[0]);
    Ok(Recognised { format, columns: resolve(format, fields, defaults, list), why })
}

fn labelled_rows(
    path: &Path,
    rows: &Rows,
    format: Format,
    fields: &Fields,
    task: Task,
) -> Result<Recognised, Error> {
    if let Format::Benchmark(name) = format {
        check_fields(format, fields)?;
        let why = match rows.skipped {
            0 => "`format` is set".to_owned(),
            n => format!("`format` is set; {n} broken lines passed over"),
        };
        return Ok(Recognised { format, columns: Columns::Benchmark(name), why });
    }
    let own = match (format, task) {
        (Format::Conll, _) => Format::Conll,
        (_, Task::TokenClassification) => Format::TokenClassification,
        _ => Format::Classification,
    };
    check_fields(own, fields)?;
    let columns = columns_of(rows);
    let (found, why) = Labelled::find(&columns, fields, task).map_err(|missing| Error::ColumnsMissing {
        path: path.to_owned(),
        columns: columns.iter().copied().collect::<Vec<_>>().join(", "),
        missing,
    })?;
    Ok(Recognised { format: own, columns: Columns::Labelled { columns: found, task }, why })
}

/// Names of all columns of the first thousand rows: later rows are held to what these show.
fn columns_of(rows: &Rows) -> BTreeSet<&str> {
    rows.rows.iter().take(1000).flat_map(|row| row.fields.keys()).map(String::as_str).collect()
}

fn implied(fields: &Fields) -> Option<(Format, &'static str)> {
    [
        ("messages", Format::Messages),
        ("text", Format::Text),
        ("instruction", Format::Alpaca),
        ("output", Format::Alpaca),
        ("prompt", Format::PromptCompletion),
        ("completion", Format::PromptCompletion),
    ]
    .into_iter()
    .find(|(key, _)| fields.is_set(key))
    .map(|(key, format)| (format, key))
}

fn check_fields(format: Format, fields: &Fields) -> Result<(), Error> {
    let known: &[&str] = match format {
        Format::Auto => &["system"],
        Format::Alpaca => &["instruction", "input", "output", "system"],
        Format::PromptCompletion | Format::QuestionAnswer => &["prompt", "completion", "system"],
        Format::Messages | Format::Sharegpt => &["messages", "system"],
        Format::Text => &["text"],
        Format::Classification => &["text", "pair", "label"],
        Format::TokenClassification => &["tokens", "tags"],
        Format::Conll | Format::Benchmark(_) => &[],
    };
    for (key, value) in fields.pairs() {
        if value.is_some() && !known.contains(&key) {
            return Err(Error::FieldName { key, format: format.name(), expected: known.join(", ") });
        }
    }
    Ok(())
}

fn resolve(format: Format, fields: &Fields, pair: (&str, &str), list: &str) -> Columns {
    let or = |field: &Option<String>, default: &str| field.clone().unwrap_or_else(|| default.to_owned());
    let system = or(&fields.system, "system");
    match format {
        Format::Alpaca => Columns::Alpaca {
            instruction: or(&fields.instruction, "instruction"),
            input: or(&fields.input, "input"),
            output: or(&fields.output, "output"),
            system,
        },
        Format::PromptCompletion | Format::QuestionAnswer => Columns::Pair {
            prompt: or(&fields.prompt, pair.0),
            completion: or(&fields.completion, pair.1),
            system,
        },
        Format::Messages | Format::Sharegpt => Columns::Chat { messages: or(&fields.messages, list), system },
        // The labelled ones have columns of their own, which are found elsewhere.
        Format::Text
        | Format::Auto
        | Format::Classification
        | Format::TokenClassification
        | Format::Conll
        | Format::Benchmark(_) => Columns::Text { text: or(&fields.text, "text") },
    }
}

fn by_columns(path: &Path, columns: &BTreeSet<&str>, fields: &Fields) -> Result<Recognised, Error> {
    check_fields(Format::Auto, fields)?;
    let has = |name: &str| columns.contains(name);
    let mut candidates: Vec<(Format, Columns, String)> = Vec::new();
    let mut add = |format: Format, pair: (&str, &str), list: &str, why: String| {
        candidates.push((format, resolve(format, fields, pair, list), why));
    };
    if has("messages") {
        add(Format::Messages, PAIRS[0], "messages", "column `messages`".into());
    }
    if has("conversations") {
        add(Format::Sharegpt, PAIRS[0], "conversations", "column `conversations`".into());
    }
    let alpaca = has("instruction") && has("output");
    if alpaca {
        add(Format::Alpaca, PAIRS[0], "", "columns `instruction` and `output`".into());
    }
    for (prompt, completion) in PAIRS {
        if has(prompt) && has(completion) && !(alpaca && prompt == "input") {
            let why = format!("columns `{prompt}` and `{completion}`");
            add(Format::PromptCompletion, (prompt, completion), "", why);
        }
    }
    if has("text") {
        add(Format::Text, PAIRS[0], "", "column `text`".into());
    }
    let listed = || columns.iter().copied().collect::<Vec<_>>().join(", ");
    match candidates.len() {
        1 => {
            let (format, columns, why) = candidates.swap_remove(0);
            Ok(Recognised { format, columns, why })
        }
        0 => Err(Error::FormatUnknown { path: path.to_owned(), columns: listed() }),
        _ => {
            let names = candidates.iter().map(|(format, _, why)| format!("{} ({why})", format.name()));
            let candidates = names.collect::<Vec<_>>().join(", ");
            Err(Error::FormatAmbiguous { path: path.to_owned(), columns: listed(), candidates })
        }
    }
}

/// A field at fault and what is wrong with it.
pub(crate) type Fault = (Option<String>, ProblemKind);

impl Recognised {
    /// Reads one row; none if it is one that its benchmark leaves undecided.
    pub(crate) fn record(&self, row: &Row) -> Result<Option<Record>, Fault> {
        match &self.columns {
            Columns::Benchmark(name) => match Benchmark::find(name) {
                Some(benchmark) => benchmark.record(row),
                None => Ok(None),
            },
            _ => self.own_record(row).map(Some),
        }
    }

    fn own_record(&self, row: &Row) -> Result<Record, Fault> {
        match &self.columns {
            Columns::Labelled { columns, task } => columns.record(row, *task),
            Columns::Benchmark(_) => Err((None, ProblemKind::Missing)),
            Columns::Text { text } => Ok(Record::Text(required(row, text)?)),
            Columns::Pair { prompt, completion, system } => {
                let mut messages = system_message(row, system)?;
                messages.push(Message::new(Role::User, required(row, prompt)?));
                messages.push(Message::new(Role::Assistant, required(row, completion)?));
                Ok(Record::Chat { messages, tools: None })
            }
            Columns::Alpaca { instruction, input, output, system } => {
                let mut messages = system_message(row, system)?;
                let mut prompt = required(row, instruction)?;
                if let Some(input) = optional(row, input)?.filter(|text| !text.is_empty()) {
                    prompt.push_str("\n\n");
                    prompt.push_str(&input);
                }
                messages.push(Message::new(Role::User, prompt));
                messages.push(Message::new(Role::Assistant, required(row, output)?));
                Ok(Record::Chat { messages, tools: None })
            }
            Columns::Chat { messages, system } => {
                let list = conversation(row, messages, system)?;
                let tools = row.fields.get("tools").filter(|v| v.is_array()).cloned();
                Ok(Record::Chat { messages: list, tools })
            }
        }
    }
}

fn system_message(row: &Row, column: &str) -> Result<Vec<Message>, Fault> {
    let text = optional(row, column)?.filter(|text| !text.is_empty());
    Ok(text.map(|text| Message::new(Role::System, text)).into_iter().collect())
}

pub(crate) fn required(row: &Row, column: &str) -> Result<String, Fault> {
    optional(row, column)?.ok_or_else(|| (Some(column.to_owned()), ProblemKind::Missing))
}

fn optional(row: &Row, column: &str) -> Result<Option<String>, Fault> {
    match row.fields.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        // Answers of arithmetic data are often bare numbers.
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
        Some(other) => Err(fault_type(column, "a string", other)),
    }
}

#[cfg(test)]
mod tests;
