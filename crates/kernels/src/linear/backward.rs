//! Gradients of the linear op.
//!
//! ```text
//! dx = dy W + mask(du A)      du = scale dy B     [n, r]
//! dW = dy^T x    db = 1^T dy    dB = dy^T u    dA = du^T dropout(x)
//! ```

use super::{Base, Delta, Weight, multiply_sum};
use crate::dropout::Dropout;
use crate::matmul::{Compute, MatMut, MatRef, Options, Product, RightOperand, gemm};
use luthier_tensor::{Account, Backward, DType, Tensor, Var};
use std::sync::Arc;

/// What the backward of one linear call keeps.
pub(super) struct Saved {
    /// Present if W or an A is trained.
    x: Option<luthier_tensor::Saved>,
    x_shape: Vec<usize>,
    x_dtype: DType,
    weight: SavedWeight,
    /// Shape and type of the layer's own bias.
    bias: Option<Bias>,
    deltas: Vec<SavedDelta>,
}

enum SavedWeight {
    Frozen(Arc<dyn Base>),
    /// The value, if `dx` is wanted; shape and type always.
    Trained(Option<Tensor>, [usize; 2], DType),
}

struct Bias {
    shape: Vec<usize>,
    dtype: DType,
}

struct SavedDelta {
    low_rank: Option<SavedLowRank>,
    bias: Option<Bias>,
}

struct SavedLowRank {
    a: Tensor,
    b: Tensor,
    /// `scale dropout(x) A^T [n, r]`, if B is trained.
    u: Option<Tensor>,
    scale: f64,
    dropout: Option<Dropout>,
}

fn bias_of(bias: &Var) -> Bias {
    Bias { shape: bias.value().shape().to_vec(), dtype: bias.value().dtype() }
}

impl Saved {
    pub(super) fn new(
        x: &Var,
        weight: &Weight,
        bias: Option<&Var>,
        deltas: &[Delta],
        middles: Vec<Option<Tensor>>,
    ) -> Self {
        let trained = matches!(weight, Weight::Trained(w) if w.needs_grad());
        let multiplied = deltas.iter().filter_map(|d| d.low_rank.as_ref()).any(|l| l.a.needs_grad());
        let weight = match weight {
            Weight::Frozen(base) => SavedWeight::Frozen(base.clone()),
            Weight::Trained(w) => {
                let shape = [w.value().dim(0), w.value().dim(1)];
                SavedWeight::Trained(x.needs_grad().then(|| w.value().clone()), shape, w.value().dtype())
            }
        };
        let deltas = deltas
            .iter()
            .zip(middles)
            .map(|(delta, u)| SavedDelta {
                low_rank: delta.low_rank.as_ref().map(|l| SavedLowRank {
                    a: l.a.value().clone(),
                    b: l.b.value().clone(),
                    u: u.filter(|_| l.b.needs_grad()),
                    scale: l.scale,
                    dropout: l.dropout,
                }),
                bias: delta.bias.as_ref().map(bias_of),
            })
            .collect();
        Self {
            x: (trained || multiplied).then(|| x.save()),
            x_shape: x.value().shape().to_vec(),
            x_dtype: x.value().dtype(),
            weight,
            bias: bias.map(bias_of),
            deltas,
        }
    }

    /// Pushes the gradients of all parents that need one, in their order: x, W, bias, then each delta's A, B, bias.
    pub(super) fn walk(self, b: &mut Backward<'_>) {
        let Some(dy) = b.output(0) else { return };
        let x = self.x.map(luthier_tensor::Saved::take);
        let mut parent = 1;
        let mut next = || {
            parent += 1;
            parent - 1
        };
        let weight = matches!(self.weight, SavedWeight::Trained(..)).then(&mut next);
        let bias = self.bias.as_ref().map(|_| next());
        let deltas: Vec<(Option<(usize, usize)>, Option<usize>)> = self
            .deltas
            .iter()
            .map(|d| (d.low_rank.as_ref().map(|_| (next(), next())), d.bias.as_ref().map(|_| next())))
            .collect();

        // `du` of every low-rank update whose A or input wants it.
        let du: Vec<Option<Tensor>> = self
            .deltas
            .iter()
            .zip(&deltas)
            .map(|(delta, at)| {
                let (low_rank, (a, _)) = (delta.low_rank.as_ref()?, at.0?);
                (b.needs(0) || b.needs(a)).then(|| low_rank.middle_grad(&dy))
            })
            .collect();
        if b.needs(0) {
            let updates =
                self.deltas.iter().zip(&du).filter_map(|(d, du)| Some((d.low_rank.as_ref()?, du.as_ref()?)));
            let (dropped, plain): (Vec<_>, Vec<_>) = updates.partition(|(l, _)| l.dropout.is_some());
            let also: Vec<Product<'_>> = plain.iter().map(|(l, du)| l.input_grad(du)).collect();
            b.accumulate(0, &self.x_shape, self.x_dtype, Account::Activation, |dx, accumulate| {
                self.weight.input_grad(&dy, dx, accumulate, &also);
                dropped.iter().for_each(|(l, du)| l.dropped_input_grad(du, dx));
            });
        }
        if let (Some(at), SavedWeight::Trained(_, shape, dtype), Some(x)) = (weight, &self.weight, &x) {
            product(b, at, (&shape[..], *dtype), &dy, x);
        }
        if let (Some(at), Some(bias)) = (bias, &self.bias) {
            bias_grad(b, at, bias, &dy);
        }
        for ((delta, at), du) in self.deltas.iter().zip(&deltas).zip(&du) {
            if let (Some(low_rank), Some((a_at, b_at))) = (&delta.low_rank, at.0) {
                low_rank.factor_grads(b, a_at, b_at, &dy, du.as_ref(), x.as_ref());
            }
            if let (Some(at), Some(bias)) = (at.1, &delta.bias) {
                bias_grad(b, at, bias, &dy);
            }
        }
    }
}

/// Pushes `left^T right`, summed over rows, to a parameter of this shape and type.
fn product(
    b: &mut Backward<'_>,
    at: usize,
    (shape, dtype): (&[usize], DType),
    left: &Tensor,
    right: &Tensor,
) {
    if !b.needs(at) {
        return;
    }
    // An f32 left factor (du) of a bf16 right one is rounded like an activation's gradient.
    let compute = match right.dtype() {
        DType::Bf16 => Compute::Bf16,
        _ => Compute::Auto,
    };
    b.accumulate(at, shape, dtype.accumulator(), Account::Gradient, |sum, accumulate| {
        let options = Options { accumulate, compute, ..Options::default() };
        gemm(MatMut::of(sum), MatRef::of(left).t(), MatRef::of(right), options);
    });
}

fn bias_grad(b: &mut Backward<'_>, at: usize, bias: &Bias, dy: &Tensor) {
    if b.needs(at) {
        let dtype = bias.dtype.accumulator();
        b.accumulate(at, &bias.shape, dtype, Account::Gradient, |sum, accumulate| {
            super::bias::gradient(dy, sum, accumulate);
        });
    }
}

impl SavedWeight {
    /// `dx (+)= dy W + also`.
    fn input_grad(&self, dy: &Tensor, dx: &mut Tensor, accumulate: bool, also: &[Product<'_>]) {
        match self {
            SavedWeight::Frozen(base) => base.input_grad_sum(dy, dx, accumulate, also),
            SavedWeight::Trained(w, ..) => {
                let w = w.as_ref().expect("saved where x needs a gradient");
                let b = RightOperand::View(MatRef::of(w));
                multiply_sum(dx, Product { a: MatRef::of(dy), b }, accumulate, also);
            }
        }
    }
}

impl SavedLowRank {
    /// `du = scale dy B [n, r]`.
    fn middle_grad(&self, dy: &Tensor) -> Tensor {
        let mut du =
            Tensor::scratch(&[dy.rows(), self.b.dim(1)], dy.dtype().accumulator(), Account::Workspace);
        let options = Options { alpha: self.scale, ..Options::default() };
        gemm(MatMut::of(&mut du), MatRef::of(dy), MatRef::of(&self.b), options);
        du
    }

    /// `du A`, to be added to dx.
    fn input_grad<'a>(&'a self, du: &'a Tensor) -> Product<'a> {
        Product { a: MatRef::of(du), b: RightOperand::View(MatRef::of(&self.a)) }
    }

    /// `dx += mask(du A)`.
    fn dropped_input_grad(&self, du: &Tensor, dx: &mut Tensor) {
        let Some(dropout) = &self.dropout else { return };
        let mut through = Tensor::scratch(dx.shape(), du.dtype(), Account::Workspace);
        gemm(MatMut::of(&mut through), MatRef::of(du), MatRef::of(&self.a), Options::default());
        dropout.add_to(dx, &through);
    }

    fn factor_grads(
        &self,
        b: &mut Backward<'_>,
        a_at: usize,
        b_at: usize,
        dy: &Tensor,
        du: Option<&Tensor>,
        x: Option<&Tensor>,
    ) {
        if let (Some(du), Some(x), true) = (du, x, b.needs(a_at)) {
            let dropped = self.dropout.as_ref().map(|d| d.apply(x));
            product(b, a_at, (self.a.shape(), self.a.dtype()), du, dropped.as_ref().unwrap_or(x));
        }
        if let Some(u) = &self.u {
            product(b, b_at, (self.b.shape(), self.b.dtype()), dy, u);
        }
    }
}
