//! `y = f o x + b`, row by row: columns scaled and shifted by vectors.
//!
//! The scale of DoRA (`f = m / |W'|`), of IA3 (`f = l`) and of whatever else multiplies a layer's input or output.
mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, Backward, DType, Saved, Tape, Tensor, Var, bf16};
use std::ops::Range;

/// `y [n, d] = f [d] o x [n, d] + b [d]`, in `x`'s type; `f` and `b` in f32 (f64 for f64). Outside `rows` (none: all
/// of them) the factor is one. Saves `x` if `f` is trained.
///
/// ```text
/// dx = f o dy    df = sum over rows of dy o x    db = sum over rows of dy
/// ```
pub fn column_scale(tape: &Tape, x: &Var, f: &Var, b: Option<&Var>, rows: Option<&Range<usize>>) -> Var {
    let (n, d) = (x.value().rows(), x.value().cols());
    assert_eq!(f.value().numel(), d, "length of a column scale");
    assert!(b.is_none_or(|b| b.value().numel() == d), "length of a column shift");
    let rows = rows.map_or(0..n, |r| r.start.min(n)..r.end.min(n));
    let y = apply(x.value(), f.value(), b.map(Var::value), &rows);
    let mut parents = vec![x, f];
    parents.extend(b);
    if !tape.wants(&parents) {
        return tape.record_one(&parents, y, |_| ());
    }
    let kept = Kept { x: f.needs_grad().then(|| x.save()), f: f.value().clone(), rows };
    tape.record_one(&parents, y, move |bw| kept.walk(bw))
}

fn apply(x: &Tensor, f: &Tensor, b: Option<&Tensor>, rows: &Range<usize>) -> Tensor {
    let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
    match x.dtype() {
        DType::F64 => reference::apply(x.slice(), f.slice(), b.map(Tensor::slice), rows, y.slice_mut()),
        DType::F32 => cpu::apply::<f32>(x.slice(), f.slice(), b.map(Tensor::slice), rows, y.slice_mut()),
        DType::Bf16 => cpu::apply::<bf16>(x.slice(), f.slice(), b.map(Tensor::slice), rows, y.slice_mut()),
        other => panic!("a column scale of {other}"),
    }
    y
}

/// `sum over rows of a o b [d]`; of `a` alone where there is no `b`. In the type of sums.
fn column_sums(a: &Tensor, b: Option<&Tensor>, rows: &Range<usize>) -> Tensor {
    let d = a.cols();
    let mut sums = Tensor::zeros(&[d], a.dtype().accumulator(), Account::Gradient);
    match a.dtype() {
        DType::F64 => reference::sums(a.slice(), b.map(Tensor::slice), rows, sums.slice_mut()),
        DType::F32 => cpu::sums::<f32>(a.slice(), b.map(Tensor::slice), rows, sums.slice_mut()),
        DType::Bf16 => cpu::sums::<bf16>(a.slice(), b.map(Tensor::slice), rows, sums.slice_mut()),
        other => panic!("column sums of {other}"),
    }
    sums
}

struct Kept {
    x: Option<Saved>,
    f: Tensor,
    rows: Range<usize>,
}

impl Kept {
    fn walk(self, bw: &mut Backward<'_>) {
        let Some(dy) = bw.output(0) else { return };
        if let Some(x) = self.x {
            bw.push(1, column_sums(&dy, Some(&x.take()), &self.rows).into_shape(self.f.shape()));
        }
        if bw.has(2) && bw.needs(2) {
            let all = 0..dy.rows();
            bw.push(2, column_sums(&dy, None, &all));
        }
        if bw.needs(0) {
            bw.push(0, apply(&dy, &self.f, None, &self.rows));
        }
    }
}
