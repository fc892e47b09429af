//! `y = x W^T + b + deltas(x)`: a linear layer over any storage, with what methods add to it.
//!
//! [`Base`] is how a frozen weight is reached, however it is stored; [`Weight`]
//! is that or a trained tensor; a [`Delta`] describes what a method adds, so that
//! the engine can fuse it.
mod backward;
mod bias;
mod dense;
pub mod reference;
mod scaled;
#[cfg(test)]
mod tests;

pub use dense::{DenseBase, Panels};
pub use scaled::Magnitude;

use crate::dropout::Dropout;
use crate::matmul::{Compute, MAX_PRODUCTS, MatMut, MatRef, Options, Product, RightOperand, gemm, gemm_sum};
use luthier_tensor::{Account, DType, Float, Tape, Tensor, Var, to_dtype};
use std::fmt;
use std::ops::Range;
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
    /// [`forward_into`](Self::forward_into) with further products added: a storage that multiplies by [`gemm_sum`] writes
    /// `y` once.
    fn forward_sum(&self, x: &Tensor, y: &mut Tensor, also: &[Product<'_>]) {
        in_one_sum(y, false, also, &mut |y, accumulate| self.forward_into(x, y, accumulate));
    }
    /// [`input_grad_into`](Self::input_grad_into) with further products added.
    fn input_grad_sum(&self, dy: &Tensor, dx: &mut Tensor, accumulate: bool, also: &[Product<'_>]) {
        in_one_sum(dx, accumulate, also, &mut |dx, accumulate| self.input_grad_into(dy, dx, accumulate));
    }
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
    /// `[d_in]`, multiplies the layer's input.
    pub in_scale: Option<Var>,
    /// `[d_out]`, multiplies the layer's output, its bias included. Several adapters on one row multiply.
    pub out_scale: Option<Var>,
    /// Sets the length of the rows of the adapted weight; the layer's bias is left alone. Not beside [`Delta::bias`].
    pub magnitude: Option<Magnitude>,
    /// Rows of `x` that it applies to; all if none. For serving several adapters in one batch: a delta on some rows
    /// does not train.
    pub rows: Option<Range<usize>>,
}

/// A low-rank update `scale diag(out) B diag(middle) A`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `A [r, d_in]`. A frozen one may be wider, for layers that share it: its first columns are meant.
    pub a: Var,
    /// `B [d_out, r]`. A frozen one may be taller: its first rows are meant.
    pub b: Var,
    /// LoRA's `s`.
    pub scale: f64,
    /// On the update's input, training only.
    pub dropout: Option<Dropout>,
    /// `[r]` elements between the factors: AdaLoRA's singular values, VeRA's `d`.
    pub middle: Option<Var>,
    /// `[d_out]` elements after them: VeRA's `b`.
    pub out: Option<Var>,
}

impl LowRank {
    /// `scale B A`.
    pub fn new(a: Var, b: Var, scale: f64) -> Self {
        Self { a, b, scale, dropout: None, middle: None, out: None }
    }

    /// The tensors that may be trained, in the order of their gradients.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &Var> {
        [&self.a, &self.b].into_iter().chain(&self.middle).chain(&self.out)
    }

    /// `diag(out) B [d_out, r]`, of a layer with so many outputs.
    fn effective_b(b: &Tensor, out: Option<&Tensor>, d_out: usize) -> Tensor {
        let rows = if b.dim(0) == d_out { b.clone() } else { b.narrow(0..d_out) };
        out.map_or_else(|| rows.clone(), |out| scale_rows(&rows, out))
    }
}

impl Delta {
    /// The tensors that may be trained, in the order of their gradients.
    fn parents(&self) -> impl Iterator<Item = &Var> {
        let low_rank = self.low_rank.iter().flat_map(LowRank::parents);
        low_rank.chain(&self.bias)
    }

    /// Whether it only adds.
    pub fn only_adds(&self) -> bool {
        self.in_scale.is_none() && self.out_scale.is_none() && self.magnitude.is_none()
    }
}

/// `y [.., d_out] = x [.., d_in] W^T + bias + sum of deltas`, in `x`'s type.
///
/// Saves `x` only if a trained tensor multiplies it, and `scale x A^T [n, r]` for each low-rank update. Gradients of
/// parameters are in f32 (f64 for f64); a frozen weight never gets one, and `dx` is formed only where `x` needs it.
pub fn linear(tape: &Tape, x: &Var, weight: &Weight, bias: Option<&Var>, deltas: &[Delta]) -> Var {
    if deltas.iter().all(Delta::only_adds) {
        additive(tape, x, weight, bias, deltas)
    } else {
        scaled::scaled(tape, x, weight, bias, deltas)
    }
}

/// The op where nothing multiplies.
fn additive(tape: &Tape, x: &Var, weight: &Weight, bias: Option<&Var>, deltas: &[Delta]) -> Var {
    let input = x.value();
    assert_eq!(input.cols(), weight.d_in(), "width of a linear layer's input");
    let mut shape = input.shape().to_vec();
    *shape.last_mut().expect("an input has a last axis") = weight.d_out();
    let mut y = Tensor::scratch(&shape, input.dtype(), Account::Activation);
    let middles: Vec<Option<Tensor>> = deltas
        .iter()
        .map(|d| d.low_rank.as_ref().map(|l| only_rows(middle(input, l), d.rows.as_ref())))
        .collect();
    let factors: Vec<Option<(Tensor, Tensor)>> = deltas
        .iter()
        .zip(&middles)
        .map(|(delta, z)| {
            let (l, z) = (delta.low_rank.as_ref()?, z.as_ref()?);
            let u = l.middle.as_ref().map_or_else(|| z.clone(), |m| scale_columns(z, m.value()));
            Some((u, LowRank::effective_b(l.b.value(), l.out.as_ref().map(Var::value), weight.d_out())))
        })
        .collect();
    let low_ranks: Vec<Product<'_>> = factors
        .iter()
        .flatten()
        .map(|(u, b)| Product { a: MatRef::of(u), b: RightOperand::View(MatRef::of(b).t()) })
        .collect();
    match weight {
        Weight::Frozen(base) => base.forward_sum(input, &mut y, &low_ranks),
        Weight::Trained(w) => {
            let b = RightOperand::View(MatRef::of(w.value()).t());
            multiply_sum(&mut y, Product { a: MatRef::of(input), b }, false, &low_ranks);
        }
    }
    drop(low_ranks);
    drop(factors);
    add_biases(&mut y, bias, deltas);

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
    assert!(deltas.iter().all(|d| d.rows.is_none()), "a delta on some rows does not train");
    let saved = backward::Saved::new(x, weight, bias, deltas, middles);
    tape.record_one(&parents, y, move |b| saved.walk(b))
}

/// `scale dropout(x) A^T [n, r]`, in the sum's type.
fn middle(x: &Tensor, low_rank: &LowRank) -> Tensor {
    let a = low_rank.a.value();
    let mut u = Tensor::scratch(&[x.rows(), a.dim(0)], x.dtype().accumulator(), Account::Activation);
    let dropped = low_rank.dropout.as_ref().map(|d| d.apply(x));
    let options = Options { alpha: low_rank.scale, ..Options::default() };
    gemm(
        MatMut::of(&mut u),
        MatRef::of(dropped.as_ref().unwrap_or(x)),
        MatRef::of(a).left(x.cols()).t(),
        options,
    );
    u
}

/// `t [n, d] diag(f [d])`, both in f32 or f64.
fn scale_columns(t: &Tensor, f: &Tensor) -> Tensor {
    each_scaled(t, |_, j| j, f)
}

/// `diag(f [n]) t [n, d]`, both in f32 or f64.
fn scale_rows(t: &Tensor, f: &Tensor) -> Tensor {
    each_scaled(t, |i, _| i, f)
}

fn each_scaled(t: &Tensor, which: impl Fn(usize, usize) -> usize, f: &Tensor) -> Tensor {
    fn run<T: Float>(t: &Tensor, which: impl Fn(usize, usize) -> usize, f: &Tensor, out: &mut Tensor) {
        let d = t.cols().max(1);
        let (t, f) = (t.slice::<T>(), f.slice::<T>());
        for (i, (out, t)) in out.slice_mut::<T>().chunks_mut(d).zip(t.chunks(d)).enumerate() {
            for (j, (out, t)) in out.iter_mut().zip(t).enumerate() {
                *out = T::from_f64(t.to_f64() * f[which(i, j)].to_f64());
            }
        }
    }
    let mut out = Tensor::scratch(t.shape(), t.dtype(), t.account());
    match t.dtype() {
        DType::F64 => run::<f64>(t, which, f, &mut out),
        DType::F32 => run::<f32>(t, which, f, &mut out),
        other => panic!("factors of {other}"),
    }
    out
}

/// `C (+)= first + also`, in the precision of `first`, written once where the terms fit one sum.
fn multiply_sum(c: &mut Tensor, first: Product<'_>, accumulate: bool, also: &[Product<'_>]) {
    let compute = if c.dtype() == DType::Bf16 { Compute::Bf16 } else { Compute::Auto };
    let (with, rest) = also.split_at(also.len().min(MAX_PRODUCTS - 1));
    let mut products = vec![first];
    products.extend_from_slice(with);
    gemm_sum(MatMut::of(c), &products, Options { accumulate, compute, ..Options::default() });
    add_products(c, rest);
}

/// `C (+)= base + also`, rounded once: in bf16, a base's product rounded before an update is added would swallow
/// updates below half a unit of its last place.
fn in_one_sum(
    c: &mut Tensor,
    accumulate: bool,
    also: &[Product<'_>],
    base: &mut dyn FnMut(&mut Tensor, bool),
) {
    if c.dtype() != DType::Bf16 || also.is_empty() {
        base(c, accumulate);
        return add_products(c, also);
    }
    let mut wide = if accumulate {
        to_dtype(c, DType::F32, Account::Workspace)
    } else {
        Tensor::scratch(c.shape(), DType::F32, Account::Workspace)
    };
    base(&mut wide, accumulate);
    add_products(&mut wide, also);
    *c = to_dtype(&wide, DType::Bf16, c.account());
}

/// `C += products`.
fn add_products(c: &mut Tensor, products: &[Product<'_>]) {
    let compute = if c.dtype() == DType::Bf16 { Compute::Bf16 } else { Compute::Auto };
    for some in products.chunks(MAX_PRODUCTS) {
        gemm_sum(MatMut::of(c), some, Options { accumulate: true, compute, ..Options::default() });
    }
}

/// Zero outside `rows`, so that the update is.
fn only_rows(mut u: Tensor, rows: Option<&Range<usize>>) -> Tensor {
    if let Some(rows) = rows {
        let (width, n) = (u.cols() * u.dtype().size(), u.rows());
        let bytes = u.bytes_mut();
        bytes[..rows.start.min(n) * width].fill(0);
        bytes[rows.end.min(n) * width..].fill(0);
    }
    u
}

/// Adds biases: those of all rows in one pass.
fn add_biases(y: &mut Tensor, bias: Option<&Var>, deltas: &[Delta]) {
    let (n, d_out) = (y.rows(), y.cols());
    let mut sum: Option<Vec<f64>> = None;
    for (b, rows) in bias
        .into_iter()
        .map(|b| (b, None))
        .chain(deltas.iter().filter_map(|d| d.bias.as_ref().map(|b| (b, d.rows.clone()))))
    {
        let values = b.value().to_f64_vec();
        assert_eq!(values.len(), d_out, "length of a linear layer's bias");
        match (rows, &mut sum) {
            (Some(rows), _) => bias::add(y, &values, rows),
            (None, Some(sum)) => sum.iter_mut().zip(values).for_each(|(sum, v)| *sum += v),
            (None, none) => *none = Some(values),
        }
    }
    if let Some(sum) = sum {
        bias::add(y, &sum, 0..n);
    }
}
