//! The obvious loops.
use std::ops::Range;

/// `y = f o x + b`; the factor is one outside `rows`.
pub fn apply(x: &[f64], f: &[f64], b: Option<&[f64]>, rows: &Range<usize>, y: &mut [f64]) {
    let d = f.len().max(1);
    for (i, (x, y)) in x.chunks(d).zip(y.chunks_mut(d)).enumerate() {
        for j in 0..x.len() {
            let factor = if rows.contains(&i) { f[j] } else { 1.0 };
            y[j] = factor * x[j] + b.map_or(0.0, |b| b[j]);
        }
    }
}

/// `sums [d] = sum over rows of a o b`, of `a` alone without `b`.
pub fn sums(a: &[f64], b: Option<&[f64]>, rows: &Range<usize>, sums: &mut [f64]) {
    let d = sums.len();
    for i in rows.clone() {
        for j in 0..d {
            sums[j] += a[i * d + j] * b.map_or(1.0, |b| b[i * d + j]);
        }
    }
}
