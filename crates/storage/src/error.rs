//! What can be wrong with a weights file, and the way out.

use std::io;
use std::path::PathBuf;

use crate::encoding::{Encoding, SizeFault};
use crate::gguf::GgufFault;
use crate::safetensors::SafetensorsFault;

/// Everything that this crate refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// A folder, pipe or device where a file is expected.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// More bytes than can be addressed or held.
    #[error("`{}` is too large to be held: {bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file changed its length while it was open.
    #[error("`{}` changed while in use: expected {expected} bytes, got {got}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Length when it was opened.
        expected: u64,
        /// Length found.
        got: u64,
    },
    /// Nothing at the path that holds weights we read.
    #[error("no weights in `{}`: expected {expected}, found {found}", path.display())]
    NoWeights {
        /// Folder or file.
        path: PathBuf,
        /// What is looked for.
        expected: &'static str,
        /// What is there instead.
        found: String,
    },
    /// Only pickled weights, which can run code when they are read.
    #[error("`{}` is a pickle file: reading it can run code, so it is not read", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A safetensors file is broken.
    #[error("broken safetensors file `{}`: {fault}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: SafetensorsFault,
    },
    /// A GGUF file is broken or not of our kind.
    #[error("cannot use GGUF file `{}`: {fault}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: GgufFault,
    },
    /// A tensor that is asked for is not there.
    #[error("no tensor `{tensor}` in `{}`{}", path.display(), nearest_clause(nearest.as_ref()))]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// Name asked for.
        tensor: String,
        /// The most similar name that is there.
        nearest: Option<String>,
    },
    /// A metadata key of a GGUF is missing or of another kind.
    #[error("metadata key `{key}` in `{}`: expected {expected}, got {got}", path.display())]
    MetadataKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Kind expected.
        expected: &'static str,
        /// Kind found, or `nothing`.
        got: &'static str,
    },
    /// A tensor that cannot serve as a weight.
    #[error("tensor `{tensor}` in `{}` is {encoding}: a weight is one of {}", path.display(), Encoding::WEIGHTS)]
    NotAWeight {
        /// File or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        encoding: Encoding,
    },
    /// A linear layer's weight needs two dimensions.
    #[error("tensor `{tensor}` has shape {shape:?}: expected a matrix [d_out, d_in]")]
    NotAMatrix {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Rows that do not divide into heads of even width.
    #[error(
        "cannot reorder the rotary rows of `{tensor}`: {rows} rows are not {heads} heads of an even width"
    )]
    RopeRows {
        /// The tensor.
        tensor: String,
        /// Rows of the matrix.
        rows: usize,
        /// Heads asked for.
        heads: usize,
    },
    /// A shape that has no size, in what is to be written.
    #[error("cannot write tensor `{tensor}` of shape {shape:?} as {encoding}: {}", size_clause(*fault))]
    Unsized {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How it should be stored.
        encoding: Encoding,
        /// Why not.
        fault: SizeFault,
    },
    /// An encoding that the file format to be written does not have.
    #[error("cannot write tensor `{tensor}` as {encoding}: {format} has {allowed}")]
    CannotEncode {
        /// The tensor.
        tensor: String,
        /// How it should be stored.
        encoding: Encoding,
        /// The file format.
        format: &'static str,
        /// What can be written.
        allowed: &'static str,
    },
    /// A shape that GGUF cannot state.
    #[error(
        "cannot write tensor `{tensor}` of shape {shape:?} to GGUF: expected 1 to 4 dimensions, none of them 0"
    )]
    NoGgufShape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Two tensors or metadata entries of one name, or a reserved name, in what is to be written.
    #[error("cannot write `{}`: the name `{name}` is {why}", path.display())]
    BadName {
        /// The file to be written.
        path: PathBuf,
        /// The name.
        name: String,
        /// `used twice`, `reserved`, `too long`.
        why: &'static str,
    },
    /// A writer was given too few or too many bytes for a declared tensor.
    #[error("tensor `{tensor}` was declared with {expected} bytes and given {got}")]
    WrongLength {
        /// The tensor.
        tensor: String,
        /// Bytes declared.
        expected: usize,
        /// Bytes given (at least, when too many).
        got: usize,
    },
    /// A value that no block of the wanted encoding can hold.
    #[error("cannot store tensor `{tensor}` as {encoding}: element {index} is {value}, outside its range")]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// The encoding.
        encoding: Encoding,
        /// Position of the element, flattened.
        index: usize,
        /// Its value.
        value: f32,
    },
}

impl Error {
    /// A stable word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::NotAFile { .. } | Self::NoWeights { .. } => "model-missing",
            Self::TooLarge { .. } => "model-too-large",
            Self::Changed { .. } => "model-changed",
            Self::Pickle { .. } => "model-pickle",
            Self::Gguf { fault, .. } if fault.is_unsupported() => "model-unsupported",
            Self::Safetensors { .. } | Self::Gguf { .. } | Self::MetadataKey { .. } => "model-format",
            Self::MissingTensor { .. } => "model-tensor-missing",
            Self::NotAWeight { .. } | Self::NotAMatrix { .. } | Self::RopeRows { .. } => "model-tensor",
            Self::Unsized { .. }
            | Self::CannotEncode { .. }
            | Self::NoGgufShape { .. }
            | Self::BadName { .. }
            | Self::WrongLength { .. }
            | Self::OutOfRange { .. } => "model-write",
        }
    }

    /// The way out, where there is one.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Pickle { .. } | Self::NoWeights { .. } => {
                "give a folder with `model.safetensors` (or its shards and `model.safetensors.index.json`) or a `.gguf` \
                 file; convert pickled weights with transformers: `save_pretrained(DIR, safe_serialization=True)`"
                    .to_owned()
            }
            Self::Safetensors { fault: SafetensorsFault::MissingShard { .. }, .. } => {
                "the download is incomplete: fetch the model again".to_owned()
            }
            Self::Gguf { fault, .. } if fault.is_unsupported() => format!(
                "use a file of version 2 or 3, little endian, whose tensors are {}: convert it with llama.cpp's tools \
                 from the original model",
                Encoding::WEIGHTS
            ),
            Self::Safetensors { .. } | Self::Gguf { .. } => {
                "the file is damaged or was made to mislead: fetch the model again".to_owned()
            }
            Self::Changed { .. } => "another program wrote to the file: let it finish, then start again".to_owned(),
            Self::MissingTensor { nearest: Some(name), .. } => format!("the nearest name there is `{name}`"),
            Self::OutOfRange { encoding, .. } if encoding.is_blocked() => {
                "write the weights as F16 or F32 instead; values that are not finite point at a run that diverged".to_owned()
            }
            _ => return None,
        })
    }
}

fn nearest_clause(nearest: Option<&String>) -> String {
    nearest.map_or_else(String::new, |n| format!(" (nearest: `{n}`)"))
}

/// Why a size could not be made, in words.
pub(crate) fn size_clause(fault: SizeFault) -> String {
    match fault {
        SizeFault::Overflow => "its size does not fit 63 bits".to_owned(),
        SizeFault::Ragged { row, block } => format!("rows of {row} elements are not whole blocks of {block}"),
    }
}
