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
mod head;
mod layout;
mod load;
mod model;
mod names;
mod spec;

pub use cache::Cache;
pub use config::Config;
pub use error::Error;
pub use families::{Architectures, FAMILIES, Family, family, parse, parse_for};
pub use forward::{Applied, Run};
pub use gguf::{GGUF_ROPE_FACTORS, gguf_config, gguf_name};
pub use head::{Dense, Head, HeadSpec, Takes};
pub use load::{LoadOptions, RandomSource, Source};
pub use model::{Matrix, Model, Slot};
pub use names::Names;
pub use spec::{Activation, Distance, Dropouts, ModelSpec, Norm, NormPlace, Positions, Relative, Wiring};
