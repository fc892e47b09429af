//! How far matrices are from having orthonormal rows or columns: `w / M  sum over matrices of |G - I|_F`, with
//! `G = A A^T` or `B^T B`, as a penalty on the tape.
//!
//! ```text
//! d|M|_F = <M, dM> / |M|_F    so that    d/dA = 2 (A A^T - I) A / |M|_F,   d/dB = 2 B (B^T B - I) / |M|_F
//! ```
use luthier_tensor::{Account, Tape, Tensor, Var};

/// Which side should be orthonormal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Rows of `[r, d]`.
    Rows,
    /// Columns of `[d, r]`.
    Columns,
}

/// The penalty `[1]` of all matrices, in their type; none without any.
pub(crate) fn penalty(tape: &Tape, matrices: &[(Var, Side)], weight: f64) -> Option<Var> {
    let (first, _) = matrices.first()?;
    let factor = weight / matrices.len() as f64;
    let terms = matrices.iter().map(|(v, side)| Term::new(v.value(), *side)).collect::<Vec<_>>();
    let value = factor * terms.iter().map(|t| t.norm).sum::<f64>();
    let value = Tensor::from_f64(&[1], &[value], first.value().dtype().accumulator(), Account::Activation);
    let parents = matrices.iter().map(|(v, _)| v).collect::<Vec<_>>();
    let shapes =
        matrices.iter().map(|(v, _)| (v.value().shape().to_vec(), v.value().dtype())).collect::<Vec<_>>();
    Some(tape.record_one(&parents, value, move |bw| {
        let Some(seed) = bw.output(0) else { return };
        let seed = seed.item() * factor;
        for (i, (term, (shape, dtype))) in terms.iter().zip(&shapes).enumerate() {
            if bw.needs(i) {
                let gradient = term.gradient(seed);
                bw.push(i, Tensor::from_f64(shape, &gradient, dtype.accumulator(), Account::Gradient));
            }
        }
    }))
}

/// One matrix, as rows that should be orthonormal.
struct Term {
    rows: Vec<Vec<f64>>,
    /// `G - I [r, r]`
    off: Vec<f64>,
    norm: f64,
    side: Side,
}

impl Term {
    fn new(t: &Tensor, side: Side) -> Self {
        let (n, d, values) = (t.dim(0), t.dim(1), t.to_f64_vec());
        let rows: Vec<Vec<f64>> = match side {
            Side::Rows => values.chunks(d).map(<[f64]>::to_vec).collect(),
            Side::Columns => (0..d).map(|j| (0..n).map(|i| values[i * d + j]).collect()).collect(),
        };
        let r = rows.len();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut off = vec![0.0; r * r];
        for i in 0..r {
            for j in 0..=i {
                let g = dot(&rows[i], &rows[j]) - f64::from(u8::from(i == j));
                (off[i * r + j], off[j * r + i]) = (g, g);
            }
        }
        let norm = off.iter().map(|g| g * g).sum::<f64>().sqrt();
        Self { rows, off, norm, side }
    }

    /// `seed d norm / d matrix`, in the matrix's order; zero where the norm has no slope.
    fn gradient(&self, seed: f64) -> Vec<f64> {
        let (r, d) = (self.rows.len(), self.rows.first().map_or(0, Vec::len));
        let factor = if self.norm > 0.0 { 2.0 * seed / self.norm } else { 0.0 };
        let mut out = vec![0.0; r * d];
        for i in 0..r {
            for k in 0..d {
                let sum = (0..r).map(|j| self.off[i * r + j] * self.rows[j][k]).sum::<f64>();
                let at = if self.side == Side::Rows { i * d + k } else { k * r + i };
                out[at] = factor * sum;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_tensor::{DType, Key, ParamId, Stream};
    use std::collections::BTreeMap;

    #[test]
    fn zero_for_orthonormal_rows_and_its_gradient_equals_differences() {
        let unit = Tensor::from_slice(&[2, 3], &[0.6f64, 0.8, 0.0, 0.0, 0.0, 1.0], Account::Workspace);
        let of = |t: &Tensor, side| penalty(&Tape::off(), &[(Var::constant(t.clone()), side)], 2.0).unwrap();
        assert!(of(&unit, Side::Rows).value().item() < 1e-15);
        let key = Key::new(1, Stream::Test);
        for side in [Side::Rows, Side::Columns] {
            let values = (0..12).map(|i| key.normal(0, i)).collect::<Vec<_>>();
            let make = |v: &[f64]| Tensor::from_f64(&[3, 4], v, DType::F64, Account::Workspace);
            let tape = Tape::new();
            let (var, id) = tape.input(make(&values));
            let value = penalty(&tape, &[(var, side)], 2.0).unwrap();
            let mut sink = BTreeMap::<ParamId, Tensor>::new();
            tape.backward(value, 1.0, &mut sink);
            for (i, got) in sink[&id].to_f64_vec().iter().enumerate() {
                let at = |h: f64| {
                    let mut moved = values.clone();
                    moved[i] += h;
                    of(&make(&moved), side).value().item()
                };
                let want = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((got - want).abs() < 1e-7, "{side:?} {i}: {got} {want}");
            }
        }
    }
}
