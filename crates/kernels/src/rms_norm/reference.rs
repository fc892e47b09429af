//! The obvious RMSNorm, in f64 whatever the element type.
use luthier_tensor::Float;

/// `y = x s w` and `s` of each row of `w.len()`.
pub(super) fn forward<T: Float>(x: &[T], w: &[f64], eps: f64, y: &mut [T], inverse: &mut [f64]) {
    for (x, s) in x.chunks(w.len()).zip(inverse.iter_mut()) {
        let mean = x.iter().map(|x| x.to_f64().powi(2)).sum::<f64>() / w.len() as f64;
        *s = 1.0 / (mean + eps).sqrt();
    }
    apply(x, w, inverse, y);
}

/// `y = x s w`.
pub(super) fn apply<T: Float>(x: &[T], w: &[f64], inverse: &[f64], y: &mut [T]) {
    for ((x, y), s) in x.chunks(w.len()).zip(y.chunks_mut(w.len())).zip(inverse) {
        for ((x, y), w) in x.iter().zip(y).zip(w) {
            *y = T::from_f64(x.to_f64() * s * w);
        }
    }
}

/// `dx` written (added if its flag says so), `dw` added to.
pub(super) fn backward<T: Float>(
    x: &[T],
    w: &[f64],
    inverse: &[f64],
    dy: &[T],
    mut dx: Option<(&mut [T], bool)>,
    mut dw: Option<&mut [f64]>,
) {
    let d = w.len();
    for (row, s) in inverse.iter().enumerate() {
        let (x, dy) = (&x[row * d..][..d], &dy[row * d..][..d]);
        let mean = (0..d).map(|i| w[i] * dy[i].to_f64() * x[i].to_f64()).sum::<f64>() / d as f64;
        for i in 0..d {
            let (x, dy) = (x[i].to_f64(), dy[i].to_f64());
            if let Some((dx, add)) = &mut dx {
                let old = if *add { dx[row * d + i].to_f64() } else { 0.0 };
                dx[row * d + i] = T::from_f64(old + s * w[i] * dy - x * s.powi(3) * mean);
            }
            if let Some(dw) = &mut dw {
                dw[i] += dy * x * s;
            }
        }
    }
}
