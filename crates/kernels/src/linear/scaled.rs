//! What multiplies a linear layer: scales of its input and output, and the magnitude of its rows.
//!
//! ```text
//! y = out o (c o ((in o x) W^T + deltas) + b)      c = m / |W + s B A|_row, the norm held constant
//! ```
//! The norm never forms `W + s B A`: with `G = A A^T` and `P = A W^T [r, d_out]`,
//! `|W_o + s B_o A|^2 = |W_o|^2 + 2 s B_o P_o + s^2 B_o G B_o^T` (Liu 2024, arXiv 2402.09353, equation 5).
use super::{Delta, LowRank, Weight, additive, multiply_sum};
use crate::column_scale::column_scale;
use crate::matmul::{MatMut, MatRef, Options, Product, RightOperand, gemm};
use luthier_tensor::{Account, DType, Tape, Tensor, Var, add_flops, to_dtype};

/// DoRA's magnitude of the adapted weight's rows.
#[derive(Clone, Debug)]
pub struct Magnitude {
    /// `m [d_out]`
    pub m: Var,
    /// `|W_o|^2 [d_out]` of the base's rows.
    pub squares: Tensor,
}

/// [`linear`](super::linear) where a delta multiplies.
pub(super) fn scaled(tape: &Tape, x: &Var, weight: &Weight, bias: Option<&Var>, deltas: &[Delta]) -> Var {
    let mut x = x.clone();
    for delta in deltas {
        if let Some(f) = &delta.in_scale {
            x = column_scale(tape, &x, f, None, delta.rows.as_ref());
        }
    }
    let sums = deltas.iter().map(|d| Delta {
        low_rank: d.low_rank.clone(),
        bias: d.bias.clone(),
        rows: d.rows.clone(),
        ..Delta::default()
    });
    let sums = sums.collect::<Vec<_>>();
    let magnitudes = deltas.iter().filter_map(|d| d.magnitude.as_ref().map(|m| (d, m))).collect::<Vec<_>>();
    let mut y = if magnitudes.is_empty() {
        additive(tape, &x, weight, bias, &sums)
    } else {
        assert!(deltas.iter().all(|d| d.bias.is_none()), "a bias beside a magnitude has no meaning");
        additive(tape, &x, weight, None, &sums)
    };
    for (i, (delta, magnitude)) in magnitudes.iter().enumerate() {
        let f = factor(tape, weight, delta.low_rank.as_ref(), magnitude);
        let shift = bias.filter(|_| i + 1 == magnitudes.len());
        if shift.is_some() {
            // Counted as elsewhere, where a bias is a product of a column of ones.
            add_flops(2 * y.value().numel() as u64);
        }
        y = column_scale(tape, &y, &f, shift, delta.rows.as_ref());
    }
    for delta in deltas {
        if let Some(f) = &delta.out_scale {
            y = column_scale(tape, &y, f, None, delta.rows.as_ref());
        }
    }
    y
}

/// `m / |W + s B A|_row [d_out]`
fn factor(tape: &Tape, weight: &Weight, low_rank: Option<&LowRank>, magnitude: &Magnitude) -> Var {
    let norms = norms(weight, low_rank, &magnitude.squares);
    let m = &magnitude.m;
    let quotient = |over: &Tensor| {
        let values = over.to_f64_vec().iter().zip(&norms).map(|(m, n)| m / n).collect::<Vec<_>>();
        Tensor::from_f64(over.shape(), &values, over.dtype(), Account::Activation)
    };
    let value = quotient(m.value());
    let norms = norms.clone();
    tape.record_one(&[m], value, move |bw| {
        let Some(df) = bw.output(0) else { return };
        let dm = df.to_f64_vec().iter().zip(&norms).map(|(d, n)| d / n).collect::<Vec<_>>();
        bw.push(0, Tensor::from_f64(df.shape(), &dm, df.dtype(), Account::Gradient));
    })
}

/// `|W + s B A|_row [d_out]`, by the formula at the file's head.
fn norms(weight: &Weight, low_rank: Option<&LowRank>, squares: &Tensor) -> Vec<f64> {
    let mut squared = squares.to_f64_vec();
    if let Some(LowRank { a, b, scale, .. }) = low_rank {
        let (a, b, d_out) = (a.value(), b.value(), squared.len());
        let (r, dtype) = (a.dim(0), a.dtype());
        let mut through = Tensor::scratch(&[r, d_out], dtype, Account::Workspace);
        match weight {
            Weight::Frozen(base) => base.forward_into(a, &mut through, false),
            Weight::Trained(w) => {
                let w = to_dtype(
                    w.value(),
                    if dtype == DType::F64 { dtype } else { DType::F32 },
                    Account::Workspace,
                );
                let right = RightOperand::View(MatRef::of(&w).t());
                multiply_sum(&mut through, Product { a: MatRef::of(a), b: right }, false, &[]);
            }
        }
        let mut gram = Tensor::scratch(&[r, r], dtype, Account::Workspace);
        gemm(MatMut::of(&mut gram), MatRef::of(a), MatRef::of(a).t(), Options::default());
        let mut spread = Tensor::scratch(&[d_out, r], dtype, Account::Workspace);
        gemm(MatMut::of(&mut spread), MatRef::of(b), MatRef::of(&gram), Options::default());
        let [through, spread, b] = [&through, &spread, b].map(Tensor::to_f64_vec);
        for (o, sum) in squared.iter_mut().enumerate() {
            let cross = (0..r).map(|k| b[o * r + k] * through[k * d_out + o]).sum::<f64>();
            let own = (0..r).map(|k| b[o * r + k] * spread[o * r + k]).sum::<f64>();
            *sum += 2.0 * scale * cross + scale * scale * own;
        }
    }
    // Rounding may take the square of a tiny row below zero.
    squared.into_iter().map(|s| s.max(f64::MIN_POSITIVE).sqrt()).collect()
}
