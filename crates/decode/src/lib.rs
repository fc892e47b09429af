//! Generation: prompts in, text out, several sequences at once.
//!
//! - [`Generator::generate`] feeds prompts and samples tokens; text is streamed in whole characters, and never a part of
//!   a stop string.
//! - [`Sampling`] says how a token is chosen, [`Stop`] when a sequence ends.
//! - [`Chat`] keeps a conversation, and the cache of what of it the model has seen.
mod chat;
mod error;
mod generate;
mod sampling;
mod stop;

pub use chat::Chat;
pub use error::Error;
pub use generate::{Generated, Generator, OnText, Reason, Settings};
pub use sampling::Sampling;
pub use stop::Stop;
