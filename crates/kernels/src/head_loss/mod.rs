//! Head and cross-entropy in one: the `[n, vocab]` logits never exist.
//!
//! `loss = sum_i w_i (log sum_v e^(z_iv) - z_i,target_i)` with `z = h W^T + deltas(h)`,
//! over the labelled rows only. Rows go through in chunks: logits, their
//! log-sum-exp, and at once the gradient `dz = w (softmax(z) - onehot)`, from
//! which `dh = dz W`, `dW += dz^T h` and the updates' gradients follow. The
//! backward only scales them by its seed, so that the head costs three products
//! and not four. Wijmans 2024, "Cut Your Losses in Large-Vocabulary Language
//! Models", section 4, describes the same economy for a GPU.
mod chunk;
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::linear::{Delta, Weight};
use chunk::{Gradients, Head};
use luthier_tensor::{Account, Backward, DType, Float, Tape, Tensor, Var, bf16, scale_assign};

/// Elements of a chunk's logits, by which its rows are chosen: 32 MiB of f32.
const CHUNK_ELEMENTS: usize = 8 << 20;

/// What a head says of its labelled rows.
#[derive(Debug)]
pub struct HeadLoss {
    /// `[1]`, in f32 (f64 for f64): the weighted sum of the rows' losses.
    pub sum: Var,
    /// Each labelled row's loss in nats, unweighted.
    pub rows: Vec<f64>,
}

/// Rows of a chunk: a multiple of 32 between 64 and 256, whatever the number of threads.
fn chunk_rows(vocab: usize) -> usize {
    (CHUNK_ELEMENTS / vocab.max(1) / 32 * 32).clamp(64, 256)
}

/// Cross-entropy of `hidden [n, d]` through the head `weight [vocab, d]` at the labelled `rows` (strictly increasing), one
/// target and, if given, one weight each.
///
/// Logits are f32 (f64 for f64); with bf16 activations their gradient is rounded to bf16 for the products. The gradient
/// of a trained weight is in f32 and exists from here to its backward.
pub fn head_loss(
    tape: &Tape,
    hidden: &Var,
    weight: &Weight,
    deltas: &[Delta],
    rows: &[u32],
    targets: &[u32],
    row_weights: Option<&[f32]>,
) -> HeadLoss {
    let vocab = weight.d_out();
    assert_eq!(
        (rows.len(), hidden.value().cols()),
        (targets.len(), weight.d_in()),
        "rows and width of a head"
    );
    assert!(row_weights.is_none_or(|w| w.len() == rows.len()), "one weight a labelled row");
    assert!(rows.is_sorted_by(|a, b| a < b), "labelled rows in order");
    assert!(
        rows.last().is_none_or(|r| (*r as usize) < hidden.value().rows()),
        "a labelled row beyond the input"
    );
    assert!(targets.iter().all(|t| (*t as usize) < vocab), "a target beyond the vocabulary of {vocab}");

    let plain = |d: &Delta| d.low_rank.as_ref().is_none_or(|l| l.middle.is_none() && l.out.is_none());
    assert!(
        deltas.iter().all(|d| d.only_adds() && plain(d)),
        "a head takes plain low-rank updates and biases"
    );

    let mut parents = vec![hidden];
    if let Weight::Trained(w) = weight {
        parents.push(w);
    }
    for delta in deltas {
        parents.extend(delta.low_rank.iter().flat_map(|l| [&l.a, &l.b]).chain(&delta.bias));
    }
    let mut gradients = tape.wants(&parents).then(|| Gradients::new(hidden, rows.len(), &parents[1..]));
    let head = Head { hidden: hidden.value(), weight, deltas };
    let mut losses = Vec::with_capacity(rows.len());
    let step = chunk_rows(vocab);
    for (i, (rows, targets)) in rows.chunks(step).zip(targets.chunks(step)).enumerate() {
        let weights = row_weights.map(|w| &w[i * step..][..rows.len()]);
        losses.extend(head.chunk(i * step, rows, targets, weights, gradients.as_mut()));
    }

    let weighted = losses.iter().enumerate().map(|(i, l)| row_weights.map_or(1.0, |w| f64::from(w[i])) * l);
    let total = weighted.sum::<f64>();
    let sum = Tensor::from_f64(&[1], &[total], hidden.value().dtype().accumulator(), Account::Activation);
    let (rows, shape) = (rows.to_vec(), hidden.value().shape().to_vec());
    let sum = tape.record_one(&parents, sum, move |bw| {
        let gradients = gradients.expect("a node that is walked was wanted");
        if let Some(seed) = bw.output(0) {
            walk(bw, gradients, &rows, &shape, seed.item());
        }
    });
    HeadLoss { sum, rows: losses }
}

/// Pushes what the forward computed, times the seed.
fn walk(bw: &mut Backward<'_>, gradients: Gradients, rows: &[u32], shape: &[usize], seed: f64) {
    if let Some(dh) = gradients.hidden {
        bw.accumulate(0, shape, dh.dtype(), Account::Activation, |dx, accumulate| {
            if !accumulate {
                dx.bytes_mut().fill(0);
            }
            match dh.dtype() {
                DType::F64 => scatter::<f64>(&dh, rows, seed, dx),
                DType::F32 => scatter::<f32>(&dh, rows, seed, dx),
                _ => scatter::<bf16>(&dh, rows, seed, dx),
            }
        });
    }
    for (i, gradient) in gradients.trained.into_iter().enumerate() {
        let Some(mut gradient) = gradient.so_far else { continue };
        if seed != 1.0 {
            scale_assign(&mut gradient, seed);
        }
        bw.push(1 + i, gradient);
    }
}

/// `dx[rows] += seed dh`
fn scatter<T: Float>(dh: &Tensor, rows: &[u32], seed: f64, dx: &mut Tensor) {
    use rayon::prelude::*;
    let d = dh.cols();
    if d == 0 {
        return;
    }
    let (dh, each) = (dh.slice::<T>(), crate::simd::rows_per_task(d));
    dx.slice_mut::<T>().par_chunks_mut(each * d).enumerate().for_each(|(task, dx)| {
        let first = task * each;
        let from = rows.partition_point(|r| (*r as usize) < first);
        let to = rows.partition_point(|r| (*r as usize) < first + each);
        for (i, row) in (from..to).zip(&rows[from..to]) {
            let dx = &mut dx[(*row as usize - first) * d..][..d];
            match T::DTYPE {
                DType::F64 => reference::add_scaled(&dh[i * d..][..d], seed, dx),
                _ => cpu::add_scaled(&dh[i * d..][..d], seed as f32, dx),
            }
        }
    });
}
