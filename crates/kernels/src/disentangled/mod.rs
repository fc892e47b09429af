//! DeBERTa's disentangled attention: scores of content and of relative position, within segments, in both directions.
//!
//! ```text
//! s_ij = scale (q_i . k_j + q_i . pk[at(i - j)] + k_j . pq[at(i - j)])
//! ```
//!
//! `pk` and `pq` are keys and queries of relative positions, `[2 span, heads head_dim]`; `at` is a [`Distance`]. He 2021,
//! "DeBERTa: Decoding-enhanced BERT with disentangled attention", equation 4; He 2021 (arXiv 2111.09543) for logarithmic
//! buckets. The weights of one head of one segment exist at a time and are made again in backward.
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::attention::Segments;
use luthier_tensor::{Account, DType, Tape, Tensor, Var, add_flops, to_dtype};

/// Which row of the relative table a distance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distance {
    /// Half the rows of the table: distance 0 is row `span`.
    pub span: usize,
    /// Where far distances share rows, logarithmically: the distance that reaches the last row.
    pub log_to: Option<usize>,
}

impl Distance {
    /// The row of distance `d = i - j`.
    pub fn row(self, d: i64) -> usize {
        let bucket = match self.log_to {
            Some(most) => Self::bucket(d, self.span as i64 / 2, most),
            None => d,
        };
        (bucket + self.span as i64).clamp(0, 2 * self.span as i64 - 1) as usize
    }

    /// Distances up to `mid` are their own; further ones share. In f32, as the reference computes it, so that a distance
    /// on the edge of a bucket falls on the same side.
    fn bucket(d: i64, mid: i64, most: usize) -> i64 {
        let far = d.abs();
        if far <= mid {
            return d;
        }
        let reach = ((most as f64 - 1.0) / mid as f64) as f32;
        let share = (far as f32 / mid as f32).ln() / reach.ln() * (mid - 1) as f32;
        (share.ceil() as i64 + mid) * d.signum()
    }
}

/// The attention's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DisentangledSpec {
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f64,
    /// Rows of distances.
    pub distance: Distance,
}

/// q, k, v, and keys and queries of relative positions where scores use them.
#[derive(Clone)]
struct Inputs {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Option<Tensor>,
    pq: Option<Tensor>,
}

/// Gradients in the order of the inputs.
struct Gradients {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pk: Option<Tensor>,
    pq: Option<Tensor>,
}

/// Operations of the scores: content, and the rows of the table that a segment can reach.
fn flops(spec: &DisentangledSpec, segments: &Segments, terms: usize) -> u64 {
    let of = |i: usize| {
        let n = segments.range(i).len();
        let rows = (2 * n).min(2 * spec.distance.span);
        4 * n * n + 2 * n * rows * terms
    };
    ((0..segments.count()).map(of).sum::<usize>() * spec.heads * spec.head_dim) as u64
}

/// `q, k, v [n, heads head_dim]`, `pk, pq [2 span, heads head_dim]` -> `[n, heads head_dim]`.
///
/// f64, f32 or bf16, computed in f32 (f64 for f64). Saves its inputs. Every position below the table's rows.
pub fn disentangled(
    tape: &Tape,
    [q, k, v]: [&Var; 3],
    pk: Option<&Var>,
    pq: Option<&Var>,
    spec: &DisentangledSpec,
    segments: &Segments,
) -> Var {
    let (dtype, width) = (q.value().dtype(), spec.heads * spec.head_dim);
    for x in [q, k, v] {
        assert_eq!(x.value().shape(), [segments.total(), width], "rows and heads of {spec:?}");
    }
    for x in [pk, pq].into_iter().flatten() {
        assert_eq!(x.value().shape(), [2 * spec.distance.span, width], "relative positions of {spec:?}");
    }
    let wide = |x: &Var| to_dtype(x.value(), dtype.accumulator(), Account::Workspace);
    let inputs = Inputs { q: wide(q), k: wide(k), v: wide(v), pk: pk.map(wide), pq: pq.map(wide) };
    let terms = usize::from(pk.is_some()) + usize::from(pq.is_some());
    let cost = flops(spec, segments, terms);
    add_flops(cost);
    let out = match dtype {
        DType::F64 => reference::forward(&inputs, spec, segments),
        _ => cpu::forward(&inputs, spec, segments),
    };
    let out = to_dtype(&out, dtype, Account::Activation);
    let mut parents = vec![q, k, v];
    parents.extend(pk);
    parents.extend(pq);
    if !tape.wants(&parents) {
        return tape.record_one(&parents, out, |_| {});
    }
    drop(inputs);
    let saved = parents.iter().map(|p| p.save()).collect::<Vec<_>>();
    let (spec, segments, has_keys, has_queries) = (*spec, segments.clone(), pk.is_some(), pq.is_some());
    tape.record_one(&parents, out, move |bw| {
        let Some(d_out) = bw.output(0) else { return };
        let mut saved =
            saved.into_iter().map(|s| to_dtype(&s.take(), dtype.accumulator(), Account::Workspace));
        let mut next = || saved.next().expect("as many as parents");
        let (q, k, v) = (next(), next(), next());
        let pk = has_keys.then(&mut next);
        let inputs = Inputs { q, k, v, pk, pq: has_queries.then(next) };
        let d_out = to_dtype(&d_out, dtype.accumulator(), Account::Workspace);
        add_flops(5 * cost / 2);
        let all = match dtype {
            DType::F64 => reference::backward(&inputs, &d_out, &spec, &segments),
            _ => cpu::backward(&inputs, &d_out, &spec, &segments),
        };
        let each = [Some(all.q), Some(all.k), Some(all.v), all.pk, all.pq];
        for (i, gradient) in each.into_iter().flatten().enumerate() {
            if bw.needs(i) {
                bw.push(i, to_dtype(&gradient, dtype, Account::Activation));
            }
        }
    })
}
