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
    /// The configuration.
    #[error(transparent)]
    Config(#[from] luthier_config::Error),
    /// The base among the pulled models.
    #[error(transparent)]
    Hub(#[from] luthier_hub::Error),
    /// The config of an adapter.
    #[error(transparent)]
    AdapterConfig(#[from] luthier_methods::ReadError),
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
    /// The output folder holds an earlier run.
    #[error("{path} holds an earlier run", path = path.display())]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// The output folder holds something else.
    #[error("{path} holds `{found}`, which no run of this program wrote", path = path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// The first entry that is not ours.
        found: String,
    },
    /// Another process writes to the output folder.
    #[error("{path} is in use by another process", path = path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is no adapter.
    #[error("{path} is no adapter: `{missing}` is missing", path = path.display())]
    NoAdapter {
        /// The folder.
        path: PathBuf,
        /// What it should hold.
        missing: &'static str,
    },
    /// An adapter's tensors are not those that its config and the base ask for.
    #[error("the adapter in {path} does not fit: {summary}", path = path.display())]
    AdapterTensors {
        /// The folder.
        path: PathBuf,
        /// Missing, unexpected and misshapen tensors, at most twenty, with the count of the rest.
        summary: String,
    },
    /// A run that is to go on was started with other settings, data or base.
    #[error("the run in {path} cannot go on: {differences}", path = path.display())]
    ResumeDiffers {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What differs, with both values.
        differences: String,
    },
    /// Every checkpoint of a run is damaged.
    #[error("no checkpoint in {path} is intact: {reason}", path = path.display())]
    Damaged {
        /// The folder of checkpoints.
        path: PathBuf,
        /// What is wrong with each.
        reason: String,
    },
    /// A checkpoint does not hold what the run needs.
    #[error("the checkpoint {path} does not fit this run: {reason}", path = path.display())]
    CheckpointMismatch {
        /// Its folder.
        path: PathBuf,
        /// The first tensor at fault.
        reason: String,
    },
    /// The data has a token that the model does not know.
    #[error("the tokenizer makes token {token}, but the model has {vocab} tokens")]
    Vocabulary {
        /// The largest id in the data.
        token: u32,
        /// The model's tokens.
        vocab: usize,
    },
    /// The loss or the gradient is no longer a number.
    #[error("the run diverged at step {step}: the loss or its gradient is not finite")]
    Diverged {
        /// The step.
        step: u64,
        /// The last checkpoint from before it.
        last_good: Option<PathBuf>,
    },
    /// The trained model does what the base does.
    #[error("the trained model equals the base: {reason}")]
    NoEffect {
        /// Why that may be.
        reason: String,
    },
    /// What was written is not what was trained.
    #[error("read back from disk, the held-out loss is {read}, in memory it was {memory}")]
    ReadBack {
        /// Of the files.
        read: f64,
        /// Of the run.
        memory: f64,
    },
    /// No thread pool.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// As many as were asked for.
        threads: usize,
        /// What the system says.
        reason: String,
    },
}

impl Error {
    /// Whether the input was wrong, not the run.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Hub(e) => e.is_input(),
            Self::Io { .. }
            | Self::Diverged { .. }
            | Self::NoEffect { .. }
            | Self::ReadBack { .. }
            | Self::Threads { .. } => false,
            _ => true,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model(e) => e.code(),
            Self::Storage(e) => e.code(),
            Self::Data(e) => e.code(),
            Self::Method(e) => e.code(),
            Self::Config(e) => e.code(),
            Self::Hub(e) => e.code(),
            Self::AdapterConfig(e) => e.code(),
            Self::Io { .. } => "io",
            Self::NoModel { .. } => "no-model",
            Self::ConfigJson { .. } => "config-json",
            Self::OutputExists { .. } => "output-exists",
            Self::NotOurs { .. } => "output-foreign",
            Self::Locked { .. } => "output-locked",
            Self::NoAdapter { .. } => "no-adapter",
            Self::AdapterTensors { .. } => "adapter-tensors",
            Self::ResumeDiffers { .. } => "resume-differs",
            Self::Damaged { .. } => "checkpoints-damaged",
            Self::CheckpointMismatch { .. } => "checkpoint-mismatch",
            Self::Vocabulary { .. } => "vocabulary",
            Self::Diverged { .. } => "diverged",
            Self::NoEffect { .. } => "no-effect",
            Self::ReadBack { .. } => "read-back",
            Self::Threads { .. } => "threads",
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Model(e) => e.help(),
            Self::Storage(e) => e.help(),
            Self::Data(e) => e.help(),
            Self::Method(e) => e.help(),
            Self::Config(e) => e.help(),
            Self::Hub(e) => e.help(),
            Self::AdapterConfig(e) => e.help(),
            Self::Io { .. } | Self::ConfigJson { .. } | Self::Threads { .. } => None,
            Self::OutputExists { .. } => Some(
                "`--resume` goes on with it, `--overwrite` removes it, or choose another `output`".into(),
            ),
            Self::NotOurs { .. } => Some("choose another `output`: this folder is left as it is".into()),
            Self::Locked { .. } => Some("wait for it to end, or choose another `output`".into()),
            Self::NoAdapter { .. } => {
                Some("an adapter is a folder with adapter_config.json and adapter_model.safetensors".into())
            }
            Self::AdapterTensors { .. } => Some("was it trained on this base?".into()),
            Self::ResumeDiffers { .. } => {
                Some("restore the settings and files, or begin again with `--overwrite`".into())
            }
            Self::Damaged { .. } | Self::CheckpointMismatch { .. } => {
                Some("begin again with `--overwrite`".into())
            }
            Self::Vocabulary { .. } => Some("tokenizer and weights belong to different models".into()),
            Self::Diverged { last_good, .. } => Some(match last_good {
                Some(folder) => format!(
                    "try a third of the learning rate, a longer warm-up or clip = 1.0; the last good checkpoint is {}",
                    folder.display()
                ),
                None => "try a third of the learning rate, a longer warm-up or clip = 1.0".into(),
            }),
            Self::NoEffect { .. } => Some("raise the learning rate or the number of steps".into()),
            Self::ReadBack { .. } => Some("the disk may be failing; please report it if it is not".into()),
            Self::NoModel { .. } => Some("`luthier pull ORG/NAME` brings a model from the hub".into()),
        }
    }
}
