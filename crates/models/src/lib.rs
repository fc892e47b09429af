//! One transformer; families are data.
//!
//! A family file turns `config.json` (or a GGUF header, brought to the same
//! words) into a [`ModelSpec`]; the [`Model`] runs it over any storage, under any
//! list of adapters.
mod cache;
mod config;
mod error;
mod families;
mod forward;
mod gguf;
mod load;
mod model;
mod spec;

pub use cache::Cache;
pub use config::Config;
pub use error::Error;
pub use families::{FAMILIES, Family, family, parse};
pub use forward::{Applied, Run};
pub use gguf::{gguf_config, gguf_name};
pub use load::{LoadOptions, RandomSource, Source};
pub use model::{Matrix, Model, Slot};
pub use spec::ModelSpec;
