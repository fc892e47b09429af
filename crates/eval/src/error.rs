//! What can go wrong.
use std::path::PathBuf;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An answer pattern that is none.
    #[error("`{pattern}` is no answer pattern: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// Nothing to evaluate on.
    #[error("no held-out row has a token to predict: expected at least one")]
    Empty,
    /// A row that is longer than the model's positions.
    #[error("held-out row {row} has {tokens} tokens: the model has {limit} positions")]
    TooLong {
        /// The row, from 0.
        row: usize,
        /// Its tokens.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// A loss that is no number.
    #[error("the loss of held-out row {row} is not finite")]
    NotFinite {
        /// The row, from 0.
        row: usize,
    },
    /// A file that cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that holds no predictions.
    #[error("{path}:{line}: not a prediction: {reason}", path = path.display())]
    Predictions {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why not.
        reason: String,
    },
    /// Predictions on other rows.
    #[error("the results are not on the same rows: {reason}")]
    OtherRows {
        /// What differs.
        reason: String,
    },
    /// From generation.
    #[error(transparent)]
    Decode(#[from] luthier_decode::Error),
    /// From the tokenizer.
    #[error(transparent)]
    Data(#[from] luthier_data::Error),
}

impl Error {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pattern { .. } => "eval-pattern",
            Self::Empty => "eval-empty",
            Self::TooLong { .. } => "eval-too-long",
            Self::NotFinite { .. } => "eval-not-finite",
            Self::Io { .. } | Self::Unreadable { .. } => "io",
            Self::Predictions { .. } => "eval-predictions",
            Self::OtherRows { .. } => "eval-other-rows",
            Self::Decode(e) => e.code(),
            Self::Data(e) => e.code(),
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Pattern { .. } => {
                Some("use `gsm8k`, a text with `n` for the number as in `#### n`, or a regular expression with one group".into())
            }
            Self::Empty => Some("name held-out data, and look at it with `luthier data`".into()),
            Self::TooLong { .. } => Some("lower max_tokens in [data]".into()),
            Self::NotFinite { .. } => {
                Some("the weights or the adapter hold values that overflow; try compute = \"f32\"".into())
            }
            Self::Predictions { .. } => Some("name a file that `luthier eval --predictions FILE` wrote".into()),
            Self::OtherRows { .. } => Some("measure both on the same held-out file".into()),
            Self::Io { .. } | Self::Unreadable { .. } => None,
            Self::Decode(e) => e.help(),
            Self::Data(e) => e.help(),
        }
    }
}
