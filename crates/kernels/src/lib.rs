//! Kernels: one folder an op.
//!
//! A folder holds the signature and dispatch, an obvious reference over f64 and
//! f32, the fast paths by instruction-set tier, and tests that hold them together.
pub mod dropout;
pub mod linear;
