//! The obvious LayerNorm, in f64.
use super::Gradients;
use luthier_tensor::Tensor;

/// `mean` and `s` of each row of `d`.
pub(super) fn statistics(x: &[f64], d: usize, eps: f64, statistics: &mut [f64]) {
    for (x, pair) in x.chunks(d).zip(statistics.chunks_mut(2)) {
        let mean = x.iter().sum::<f64>() / d as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
        pair.copy_from_slice(&[mean, 1.0 / (variance + eps).sqrt()]);
    }
}

/// `y = (x - mean) s w + b`
pub(super) fn apply(x: &[f64], w: &[f64], b: &[f64], statistics: &[f64], y: &mut [f64]) {
    let d = w.len();
    for ((x, y), pair) in x.chunks(d).zip(y.chunks_mut(d)).zip(statistics.chunks(2)) {
        for i in 0..d {
            y[i] = (x[i] - pair[0]) * pair[1] * w[i] + b[i];
        }
    }
}

/// `dx` written (added if its flag says so), `dw` and `db` added to.
pub(super) fn backward(x: &[f64], w: &[f64], statistics: &[f64], dy: &[f64], all: &mut Gradients) {
    let d = w.len();
    for (row, pair) in statistics.chunks(2).enumerate() {
        let (x, dy) = (&x[row * d..][..d], &dy[row * d..][..d]);
        let z = x.iter().map(|x| (x - pair[0]) * pair[1]).collect::<Vec<_>>();
        let g = w.iter().zip(dy).map(|(w, dy)| w * dy).collect::<Vec<_>>();
        let mean = g.iter().sum::<f64>() / d as f64;
        let along = g.iter().zip(&z).map(|(g, z)| g * z).sum::<f64>() / d as f64;
        if let Some((dx, add)) = &mut all.x {
            for (i, dx) in dx.slice_mut::<f64>()[row * d..][..d].iter_mut().enumerate() {
                let old = if *add { *dx } else { 0.0 };
                *dx = old + pair[1] * (g[i] - mean - z[i] * along);
            }
        }
        let sum = |to: &mut Option<Tensor>, by: &dyn Fn(usize) -> f64| {
            if let Some(to) = to {
                to.slice_mut::<f64>().iter_mut().enumerate().for_each(|(i, t)| *t += by(i));
            }
        };
        sum(&mut all.weight, &|i| dy[i] * z[i]);
        sum(&mut all.bias, &|i| dy[i]);
    }
}
