//! One row of each loss, in f64.

/// A row's loss.
pub(super) struct Row {
    /// What trains: smoothed and weighted.
    pub(super) trained: f64,
    /// Neither smoothed nor weighted.
    pub(super) plain: Vec<f64>,
    /// Of `trained`, to the row's logits.
    pub(super) gradient: Vec<f64>,
}

/// `-log softmax(z)`
fn surprisal(z: &[f64]) -> Vec<f64> {
    let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = most + z.iter().map(|z| (z - most).exp()).sum::<f64>().ln();
    z.iter().map(|z| total - z).collect()
}

/// See the module's head. With `a_k` the share of `-log p_k` in the loss, the gradient is `p sum_k a_k - a`.
pub(super) fn cross_entropy(z: &[f64], target: usize, smoothing: f64, weights: Option<&[f64]>) -> Row {
    let weight = |k: usize| weights.map_or(1.0, |w| w[k]);
    let surprisal = surprisal(z);
    let share = |k: usize| {
        let own = if k == target { (1.0 - smoothing) * weight(k) } else { 0.0 };
        own + smoothing / z.len() as f64 * weight(k)
    };
    let all = (0..z.len()).map(share).sum::<f64>();
    Row {
        // A class of weight 0 whose logit is far away must not give 0 * inf.
        trained: (0..z.len()).filter(|k| share(*k) != 0.0).map(|k| share(k) * surprisal[k]).sum(),
        gradient: (0..z.len()).map(|k| (-surprisal[k]).exp() * all - share(k)).collect(),
        plain: vec![surprisal[target]],
    }
}

/// See the module's head. The gradient is `sigmoid(z) - t`.
pub(super) fn binary_cross_entropy(z: &[f64], targets: &[f32]) -> Row {
    let plain = z.iter().zip(targets).map(|(z, t)| z.max(0.0) - z * f64::from(*t) + (-z.abs()).exp().ln_1p());
    let plain = plain.collect::<Vec<_>>();
    let sigmoid = |z: f64| if z < 0.0 { z.exp() / (1.0 + z.exp()) } else { 1.0 / (1.0 + (-z).exp()) };
    Row {
        trained: plain.iter().sum(),
        gradient: z.iter().zip(targets).map(|(z, t)| sigmoid(*z) - f64::from(*t)).collect(),
        plain,
    }
}

/// See the module's head.
pub(super) fn squared_error(value: f64, target: f64) -> Row {
    let error = value - target;
    Row { trained: error * error, plain: vec![error * error], gradient: vec![2.0 * error] }
}
