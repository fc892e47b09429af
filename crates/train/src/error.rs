//! What can stop a run before or while it trains.
use std::path::PathBuf;

/// A run cannot begin, go on, or be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model.
    #[error(transparent)]
    Model(#[from] luthier_models::Error),
    /// Its files.
    #[error(transparent)]
    Storage(#[from] luthier_storage::Error),
    /// The data or the tokenizer.
    #[error(transparent)]
    Data(#[from] luthier_data::Error),
    /// The method's settings.
    #[error(transparent)]
    Method(#[from] luthier_contract::Error),
    /// A file that cannot be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A base that is neither a model folder nor a GGUF file.
    #[error("{path} is no model: expected a folder with config.json, or a .gguf file", path = path.display())]
    NoModel {
        /// What was named as the base.
        path: PathBuf,
    },
    /// A config that is no JSON.
    #[error("{path} is not valid JSON: {reason}", path = path.display())]
    ConfigJson {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
}

impl Error {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model(e) => e.code(),
            Self::Storage(e) => e.code(),
            Self::Data(e) => e.code(),
            Self::Method(e) => e.code(),
            Self::Io { .. } => "io",
            Self::NoModel { .. } => "no-model",
            Self::ConfigJson { .. } => "config-json",
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Model(e) => e.help(),
            Self::Storage(e) => e.help(),
            Self::Data(e) => e.help(),
            Self::Method(e) => e.help(),
            Self::Io { .. } | Self::ConfigJson { .. } => None,
            Self::NoModel { .. } => Some("`luthier pull ORG/NAME` brings a model from the hub".into()),
        }
    }
}
