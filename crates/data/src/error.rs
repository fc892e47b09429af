//! What can be wrong with data, tokenizers and templates, each with the way out.

use std::path::{Path, PathBuf};

use crate::problem::{Problem, ProblemKind, Problems};

/// Everything that the crate refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file's text is not in the encoding that was expected.
    #[error("{}:{line}: not {expected}: {found}", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// Line of the first byte that does not fit, from 1.
        line: u64,
        /// The encoding that was expected.
        expected: String,
        /// What the bytes look like.
        found: String,
        /// The label to set, if one was recognised.
        label: Option<&'static str>,
    },
    /// The `encoding` setting names no known encoding.
    #[error("unknown encoding `{label}`")]
    EncodingName {
        /// What was written.
        label: String,
    },
    /// The file's ending tells no known format.
    #[error("{}: unknown kind of file, expected .jsonl, .json, .csv, .tsv or .txt", path.display())]
    FileKind {
        /// The file.
        path: PathBuf,
    },
    /// A file has no row.
    #[error("{}: no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// Rows are wrong; all of them were looked at.
    #[error("{problems}")]
    Rows {
        /// The first twenty and the count.
        problems: Problems,
    },
    /// No format fits a file's columns.
    #[error("{}: no format fits the columns [{columns}]", path.display())]
    FormatUnknown {
        /// The file.
        path: PathBuf,
        /// The columns found, joined by commas.
        columns: String,
    },
    /// Several formats fit a file's columns.
    #[error("{}: columns [{columns}] fit several formats: {candidates}", path.display())]
    FormatAmbiguous {
        /// The file.
        path: PathBuf,
        /// The columns found, joined by commas.
        columns: String,
        /// The formats that fit, with their columns.
        candidates: String,
    },
    /// A key of `fields` does not belong to the format.
    #[error("`fields.{key}` has no meaning for format `{format}`, expected one of: {expected}")]
    FieldName {
        /// The key.
        key: &'static str,
        /// The format.
        format: &'static str,
        /// The keys that the format knows.
        expected: String,
    },
    /// A format whose rows a task cannot learn from.
    #[error("format `{format}` does not fit task `{task}`")]
    FormatTask {
        /// The format.
        format: &'static str,
        /// The task.
        task: &'static str,
    },
    /// A file's columns lack what a task needs.
    #[error("{}: the columns [{columns}] lack {missing}", path.display())]
    ColumnsMissing {
        /// The file.
        path: PathBuf,
        /// The columns found, joined by commas.
        columns: String,
        /// What was looked for.
        missing: &'static str,
    },
    /// A row's label is not one that the task can learn.
    #[error("{kind}")]
    Label {
        /// What is wrong with it.
        kind: ProblemKind,
    },
    /// The labels are no set of labels.
    #[error("{found} label{s} in the data, expected at least 2", s = if *found == 1 { "" } else { "s" })]
    FewLabels {
        /// Distinct labels.
        found: usize,
    },
    /// The tokenizer lacks a token that the task needs.
    #[error("the tokenizer names no {token} token, which task `{task}` needs")]
    SpecialMissing {
        /// The token.
        token: &'static str,
        /// The task.
        task: &'static str,
    },
    /// A tokenizer file is missing.
    #[error("no tokenizer in {}: {missing} is missing", folder.display())]
    TokenizerMissing {
        /// The folder.
        folder: PathBuf,
        /// The file that was looked for.
        missing: &'static str,
    },
    /// A tokenizer's file is wrong.
    #[error("tokenizer refused: {what}")]
    Tokenizer {
        /// What is wrong and where.
        what: String,
    },
    /// A GGUF names a pre-tokenizer that is not known here.
    #[error("tokenizer refused: pre-tokenizer `{name}` is unknown, known are: {known}")]
    PreTokenizer {
        /// The name in `tokenizer.ggml.pre`.
        name: String,
        /// The known names.
        known: String,
    },
    /// Text could not be turned into tokens, or back.
    #[error("cannot {action} text: {what}")]
    Tokenize {
        /// `encode` or `decode`.
        action: &'static str,
        /// The library's reason.
        what: String,
    },
    /// The chat template cannot be compiled or breaks a limit.
    #[error("chat template refused: {what}")]
    Template {
        /// What is wrong.
        what: String,
    },
    /// The template's assistant turns cannot be found in its rendering.
    #[error("chat template `{name}` does not show where the assistant's turn {turn} starts: {why}")]
    TemplateSpans {
        /// Where the template comes from.
        name: String,
        /// Index of the message, from 0.
        turn: usize,
        /// What was tried.
        why: &'static str,
    },
    /// No token of the set is a target.
    #[error("no labelled token in the {set} set: {samples} samples, {dropped} dropped for having none")]
    NoLabels {
        /// `train` or `eval`.
        set: &'static str,
        /// Samples that were made.
        samples: u64,
        /// Samples that had no labelled token within `max_tokens`.
        dropped: u64,
    },
    /// The tokenizer does not know the text's script.
    #[error("{:.1} % of the {set} set is unknown to the tokenizer, limit 20 %", share * 100.0)]
    Unknown {
        /// `train` or `eval`.
        set: &'static str,
        /// Share of unknown tokens or characters, 0 to 1.
        share: f64,
    },
    /// The eval fraction cannot be cut from the rows.
    #[error("cannot split off eval = {fraction}: {groups} distinct rows")]
    Split {
        /// The fraction asked for.
        fraction: f64,
        /// Rows that differ in content.
        groups: usize,
    },
    /// A setting is out of its range.
    #[error("`data.{key}` = {got}, expected {expected}")]
    Setting {
        /// The key.
        key: &'static str,
        /// What was given.
        got: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Error {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "data-io",
            Self::Encoding { .. } | Self::EncodingName { .. } => "data-encoding",
            Self::FileKind { .. }
            | Self::FormatUnknown { .. }
            | Self::FormatAmbiguous { .. }
            | Self::FormatTask { .. }
            | Self::ColumnsMissing { .. } => "data-format",
            Self::FewLabels { .. } | Self::Label { .. } => "data-labels",
            Self::FieldName { .. } => "data-fields",
            Self::NoRows { .. } => "data-empty",
            Self::Rows { .. } => "data-rows",
            Self::TokenizerMissing { .. }
            | Self::Tokenizer { .. }
            | Self::PreTokenizer { .. }
            | Self::SpecialMissing { .. } => "tokenizer",
            Self::Tokenize { .. } => "tokenize",
            Self::Template { .. } | Self::TemplateSpans { .. } => "chat-template",
            Self::NoLabels { .. } => "data-no-labels",
            Self::Unknown { .. } => "data-unknown-tokens",
            Self::Split { .. } => "data-split",
            Self::Setting { .. } => "data-setting",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Io { .. } => "check that the path exists and is readable; paths are relative to the run file".into(),
            Self::Encoding { label: Some(label), .. } => {
                format!("set `encoding = \"{label}\"` under [data], or convert the file to UTF-8")
            }
            Self::Encoding { .. } => "convert the file to UTF-8, or name its encoding with `encoding` under [data]".into(),
            Self::EncodingName { .. } => "use a label of the WHATWG list, for example utf-8, utf-16le, gb18030, latin-1".into(),
            Self::FileKind { .. } => "rename the file, or convert it; .jsonl holds one JSON object a line".into(),
            Self::NoRows { .. } => "the file is empty; check the path".into(),
            Self::Rows { problems } => return problems.help(),
            Self::FormatUnknown { .. } => {
                "name the columns, for example `fields = { prompt = \"question\", completion = \"answer\" }`".into()
            }
            Self::FormatTask { .. } => "remove `format`, or set `task` to the one that it belongs to".into(),
            Self::ColumnsMissing { .. } => {
                "name the columns: `fields = { text = \"..\", pair = \"..\", label = \"..\" }`, or tokens and tags".into()
            }
            Self::Label { .. } => "correct the row".into(),
            Self::FewLabels { .. } => "name every label in `labels` under [data]; for numbers set `task = \"regression\"`".into(),
            Self::SpecialMissing { .. } => "choose a base that was trained for this, such as BERT or RoBERTa".into(),
            Self::FormatAmbiguous { .. } => "set `format` under [data] to the one you mean".into(),
            Self::FieldName { .. } => "remove the key, or set `format` to the one that it belongs to".into(),
            Self::TokenizerMissing { .. } => {
                "save the tokenizer as tokenizer.json (transformers: tokenizer.save_pretrained(folder))".into()
            }
            Self::Tokenizer { .. } => "fetch the model again, or save its tokenizer anew with transformers".into(),
            Self::PreTokenizer { .. } => "use the model's Hugging Face folder in place of the GGUF file".into(),
            Self::Tokenize { .. } => "look at the row that is named; shorten it or remove it".into(),
            Self::Template { .. } => "set `template` under [data] to `chatml`, `plain` or `none`".into(),
            Self::TemplateSpans { .. } => {
                "mark the turns with {% generation %} in the template, set `template = \"chatml\"`, or use `loss = \"all\"`"
                    .into()
            }
            Self::NoLabels { .. } => "raise `max_tokens`: prompts fill it before an answer starts; `luthier data` shows them".into(),
            Self::Unknown { .. } => "choose a base whose tokenizer knows this script, or check the file's encoding".into(),
            Self::Split { .. } => "give more rows, a larger fraction, or a file of its own for `eval`".into(),
            Self::Setting { .. } => "correct the value under [data]".into(),
        })
    }

    /// File and line that the error points at, if it points at one.
    pub fn place(&self) -> Option<(&Path, Option<u64>)> {
        match self {
            Self::Io { path, .. }
            | Self::FileKind { path }
            | Self::NoRows { path }
            | Self::FormatUnknown { path, .. }
            | Self::ColumnsMissing { path, .. }
            | Self::FormatAmbiguous { path, .. } => Some((path, None)),
            Self::Encoding { path, line, .. } => Some((path, Some(*line))),
            Self::Rows { problems } => {
                problems.shown().first().map(|p: &Problem| (p.file.as_path(), Some(p.line)))
            }
            _ => None,
        }
    }

    /// Every place that is wrong, one line each, at most [`crate::SHOWN_PROBLEMS`] and the count of the rest.
    pub fn details(&self) -> Vec<String> {
        match self {
            Self::Rows { problems } => problems.lines(),
            _ => Vec::new(),
        }
    }
}
