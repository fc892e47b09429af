//! Fast LayerNorm for f32 and bf16: rows in parallel, statistics in f32 lanes.
use super::Gradients;
use crate::simd::{LANES, fold, rows_per_task, tiered, with_fast};
use luthier_tensor::{Account, Float, Tensor};
use rayon::prelude::*;

/// Rows whose shares of `dw` and `db` are summed before they join the others: fixed, so that the order is.
const BLOCK: usize = 64;

#[inline(always)]
fn sum<T: Float>(x: &[T]) -> f32 {
    let n = x.len();
    let mut sums = [0f32; LANES];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let x = &x[at..at + LANES];
        for l in 0..LANES {
            sums[l] += x[l].to_f32();
        }
    }
    for i in whole..n {
        sums[i - whole] += x[i].to_f32();
    }
    fold(sums)
}

/// `sum_i dy_i w_i` and `sum_i dy_i w_i (x_i - mean) s`
#[inline(always)]
fn level_and_along<T: Float>(x: &[T], dy: &[T], w: &[f32], mean: f32, s: f32) -> (f32, f32) {
    let n = x.len();
    let (dy, w) = (&dy[..n], &w[..n]);
    let (mut levels, mut alongs) = ([0f32; LANES], [0f32; LANES]);
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (x, dy, w) = (&x[at..at + LANES], &dy[at..at + LANES], &w[at..at + LANES]);
        for l in 0..LANES {
            let g = dy[l].to_f32() * w[l];
            levels[l] += g;
            alongs[l] += g * ((x[l].to_f32() - mean) * s);
        }
    }
    for i in whole..n {
        let g = dy[i].to_f32() * w[i];
        levels[i - whole] += g;
        alongs[i - whole] += g * ((x[i].to_f32() - mean) * s);
    }
    (fold(levels), fold(alongs))
}

/// `sum_i (x_i - mean)^2`
#[inline(always)]
fn squares_about<T: Float>(x: &[T], mean: f32) -> f32 {
    let n = x.len();
    let mut sums = [0f32; LANES];
    let whole = n / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let x = &x[at..at + LANES];
        for l in 0..LANES {
            let v = x[l].to_f32() - mean;
            sums[l] += v * v;
        }
    }
    for i in whole..n {
        let v = x[i].to_f32() - mean;
        sums[i - whole] += v * v;
    }
    fold(sums)
}

tiered! {
    fn statistics_rows<T: Float>(x: &[T], d: usize, eps: f32, statistics: &mut [f32]) {
        for row in 0..statistics.len() / 2 {
            let x = &x[row * d..][..d];
            let mean = sum(x) / d as f32;
            statistics[2 * row] = mean;
            statistics[2 * row + 1] = 1.0 / (squares_about(x, mean) / d as f32 + eps).sqrt();
        }
    }
}

tiered! {
    fn apply_rows<T: Float>(x: &[T], w: &[f32], b: &[f32], statistics: &[f32], y: &mut [T]) {
        let d = w.len();
        let b = &b[..d];
        for row in 0..statistics.len() / 2 {
            let (mean, s) = (statistics[2 * row], statistics[2 * row + 1]);
            let (x, y) = (&x[row * d..][..d], &mut y[row * d..][..d]);
            for i in 0..d {
                y[i] = T::from_f32((x[i].to_f32() - mean) * s * w[i] + b[i]);
            }
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
    fn dx_rows<T: Float>(x: &[T], w: &[f32], statistics: &[f32], dy: &[T], dx: &mut [T], add: bool) {
        let d = w.len();
        for row in 0..statistics.len() / 2 {
            let (mean, s) = (statistics[2 * row], statistics[2 * row + 1]);
            let (x, dy, dx) = (&x[row * d..][..d], &dy[row * d..][..d], &mut dx[row * d..][..d]);
            let (level, along) = level_and_along(x, dy, w, mean, s);
            let (level, along) = (level / d as f32, along / d as f32);
            if add {
                for i in 0..d {
                    let z = (x[i].to_f32() - mean) * s;
                    dx[i] = T::from_f32(dx[i].to_f32() + s * (dy[i].to_f32() * w[i] - level - z * along));
                }
            } else {
                for i in 0..d {
                    let z = (x[i].to_f32() - mean) * s;
                    dx[i] = T::from_f32(s * (dy[i].to_f32() * w[i] - level - z * along));
                }
            }
        }
    }
}

tiered! {
    /// `shares [2 d]`: `dw`, then `db`.
    fn dw_rows<T: Float>(x: &[T], statistics: &[f32], dy: &[T], shares: &mut [f32]) {
        let d = shares.len() / 2;
        let (dw, db) = shares.split_at_mut(d);
        let db = &mut db[..d];
        for row in 0..statistics.len() / 2 {
            let (mean, s) = (statistics[2 * row], statistics[2 * row + 1]);
            let (x, dy) = (&x[row * d..][..d], &dy[row * d..][..d]);
            for i in 0..d {
                let dy = dy[i].to_f32();
                dw[i] += dy * ((x[i].to_f32() - mean) * s);
                db[i] += dy;
            }
        }
    }
}

/// `y = (x - mean) s w + b`, and `mean` and `s`.
pub(super) fn forward(x: &Tensor, w: &[f32], b: &[f32], eps: f64, y: &mut Tensor, statistics: &mut [f32]) {
    fn run<T: Float>(x: &Tensor, w: &[f32], b: &[f32], eps: f64, y: &mut Tensor, statistics: &mut [f32]) {
        let (d, rows) = (w.len(), rows_per_task(w.len()));
        let chunks = x.slice::<T>().par_chunks(rows * d).zip(y.slice_mut::<T>().par_chunks_mut(rows * d));
        chunks.zip(statistics.par_chunks_mut(2 * rows)).for_each(|((x, y), statistics)| {
            statistics_rows(x, d, eps as f32, statistics);
            apply_rows(x, w, b, statistics, y);
        });
    }
    with_fast!(x.dtype(), run(x, w, b, eps, y, statistics));
}

/// `sum += other`, then as [`forward`]. A sum that is shared moves to a buffer of its own first.
pub(super) fn add_forward(
    sum: &mut Tensor,
    other: &Tensor,
    w: &[f32],
    b: &[f32],
    eps: f64,
    y: &mut Tensor,
    statistics: &mut [f32],
) {
    fn run<T: Float>(
        sum: &mut Tensor,
        other: &Tensor,
        (w, b): (&[f32], &[f32]),
        eps: f64,
        y: &mut Tensor,
        statistics: &mut [f32],
    ) {
        let (d, rows) = (w.len(), rows_per_task(w.len()));
        let shared = (!sum.is_unique()).then(|| sum.clone());
        if shared.is_some() {
            *sum = Tensor::scratch(sum.shape(), T::DTYPE, Account::Activation);
        }
        let shared = shared.as_ref().map(Tensor::slice::<T>);
        let chunks =
            sum.slice_mut::<T>().par_chunks_mut(rows * d).zip(other.slice::<T>().par_chunks(rows * d));
        let chunks = chunks.zip(y.slice_mut::<T>().par_chunks_mut(rows * d));
        let chunks = chunks.zip(statistics.par_chunks_mut(2 * rows)).enumerate();
        chunks.for_each(|(i, (((sum, other), y), statistics))| {
            if let Some(shared) = shared {
                sum.copy_from_slice(&shared[i * rows * d..][..sum.len()]);
            }
            add_rows(sum, other);
            statistics_rows(sum, d, eps as f32, statistics);
            apply_rows(sum, w, b, statistics, y);
        });
    }
    with_fast!(other.dtype(), run(sum, other, (w, b), eps, y, statistics));
}

/// `y = (x - mean) s w + b`
pub(super) fn apply(x: &Tensor, w: &[f32], b: &[f32], statistics: &[f32], y: &mut Tensor) {
    fn run<T: Float>(x: &Tensor, w: &[f32], b: &[f32], statistics: &[f32], y: &mut Tensor) {
        let (d, rows) = (w.len(), rows_per_task(w.len()));
        let chunks = x.slice::<T>().par_chunks(rows * d).zip(y.slice_mut::<T>().par_chunks_mut(rows * d));
        let chunks = chunks.zip(statistics.par_chunks(2 * rows));
        chunks.for_each(|((x, y), statistics)| apply_rows(x, w, b, statistics, y));
    }
    with_fast!(x.dtype(), run(x, w, b, statistics, y));
}

/// `dx` written (added if its flag says so), `dw` and `db` added to.
pub(super) fn backward(x: &Tensor, w: &[f32], statistics: &[f32], dy: &Tensor, all: &mut Gradients) {
    fn run<T: Float>(x: &Tensor, w: &[f32], statistics: &[f32], dy: &Tensor, all: &mut Gradients) {
        let d = w.len();
        let add = all.x.as_ref().is_some_and(|dx| dx.1);
        let vectors = all.weight.is_some() || all.bias.is_some();
        let mut dx_blocks = match &mut all.x {
            Some((dx, _)) => dx.slice_mut::<T>().chunks_mut(BLOCK * d).map(Some).collect::<Vec<_>>(),
            None => (0..(statistics.len() / 2).div_ceil(BLOCK)).map(|_| None).collect(),
        };
        let blocks = dx_blocks.par_iter_mut().zip(x.slice::<T>().par_chunks(BLOCK * d));
        let blocks = blocks.zip(dy.slice::<T>().par_chunks(BLOCK * d)).zip(statistics.par_chunks(2 * BLOCK));
        let shares = blocks.map(|(((dx, x), dy), statistics)| {
            if let Some(dx) = dx {
                dx_rows(x, w, statistics, dy, dx, add);
            }
            vectors.then(|| {
                let mut shares = vec![0f32; 2 * d];
                dw_rows(x, statistics, dy, &mut shares);
                shares
            })
        });
        let shares = shares.collect::<Vec<_>>();
        for (i, to) in [&mut all.weight, &mut all.bias].into_iter().enumerate() {
            let Some(to) = to else { continue };
            for share in shares.iter().flatten() {
                let share = &share[i * d..][..d];
                to.slice_mut::<f32>().iter_mut().zip(share).for_each(|(to, share)| *to += share);
            }
        }
    }
    with_fast!(x.dtype(), run(x, w, statistics, dy, all));
}
