//! What can be wrong with a configuration.

use crate::nearest::nearest;
use crate::place::Place;
use std::io;
use std::path::PathBuf;

/// A mistake in a configuration, with its place. Paths of keys are dotted: `train.batch`; tables are in brackets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{}`: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is not UTF-8.
    #[error("`{}` is not UTF-8: byte {at} starts no character", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// The text is not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// What the parser said.
        message: String,
        /// Where.
        place: Box<Place>,
    },
    /// An override is not `KEY=VALUE`.
    #[error("`--set {text}` is not of the form KEY=VALUE")]
    Override {
        /// The override.
        text: String,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}` in {table}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The table that it stands in.
        table: String,
        /// The keys that the table has.
        known: Vec<String>,
        /// Where.
        place: Box<Place>,
    },
    /// A name where one of a list is expected: a method, an optimizer, a format.
    #[error("unknown {what} `{name}`")]
    UnknownName {
        /// What the name should be one of: `method`, `data.format`.
        what: String,
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<String>,
        /// Where.
        place: Box<Place>,
    },
    /// A key that must be there is not.
    #[error("missing key `{key}` in {table}")]
    Missing {
        /// The key.
        key: String,
        /// The table that lacks it.
        table: String,
        /// Where the table starts.
        place: Box<Place>,
    },
    /// A value of another type than expected, or out of its range.
    #[error("`{key}` must be {expected}, got {got}")]
    WrongValue {
        /// Dotted path of the key.
        key: String,
        /// What is expected.
        expected: String,
        /// What was written.
        got: String,
        /// Where.
        place: Box<Place>,
    },
    /// A choice that holds no table or several.
    #[error("[{table}] must hold exactly one table, got {}", list(.got))]
    NotOne {
        /// The choice: `method`, `optimizer`, `schedule`.
        table: String,
        /// The tables that it holds.
        got: Vec<String>,
        /// Where the second one stands, or the choice itself.
        place: Box<Place>,
    },
    /// Two keys that exclude each other.
    #[error("`{first}` and `{second}` exclude each other")]
    Conflict {
        /// The one.
        first: String,
        /// The other.
        second: String,
        /// Where the other stands.
        place: Box<Place>,
    },
    /// A key that needs another one.
    #[error("`{key}` needs `{needs}`")]
    Needs {
        /// The key that is there.
        key: String,
        /// The one that is not.
        needs: String,
        /// Where the first stands.
        place: Box<Place>,
    },
    /// A file or folder that is not there.
    #[error("no file `{}` for `{key}`", .path.display())]
    NoFile {
        /// Dotted path of the key.
        key: String,
        /// The file, relative paths already resolved.
        path: PathBuf,
        /// A file beside it with a name like it.
        near: Option<String>,
        /// Where.
        place: Box<Place>,
    },
    /// What another part of the program found wrong with a value.
    #[error("`{key}`: {message}")]
    Refused {
        /// Dotted path of the key.
        key: String,
        /// What is wrong.
        message: String,
        /// The way out.
        help: Option<String>,
        /// Where.
        place: Box<Place>,
    },
    /// A path that cannot be written into a TOML file.
    #[error("the path `{}` is not UTF-8 and cannot be written to the resolved configuration", .path.display())]
    PathNotText {
        /// The path.
        path: PathBuf,
    },
}

impl Error {
    /// The error's name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::NotText { .. } => "config-unreadable",
            Self::Syntax { .. } => "config-syntax",
            Self::Override { .. } => "config-override",
            Self::UnknownKey { .. } => "config-unknown-key",
            Self::UnknownName { .. } => "config-unknown-name",
            Self::Missing { .. } => "config-missing-key",
            Self::WrongValue { .. } | Self::Refused { .. } => "config-value",
            Self::NotOne { .. } => "config-not-one",
            Self::Conflict { .. } | Self::Needs { .. } => "config-conflict",
            Self::NoFile { .. } => "config-no-file",
            Self::PathNotText { .. } => "config-path",
        }
    }

    /// The way out, where there is one to name.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, known, .. } => Some(unknown_key_help(key, known)),
            Self::UnknownName { name, known, .. } => {
                let all = format!("known names: {}", known.join(", "));
                Some(match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`? {all}"),
                    None => all,
                })
            }
            Self::Missing { key, table, .. } => Some(missing_help(key, table)),
            Self::NotOne { table, got, .. } if got.is_empty() => {
                Some(format!("write one, as in {}", example(table)))
            }
            Self::NotOne { .. } => Some("keep one of them".to_owned()),
            Self::Conflict { .. } => Some("remove one of the two".to_owned()),
            Self::Needs { needs, .. } => Some(format!("set `{needs}`, or remove the key")),
            Self::NoFile { near, .. } => Some(match near {
                Some(near) => {
                    format!("did you mean `{near}`? paths are relative to the configuration's folder")
                }
                None => "paths are relative to the configuration's folder".to_owned(),
            }),
            Self::Override { .. } => {
                Some("for example --set train.steps=50 or --set method.lora.rank=16".to_owned())
            }
            Self::NotText { .. } => Some("save the file as UTF-8".to_owned()),
            Self::Refused { help, .. } => help.clone(),
            Self::Unreadable { .. }
            | Self::Syntax { .. }
            | Self::WrongValue { .. }
            | Self::PathNotText { .. } => None,
        }
    }

    /// What to underline, where the mistake has a place.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Unreadable { .. }
            | Self::NotText { .. }
            | Self::Override { .. }
            | Self::PathNotText { .. } => None,
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::UnknownName { place, .. }
            | Self::Missing { place, .. }
            | Self::WrongValue { place, .. }
            | Self::NotOne { place, .. }
            | Self::Conflict { place, .. }
            | Self::Needs { place, .. }
            | Self::NoFile { place, .. }
            | Self::Refused { place, .. } => Some(place),
        }
    }
}

/// Keys that are often written in the wrong table, with the right one.
const ELSEWHERE: [(&str, &str); 20] = [
    ("lr", "[optimizer.adamw]"),
    ("weight_decay", "[optimizer.adamw]"),
    ("betas", "[optimizer.adamw]"),
    ("clip", "[optimizer.adamw]"),
    ("warmup", "[schedule.cosine]"),
    ("steps", "[train]"),
    ("epochs", "[train]"),
    ("batch", "[train]"),
    ("micro_batch", "[train]"),
    ("recompute", "[train]"),
    ("eval_every", "[train]"),
    ("save_every", "[train]"),
    ("keep", "[train]"),
    ("max_tokens", "[data]"),
    ("format", "[data]"),
    ("loss", "[data]"),
    ("eval", "[data]"),
    ("seed", "the top of the file, before the first table"),
    ("compute", "the top of the file, before the first table"),
    ("storage", "the top of the file, before the first table"),
];

fn unknown_key_help(key: &str, known: &[String]) -> String {
    if let Some(near) = nearest(key, known.iter().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    if let Some((_, table)) = ELSEWHERE.iter().find(|(name, _)| *name == key) {
        return format!("`{key}` belongs to {table}");
    }
    if known.is_empty() {
        "this table has no keys".to_owned()
    } else {
        format!("known keys: {}", known.join(", "))
    }
}

fn missing_help(key: &str, table: &str) -> String {
    match key {
        "base" => {
            "name the model: a folder with config.json, a .gguf file, or an id that `luthier pull` brought"
                .to_owned()
        }
        "output" => {
            "name the folder for the adapter and the report, as in output = \"runs/first\"".to_owned()
        }
        "method" | "optimizer" => format!("write one, as in {}", example(key)),
        "data" => "add [data] with train = \"file.jsonl\"".to_owned(),
        "train" if table == "[data]" => {
            "name the file to learn from, as in train = \"train.jsonl\"".to_owned()
        }
        "lr" => "the size of a step: 1e-4 to 5e-4 for lora, 1e-5 to 5e-5 for full-ft".to_owned(),
        _ => format!("add `{key}` to {table}"),
    }
}

/// How a choice is written.
fn example(table: &str) -> &'static str {
    match table {
        "optimizer" => "[optimizer.adamw] with lr = 2e-4",
        "schedule" => "[schedule.cosine] with warmup = 0.03",
        _ => "[method.lora] with rank = 8",
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ")
}
