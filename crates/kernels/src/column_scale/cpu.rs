//! One row at a time forward; a block of columns at a time for sums, so that each is summed in the rows' order whatever
//! the number of threads.
use crate::simd::{rows_per_task, tiered};
use luthier_tensor::Float;
use rayon::prelude::*;
use std::ops::Range;

/// Columns that one task sums: a few cache lines of each row.
const BLOCK: usize = 64;

tiered! {
    fn row<T: Float>(x: &[T], f: &[f32], y: &mut [T]) {
        let n = y.len();
        let (x, f) = (&x[..n], &f[..n]);
        for j in 0..n {
            y[j] = T::from_f32(x[j].to_f32() * f[j]);
        }
    }
}

tiered! {
    fn shifted_row<T: Float>(x: &[T], f: &[f32], b: &[f32], y: &mut [T]) {
        let n = y.len();
        let (x, f, b) = (&x[..n], &f[..n], &b[..n]);
        for j in 0..n {
            y[j] = T::from_f32(x[j].to_f32() * f[j] + b[j]);
        }
    }
}

tiered! {
    fn add_products<T: Float>(a: &[T], b: &[T], sums: &mut [f32]) {
        let n = sums.len();
        let (a, b) = (&a[..n], &b[..n]);
        for j in 0..n {
            sums[j] += a[j].to_f32() * b[j].to_f32();
        }
    }
}

tiered! {
    fn add_row<T: Float>(a: &[T], sums: &mut [f32]) {
        let n = sums.len();
        let a = &a[..n];
        for j in 0..n {
            sums[j] += a[j].to_f32();
        }
    }
}

pub(super) fn apply<T: Float>(x: &[T], f: &[f32], b: Option<&[f32]>, rows: &Range<usize>, y: &mut [T]) {
    let d = f.len();
    if d == 0 {
        return;
    }
    let ones = vec![1f32; d];
    let each = rows_per_task(d);
    y.par_chunks_mut(each * d).zip(x.par_chunks(each * d)).enumerate().for_each(|(task, (y, x))| {
        for (i, (y, x)) in y.chunks_mut(d).zip(x.chunks(d)).enumerate() {
            let f = if rows.contains(&(task * each + i)) { f } else { &ones };
            match b {
                Some(b) => shifted_row(x, f, b, y),
                None => row(x, f, y),
            }
        }
    });
}

pub(super) fn sums<T: Float>(a: &[T], b: Option<&[T]>, rows: &Range<usize>, sums: &mut [f32]) {
    let d = sums.len();
    sums.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sums)| {
        for i in rows.clone() {
            let at = i * d + block * BLOCK;
            let a = &a[at..at + sums.len()];
            match b {
                Some(b) => add_products(a, &b[at..at + sums.len()], sums),
                None => add_row(a, sums),
            }
        }
    });
}
