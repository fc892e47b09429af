//! Fast RMSNorm for f32 and bf16: rows in parallel, statistics in f32 lanes.
use crate::simd::{dot3, rows_per_task, squares, tiered, with_fast};
use luthier_tensor::{Float, Tensor};
use rayon::prelude::*;

/// Rows whose shares of `dw` are summed before they join the others: fixed, so that the order is.
const BLOCK: usize = 64;

tiered! {
    fn apply_rows<T: Float>(x: &[T], w: &[f32], inverse: &[f32], y: &mut [T]) {
        let d = w.len();
        for (row, &s) in inverse.iter().enumerate() {
            let (x, y) = (&x[row * d..][..d], &mut y[row * d..][..d]);
            for i in 0..d {
                y[i] = T::from_f32(x[i].to_f32() * s * w[i]);
            }
        }
    }
}

tiered! {
    fn inverse_rows<T: Float>(x: &[T], d: usize, eps: f32, inverse: &mut [f32]) {
        for (row, s) in inverse.iter_mut().enumerate() {
            *s = 1.0 / (squares(&x[row * d..][..d]) / d as f32 + eps).sqrt();
        }
    }
}

tiered! {
    fn add_rows<T: Float>(sum: &mut [T], other: &[T]) {
        let n = sum.len();
        let other = &other[..n];
        for i in 0..n {
            sum[i] = T::from_f32(sum[i].to_f32() + other[i].to_f32());
        }
    }
}

tiered! {
    fn dx_rows<T: Float>(x: &[T], w: &[f32], inverse: &[f32], dy: &[T], dx: &mut [T], add: bool) {
        let d = w.len();
        for (row, &s) in inverse.iter().enumerate() {
            let (x, dy, dx) = (&x[row * d..][..d], &dy[row * d..][..d], &mut dx[row * d..][..d]);
            let along = dot3(x, dy, w) / d as f32 * s * s * s;
            if add {
                for i in 0..d {
                    dx[i] = T::from_f32(dx[i].to_f32() + (dy[i].to_f32() * w[i] * s - x[i].to_f32() * along));
                }
            } else {
                for i in 0..d {
                    dx[i] = T::from_f32(dy[i].to_f32() * w[i] * s - x[i].to_f32() * along);
                }
            }
        }
    }
}

tiered! {
    fn dw_rows<T: Float>(x: &[T], inverse: &[f32], dy: &[T], dw: &mut [f32]) {
        let d = dw.len();
        for (row, &s) in inverse.iter().enumerate() {
            let (x, dy) = (&x[row * d..][..d], &dy[row * d..][..d]);
            for i in 0..d {
                dw[i] += dy[i].to_f32() * (x[i].to_f32() * s);
            }
        }
    }
}

/// `y = x s w` and `s`.
pub(super) fn forward(x: &Tensor, w: &[f32], eps: f64, y: &mut Tensor, inverse: &mut [f32]) {
    fn run<T: Float>(x: &Tensor, w: &[f32], eps: f64, y: &mut Tensor, inverse: &mut [f32]) {
        let (d, rows) = (w.len(), rows_per_task(w.len()));
        let chunks = x.slice::<T>().par_chunks(rows * d).zip(y.slice_mut::<T>().par_chunks_mut(rows * d));
        chunks.zip(inverse.par_chunks_mut(rows)).for_each(|((x, y), inverse)| {
            inverse_rows(x, d, eps as f32, inverse);
            apply_rows(x, w, inverse, y);
        });
    }
    with_fast!(x.dtype(), run(x, w, eps, y, inverse));
}

/// `sum += other`, then as [`forward`]. A sum that is shared moves to a buffer of its own first.
pub(super) fn add_forward(
    sum: &mut Tensor,
    other: &Tensor,
    w: &[f32],
    eps: f64,
    y: &mut Tensor,
    inverse: &mut [f32],
) {
    fn run<T: Float>(
        sum: &mut Tensor,
        other: &Tensor,
        w: &[f32],
        eps: f64,
        y: &mut Tensor,
        inverse: &mut [f32],
    ) {
        let (d, rows) = (w.len(), rows_per_task(w.len()));
        let shared = (!sum.is_unique()).then(|| sum.clone());
        if shared.is_some() {
            *sum = Tensor::scratch(sum.shape(), T::DTYPE, luthier_tensor::Account::Activation);
        }
        let shared = shared.as_ref().map(Tensor::slice::<T>);
        let chunks =
            sum.slice_mut::<T>().par_chunks_mut(rows * d).zip(other.slice::<T>().par_chunks(rows * d));
        let chunks = chunks.zip(y.slice_mut::<T>().par_chunks_mut(rows * d));
        chunks.zip(inverse.par_chunks_mut(rows)).enumerate().for_each(|(i, (((sum, other), y), inverse))| {
            if let Some(shared) = shared {
                sum.copy_from_slice(&shared[i * rows * d..][..sum.len()]);
            }
            add_rows(sum, other);
            inverse_rows(sum, d, eps as f32, inverse);
            apply_rows(sum, w, inverse, y);
        });
    }
    with_fast!(other.dtype(), run(sum, other, w, eps, y, inverse));
}

/// `y = x s w`.
pub(super) fn apply(x: &Tensor, w: &[f32], inverse: &[f32], y: &mut Tensor) {
    fn run<T: Float>(x: &Tensor, w: &[f32], inverse: &[f32], y: &mut Tensor) {
        let (d, rows) = (w.len(), rows_per_task(w.len()));
        let chunks = x.slice::<T>().par_chunks(rows * d).zip(y.slice_mut::<T>().par_chunks_mut(rows * d));
        chunks.zip(inverse.par_chunks(rows)).for_each(|((x, y), inverse)| apply_rows(x, w, inverse, y));
    }
    with_fast!(x.dtype(), run(x, w, inverse, y));
}

/// `dx` written (added if its flag says so), `dw` added to.
pub(super) fn backward(
    x: &Tensor,
    w: &[f32],
    inverse: &[f32],
    dy: &Tensor,
    dx: Option<&mut (Tensor, bool)>,
    dw: Option<&mut Tensor>,
) {
    fn run<T: Float>(
        x: &Tensor,
        w: &[f32],
        inverse: &[f32],
        dy: &Tensor,
        dx: Option<&mut (Tensor, bool)>,
        dw: Option<&mut Tensor>,
    ) {
        let d = w.len();
        let add = dx.as_ref().is_some_and(|dx| dx.1);
        let mut dx_blocks = match dx {
            Some((dx, _)) => dx.slice_mut::<T>().chunks_mut(BLOCK * d).map(Some).collect::<Vec<_>>(),
            None => (0..inverse.len().div_ceil(BLOCK)).map(|_| None).collect(),
        };
        let blocks = dx_blocks.par_iter_mut().zip(x.slice::<T>().par_chunks(BLOCK * d));
        let blocks = blocks.zip(dy.slice::<T>().par_chunks(BLOCK * d)).zip(inverse.par_chunks(BLOCK));
        let shares = blocks.map(|(((dx, x), dy), inverse)| {
            if let Some(dx) = dx {
                dx_rows(x, w, inverse, dy, dx, add);
            }
            dw.is_some().then(|| {
                let mut share = vec![0f32; d];
                dw_rows(x, inverse, dy, &mut share);
                share
            })
        });
        let shares = shares.collect::<Vec<_>>();
        if let Some(dw) = dw {
            for share in shares.into_iter().flatten() {
                dw.slice_mut::<f32>().iter_mut().zip(share).for_each(|(dw, share)| *dw += share);
            }
        }
    }
    with_fast!(x.dtype(), run(x, w, inverse, dy, dx, dw));
}
