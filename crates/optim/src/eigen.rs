//! Leading singular vectors of a matrix, by orthogonal iteration.
//!
//! Halko 2011, <https://arxiv.org/abs/0909.4061>, algorithm 4.4 with the Gram matrix applied at once; the small
//! symmetric problem at the end by Jacobi's rotations (Golub and Van Loan, "Matrix Computations", section 8.5).
use luthier_kernels::matmul::{MatMut, MatRef, Options, gemm};
use luthier_tensor::{Account, Key, Stream, Tensor};

/// Vectors beyond the wanted ones that the iteration carries: they take up what is near the cut.
const SPARE: usize = 8;
/// Applications of the Gram matrix: each squares the ratio of kept to dropped singular values twice.
const ROUNDS: usize = 8;
/// Sweeps of Jacobi's method, which converges quadratically; six suffice for double precision in practice.
const SWEEPS: usize = 12;

/// Orthonormal `[min(n, d), r]`: the leading left singular vectors of `g [n, d]` where `n < d`, else the right ones.
/// Each vector's element of largest absolute value is positive. In `g`'s type.
pub(crate) fn leading(g: &Tensor, r: usize) -> Tensor {
    let (n, d) = (g.dim(0), g.dim(1));
    let m = n.min(d);
    let mut gram = Tensor::scratch(&[m, m], g.dtype(), Account::Workspace);
    let view = MatRef::of(g);
    let (a, b) = if n < d { (view, view.t()) } else { (view.t(), view) };
    gemm(MatMut::of(&mut gram), a, b, Options::default());
    // Without this, the squares of small gradients leave the range of f32 in repeated products.
    let size = gram.to_f64_vec().iter().step_by(m + 1).fold(0.0, |a: f64, b| a.max(*b));
    if size > 0.0 {
        luthier_tensor::scale_assign(&mut gram, 1.0 / size);
    }
    let b = (r + SPARE).min(m);
    let key = Key::new(0, Stream::Init).at("projection");
    let mut block = (0..m * b).map(|i| key.normal(0, i as u64)).collect::<Vec<_>>();
    orthonormalise(&mut block, m, b);
    for _ in 0..ROUNDS {
        block = apply(&gram, &block, b);
        orthonormalise(&mut block, m, b);
    }
    let image = apply(&gram, &block, b);
    let mut small = vec![0.0; b * b];
    for i in 0..b {
        for j in 0..b {
            small[i * b + j] = (0..m).map(|k| block[k * b + i] * image[k * b + j]).sum();
        }
    }
    let (values, vectors) = jacobi(small, b);
    let mut order = (0..b).collect::<Vec<_>>();
    order.sort_by(|i, j| values[*j].total_cmp(&values[*i]));
    let mut out = vec![0.0; m * r];
    for (to, &from) in order.iter().take(r).enumerate() {
        let column = (0..m)
            .map(|k| (0..b).map(|i| block[k * b + i] * vectors[i * b + from]).sum::<f64>())
            .collect::<Vec<_>>();
        let largest = column.iter().fold(0f64, |a, v| if v.abs() > a.abs() { *v } else { a });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        (0..m).for_each(|k| out[k * r + to] = sign * column[k]);
    }
    Tensor::from_f64(&[m, r], &out, g.dtype(), Account::Optimizer)
}

/// `gram block [m, b]`
fn apply(gram: &Tensor, block: &[f64], b: usize) -> Vec<f64> {
    let m = gram.dim(0);
    let right = Tensor::from_f64(&[m, b], block, gram.dtype(), Account::Workspace);
    let mut out = Tensor::scratch(&[m, b], gram.dtype(), Account::Workspace);
    gemm(MatMut::of(&mut out), MatRef::of(gram), MatRef::of(&right), Options::default());
    out.to_f64_vec()
}

/// Modified Gram-Schmidt on the columns of `block [m, b]`, twice: once loses digits where columns are near parallel.
fn orthonormalise(block: &mut [f64], m: usize, b: usize) {
    let mut columns =
        (0..b).map(|j| (0..m).map(|i| block[i * b + j]).collect::<Vec<_>>()).collect::<Vec<_>>();
    for j in 0..b {
        for _ in 0..2 {
            let (before, own) = columns.split_at_mut(j);
            for other in before.iter() {
                let along = other.iter().zip(&own[0]).map(|(a, b)| a * b).sum::<f64>();
                own[0].iter_mut().zip(other).for_each(|(o, a)| *o -= along * a);
            }
            let length = own[0].iter().map(|v| v * v).sum::<f64>().sqrt();
            if length < 1e-150 {
                // Nothing is left of it: any direction outside the others will do.
                own[0].iter_mut().enumerate().for_each(|(i, v)| *v = if i % b == j { 1.0 } else { 0.0 });
            } else {
                own[0].iter_mut().for_each(|v| *v /= length);
            }
        }
    }
    for (j, column) in columns.iter().enumerate() {
        column.iter().enumerate().for_each(|(i, v)| block[i * b + j] = *v);
    }
}

/// Eigenvalues and eigenvectors (columns) of the symmetric `a [n, n]`, by cyclic rotations.
fn jacobi(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let all = a.iter().map(|x| x * x).sum::<f64>();
    for _ in 0..SWEEPS {
        let off =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum::<f64>();
        if off <= 1e-30 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v[k * n + p], v[k * n + q]);
                    (v[k * n + p], v[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_tensor::DType;

    fn known(n: usize, d: usize, dtype: DType) -> Tensor {
        // Singular values 2^-k along cosines, which are orthogonal.
        let wave = |size: usize, i: usize, k: usize| {
            (std::f64::consts::PI * (i as f64 + 0.5) * (k as f64 + 1.0) / size as f64).cos()
        };
        let value =
            |i, j| (0..6).map(|k| 0.5f64.powi(k) * wave(n, i, k as usize) * wave(d, j, k as usize)).sum();
        let values = (0..n * d).map(|e| value(e / d, e % d)).collect::<Vec<f64>>();
        Tensor::from_f64(&[n, d], &values, dtype, Account::Workspace)
    }

    #[test]
    fn finds_the_space_of_a_known_matrix_on_both_sides() {
        for (n, d) in [(20, 33), (33, 20), (20, 20)] {
            let p = leading(&known(n, d, DType::F64), 3);
            let (m, p) = (n.min(d), p.to_f64_vec());
            for a in 0..3 {
                for b in 0..3 {
                    let dot = (0..m).map(|i| p[i * 3 + a] * p[i * 3 + b]).sum::<f64>();
                    assert!((dot - f64::from(u8::from(a == b))).abs() < 1e-12, "{a} {b} {dot}");
                }
                let wave =
                    |i: usize| (std::f64::consts::PI * (i as f64 + 0.5) * (a as f64 + 1.0) / m as f64).cos();
                let length = (0..m).map(|i| wave(i).powi(2)).sum::<f64>().sqrt();
                let along = (0..m).map(|i| p[i * 3 + a] * wave(i) / length).sum::<f64>();
                assert!((along.abs() - 1.0).abs() < 1e-9, "vector {a} of [{n}, {d}]: {along}");
            }
        }
    }

    #[test]
    fn a_zero_matrix_has_a_basis_too() {
        let p = leading(&Tensor::zeros(&[4, 6], DType::F32, Account::Workspace), 2).to_f64_vec();
        assert!(p.iter().all(|v| v.is_finite()));
    }
}
