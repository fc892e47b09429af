//! `y = x W^T + b + deltas(x)`: a linear layer over any storage, with what methods add to it.
//!
//! [`Base`] is how a frozen weight is reached, however it is stored; [`Weight`]
//! is that or a trained tensor; a [`Delta`] describes what a method adds, so that
//! the engine can fuse it.
mod backward;
mod dense;
mod dropped;
pub mod reference;
#[cfg(test)]
mod tests;

pub use dense::{DenseBase, Panels};

use crate::dropout::Dropout;
use crate::matmul::{Compute, MatMut, MatRef, Options, Product, RightOperand, gemm, gemm_sum};
use luthier_tensor::{Account, DType, Tape, Tensor, Var};
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

impl Delta {
    /// The tensors that are trained, in the order of their gradients.
    fn parents(&self) -> impl Iterator<Item = &Var> {
        let low_rank = self.low_rank.iter().flat_map(|l| [&l.a, &l.b]);
        low_rank.chain(&self.bias)
    }
}

/// `y [.., d_out] = x [.., d_in] W^T + bias + sum of deltas`, in `x`'s type.
///
/// Saves `x` only if a trained tensor multiplies it, and `scale x A^T [n, r]` for each low-rank update. Gradients of
/// parameters are in f32 (f64 for f64); a frozen weight never gets one, and `dx` is formed only where `x` needs it.
pub fn linear(tape: &Tape, x: &Var, weight: &Weight, bias: Option<&Var>, deltas: &[Delta]) -> Var {
    let input = x.value();
    assert_eq!(input.cols(), weight.d_in(), "width of a linear layer's input");
    let mut shape = input.shape().to_vec();
    *shape.last_mut().expect("an input has a last axis") = weight.d_out();
    let mut y = Tensor::scratch(&shape, input.dtype(), Account::Activation);
    match weight {
        Weight::Frozen(base) => base.forward_into(input, &mut y, false),
        Weight::Trained(w) => {
            gemm(MatMut::of(&mut y), MatRef::of(input), MatRef::of(w.value()).t(), Options::default());
        }
    }
    let middles: Vec<Option<Tensor>> =
        deltas.iter().map(|d| d.low_rank.as_ref().map(|l| middle(input, l))).collect();
    add_deltas(&mut y, bias, deltas, &middles);

    let mut parents = vec![x];
    parents.extend(match weight {
        Weight::Trained(w) => Some(w),
        Weight::Frozen(_) => None,
    });
    parents.extend(bias);
    parents.extend(deltas.iter().flat_map(Delta::parents));
    if !tape.wants(&parents) {
        return tape.record_one(&parents, y, |_| ());
    }
    let saved = backward::Saved::new(x, weight, bias, deltas, middles);
    tape.record_one(&parents, y, move |b| saved.walk(b))
}

/// `scale dropout(x) A^T [n, r]`, in the sum's type.
fn middle(x: &Tensor, low_rank: &LowRank) -> Tensor {
    let a = low_rank.a.value();
    let mut u = Tensor::scratch(&[x.rows(), a.dim(0)], x.dtype().accumulator(), Account::Activation);
    let dropped = low_rank.dropout.as_ref().map(|d| dropped::apply(x, d));
    let options = Options { alpha: low_rank.scale, ..Options::default() };
    gemm(MatMut::of(&mut u), MatRef::of(dropped.as_ref().unwrap_or(x)), MatRef::of(a).t(), options);
    u
}

/// Adds biases (as products with a column of ones) and low-rank updates, four at a time, each time rounding once.
fn add_deltas(y: &mut Tensor, bias: Option<&Var>, deltas: &[Delta], middles: &[Option<Tensor>]) {
    let biases: Vec<&Var> = bias.into_iter().chain(deltas.iter().filter_map(|d| d.bias.as_ref())).collect();
    let ones = if biases.is_empty() { Vec::new() } else { vec![1f32; y.rows()] };
    let (n, d_out) = (y.rows(), y.cols());
    let mut products: Vec<Product<'_>> = biases
        .iter()
        .map(|b| {
            assert_eq!(b.value().numel(), d_out, "length of a linear layer's bias");
            let row = MatRef::of(b.value());
            Product { a: MatRef::new(&ones[..], n, 1), b: RightOperand::View(row) }
        })
        .collect();
    for (delta, u) in deltas.iter().zip(middles) {
        if let (Some(low_rank), Some(u)) = (&delta.low_rank, u) {
            let b = MatRef::of(low_rank.b.value()).t();
            products.push(Product { a: MatRef::of(u), b: RightOperand::View(b) });
        }
    }
    // f32 products: an adapter's small steps survive, and the time goes into reading and writing y anyway.
    let compute = if y.dtype() == DType::F64 { Compute::F64 } else { Compute::F32 };
    for some in products.chunks(4) {
        gemm_sum(MatMut::of(y), some, Options { accumulate: true, compute, ..Options::default() });
    }
}
