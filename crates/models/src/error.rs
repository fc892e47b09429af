//! What can be wrong with a model folder or file.

/// A model cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `model_type` has no family here.
    #[error("model_type `{got}` is not supported; supported are {known}")]
    UnknownFamily {
        /// As the config says.
        got: String,
        /// All families.
        known: String,
    },
    /// A key of the config is missing or of another type.
    #[error("config key `{key}`: expected {expected}, got {got}")]
    Config {
        /// Dotted path of the key.
        key: String,
        /// What is needed.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A feature of the config that this program has not.
    #[error("config key `{key}` asks for {got}, which is not supported")]
    Unsupported {
        /// Dotted path of the key.
        key: String,
        /// What is there.
        got: String,
    },
    /// A family without the head that a task needs.
    #[error("{family} has no {head}", head = head.trim_start_matches("a "))]
    NoHead {
        /// As the config says.
        family: String,
        /// In words, with an article.
        head: &'static str,
    },
    /// The weights do not fit the config.
    #[error("the weights do not fit the config: {summary}")]
    Weights {
        /// Missing and misshapen tensors, at most twenty, with the count of the rest.
        summary: String,
    },
    /// The files themselves.
    #[error(transparent)]
    Storage(#[from] luthier_storage::Error),
}

impl Error {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownFamily { .. } => "model-family",
            Self::Config { .. } => "model-config",
            Self::Unsupported { .. } => "model-unsupported",
            Self::NoHead { .. } => "model-head",
            Self::Weights { .. } => "model-weights",
            Self::Storage(e) => e.code(),
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::UnknownFamily { .. } => Some(
                "use a base of one of these families; code in a model's folder (`auto_map`) is never run"
                    .into(),
            ),
            Self::Config { .. } => Some("is this the config.json that came with the weights?".into()),
            Self::Unsupported { .. } => None,
            Self::NoHead { .. } => Some(
                "decoders model the next token, encoders masked ones; both classify segments and tokens"
                    .into(),
            ),
            Self::Weights { .. } => {
                Some("the files may belong to another model, or the download is incomplete".into())
            }
            Self::Storage(e) => e.help(),
        }
    }
}
