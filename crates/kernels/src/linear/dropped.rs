//! Dropout of a low-rank update's input and of the gradient that flows back through it.

use crate::dropout::Dropout;
use luthier_tensor::{Account, DType, Float, Tensor, bf16};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

/// `x m / (1 - p)` in a new tensor of x's type.
pub(super) fn apply(x: &Tensor, dropout: &Dropout) -> Tensor {
    let mut out = Tensor::scratch(x.shape(), x.dtype(), Account::Workspace);
    match x.dtype() {
        DType::F64 => rows::<f64, f64>(x, dropout, &mut out, |_, x| x),
        DType::F32 => rows::<f32, f32>(x, dropout, &mut out, |_, x| x),
        DType::Bf16 => rows::<bf16, bf16>(x, dropout, &mut out, |_, x| x),
        other => panic!("dropout of {other}"),
    }
    out
}

/// `sum += t m / (1 - p)`.
pub(super) fn add(sum: &mut Tensor, t: &Tensor, dropout: &Dropout) {
    match (sum.dtype(), t.dtype()) {
        (DType::F64, DType::F64) => rows::<f64, f64>(t, dropout, sum, |s, t| s + t),
        (DType::F32, DType::F32) => rows::<f32, f32>(t, dropout, sum, |s, t| s + t),
        (DType::Bf16, DType::F32) => rows::<f32, bf16>(t, dropout, sum, |s, t| s + t),
        (sum, t) => panic!("dropout of {t} into {sum}"),
    }
}

/// `out = combine(out, t m / (1 - p))`; dropped elements combine with zero.
fn rows<S: Float, D: Float>(
    t: &Tensor,
    dropout: &Dropout,
    out: &mut Tensor,
    combine: impl Fn(f64, f64) -> f64 + Sync,
) {
    let cols = t.cols().max(1);
    let keep = 1.0 / (1.0 - dropout.p);
    // A word below p 2^32 drops its element: the share is p to 2^-32.
    let threshold = (dropout.p * 4_294_967_296.0) as u64;
    let source = t.slice::<S>();
    out.slice_mut::<D>().par_chunks_mut(cols).zip(source.par_chunks(cols)).enumerate().for_each(
        |(i, (out, t))| {
            let row = dropout.first_row + i as u64;
            for (block, (out, t)) in out.chunks_mut(4).zip(t.chunks(4)).enumerate() {
                let words = dropout.key.block(row, block as u64);
                for ((o, t), word) in out.iter_mut().zip(t).zip(words) {
                    let x = if u64::from(word) < threshold { 0.0 } else { t.to_f64() * keep };
                    *o = D::from_f64(combine(o.to_f64(), x));
                }
            }
        },
    );
}
