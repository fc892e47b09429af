//! GGUF: ggml's single file of metadata and tensors, versions 2 and 3, little endian.
//!
//! ```text
//! "GGUF" | version: u32 | tensors: u64 | entries: u64
//! entry  = key: text | kind: u32 | value                     text = length: u64 | UTF-8 bytes
//! tensor = name: text | n_dims: u32 | dims: u64 x n_dims, fastest first | type: u32 | offset: u64
//! padding to `general.alignment` (32 if absent) | data, each tensor at an aligned offset
//! ```
//!
//! Source: `docs/gguf.md` of the ggml project. Every count is held against the bytes that are left before anything is
//! allocated for it, and all arithmetic on sizes is checked: the reader is meant for files from anywhere.

mod read;
mod value;
mod write;

use std::ops::Range;

use crate::encoding::{Encoding, SizeFault, ggml_type_name};
use crate::error::size_clause;

pub use value::{Array, Metadata, Texts, Value};
pub use write::write_gguf;

/// Most metadata entries: a model has about 40.
pub const MAX_ENTRIES: usize = 1 << 16;
/// Most tensors: the largest models have some thousands.
pub const MAX_TENSORS: usize = 1 << 17;
/// Most bytes of a metadata key, by the format.
pub const MAX_KEY: usize = (1 << 16) - 1;
/// Most bytes of a tensor's name. ggml's own bound is 64; some writers exceed it.
pub const MAX_NAME: usize = 1024;
/// Most dimensions, by ggml.
pub const MAX_DIMS: usize = 4;
/// Deepest array in an array.
pub const MAX_DEPTH: usize = 4;
/// Most arrays that stand in other arrays, in one value.
pub const MAX_INNER_ARRAYS: usize = 1 << 16;
/// Alignment when the file states none.
pub const DEFAULT_ALIGNMENT: usize = 32;
/// The key that states it.
pub const ALIGNMENT_KEY: &str = "general.alignment";

/// A checked GGUF header: all ranges lie in the file, have the size of their shape and do not overlap.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// 2 or 3; they differ in nothing that we read.
    pub version: u32,
    /// What the file says about itself, in its order.
    pub metadata: Metadata,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorInfo>,
    /// Multiple on which the tensors lie.
    pub alignment: usize,
}

impl Gguf {
    /// Reads and checks the header of a whole file.
    pub fn parse(file: &[u8]) -> Result<Self, GgufFault> {
        read::parse(file)
    }
}

/// Where a tensor lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// ggml's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// How the elements are stored.
    pub encoding: Encoding,
    /// Row-major shape: the file's dimensions reversed.
    pub shape: Vec<usize>,
    /// Bytes of the file, from its start.
    pub range: Range<usize>,
}

/// What is wrong with a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufFault {
    /// Not a GGUF file at all.
    #[error("it begins with {got:02x?}: expected `GGUF`")]
    Magic {
        /// First bytes.
        got: Vec<u8>,
    },
    /// Written for big-endian machines.
    #[error("it is big endian (version bytes {version}): only little-endian files are read")]
    BigEndian {
        /// The version, read the other way round.
        version: u32,
    },
    /// Another version.
    #[error("version {got}: versions 2 and 3 are read")]
    Version {
        /// Version stated.
        got: u32,
    },
    /// The file ends inside something.
    #[error("the file ends inside {part}: {needed} bytes needed at byte {at}, {left} left")]
    Truncated {
        /// What is read.
        part: String,
        /// Position in the file.
        at: usize,
        /// Bytes needed.
        needed: u64,
        /// Bytes left.
        left: usize,
    },
    /// More of something than the file has room for, or than is sensible.
    #[error("{count} {of} stated: the file has room for at most {most}")]
    Count {
        /// What is counted.
        of: &'static str,
        /// How many are stated.
        count: u64,
        /// How many there can be.
        most: u64,
    },
    /// A text that is too long.
    #[error("{part} at byte {at} states {got} bytes: at most {most}")]
    TextTooLong {
        /// What is read.
        part: &'static str,
        /// Position in the file.
        at: usize,
        /// Length stated.
        got: u64,
        /// Longest that is read.
        most: usize,
    },
    /// A text that is not UTF-8.
    #[error("{part} at byte {at} is not UTF-8")]
    NotUtf8 {
        /// What is read.
        part: String,
        /// Position in the file.
        at: usize,
    },
    /// A metadata kind that does not exist.
    #[error("metadata key `{key}`: unknown kind {kind}")]
    ValueKind {
        /// The key.
        key: String,
        /// Its number.
        kind: u32,
    },
    /// A truth value other than 0 and 1.
    #[error("metadata key `{key}`: a truth value is 0 or 1, got {got}")]
    NotABool {
        /// The key.
        key: String,
        /// The byte.
        got: u8,
    },
    /// Arrays in arrays in arrays ..
    #[error("metadata key `{key}`: arrays nested more than {MAX_DEPTH} deep")]
    TooDeep {
        /// The key.
        key: String,
    },
    /// One key or name twice.
    #[error("{of} `{name}` occurs twice")]
    Duplicate {
        /// `metadata key` or `tensor`.
        of: &'static str,
        /// The name.
        name: String,
    },
    /// An alignment that nothing can be aligned to.
    #[error("`{ALIGNMENT_KEY}` is {got}: expected a power of two as u32")]
    Alignment {
        /// What the file states.
        got: String,
    },
    /// Too many dimensions, or none.
    #[error("tensor `{tensor}` has {got} dimensions: expected 1 to {MAX_DIMS}")]
    Dims {
        /// The tensor.
        tensor: String,
        /// Dimensions stated.
        got: u32,
    },
    /// A dimension of zero.
    #[error("tensor `{tensor}` has a dimension of 0 in {shape:?}")]
    ZeroDim {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A type that is not read.
    #[error("tensor `{tensor}` is {} (ggml type {number}), which is not supported: supported are {}", ggml_type_name(*number), Encoding::WEIGHTS)]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// ggml's type number.
        number: u32,
    },
    /// A shape whose size does not fit, or whose rows are no whole blocks.
    #[error("tensor `{tensor}`: {encoding} {shape:?}: {}", size_clause(*fault))]
    Size {
        /// The tensor.
        tensor: String,
        /// Its encoding.
        encoding: Encoding,
        /// Its shape.
        shape: Vec<u64>,
        /// Why.
        fault: SizeFault,
    },
    /// An offset that is not aligned.
    #[error("tensor `{tensor}` lies at offset {offset}, which is no multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its offset in the data.
        offset: u64,
        /// The file's alignment.
        alignment: usize,
    },
    /// A tensor that ends after the file does.
    #[error("tensor `{tensor}` takes {bytes} bytes at offset {offset} of the data, which has {available}")]
    BeyondFile {
        /// The tensor.
        tensor: String,
        /// Its offset in the data.
        offset: u64,
        /// Its bytes.
        bytes: usize,
        /// Bytes of data.
        available: usize,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
}

impl GgufFault {
    /// Whether the file may be sound, but is of a kind that is not read.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::BigEndian { .. } | Self::Version { .. } | Self::UnsupportedType { .. })
    }
}

#[cfg(test)]
mod tests;
