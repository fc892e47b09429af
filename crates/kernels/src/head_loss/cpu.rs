//! Fast softmax and cross-entropy of f32 logits: rows in parallel, one exponential an element.
use crate::simd::{LANES, exp, fold, tiered};
use luthier_tensor::{Float, Tensor, bf16};
use rayon::prelude::*;

/// Elements whose exponentials are summed in f32 lanes before they join an f64: 32 roundings at most.
const BLOCK: usize = 32 * LANES;

tiered! {
    /// The largest logit; a NaN is passed over (the sum of exponentials shows it).
    fn largest(z: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let whole = z.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            let z = &z[at..at + LANES];
            for l in 0..LANES {
                lanes[l] = if z[l] > lanes[l] { z[l] } else { lanes[l] };
            }
        }
        for (lane, z) in lanes.iter_mut().zip(&z[whole..]) {
            *lane = if *z > *lane { *z } else { *lane };
        }
        let mut most = lanes[0];
        for lane in lanes {
            most = if lane > most { lane } else { most };
        }
        most
    }
}

tiered! {
    /// Writes `e^(z - most)` over z; their sum.
    fn exponentials(z: &mut [f32], most: f32) -> f64 {
        let mut total = 0.0;
        for start in (0..z.len()).step_by(BLOCK) {
            let end = (start + BLOCK).min(z.len());
            let z = &mut z[start..end];
            let mut lanes = [0f32; LANES];
            let whole = z.len() / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                let z = &mut z[at..at + LANES];
                for l in 0..LANES {
                    let e = exp(z[l] - most);
                    lanes[l] += e;
                    z[l] = e;
                }
            }
            for i in whole..z.len() {
                let e = exp(z[i] - most);
                lanes[i - whole] += e;
                z[i] = e;
            }
            total += f64::from(fold(lanes));
        }
        total
    }
}

tiered! {
    fn scale(z: &mut [f32], factor: f32) {
        for z in z {
            *z *= factor;
        }
    }
}

tiered! {
    fn scale_to(z: &[f32], factor: f32, out: &mut [bf16]) {
        let n = out.len();
        let z = &z[..n];
        for i in 0..n {
            out[i] = <bf16 as Float>::from_f32(z[i] * factor);
        }
    }
}

tiered! {
    /// `y += factor x`
    pub(super) fn add_scaled<T: Float>(x: &[T], factor: f32, y: &mut [T]) {
        let n = y.len();
        let x = &x[..n];
        for i in 0..n {
            y[i] = T::from_f32(y[i].to_f32() + factor * x[i].to_f32());
        }
    }
}

/// A row's loss, the sum of its exponentials, and the target's own; z becomes `e^(z - largest)`.
fn row(z: &mut [f32], target: u32) -> (f64, f64, f32) {
    let (at_target, most) = (z[target as usize], largest(z));
    let sum = exponentials(z, most);
    let loss = sum.ln() + (f64::from(most) - f64::from(at_target));
    (loss, sum, z[target as usize])
}

/// Each row's loss; the logits are spent.
pub(super) fn losses(logits: &mut Tensor, targets: &[u32]) -> Vec<f64> {
    let cols = logits.cols();
    logits.slice_mut::<f32>().par_chunks_mut(cols).zip(targets).map(|(z, t)| row(z, *t).0).collect()
}

/// Factor of a row's exponentials in its gradient, and the target's gradient.
fn factors(sum: f64, at_target: f32, weight: f32) -> (f32, f32) {
    let factor = f64::from(weight) / sum;
    (factor as f32, (f64::from(at_target) * factor - f64::from(weight)) as f32)
}

/// Each row's loss; writes `w (softmax(z) - onehot)` over the logits.
pub(super) fn losses_and_gradient(logits: &mut Tensor, targets: &[u32], weights: Option<&[f32]>) -> Vec<f64> {
    let cols = logits.cols();
    let rows = logits.slice_mut::<f32>().par_chunks_mut(cols).zip(targets).enumerate();
    rows.map(|(i, (z, target))| {
        let (loss, sum, at_target) = row(z, *target);
        let (factor, own) = factors(sum, at_target, weights.map_or(1.0, |w| w[i]));
        scale(z, factor);
        z[*target as usize] = own;
        loss
    })
    .collect()
}

/// Each row's loss; writes `w (softmax(z) - onehot)` rounded to bf16. The logits are spent.
pub(super) fn losses_and_rounded_gradient(
    logits: &mut Tensor,
    targets: &[u32],
    weights: Option<&[f32]>,
    dz: &mut Tensor,
) -> Vec<f64> {
    let cols = logits.cols();
    let rows =
        logits.slice_mut::<f32>().par_chunks_mut(cols).zip(dz.slice_mut::<bf16>().par_chunks_mut(cols));
    rows.zip(targets)
        .enumerate()
        .map(|(i, ((z, dz), target))| {
            let (loss, sum, at_target) = row(z, *target);
            let (factor, own) = factors(sum, at_target, weights.map_or(1.0, |w| w[i]));
            scale_to(z, factor, dz);
            dz[*target as usize] = <bf16 as Float>::from_f32(own);
            loss
        })
        .collect()
}
