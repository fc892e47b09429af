//! Additional parameters inside or around sublayers.
pub mod ia3;
