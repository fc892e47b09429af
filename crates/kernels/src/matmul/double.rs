//! f64 products, for laws and gradient checks: plain, in the order of k, split over rows.

use super::{ElementsMut, MatMut, MatRef, Options, Product, RightOperand};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// A dense row-major copy in f64.
fn dense(a: &MatRef<'_>) -> Vec<f64> {
    let mut out = Vec::with_capacity(a.rows() * a.cols());
    for i in 0..a.rows() {
        out.extend((0..a.cols()).map(|j| a.get(i, j)));
    }
    out
}

/// As [`super::gemm_sum`].
pub(super) fn product(c: MatMut<'_>, products: &[Product<'_>], options: Options) {
    let (m, n) = (c.rows, c.cols);
    if m == 0 || n == 0 {
        return;
    }
    let mut sums = vec![0f64; m * n];
    for p in products {
        let RightOperand::View(b) = p.b else { panic!("a packed operand has no f64 path") };
        let (a, b, k) = (dense(&p.a), dense(&b), p.a.cols());
        sums.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            for kk in 0..k {
                let x = a[i * k + kk];
                for (y, z) in row.iter_mut().zip(&b[kk * n..(kk + 1) * n]) {
                    *y += x * z;
                }
            }
        });
    }
    write(c, &sums, options);
}

fn write(c: MatMut<'_>, sums: &[f64], options: Options) {
    let (rs, cs, cols) = (c.row_stride, c.col_stride, c.cols);
    let old = |x: f64| if options.accumulate { x } else { 0.0 };
    let places = (0..c.rows).flat_map(|i| (0..cols).map(move |j| i * rs + j * cs)).zip(sums);
    match c.data {
        ElementsMut::F64(s) => places.for_each(|(at, x)| s[at] = old(s[at]) + options.alpha * x),
        ElementsMut::F32(s) => {
            places.for_each(|(at, x)| s[at] = (old(f64::from(s[at])) + options.alpha * x) as f32);
        }
        ElementsMut::Bf16(s) => {
            places.for_each(|(at, x)| s[at] = half::bf16::from_f64(old(s[at].to_f64()) + options.alpha * x));
        }
    }
}
