//! The product as it is defined, in f64.

use super::MatRef;

/// `alpha A B + C`, row-major `[m, n]`.
pub fn gemm(a: &MatRef<'_>, b: &MatRef<'_>, alpha: f64, c: Option<&[f64]>) -> Vec<f64> {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let columns: Vec<f64> = (0..n).flat_map(|j| (0..k).map(move |kk| b.get(kk, j))).collect();
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        let row: Vec<f64> = (0..k).map(|kk| a.get(i, kk)).collect();
        for j in 0..n {
            let sum: f64 = row.iter().zip(&columns[j * k..]).map(|(x, y)| x * y).sum();
            out.push(alpha * sum + c.map_or(0.0, |c| c[i * n + j]));
        }
    }
    out
}
