//! How base weights are kept: files read in place, blocks used as they are, files written whole or not at all.
//!
//! - [`Checkpoint`] opens a folder of safetensors (single or sharded) or a GGUF, maps it, and gives [`Stored`] tensors.
//! - [`Stored`] becomes a `Tensor` (in place where type and alignment allow), or is reordered
//!   ([`Stored::unpermute_rope`]).
//! - [`Stored::to_base`] makes the frozen linear map that layers multiply with: plain numbers in place, or [`BlockBase`],
//!   which multiplies with quantised blocks without decoding the weight as a whole.
//! - [`safetensors`] and [`gguf`] read and check headers, and write files tensor by tensor ([`write_safetensors`],
//!   [`write_gguf`]): the model is never in memory as a whole, and `path` holds the old file or the new one.
//! - [`blocks`] is the arithmetic of ggml's Q8_0, Q4_0 and Q4_1.
//!
//! The readers are meant for files from anywhere: every count, size and offset is held against the file before it is
//! believed or allocated for, and each way of being wrong is a variant of [`Error`] that names file and tensor. Pickled
//! weights (`.bin`, `.pt`) are refused: reading them can run code.
//!
//! What the operating system leaves open: a mapped file that another program cuts short ends this one (SIGBUS).
//! [`Access::Copied`] is the way to read files that others may write.

mod base;
pub mod blocks;
mod checkpoint;
mod durable;
mod encoding;
mod error;
pub mod gguf;
mod mmap;
mod rope;
pub mod safetensors;
mod sink;
mod stored;

use std::collections::BTreeMap;

pub use base::{BlockBase, StoreAs};
pub use checkpoint::Checkpoint;
pub use encoding::{BLOCK, Encoding, SizeFault};
pub use error::Error;
pub use gguf::write_gguf;
pub use mmap::{Access, FileBytes};
pub use safetensors::write_safetensors;
pub use sink::{Declared, TensorSink};
pub use stored::Stored;

/// The `__metadata__` that transformers wants: the file is for PyTorch's tensor layout.
pub fn pt_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), "pt".to_owned())])
}
