//! Sums and scales: `a + b`, `c a`, and the sum of all elements.
mod reference;
#[cfg(test)]
mod tests;

use crate::simd::{GRAIN, tiered, with_fast};
use luthier_tensor::{Account, DType, Float, Tape, Tensor, Var, scale_assign};
use rayon::prelude::*;

tiered! {
    fn add_slices<T: Float>(a: &[T], b: &[T], y: &mut [T]) {
        let n = y.len();
        let (a, b) = (&a[..n], &b[..n]);
        for i in 0..n {
            y[i] = T::from_f32(a[i].to_f32() + b[i].to_f32());
        }
    }
}

tiered! {
    fn scale_slice<T: Float>(a: &[T], factor: f32, y: &mut [T]) {
        let n = y.len();
        let a = &a[..n];
        for i in 0..n {
            y[i] = T::from_f32(a[i].to_f32() * factor);
        }
    }
}

/// `a + b`, of one shape and type.
pub fn add(tape: &Tape, a: &Var, b: &Var) -> Var {
    fn run<T: Float>(a: &Tensor, b: &Tensor, y: &mut Tensor) {
        let chunks = y.slice_mut::<T>().par_chunks_mut(GRAIN);
        let chunks = chunks.zip(a.slice::<T>().par_chunks(GRAIN)).zip(b.slice::<T>().par_chunks(GRAIN));
        chunks.for_each(|((y, a), b)| add_slices(a, b, y));
    }
    let (left, right) = (a.value(), b.value());
    assert_eq!((left.shape(), left.dtype()), (right.shape(), right.dtype()), "terms of a sum");
    let mut y = Tensor::scratch(left.shape(), left.dtype(), Account::Activation);
    match y.dtype() {
        DType::F64 => reference::add::<f64>(left.slice(), right.slice(), y.slice_mut()),
        _ => with_fast!(left.dtype(), run(left, right, &mut y)),
    }
    tape.record_one(&[a, b], y, |bw| {
        let Some(dy) = bw.output(0) else { return };
        bw.push(0, dy.clone());
        bw.push(1, dy);
    })
}

fn scaled(a: &Tensor, factor: f64) -> Tensor {
    fn run<T: Float>(a: &Tensor, factor: f64, y: &mut Tensor) {
        let chunks = y.slice_mut::<T>().par_chunks_mut(GRAIN).zip(a.slice::<T>().par_chunks(GRAIN));
        chunks.for_each(|(y, a)| scale_slice(a, factor as f32, y));
    }
    let mut y = Tensor::scratch(a.shape(), a.dtype(), Account::Activation);
    match a.dtype() {
        DType::F64 => reference::scale::<f64>(a.slice(), factor, y.slice_mut()),
        _ => with_fast!(a.dtype(), run(a, factor, &mut y)),
    }
    y
}

/// `factor a`.
pub fn scale(tape: &Tape, a: &Var, factor: f64) -> Var {
    let y = scaled(a.value(), factor);
    tape.record_one(&[a], y, move |bw| {
        let Some(mut dy) = bw.output(0) else { return };
        if dy.is_unique() {
            scale_assign(&mut dy, factor);
            bw.push(0, dy);
        } else {
            bw.push(0, scaled(&dy, factor));
        }
    })
}

/// The sum of all elements: `[1]`, in f32 (f64 for f64), summed in f64 in the elements' order.
pub fn sum(tape: &Tape, a: &Var) -> Var {
    let (shape, dtype) = (a.value().shape().to_vec(), a.value().dtype());
    let total = reference::sum(&a.value().to_f64_vec());
    let y = Tensor::from_f64(&[1], &[total], dtype.accumulator(), Account::Activation);
    tape.record_one(&[a], y, move |bw| {
        let Some(dy) = bw.output(0) else { return };
        let all = vec![dy.item(); shape.iter().product()];
        bw.push(0, Tensor::from_f64(&shape, &all, dtype, Account::Activation));
    })
}
