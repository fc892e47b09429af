//! Losses over few outputs a row: classes, independent labels, numbers. Logits `[n, c]` exist, and are small.
//!
//! ```text
//! cross_entropy         sum_i (1 - s) w_y (-log p_y) + s / c sum_k w_k (-log p_k)     y = target of row i, p = softmax(z_i)
//! binary_cross_entropy  sum_ik max(z, 0) - z t + log(1 + e^-|z|)                      t in {0, 1}
//! squared_error         sum_i (z_i - t_i)^2
//! ```
//!
//! As PyTorch's `cross_entropy` (weight, label smoothing: Szegedy 2016, section 7), `binary_cross_entropy_with_logits` and
//! `mse_loss` with sums; what they divide by is the caller's. All is computed in f64 in the order of the rows: with a
//! handful of columns there is nothing to gain by anything quicker, and every tier and thread count gives the same bits.
mod reference;
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, Tape, Tensor, Var};
use reference::Row;

/// What the rows' losses come to.
#[derive(Debug)]
pub struct LabelLoss {
    /// `[1]`, in f32 (f64 for f64): the sum that trains.
    pub sum: Var,
    /// Each row's loss, plain: without smoothing and without weights, so that runs with different ones compare. Of
    /// independent labels, `c` values a row.
    pub rows: Vec<f64>,
}

/// Softmax cross-entropy of `logits [n, c]` against one class a row. `smoothing` is from 0 to below 1, `weights` one number
/// a class.
pub fn cross_entropy(
    tape: &Tape,
    logits: &Var,
    targets: &[u32],
    smoothing: f64,
    weights: Option<&[f64]>,
) -> LabelLoss {
    let classes = logits.value().cols();
    assert_eq!(logits.value().rows(), targets.len(), "one class a row");
    assert!(targets.iter().all(|t| (*t as usize) < classes), "a class beyond the {classes} of the head");
    assert!(weights.is_none_or(|w| w.len() == classes), "one weight a class");
    each_row(tape, logits, &|i, z| reference::cross_entropy(z, targets[i] as usize, smoothing, weights))
}

/// Binary cross-entropy of `logits [n, c]` against `targets [n * c]`, each 0 or 1.
pub fn binary_cross_entropy(tape: &Tape, logits: &Var, targets: &[f32]) -> LabelLoss {
    let labels = logits.value().cols();
    assert_eq!(logits.value().numel(), targets.len(), "one target a logit");
    each_row(tape, logits, &|i, z| reference::binary_cross_entropy(z, &targets[i * labels..][..labels]))
}

/// Squared error of `values [n, 1]`.
pub fn squared_error(tape: &Tape, values: &Var, targets: &[f64]) -> LabelLoss {
    assert_eq!(values.value().shape(), [targets.len(), 1], "one value a row");
    each_row(tape, values, &|i, z| reference::squared_error(z[0], targets[i]))
}

fn each_row(tape: &Tape, logits: &Var, loss: &dyn Fn(usize, &[f64]) -> Row) -> LabelLoss {
    let value = logits.value();
    let (shape, dtype) = (value.shape().to_vec(), value.dtype());
    let z = value.to_f64_vec();
    let wants = tape.wants(&[logits]);
    let (mut total, mut rows, mut gradient) = (0.0, Vec::new(), Vec::new());
    for (i, z) in z.chunks(value.cols().max(1)).enumerate() {
        let row = loss(i, z);
        total += row.trained;
        rows.extend(row.plain);
        if wants {
            gradient.extend(row.gradient);
        }
    }
    let sum = Tensor::from_f64(&[1], &[total], dtype.accumulator(), Account::Activation);
    let sum = tape.record_one(&[logits], sum, move |bw| {
        let Some(seed) = bw.output(0) else { return };
        let seed = seed.item();
        gradient.iter_mut().for_each(|g| *g *= seed);
        bw.push(0, Tensor::from_f64(&shape, &gradient, dtype, Account::Activation));
    });
    LabelLoss { sum, rows }
}
