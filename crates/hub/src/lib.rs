//! Models from the Hugging Face hub: `luthier pull ORG/NAME`, and the look-up of what was pulled.
//!
//! The cache is the one that the other tools of the field share, so that a model is on the disk once:
//!
//! ```text
//! HF_HUB_CACHE/models--ORG--NAME/blobs/<hash>               the content, named by its hash
//!                               /refs/<revision>            the commit that a branch or tag stood at
//!                               /snapshots/<commit>/<name>  links to blobs, with the names of the repository
//!             /.locks/models--ORG--NAME/<hash>.lock         held while a blob is brought
//! ```
//!
//! Nothing from the network is trusted: names are checked before they become paths, content before it gets its name,
//! and only data is brought (JSON, safetensors, GGUF, tokenizers, templates), never code and never pickles.
//! The protocol is the hub's own, <https://huggingface.co/docs/hub/api>, and git's for the hashes of small files.
//! Training never comes here for more than [`resolve`], which reads the disk only.

mod cache;
mod download;
mod error;
mod hash;
mod http;
mod listing;
mod names;
mod nearest;
mod pull;
mod repo;
mod resolve;
mod settings;
mod wanted;

pub use error::{Error, Result};
pub use pull::{Event, Pulled, PulledFile, Request, pull};
pub use repo::Repo;
pub use resolve::{id_of, resolve, resolve_in};
pub use settings::{Settings, Token};
