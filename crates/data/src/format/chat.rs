//! Conversations: lists of turns in the forms that data sets write them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Fault, system_message};
use crate::problem::ProblemKind;
use crate::read::{Row, kind_of};

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

pub(super) fn fault_type(field: &str, expected: &'static str, got: &Value) -> Fault {
    (Some(field.to_owned()), ProblemKind::Type { expected, got: kind_of(got) })
}

/// The turns of a row, after its system message.
pub(super) fn conversation(row: &Row, column: &str, system: &str) -> Result<Vec<Message>, Fault> {
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
