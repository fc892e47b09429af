//! Fast activation for f32 and bf16, in f32: rows in parallel.
use crate::gated_mlp::Activation;
use crate::gated_mlp::cpu::{Gate, Gelu, GeluTanh, Relu, Silu, Tanh};
use crate::simd::{rows_per_task, tiered, with_fast};
use luthier_tensor::{Float, Tensor};
use rayon::prelude::*;

/// Calls a function generic over the element and the activation.
macro_rules! with_gate {
    ($activation:expr, $f:ident::<$t:ident>($($arg:expr),*)) => {
        match $activation {
            Activation::Silu => $f::<$t, Silu>($($arg),*),
            Activation::Gelu => $f::<$t, Gelu>($($arg),*),
            Activation::GeluTanh => $f::<$t, GeluTanh>($($arg),*),
            Activation::Relu => $f::<$t, Relu>($($arg),*),
            Activation::Tanh => $f::<$t, Tanh>($($arg),*),
        }
    };
}

tiered! {
    fn forward_rows<T: Float, G: Gate>(x: &[T], bias: &[f32], y: &mut [T]) {
        let d = bias.len();
        for row in 0..y.len() / d {
            let (x, y) = (&x[row * d..][..d], &mut y[row * d..][..d]);
            for i in 0..d {
                y[i] = T::from_f32(G::activate(x[i].to_f32() + bias[i]).0);
            }
        }
    }
}

tiered! {
    /// Writes `dx` over `x`.
    fn backward_rows<T: Float, G: Gate>(dy: &[T], bias: &[f32], x: &mut [T]) {
        let d = bias.len();
        for row in 0..x.len() / d {
            let (x, dy) = (&mut x[row * d..][..d], &dy[row * d..][..d]);
            for i in 0..d {
                x[i] = T::from_f32(dy[i].to_f32() * G::activate(x[i].to_f32() + bias[i]).1);
            }
        }
    }
}

tiered! {
    /// `sums += x`, row by row.
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

/// `y = act(x + b)`
pub(super) fn forward(x: &Tensor, bias: Option<&[f32]>, activation: Activation, y: &mut Tensor) {
    fn run<T: Float>(x: &Tensor, bias: &[f32], activation: Activation, y: &mut Tensor) {
        let chunk = rows_per_task(bias.len()) * bias.len();
        let chunks = y.slice_mut::<T>().par_chunks_mut(chunk).zip(x.slice::<T>().par_chunks(chunk));
        chunks.for_each(|(y, x)| with_gate!(activation, forward_rows::<T>(x, bias, y)));
    }
    if x.numel() > 0 {
        let zeros = bias.is_none().then(|| vec![0f32; x.cols()]);
        let bias = bias.or(zeros.as_deref()).expect("one of the two");
        with_fast!(x.dtype(), run(x, bias, activation, y));
    }
}

/// Writes `dx` over `x`; adds the sums over rows to `db`, tasks in their order.
pub(super) fn backward(
    dy: &Tensor,
    bias: Option<&[f32]>,
    activation: Activation,
    x: &mut Tensor,
    db: Option<&mut [f32]>,
) {
    fn run<T: Float>(
        dy: &Tensor,
        bias: &[f32],
        activation: Activation,
        x: &mut Tensor,
        db: Option<&mut [f32]>,
    ) {
        let chunk = rows_per_task(bias.len()) * bias.len();
        let chunks = x.slice_mut::<T>().par_chunks_mut(chunk).zip(dy.slice::<T>().par_chunks(chunk));
        let shares = chunks.map(|(x, dy)| {
            with_gate!(activation, backward_rows::<T>(dy, bias, x));
            db.is_some().then(|| {
                let mut sums = vec![0f32; bias.len()];
                sum_rows(x, &mut sums);
                sums
            })
        });
        let shares = shares.collect::<Vec<_>>();
        if let Some(db) = db {
            for share in shares.into_iter().flatten() {
                db.iter_mut().zip(share).for_each(|(db, share)| *db += share);
            }
        }
    }
    if x.numel() > 0 {
        let zeros = bias.is_none().then(|| vec![0f32; x.cols()]);
        let bias = bias.or(zeros.as_deref()).expect("one of the two");
        with_fast!(x.dtype(), run(dy, bias, activation, x, db));
    }
}
