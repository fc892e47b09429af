//! Gradients of the linear op.
//!
//! ```text
//! dx = dy W + mask(du A)      du = scale dy B     [n, r]
//! dW = dy^T x    db = 1^T dy    dB = dy^T u    dA = du^T dropout(x)
//! ```
//! With elements `m` between the factors and `o` after them, `z = scale dropout(x) A^T`:
//! ```text
//! u = z diag(m)    du = scale dy diag(o) B diag(m)    dm = sum over rows of z o (dy diag(o) B)
//! dB = diag(o) dy^T u    do = row sums of (dy^T u) o B
//! ```

use super::{Base, Delta, LowRank, Weight, multiply_sum, scale_columns, scale_rows};
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

/// Where the tensors of a low-rank update stand among the parents.
struct Places {
    a: usize,
    b: usize,
    middle: Option<usize>,
    out: Option<usize>,
}

struct SavedLowRank {
    a: Tensor,
    b: Tensor,
    middle: Option<Tensor>,
    out: Option<Tensor>,
    /// `scale dropout(x) A^T [n, r]`, if what comes after A is trained.
    z: Option<Tensor>,
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
            .map(|(delta, z)| SavedDelta {
                low_rank: delta.low_rank.as_ref().map(|l| SavedLowRank {
                    a: l.a.value().clone(),
                    b: l.b.value().clone(),
                    middle: l.middle.as_ref().map(|m| m.value().clone()),
                    out: l.out.as_ref().map(|o| o.value().clone()),
                    z: z.filter(|_| l.parents().skip(1).any(Var::needs_grad)),
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

    /// Pushes the gradients of all parents that need one, in their order: x, W, bias, then each delta's A,
    /// B, middle, out, bias.
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
        let deltas: Vec<(Option<Places>, Option<usize>)> = self
            .deltas
            .iter()
            .map(|d| {
                let low_rank = d.low_rank.as_ref().map(|l| Places {
                    a: next(),
                    b: next(),
                    middle: l.middle.as_ref().map(|_| next()),
                    out: l.out.as_ref().map(|_| next()),
                });
                (low_rank, d.bias.as_ref().map(|_| next()))
            })
            .collect();

        // `du` of every low-rank update whose A, middle or input wants it.
        let du: Vec<Option<Tensor>> = self
            .deltas
            .iter()
            .zip(&deltas)
            .map(|(delta, at)| {
                let (low_rank, at) = (delta.low_rank.as_ref()?, at.0.as_ref()?);
                let middle = at.middle.is_some_and(|m| b.needs(m));
                (b.needs(0) || b.needs(at.a) || middle).then(|| low_rank.middle_grad(b, at, &dy))
            })
            .collect();
        if b.needs(0) {
            let updates =
                self.deltas.iter().zip(&du).filter_map(|(d, du)| Some((d.low_rank.as_ref()?, du.as_ref()?)));
            let (dropped, plain): (Vec<_>, Vec<_>) = updates.partition(|(l, _)| l.dropout.is_some());
            let also: Vec<Product<'_>> = plain
                .iter()
                .map(|(l, du)| l.input_grad(du, self.x_shape.last().copied().unwrap_or(1)))
                .collect();
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
            if let (Some(low_rank), Some(at)) = (&delta.low_rank, &at.0) {
                low_rank.factor_grads(b, at, &dy, du.as_ref(), x.as_ref());
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

/// `factor (sum over rows of a o b)`, of the shape and type of `like [cols]`.
fn product_sums(a: &Tensor, b: &Tensor, factor: f64, like: &Tensor) -> Tensor {
    let (cols, mut sums) = (a.cols().max(1), vec![0f64; a.cols()]);
    let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
    for (a, b) in a.chunks(cols).zip(b.chunks(cols)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b);
    }
    sums.iter_mut().for_each(|s| *s *= factor);
    Tensor::from_f64(like.shape(), &sums, like.dtype(), Account::Gradient)
}

/// Dot products of the rows of `a` and the first rows of `b`, of the shape and type of `like [rows]`.
fn row_dots(a: &Tensor, b: &Tensor, like: &Tensor) -> Tensor {
    let cols = a.cols().max(1);
    let (a, b) = (a.to_f64_vec(), b.narrow(0..a.rows()).to_f64_vec());
    let dot = |(a, b): (&[f64], &[f64])| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let dots = a.chunks(cols).zip(b.chunks(cols)).map(dot).collect::<Vec<_>>();
    Tensor::from_f64(like.shape(), &dots, like.dtype(), Account::Gradient)
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
    /// `du = scale dy diag(o) B diag(m) [n, r]`; pushes the gradient of the elements between the factors on the way.
    fn middle_grad(&self, backward: &mut Backward<'_>, at: &Places, dy: &Tensor) -> Tensor {
        let mut du =
            Tensor::scratch(&[dy.rows(), self.b.dim(1)], dy.dtype().accumulator(), Account::Workspace);
        let options = Options { alpha: self.scale, ..Options::default() };
        let b = LowRank::effective_b(&self.b, self.out.as_ref(), dy.cols());
        gemm(MatMut::of(&mut du), MatRef::of(dy), MatRef::of(&b), options);
        let Some(middle) = &self.middle else { return du };
        if let (Some(m_at), Some(z)) = (at.middle.filter(|m| backward.needs(*m)), &self.z) {
            // z and du carry the scale both.
            let once = if self.scale == 0.0 { 0.0 } else { 1.0 / self.scale };
            backward.push(m_at, product_sums(z, &du, once, middle));
        }
        scale_columns(&du, middle)
    }

    /// `du A`, to be added to dx of so many columns.
    fn input_grad<'a>(&'a self, du: &'a Tensor, d_in: usize) -> Product<'a> {
        Product { a: MatRef::of(du), b: RightOperand::View(MatRef::of(&self.a).left(d_in)) }
    }

    /// `dx += mask(du A)`.
    fn dropped_input_grad(&self, du: &Tensor, dx: &mut Tensor) {
        let Some(dropout) = &self.dropout else { return };
        let mut through = Tensor::scratch(dx.shape(), du.dtype(), Account::Workspace);
        let a = MatRef::of(&self.a).left(dx.cols());
        gemm(MatMut::of(&mut through), MatRef::of(du), a, Options::default());
        dropout.add_to(dx, &through);
    }

    fn factor_grads(
        &self,
        b: &mut Backward<'_>,
        at: &Places,
        dy: &Tensor,
        du: Option<&Tensor>,
        x: Option<&Tensor>,
    ) {
        if let (Some(du), Some(x), true) = (du, x, b.needs(at.a)) {
            let dropped = self.dropout.as_ref().map(|d| d.apply(x));
            product(b, at.a, (self.a.shape(), self.a.dtype()), du, dropped.as_ref().unwrap_or(x));
        }
        let Some(z) = &self.z else { return };
        let out_at = at.out.filter(|o| b.needs(*o));
        if !b.needs(at.b) && out_at.is_none() {
            return;
        }
        let u = self.middle.as_ref().map_or_else(|| z.clone(), |m| scale_columns(z, m));
        let Some(out) = &self.out else {
            return product(b, at.b, (self.b.shape(), self.b.dtype()), dy, &u);
        };
        let mut whole = Tensor::scratch(&[dy.cols(), u.cols()], u.dtype(), Account::Workspace);
        gemm(MatMut::of(&mut whole), MatRef::of(dy).t(), MatRef::of(&u), Options::default());
        if let Some(out_at) = out_at {
            b.push(out_at, row_dots(&whole, &self.b, out));
        }
        if b.needs(at.b) {
            b.push(at.b, scale_rows(&whole, out).copy(Account::Gradient));
        }
    }
}
