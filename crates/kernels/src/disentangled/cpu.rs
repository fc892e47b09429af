//! Disentangled attention in f32: one head of one segment at a time, heads in parallel.
//!
//! Relative scores are products with the rows of the table that the segment's distances reach, `Q PK'` and `K PQ'`, from
//! which each pair takes its own; backward adds each pair's gradient to its row's, and multiplies once.
use super::{DisentangledSpec, Gradients, Inputs, Segments};
use crate::simd::{exp, tiered};
use luthier_tensor::{Account, DType, Tensor};
use rayon::prelude::*;
use std::ops::Range;

tiered! {
    /// `c [m, n] += a [m, k] b [k, n]`, four rows of b at a time.
    fn multiply(a: &[f32], b: &[f32], c: &mut [f32], k: usize, n: usize) {
        for i in 0..c.len() / n {
            let (a, c) = (&a[i * k..][..k], &mut c[i * n..][..n]);
            let whole = k / 4 * 4;
            for at in (0..whole).step_by(4) {
                let (b0, b1) = (&b[at * n..][..n], &b[(at + 1) * n..][..n]);
                let (b2, b3) = (&b[(at + 2) * n..][..n], &b[(at + 3) * n..][..n]);
                for j in 0..n {
                    c[j] += a[at] * b0[j] + a[at + 1] * b1[j] + (a[at + 2] * b2[j] + a[at + 3] * b3[j]);
                }
            }
            for at in whole..k {
                let b = &b[at * n..][..n];
                for j in 0..n {
                    c[j] += a[at] * b[j];
                }
            }
        }
    }
}

tiered! {
    /// Softmax of a row in place.
    fn soften(row: &mut [f32]) {
        let mut top = f32::NEG_INFINITY;
        for s in row.iter() {
            top = if *s > top { *s } else { top };
        }
        let mut norm = 0f32;
        for s in row.iter_mut() {
            *s = exp(*s - top);
        }
        for s in row.iter() {
            norm += *s;
        }
        let factor = 1.0 / norm;
        for s in row.iter_mut() {
            *s *= factor;
        }
    }
}

/// `x [m, n]` transposed.
fn transposed(x: &[f32], n: usize) -> Vec<f32> {
    let m = x.len() / n.max(1);
    let mut out = vec![0f32; x.len()];
    for i in 0..m {
        for j in 0..n {
            out[j * m + i] = x[i * n + j];
        }
    }
    out
}

/// Rows `rows` of one head, together.
fn head_rows(x: &Tensor, rows: Range<usize>, head: usize, spec: &DisentangledSpec) -> Vec<f32> {
    let (d, stride) = (spec.head_dim, spec.heads * spec.head_dim);
    let x = x.slice::<f32>();
    rows.flat_map(|row| x[row * stride + head * d..][..d].iter().copied()).collect()
}

/// One head of one segment.
struct Part<'a> {
    spec: &'a DisentangledSpec,
    n: usize,
    /// Row of the table for distance `d`, at `d + n - 1`; counted from `reach.start`.
    rows: Vec<usize>,
    /// Rows of the table that the segment reaches.
    reach: Range<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    pk: Option<Vec<f32>>,
    pq: Option<Vec<f32>>,
}

impl<'a> Part<'a> {
    fn new(inputs: &Inputs, spec: &'a DisentangledSpec, range: Range<usize>, head: usize) -> Self {
        let n = range.len();
        let rows = (1 - n as i64..n as i64).map(|d| spec.distance.row(d)).collect::<Vec<_>>();
        let reach = rows[0]..rows[rows.len() - 1] + 1; // rows grow with the distance
        let rows = rows.into_iter().map(|r| r - reach.start).collect();
        let of = |x: &Tensor| head_rows(x, range.clone(), head, spec);
        let table = |x: &Option<Tensor>| x.as_ref().map(|x| head_rows(x, reach.clone(), head, spec));
        let (pk, pq) = (table(&inputs.pk), table(&inputs.pq));
        Self { spec, n, rows, q: of(&inputs.q), k: of(&inputs.k), v: of(&inputs.v), pk, pq, reach }
    }

    /// Row of the table between query `i` and key `j`.
    fn row(&self, i: usize, j: usize) -> usize {
        self.rows[self.n - 1 + i - j]
    }

    /// `p [n, n]`
    fn weights(&self) -> Vec<f32> {
        let (n, d, reach) = (self.n, self.spec.head_dim, self.reach.len());
        let mut scores = vec![0f32; n * n];
        multiply(&self.q, &transposed(&self.k, d), &mut scores, d, n);
        let relative = |x: &[f32], table: &Option<Vec<f32>>| {
            table.as_ref().map(|table| {
                let mut out = vec![0f32; n * reach];
                multiply(x, &transposed(table, d), &mut out, d, reach);
                out
            })
        };
        let (c2p, p2c) = (relative(&self.q, &self.pk), relative(&self.k, &self.pq));
        let scale = self.spec.scale as f32;
        for i in 0..n {
            let row = &mut scores[i * n..][..n];
            for (j, s) in row.iter_mut().enumerate() {
                let at = self.row(i, j);
                *s += c2p.as_ref().map_or(0.0, |c| c[i * reach + at]);
                *s += p2c.as_ref().map_or(0.0, |p| p[j * reach + at]);
                *s *= scale;
            }
            soften(row);
        }
        scores
    }

    fn forward(&self) -> Vec<f32> {
        let mut out = vec![0f32; self.v.len()];
        multiply(&self.weights(), &self.v, &mut out, self.n, self.spec.head_dim);
        out
    }

    /// Adds the gradients of relative keys and queries, `[reach, head_dim]`, to `d_pk`, `d_pq`; gives those of q, k, v.
    fn backward(&self, d_out: &[f32], d_pk: Option<&mut [f32]>, d_pq: Option<&mut [f32]>) -> [Vec<f32>; 3] {
        let (n, d, reach) = (self.n, self.spec.head_dim, self.reach.len());
        let (p, scale) = (self.weights(), self.spec.scale as f32);
        let zeros = || vec![0f32; n * d];
        let (mut dq, mut dk, mut dv) = (zeros(), zeros(), zeros());
        multiply(&transposed(&p, n), d_out, &mut dv, n, d);
        let mut ds = vec![0f32; n * n];
        multiply(d_out, &transposed(&self.v, d), &mut ds, d, n);
        for (ds, p) in ds.chunks_mut(n).zip(p.chunks(n)) {
            let mean = ds.iter().zip(p).map(|(ds, p)| ds * p).sum::<f32>();
            ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = scale * p * (*ds - mean));
        }
        multiply(&ds, &self.k, &mut dq, n, d);
        multiply(&transposed(&ds, n), &self.q, &mut dk, n, d);
        // Each pair's gradient at its row of the table, for queries and for keys.
        let gathered = |by_query: bool| {
            let mut sums = vec![0f32; n * reach];
            for i in 0..n {
                for j in 0..n {
                    let owner = if by_query { i } else { j };
                    sums[owner * reach + self.row(i, j)] += ds[i * n + j];
                }
            }
            sums
        };
        if let (Some(pk), Some(d_pk)) = (&self.pk, d_pk) {
            let sums = gathered(true);
            multiply(&sums, pk, &mut dq, reach, d);
            multiply(&transposed(&sums, reach), &self.q, d_pk, n, d);
        }
        if let (Some(pq), Some(d_pq)) = (&self.pq, d_pq) {
            let sums = gathered(false);
            multiply(&sums, pq, &mut dk, reach, d);
            multiply(&transposed(&sums, reach), &self.k, d_pq, n, d);
        }
        [dq, dk, dv]
    }
}

/// Writes rows of one head back.
fn put(to: &mut [f32], from: &[f32], first: usize, head: usize, spec: &DisentangledSpec) {
    let (d, stride) = (spec.head_dim, spec.heads * spec.head_dim);
    for (i, row) in from.chunks(d).enumerate() {
        to[(first + i) * stride + head * d..][..d].copy_from_slice(row);
    }
}

fn tensor(like: &Tensor) -> Tensor {
    Tensor::zeros(like.shape(), DType::F32, Account::Activation)
}

fn full(segments: &Segments) -> impl Iterator<Item = Range<usize>> + '_ {
    (0..segments.count()).map(|i| segments.range(i)).filter(|r| !r.is_empty())
}

pub(super) fn forward(inputs: &Inputs, spec: &DisentangledSpec, segments: &Segments) -> Tensor {
    let parts = full(segments).flat_map(|r| (0..spec.heads).map(move |h| (r.clone(), h))).collect::<Vec<_>>();
    let outs = parts.par_iter().map(|(range, head)| Part::new(inputs, spec, range.clone(), *head).forward());
    let outs = outs.collect::<Vec<_>>();
    let mut out = tensor(&inputs.q);
    for ((range, head), part) in parts.iter().zip(&outs) {
        put(out.slice_mut(), part, range.start, *head, spec);
    }
    out
}

/// A head's gradients: of each segment's q, k, v, and of the tables.
struct HeadGradients {
    parts: Vec<[Vec<f32>; 3]>,
    pk: Option<Vec<f32>>,
    pq: Option<Vec<f32>>,
}

pub(super) fn backward(
    inputs: &Inputs,
    d_out: &Tensor,
    spec: &DisentangledSpec,
    segments: &Segments,
) -> Gradients {
    let d = spec.head_dim;
    // Segments one after the other, so that the tables' sums have one order.
    let of_head = |head: usize| {
        let table = |t: &Option<Tensor>| t.as_ref().map(|_| vec![0f32; 2 * spec.distance.span * d]);
        let (mut pk, mut pq) = (table(&inputs.pk), table(&inputs.pq));
        let parts = full(segments).map(|range| {
            let part = Part::new(inputs, spec, range.clone(), head);
            let d_out = head_rows(d_out, range, head, spec);
            let rows = part.reach.start * d..part.reach.end * d;
            let d_pk = pk.as_mut().map(|t| &mut t[rows.clone()]);
            let d_pq = pq.as_mut().map(|t| &mut t[rows.clone()]);
            part.backward(&d_out, d_pk, d_pq)
        });
        let parts = parts.collect();
        HeadGradients { parts, pk, pq }
    };
    let heads = (0..spec.heads).into_par_iter().map(of_head).collect::<Vec<_>>();
    let table = |t: &Option<Tensor>| t.as_ref().map(tensor);
    let mut all = Gradients {
        q: tensor(&inputs.q),
        k: tensor(&inputs.k),
        v: tensor(&inputs.v),
        pk: table(&inputs.pk),
        pq: table(&inputs.pq),
    };
    for (head, own) in heads.iter().enumerate() {
        for (range, part) in full(segments).zip(&own.parts) {
            for (to, from) in [&mut all.q, &mut all.k, &mut all.v].into_iter().zip(part) {
                put(to.slice_mut(), from, range.start, head, spec);
            }
        }
        for (to, from) in [(&mut all.pk, &own.pk), (&mut all.pq, &own.pq)] {
            if let (Some(to), Some(from)) = (to, from) {
                put(to.slice_mut(), from, 0, head, spec);
            }
        }
    }
    all
}
