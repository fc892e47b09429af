//! The linear op as it is defined, in f64.

/// A low-rank update, `s (m o x) A^T B^T`: A `[r, d_in]`, B `[d_out, r]`, both row-major.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// `[r, d_in]`
    pub a: &'a [f64],
    /// `[d_out, r]`
    pub b: &'a [f64],
    /// Scale.
    pub scale: f64,
    /// Factors of x, `[n, d_in]`: 0 or 1 / (1 - p).
    pub mask: Option<&'a [f64]>,
}

/// `y [n, d_out] = x [n, d_in] W^T + bias + s (m o x) A^T B^T`.
pub fn linear(
    x: &[f64],
    w: &[f64],
    d_in: usize,
    d_out: usize,
    bias: Option<&[f64]>,
    low_rank: Option<LowRank<'_>>,
) -> Vec<f64> {
    let n = x.len().checked_div(d_in).unwrap_or(0);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let mut y = Vec::with_capacity(n * d_out);
    for i in 0..n {
        let row = &x[i * d_in..(i + 1) * d_in];
        let middle: Vec<f64> = low_rank.map_or_else(Vec::new, |l| {
            let kept: Vec<f64> =
                row.iter().enumerate().map(|(j, x)| l.mask.map_or(*x, |m| x * m[i * d_in + j])).collect();
            l.a.chunks(d_in).map(|a| l.scale * dot(&kept, a)).collect()
        });
        for o in 0..d_out {
            let base = dot(row, &w[o * d_in..(o + 1) * d_in]) + bias.map_or(0.0, |b| b[o]);
            let r = middle.len();
            y.push(base + low_rank.map_or(0.0, |l| dot(&middle, &l.b[o * r..(o + 1) * r])));
        }
    }
    y
}
