//! Fast dropout for f32 and bf16: sixteen Philox blocks at a time, one a lane.
use super::Dropout;
use crate::simd::{LANES, rows_per_task, tiered, with_fast};
use luthier_tensor::{Float, Tensor};
use rayon::prelude::*;

/// Elements that one batch of blocks serves.
const BATCH: usize = 4 * LANES;

/// Words of blocks `first..first + LANES` of `row`, in the order of their elements: what [`luthier_tensor::Key::block`]
/// gives one by one.
#[inline(always)]
fn words(key: [u32; 2], row: u64, first: u64) -> [u32; BATCH] {
    let (mut c0, mut c1) = ([0u32; LANES], [0u32; LANES]);
    let (mut c2, mut c3) = ([row as u32; LANES], [(row >> 32) as u32; LANES]);
    for l in 0..LANES {
        let block = first + l as u64;
        (c0[l], c1[l]) = (block as u32, (block >> 32) as u32);
    }
    let mut k = key;
    for _ in 0..10 {
        for l in 0..LANES {
            let p0 = u64::from(c0[l]) * 0xD251_1F53;
            let p1 = u64::from(c2[l]) * 0xCD9E_8D57;
            c0[l] = (p1 >> 32) as u32 ^ c1[l] ^ k[0];
            c2[l] = (p0 >> 32) as u32 ^ c3[l] ^ k[1];
            c1[l] = p1 as u32;
            c3[l] = p0 as u32;
        }
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    let mut out = [0u32; BATCH];
    for l in 0..LANES {
        out[4 * l] = c0[l];
        out[4 * l + 1] = c1[l];
        out[4 * l + 2] = c2[l];
        out[4 * l + 3] = c3[l];
    }
    out
}

tiered! {
    fn apply_row<T: Float>(x: &[T], key: [u32; 2], row: u64, threshold: u32, factor: f32, y: &mut [T]) {
        for batch in 0..x.len().div_ceil(BATCH) {
            let start = batch * BATCH;
            let end = (start + BATCH).min(x.len());
            let words = words(key, row, (batch * LANES) as u64);
            let (x, y) = (&x[start..end], &mut y[start..end]);
            let words = &words[..x.len()];
            for i in 0..x.len() {
                y[i] = T::from_f32(if words[i] < threshold { 0.0 } else { x[i].to_f32() * factor });
            }
        }
    }
}

tiered! {
    fn add_row<T: Float>(t: &[f32], key: [u32; 2], row: u64, threshold: u32, factor: f32, sum: &mut [T]) {
        for batch in 0..t.len().div_ceil(BATCH) {
            let start = batch * BATCH;
            let end = (start + BATCH).min(t.len());
            let words = words(key, row, (batch * LANES) as u64);
            let (t, sum) = (&t[start..end], &mut sum[start..end]);
            let words = &words[..t.len()];
            for i in 0..t.len() {
                let kept = if words[i] < threshold { 0.0 } else { t[i] * factor };
                sum[i] = T::from_f32(sum[i].to_f32() + kept);
            }
        }
    }
}

/// Calls `row(index of the row within the step, elements before it, out)` for every row.
fn each_row<T: Float>(out: &mut [T], cols: usize, first_row: u64, row: impl Fn(u64, usize, &mut [T]) + Sync) {
    if cols == 0 {
        return;
    }
    let rows = rows_per_task(cols);
    out.par_chunks_mut(rows * cols).enumerate().for_each(|(task, out)| {
        for (i, out) in out.chunks_mut(cols).enumerate() {
            let at = task * rows + i;
            row(first_row + at as u64, at * cols, out);
        }
    });
}

/// `y = x m / (1 - p)`
pub(super) fn apply(x: &Tensor, dropout: &Dropout, y: &mut Tensor) {
    fn run<T: Float>(x: &Tensor, dropout: &Dropout, y: &mut Tensor) {
        let (key, threshold, factor) = (dropout.key.words(), dropout.threshold(), dropout.factor() as f32);
        let (cols, x) = (x.cols(), x.slice::<T>());
        each_row(y.slice_mut::<T>(), cols, dropout.first_row, |row, before, y| {
            apply_row(&x[before..][..cols], key, row, threshold, factor, y);
        });
    }
    with_fast!(x.dtype(), run(x, dropout, y));
}

/// `sum += t m / (1 - p)`
pub(super) fn add(t: &[f32], cols: usize, dropout: &Dropout, sum: &mut Tensor) {
    fn run<T: Float>(t: &[f32], cols: usize, dropout: &Dropout, sum: &mut Tensor) {
        let (key, threshold, factor) = (dropout.key.words(), dropout.threshold(), dropout.factor() as f32);
        each_row(sum.slice_mut::<T>(), cols, dropout.first_row, |row, before, sum| {
            add_row(&t[before..][..cols], key, row, threshold, factor, sum);
        });
    }
    with_fast!(sum.dtype(), run(t, cols, dropout, sum));
}
