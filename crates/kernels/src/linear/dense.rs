//! A frozen weight stored as plain numbers.

use super::{Base, multiply_sum};
use crate::matmul::{Compute, MatRef, PackedB, Product, RightOperand};
use luthier_tensor::{Account, DType, Float, Tensor, bf16, f16, to_dtype};

/// Which products have their panels packed ahead, in bf16, beside the weight itself.
///
/// Packing while multiplying costs about 1 % at a thousand tokens and most of the time at one: panels pay in decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Panels {
    /// None: no memory beyond the weight.
    #[default]
    None,
    /// Those of `y = x W^T`: the weight's size in bf16 once more.
    Forward,
    /// Those of `dx = dy W` as well.
    Both,
}

/// A weight `[d_out, d_in]` in f64, f32, bf16 or f16.
#[derive(Debug)]
pub struct DenseBase {
    weight: Tensor,
    forward: Option<PackedB>,
    backward: Option<PackedB>,
}

impl DenseBase {
    /// A base over `weight [d_out, d_in]`, without panels.
    pub fn new(weight: Tensor) -> Self {
        assert_eq!(weight.shape().len(), 2, "a dense base is a matrix");
        Self { weight, forward: None, backward: None }
    }

    /// The same with panels for bf16 activations.
    #[must_use]
    pub fn with_panels(mut self, panels: Panels) -> Self {
        let w = MatRef::of(&self.weight);
        self.forward = (panels != Panels::None).then(|| PackedB::pack_nt(w, Compute::Bf16));
        self.backward = (panels == Panels::Both).then(|| PackedB::pack_nn(w, Compute::Bf16));
        self
    }

    /// The weight as it is stored.
    pub fn tensor(&self) -> &Tensor {
        &self.weight
    }
}

/// B from panels where they fit A's type.
fn right<'a>(a: &Tensor, b: MatRef<'a>, panels: Option<&'a PackedB>) -> RightOperand<'a> {
    match panels {
        Some(panels) if a.dtype() == DType::Bf16 => RightOperand::Packed(panels),
        _ => RightOperand::View(b),
    }
}

impl Base for DenseBase {
    fn d_in(&self) -> usize {
        self.weight.dim(1)
    }

    fn d_out(&self) -> usize {
        self.weight.dim(0)
    }

    fn bytes(&self) -> usize {
        let panels = [&self.forward, &self.backward];
        self.weight.size() + panels.into_iter().flatten().map(PackedB::bytes).sum::<usize>()
    }

    fn forward_into(&self, x: &Tensor, y: &mut Tensor, accumulate: bool) {
        let b = right(x, MatRef::of(&self.weight).t(), self.forward.as_ref());
        multiply_sum(y, Product { a: MatRef::of(x), b }, accumulate, &[]);
    }

    fn input_grad_into(&self, dy: &Tensor, dx: &mut Tensor, accumulate: bool) {
        self.input_grad_sum(dy, dx, accumulate, &[]);
    }

    fn forward_sum(&self, x: &Tensor, y: &mut Tensor, also: &[Product<'_>]) {
        let b = right(x, MatRef::of(&self.weight).t(), self.forward.as_ref());
        multiply_sum(y, Product { a: MatRef::of(x), b }, false, also);
    }

    fn input_grad_sum(&self, dy: &Tensor, dx: &mut Tensor, accumulate: bool, also: &[Product<'_>]) {
        let b = right(dy, MatRef::of(&self.weight), self.backward.as_ref());
        multiply_sum(dx, Product { a: MatRef::of(dy), b }, accumulate, also);
    }

    fn rows_into(&self, rows: &[u32], out: &mut Tensor) {
        match self.weight.dtype() {
            DType::F64 => gather::<f64>(&self.weight, rows, out),
            DType::F32 => gather::<f32>(&self.weight, rows, out),
            DType::Bf16 => gather::<bf16>(&self.weight, rows, out),
            DType::F16 => gather::<f16>(&self.weight, rows, out),
            other => panic!("a weight of {other}"),
        }
    }

    fn weight(&self, dtype: DType) -> Tensor {
        to_dtype(&self.weight, dtype, Account::Workspace)
    }
}

fn gather<S: Float>(weight: &Tensor, rows: &[u32], out: &mut Tensor) {
    match out.dtype() {
        DType::F64 => copy_rows::<S, f64>(weight, rows, out, Float::to_f64),
        DType::F32 => copy_rows::<S, f32>(weight, rows, out, Float::to_f32),
        DType::Bf16 => copy_rows::<S, bf16>(weight, rows, out, |x| Float::from_f32(x.to_f32())),
        other => panic!("rows of a weight in {other}"),
    }
}

fn copy_rows<S: Float, D: Float>(weight: &Tensor, rows: &[u32], out: &mut Tensor, convert: impl Fn(S) -> D) {
    let d_in = weight.dim(1);
    assert_eq!(out.numel(), rows.len() * d_in, "rows of a weight");
    if d_in == 0 {
        return;
    }
    let source = weight.slice::<S>();
    for (to, row) in out.slice_mut::<D>().chunks_exact_mut(d_in).zip(rows) {
        let from = &source[*row as usize * d_in..][..d_in];
        to.iter_mut().zip(from).for_each(|(to, from)| *to = convert(*from));
    }
}
