//! `y = x W^T + b + deltas(x)`: a linear layer over any storage, with what methods add to it.
//!
//! [`Base`] is how a frozen weight is reached, however it is stored; [`Weight`]
//! is that or a trained tensor; a [`Delta`] describes what a method adds, so that
//! the engine can fuse it.
use crate::dropout::Dropout;
use luthier_tensor::{DType, Tensor, Var};
use std::fmt;
use std::sync::Arc;

/// A frozen linear map `W [d_out, d_in]`, however it is stored (dense, quantised, mapped).
///
/// Activations are f64, f32 or bf16, whatever the storage. A layer's bias is not part of it.
pub trait Base: Send + Sync + fmt::Debug {
    /// Length of an input row.
    fn d_in(&self) -> usize;
    /// Length of an output row.
    fn d_out(&self) -> usize;
    /// Bytes that the storage holds.
    fn bytes(&self) -> usize;
    /// `y [n, d_out] (+)= x [n, d_in] W^T`; adds if `accumulate`, else writes `y` whole.
    fn forward_into(&self, x: &Tensor, y: &mut Tensor, accumulate: bool);
    /// `dx [n, d_in] (+)= dy [n, d_out] W`.
    fn input_grad_into(&self, dy: &Tensor, dx: &mut Tensor, accumulate: bool);
    /// `out [rows.len(), d_in] = W[rows]`, in `out`'s type: an embedding lookup. Every row is below `d_out`.
    fn rows_into(&self, rows: &[u32], out: &mut Tensor);
    /// `W`, decoded into a new tensor (a dense base of that type shares its own).
    fn weight(&self, dtype: DType) -> Tensor;
}

/// The weight of a linear layer, an embedding or a head.
#[derive(Clone, Debug)]
pub enum Weight {
    /// Never changes and never gets a gradient.
    Frozen(Arc<dyn Base>),
    /// `[d_out, d_in]`, on the tape; f64, f32 or bf16. Its gradient is in f32 (f64 for f64).
    Trained(Var),
}

impl Weight {
    /// Length of an output row.
    pub fn d_out(&self) -> usize {
        match self {
            Self::Frozen(base) => base.d_out(),
            Self::Trained(w) => w.value().dim(0),
        }
    }

    /// Length of an input row.
    pub fn d_in(&self) -> usize {
        match self {
            Self::Frozen(base) => base.d_in(),
            Self::Trained(w) => w.value().dim(1),
        }
    }
}

/// What one adapter adds at one linear site: all present parts, summed. Absent parts cost nothing.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// `scale (dropout(x) A^T) B^T`
    pub low_rank: Option<LowRank>,
    /// `[d_out]`, added to the output.
    pub bias: Option<Var>,
}

/// A low-rank update `scale B A`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `A [r, d_in]`
    pub a: Var,
    /// `B [d_out, r]`
    pub b: Var,
    /// LoRA's `s`.
    pub scale: f64,
    /// On the update's input, training only.
    pub dropout: Option<Dropout>,
}
