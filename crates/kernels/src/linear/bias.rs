//! A bias and its gradient: one pass over the rows each, counted as the product with a column of ones that it is.
use crate::simd::{rows_per_task, tiered, with_fast};
use luthier_tensor::{DType, Float, Tensor, add_flops};
use rayon::prelude::*;
use std::ops::Range;

/// Rows whose share of a gradient is summed before it joins the others: fixed, so that the order is.
const BLOCK: usize = 128;

tiered! {
    fn add_rows<T: Float>(y: &mut [T], bias: &[f32]) {
        let d = bias.len();
        for row in 0..y.len() / d {
            let y = &mut y[row * d..][..d];
            for i in 0..d {
                y[i] = T::from_f32(y[i].to_f32() + bias[i]);
            }
        }
    }
}

tiered! {
    fn sum_rows<T: Float>(x: &[T], sums: &mut [f32]) {
        let d = sums.len();
        for row in 0..x.len() / d {
            let x = &x[row * d..][..d];
            for i in 0..d {
                sums[i] += x[i].to_f32();
            }
        }
    }
}

/// `y[rows] += bias`, summed in f32 (f64 for f64), since a bias may be larger than what it is added to.
pub(super) fn add(y: &mut Tensor, bias: &[f64], rows: Range<usize>) {
    fn run<T: Float>(y: &mut Tensor, bias: &[f64], rows: Range<usize>) {
        let d = bias.len();
        let bias = bias.iter().map(|b| *b as f32).collect::<Vec<_>>();
        let y = &mut y.slice_mut::<T>()[rows.start * d..rows.end * d];
        y.par_chunks_mut(rows_per_task(d) * d).for_each(|y| add_rows(y, &bias));
    }
    let rows = rows.start.min(y.rows())..rows.end.min(y.rows());
    if bias.is_empty() || rows.is_empty() {
        return;
    }
    add_flops(2 * (rows.len() * bias.len()) as u64);
    match y.dtype() {
        DType::F64 => {
            let y = &mut y.slice_mut::<f64>()[rows.start * bias.len()..rows.end * bias.len()];
            y.chunks_mut(bias.len()).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        _ => with_fast!(y.dtype(), run(y, bias, rows)),
    }
}

/// `sum (+)= sum over rows of dy`, in the sum's type: f32, or f64 for f64.
pub(super) fn gradient(dy: &Tensor, sum: &mut Tensor, accumulate: bool) {
    fn run<T: Float>(dy: &Tensor, sum: &mut Tensor) {
        let d = dy.cols();
        let shares = dy.slice::<T>().par_chunks(BLOCK * d).map(|dy| {
            let mut share = vec![0f32; d];
            sum_rows(dy, &mut share);
            share
        });
        for share in shares.collect::<Vec<_>>() {
            sum.slice_mut::<f32>().iter_mut().zip(share).for_each(|(sum, share)| *sum += share);
        }
    }
    if !accumulate {
        sum.bytes_mut().fill(0);
    }
    if dy.numel() == 0 {
        return;
    }
    add_flops(2 * dy.numel() as u64);
    match dy.dtype() {
        DType::F64 => {
            let sum = sum.slice_mut::<f64>();
            let rows = dy.slice::<f64>().chunks(sum.len());
            rows.for_each(|dy| sum.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy));
        }
        _ => with_fast!(dy.dtype(), run(dy, sum)),
    }
}
