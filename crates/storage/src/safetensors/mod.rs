//! safetensors: `u64` header length, JSON header, then the tensors' bytes without a hole.
//!
//! ```text
//! n: u64 le | header: n bytes of JSON, padded with spaces | data
//! header = { "__metadata__": {text: text}, NAME: {"dtype": .., "shape": [..], "data_offsets": [begin, end]}, .. }
//! ```
//!
//! Source: the format's own specification (README of the safetensors project) and the cases of its audit by Trail of
//! Bits: caps, duplicate keys, overlaps, holes and trailing bytes. Differs from the reference reader: unknown fields in
//! a tensor's entry, and numbers that are not plain unsigned integers, are refused rather than skipped.

mod header;
mod index;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::encoding::{Encoding, SizeFault};
use crate::error::size_clause;

pub use index::Index;
pub use write::write_safetensors;

/// Longest header, as in the reference implementation.
pub const MAX_HEADER: usize = 100_000_000;
/// Most tensors in one file: bounds what a header of many tiny entries can make us hold.
pub const MAX_TENSORS: usize = 1 << 18;
/// Most dimensions of a tensor.
pub const MAX_DIMS: usize = 16;

/// One tensor of a file: where it lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How the elements are stored.
    pub encoding: Encoding,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Bytes of the file, from its start.
    pub range: Range<usize>,
}

/// A checked header: every range lies in the file, has the size of its shape, and together they cover the data exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, Entry>,
}

impl Header {
    /// Reads and checks the header of a whole file.
    pub fn parse(file: &[u8]) -> Result<Self, SafetensorsFault> {
        header::parse(file)
    }
}

/// What is wrong with a safetensors file or the index of a sharded one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsFault {
    /// Shorter than the 8 bytes of the header's length.
    #[error("expected at least 8 bytes, got {got}")]
    TooShort {
        /// Bytes in the file.
        got: usize,
    },
    /// A header over the cap.
    #[error("the header states {got} bytes: at most {MAX_HEADER} are read")]
    HeaderTooLong {
        /// Length stated.
        got: u64,
    },
    /// A header that ends after the file does.
    #[error("the header states {stated} bytes: the file has {available} after its length")]
    HeaderBeyondFile {
        /// Length stated.
        stated: u64,
        /// Bytes there.
        available: usize,
    },
    /// The header does not begin with `{`.
    #[error("the header begins with byte {got:#04x}: expected `{{`")]
    NotAnObject {
        /// First byte.
        got: u8,
    },
    /// Not JSON, nested too deeply, or a value of another kind than the format has.
    #[error("{}{detail}", place(tensor.as_ref()))]
    Json {
        /// The tensor whose entry is read, if inside one.
        tensor: Option<String>,
        /// The JSON reader's words.
        detail: String,
    },
    /// One key twice.
    #[error("{}key `{key}` occurs twice", place(tensor.as_ref()))]
    DuplicateKey {
        /// The tensor whose entry is read, if inside one.
        tensor: Option<String>,
        /// The key.
        key: String,
    },
    /// A field that the format does not have.
    #[error("tensor `{tensor}`: unknown field `{field}`")]
    UnknownField {
        /// The tensor.
        tensor: String,
        /// The field.
        field: String,
    },
    /// A field that is not there.
    #[error("tensor `{tensor}`: field `{field}` is missing")]
    MissingField {
        /// The tensor.
        tensor: String,
        /// The field.
        field: &'static str,
    },
    /// A dtype that we cannot size.
    #[error(
        "tensor `{tensor}`: unknown dtype `{dtype}`; known are F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL"
    )]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
    },
    /// More dimensions than any tensor has.
    #[error("tensor `{tensor}`: more than {MAX_DIMS} dimensions")]
    TooManyDims {
        /// The tensor.
        tensor: String,
    },
    /// More tensors than any model has.
    #[error("more than {MAX_TENSORS} tensors")]
    TooManyTensors,
    /// A shape whose size does not fit.
    #[error("tensor `{tensor}`: shape {shape:?}: {}", size_clause(*fault))]
    Size {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Why.
        fault: SizeFault,
    },
    /// Begin after end.
    #[error("tensor `{tensor}`: data_offsets [{begin}, {end}] run backwards")]
    BackwardRange {
        /// The tensor.
        tensor: String,
        /// First byte.
        begin: u64,
        /// Byte after the last.
        end: u64,
    },
    /// Shape and range disagree.
    #[error("tensor `{tensor}`: {encoding} {shape:?} takes {expected} bytes, data_offsets give {got}")]
    WrongSize {
        /// The tensor.
        tensor: String,
        /// Its encoding.
        encoding: Encoding,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes by shape.
        expected: usize,
        /// Bytes by offsets.
        got: u64,
    },
    /// A range that ends after the data does.
    #[error("tensor `{tensor}`: ends at byte {end} of the data, which has {available}")]
    BeyondFile {
        /// The tensor.
        tensor: String,
        /// Byte after its last.
        end: u64,
        /// Bytes of data.
        available: usize,
    },
    /// Two tensors share bytes.
    #[error(
        "tensor `{tensor}` begins at byte {begin} of the data, inside another that ends at {previous_end}"
    )]
    Overlap {
        /// The later tensor.
        tensor: String,
        /// Its first byte.
        begin: usize,
        /// End of the one before.
        previous_end: usize,
    },
    /// Bytes that belong to no tensor.
    #[error("bytes {begin}..{end} of the data belong to no tensor")]
    Hole {
        /// First such byte.
        begin: usize,
        /// Byte after the last.
        end: usize,
    },
    /// A shard's name that is no plain file name.
    #[error("shard `{shard}` of tensor `{tensor}` is not a plain file name in the folder")]
    ShardPath {
        /// The tensor.
        tensor: String,
        /// The shard as written.
        shard: String,
    },
    /// A shard that is not there.
    #[error("shard `{shard}` is missing (it should hold `{tensor}`)")]
    MissingShard {
        /// The shard.
        shard: String,
        /// A tensor of it.
        tensor: String,
    },
    /// The index names a tensor that its shard does not have.
    #[error("shard `{shard}` lacks tensor `{tensor}` that the index places there")]
    NotInShard {
        /// The shard.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// The index has no `weight_map`.
    #[error("the index has no `weight_map`")]
    NoWeightMap,
    /// An index over the cap.
    #[error("the index has {got} bytes: at most {MAX_HEADER} are read")]
    IndexTooLong {
        /// Its length.
        got: usize,
    },
}

fn place(tensor: Option<&String>) -> String {
    tensor.map_or_else(|| "header: ".to_owned(), |t| format!("tensor `{t}`: "))
}

#[cfg(test)]
mod tests;
