//! Kernels: one folder an op.
//!
//! A folder holds the signature and dispatch, an obvious reference over f64 and
//! f32, the fast paths by instruction-set tier, and tests that hold them together.

#![allow(unsafe_code)] // vector instructions, disjoint writes from many threads; each block states why it is sound
#![allow(clippy::cast_ptr_alignment)] // pointers of untyped views come from slices of the type they return to
#![allow(clippy::inline_always)] // helpers of `target_feature` functions must end up inside them

pub mod activation;
pub mod attention;
pub mod block_row;
pub mod column_scale;
pub mod disentangled;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod gated_mlp;
#[cfg(test)]
mod gradient_check;
pub mod head_loss;
pub mod isa;
pub mod label_loss;
pub mod layer_norm;
pub mod linear;
pub mod matmul;
pub mod rms_norm;
pub mod rope;
pub mod rows;
mod simd;
