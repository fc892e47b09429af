//! Rows to records: which columns hold the prompt, the answer, the conversation or the text.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::problem::ProblemKind;
use crate::read::{Row, Rows, kind_of};

/// The form of a file's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
}

impl Format {
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
    /// text: the text.
    pub text: Option<String>,
}

impl Fields {
    fn pairs(&self) -> [(&'static str, Option<&str>); 8] {
        [
            ("prompt", self.prompt.as_deref()),
            ("completion", self.completion.as_deref()),
            ("system", self.system.as_deref()),
            ("instruction", self.instruction.as_deref()),
            ("input", self.input.as_deref()),
            ("output", self.output.as_deref()),
            ("messages", self.messages.as_deref()),
            ("text", self.text.as_deref()),
        ]
    }

    fn is_set(&self, key: &str) -> bool {
        self.pairs().iter().any(|(name, value)| *name == key && value.is_some())
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// The system prompt.
    System,
    /// The system prompt of newer templates.
    Developer,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

impl Role {
    /// The name that templates see.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "system" => Self::System,
            "developer" => Self::Developer,
            "user" | "human" => Self::User,
            "assistant" | "gpt" | "bot" | "model" | "chatgpt" | "function_call" => Self::Assistant,
            "tool" | "function" | "observation" | "ipython" => Self::Tool,
            _ => return None,
        })
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// Other keys of the row's message (`tool_calls`, `name`), as templates see them.
    pub extra: Map<String, Value>,
    /// Whether an assistant's turn is learnt; OpenAI's `weight = 0` says no.
    pub is_learnt: bool,
}

impl Message {
    /// A turn without further keys.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), extra: Map::new(), is_learnt: true }
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
) -> Result<Recognised, Error> {
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
        Format::Text | Format::Auto => Columns::Text { text: or(&fields.text, "text") },
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
type Fault = (Option<String>, ProblemKind);

impl Recognised {
    /// Reads one row.
    pub(crate) fn record(&self, row: &Row) -> Result<Record, Fault> {
        match &self.columns {
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

fn required(row: &Row, column: &str) -> Result<String, Fault> {
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

fn fault_type(field: &str, expected: &'static str, got: &Value) -> Fault {
    (Some(field.to_owned()), ProblemKind::Type { expected, got: kind_of(got) })
}

fn conversation(row: &Row, column: &str, system: &str) -> Result<Vec<Message>, Fault> {
    let list = match row.fields.get(column) {
        None | Some(Value::Null) => return Err((Some(column.to_owned()), ProblemKind::Missing)),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(fault_type(column, "a list of messages", other)),
    };
    let mut messages = Vec::with_capacity(list.len() + 1);
    for (index, value) in list.iter().enumerate() {
        let place = format!("{column}[{index}]");
        let Value::Object(entry) = value else { return Err(fault_type(&place, "an object", value)) };
        messages.push(message(entry, &place)?);
    }
    if !messages.iter().any(|m| m.role == Role::Assistant) {
        return Err((Some(column.to_owned()), ProblemKind::NoAssistant));
    }
    if messages[0].role != Role::System {
        messages.splice(0..0, system_message(row, system)?);
    }
    Ok(messages)
}

fn message(entry: &Map<String, Value>, place: &str) -> Result<Message, Fault> {
    let at = |key: &str| format!("{place}.{key}");
    let (role_key, content_key) = if entry.contains_key("role") || !entry.contains_key("from") {
        ("role", "content")
    } else {
        ("from", "value")
    };
    let role = match entry.get(role_key) {
        Some(Value::String(name)) => {
            Role::parse(name).ok_or_else(|| (Some(at(role_key)), ProblemKind::Role { got: name.clone() }))?
        }
        None | Some(Value::Null) => return Err((Some(at(role_key)), ProblemKind::Missing)),
        Some(other) => return Err(fault_type(&at(role_key), "a string", other)),
    };
    let content = match entry.get(content_key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => joined_parts(parts, &at(content_key))?,
        // A message that only calls tools has no content.
        None | Some(Value::Null) if entry.contains_key("tool_calls") => String::new(),
        None | Some(Value::Null) => return Err((Some(at(content_key)), ProblemKind::Missing)),
        Some(other) => return Err(fault_type(&at(content_key), "a string", other)),
    };
    let weight = entry.get("weight");
    let extra = entry.iter().filter(|(key, _)| ![role_key, content_key, "weight"].contains(&key.as_str()));
    Ok(Message {
        role,
        content,
        extra: extra.map(|(key, value)| (key.clone(), value.clone())).collect(),
        is_learnt: weight.and_then(Value::as_f64) != Some(0.0),
    })
}

fn joined_parts(parts: &[Value], place: &str) -> Result<String, Fault> {
    let mut text = String::new();
    for part in parts {
        match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
            (Some("text") | None, Some(piece)) => text.push_str(piece),
            (kind, _) => {
                let got = kind.unwrap_or("none").to_owned();
                return Err((Some(place.to_owned()), ProblemKind::Part { got }));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
