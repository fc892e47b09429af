//! The obvious softmax and cross-entropy, row by row in f64.
use luthier_tensor::{Float, Tensor};

/// `log sum_v e^(z_v) - z_target`
fn loss(z: &[f64], target: usize) -> f64 {
    let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    z.iter().map(|z| (z - most).exp()).sum::<f64>().ln() + most - z[target]
}

/// Each row's loss.
pub(super) fn losses(logits: &Tensor, targets: &[u32]) -> Vec<f64> {
    let rows = logits.slice::<f64>().chunks(logits.cols()).zip(targets);
    rows.map(|(z, target)| loss(z, *target as usize)).collect()
}

/// Each row's loss; writes `w (softmax(z) - onehot)` over the logits.
pub(super) fn losses_and_gradient(logits: &mut Tensor, targets: &[u32], weights: Option<&[f32]>) -> Vec<f64> {
    let cols = logits.cols();
    let rows = logits.slice_mut::<f64>().chunks_mut(cols).zip(targets).enumerate();
    rows.map(|(i, (z, target))| {
        let target = *target as usize;
        let (loss, at_target) = (loss(z, target), z[target]);
        for (v, z) in z.iter_mut().enumerate() {
            // log softmax(z)_target = -loss
            let p = (*z - at_target - loss).exp();
            *z = weights.map_or(1.0, |w| f64::from(w[i])) * (p - f64::from(u8::from(v == target)));
        }
        loss
    })
    .collect()
}

/// `y += factor x`
pub(super) fn add_scaled<T: Float>(x: &[T], factor: f64, y: &mut [T]) {
    for (x, y) in x.iter().zip(y) {
        *y = T::from_f64(y.to_f64() + factor * x.to_f64());
    }
}
