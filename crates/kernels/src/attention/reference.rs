//! Attention as it is defined, row by row in f64: what the blocks are held against, and the path of f64 itself.
//!
//! ```text
//! s_ij = scale q_i . k_j      p_ij = exp(s_ij - L_i)      o_i = sum_j p_ij v_j
//! dv_j = sum_i p_ij do_i      ds_ij = p_ij (do_i . v_j - do_i . o_i)
//! dq_i = scale sum_j ds_ij k_j      dk_j = scale sum_i ds_ij q_i
//! ```
//!
//! Sums over the keys that `i` sees; `L_i = log sum_j exp(s_ij)`.
use super::{AttentionSpec, Segments, visible};

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], by: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += by * x);
}

/// Calls `body(head, query row, kv head, key rows)` for every query and head.
fn each(
    q_segments: &Segments,
    k_segments: &Segments,
    spec: &AttentionSpec,
    mut body: impl FnMut(usize, usize, usize, std::ops::Range<usize>),
) {
    for segment in 0..q_segments.count() {
        let (queries, keys) = (q_segments.range(segment), k_segments.range(segment));
        for row in queries.clone() {
            let position = keys.len() - (queries.end - row);
            let seen = visible(spec, position, keys.len());
            for head in 0..spec.heads {
                let kv_head = head / (spec.heads / spec.kv_heads);
                body(head, row, kv_head, keys.start + seen.start..keys.start + seen.end);
            }
        }
    }
}

/// Element range of `row` and `head` in a tensor `[rows, heads head_dim]`.
fn part(row: usize, head: usize, heads: usize, d: usize) -> std::ops::Range<usize> {
    let start = (row * heads + head) * d;
    start..start + d
}

/// Output, and the log-sum-exp `[heads, queries]`.
pub(super) fn forward(
    q: &[f64],
    q_segments: &Segments,
    k: &[f64],
    v: &[f64],
    k_segments: &Segments,
    spec: &AttentionSpec,
) -> (Vec<f64>, Vec<f64>) {
    let (d, n) = (spec.head_dim, q_segments.total());
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; spec.heads * n]);
    each(q_segments, k_segments, spec, |head, row, kv_head, keys| {
        let own = part(row, head, spec.heads, d);
        let scores = keys
            .clone()
            .map(|j| spec.scale * dot(&q[own.clone()], &k[part(j, kv_head, spec.kv_heads, d)]))
            .collect::<Vec<_>>();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let norm = scores.iter().map(|s| (s - top).exp()).sum::<f64>();
        for (j, s) in keys.zip(&scores) {
            add(&mut out[own.clone()], (s - top).exp() / norm, &v[part(j, kv_head, spec.kv_heads, d)]);
        }
        lse[head * n + row] = top + norm.ln();
    });
    (out, lse)
}

/// Gradients of q, k, v.
pub(super) fn backward(
    [q, k, v, out, d_out]: [&[f64]; 5],
    lse: &[f64],
    segments: &Segments,
    spec: &AttentionSpec,
) -> [Vec<f64>; 3] {
    let (d, n) = (spec.head_dim, segments.total());
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    each(segments, segments, spec, |head, row, kv_head, keys| {
        let own = part(row, head, spec.heads, d);
        let (qi, d_out) = (&q[own.clone()], &d_out[own.clone()]);
        let total = dot(d_out, &out[own.clone()]);
        for j in keys {
            let other = part(j, kv_head, spec.kv_heads, d);
            let p = (spec.scale * dot(qi, &k[other.clone()]) - lse[head * n + row]).exp();
            let ds = spec.scale * p * (dot(d_out, &v[other.clone()]) - total);
            add(&mut dv[other.clone()], p, d_out);
            add(&mut dq[own.clone()], ds, &k[other.clone()]);
            add(&mut dk[other], ds, qi);
        }
    });
    [dq, dk, dv]
}
