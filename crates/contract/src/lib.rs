//! What methods, models and storage agree on, and nothing else.
//!
//! A method sees sites and declares tensors; a model exposes sites and asks what
//! is added there; a storage format implements [`Base`]. None knows another.
//!
//! The hooks that have a user are methods of [`Method`]; where the others will
//! go is in `docs/decisions/006-hooks.md`.
mod adapter;
mod card;
mod context;
mod error;
mod method;
mod param;
mod site;
mod targets;
mod update;

pub use adapter::{Adapter, Params};
pub use card::{Card, Class, Hook, Paper};
pub use context::{Context, Mode};
pub use error::Error;
pub use luthier_kernels::attention::Segments;
pub use luthier_kernels::dropout::Dropout;
pub use luthier_kernels::linear::{Base, Delta, LowRank, Magnitude, Weight};
pub use method::{Cost, Master, Method, Training, Unmergeable};
pub use param::{Init, ParamSpec, Role, Scope};
pub use site::{BaseParam, Site, SiteKind, is_in};
pub use targets::Targets;
pub use update::{Direction, Done, Estimator, Group, Trained, Update, replace};
