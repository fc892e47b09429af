//! Disentangled attention as it is defined, row by row in f64.
//!
//! ```text
//! p_ij = exp(s_ij) / sum_j exp(s_ij)      o_i = sum_j p_ij v_j      r = at(i - j)
//! ds_ij = scale p_ij (do_i . v_j - sum_j p_ij do_i . v_j)
//! dq_i = sum_j ds_ij (k_j + pk_r)      dk_j = sum_i ds_ij (q_i + pq_r)      dv_j = sum_i p_ij do_i
//! dpk_r = sum ds_ij q_i      dpq_r = sum ds_ij k_j      over the pairs at r
//! ```
use super::{DisentangledSpec, Gradients, Inputs, Segments};
use luthier_tensor::{Account, DType, Tensor};

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(sum: &mut [f64], by: f64, x: &[f64]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += by * x);
}

/// One query of one head.
struct Row<'a> {
    inputs: &'a Inputs,
    spec: &'a DisentangledSpec,
    keys: std::ops::Range<usize>,
    head: usize,
    query: usize,
}

impl Row<'_> {
    fn part(&self, row: usize) -> std::ops::Range<usize> {
        let start = (row * self.spec.heads + self.head) * self.spec.head_dim;
        start..start + self.spec.head_dim
    }

    /// Range of the relative row between the query and `key`.
    fn relative(&self, key: usize) -> std::ops::Range<usize> {
        self.part(self.spec.distance.row(self.query as i64 - key as i64))
    }

    fn weights(&self) -> Vec<f64> {
        let Inputs { q, k, pk, pq, .. } = self.inputs;
        let q = &q.slice::<f64>()[self.part(self.query)];
        let scores = self.keys.clone().map(|key| {
            let (k, at) = (&k.slice::<f64>()[self.part(key)], self.relative(key));
            let of = |t: &Option<Tensor>, x: &[f64]| {
                t.as_ref().map_or(0.0, |t| dot(&t.slice::<f64>()[at.clone()], x))
            };
            self.spec.scale * (dot(q, k) + of(pk, q) + of(pq, k))
        });
        let scores = scores.collect::<Vec<_>>();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let all = scores.iter().map(|s| (s - top).exp()).collect::<Vec<_>>();
        let norm = all.iter().sum::<f64>();
        all.into_iter().map(|e| e / norm).collect()
    }
}

fn each(inputs: &Inputs, spec: &DisentangledSpec, segments: &Segments, mut body: impl FnMut(&Row<'_>)) {
    for segment in 0..segments.count() {
        for query in segments.range(segment) {
            for head in 0..spec.heads {
                body(&Row { inputs, spec, keys: segments.range(segment), head, query });
            }
        }
    }
}

pub(super) fn forward(inputs: &Inputs, spec: &DisentangledSpec, segments: &Segments) -> Tensor {
    let mut out = Tensor::zeros(inputs.q.shape(), DType::F64, Account::Activation);
    each(inputs, spec, segments, |row| {
        let own = row.part(row.query);
        for (key, p) in row.keys.clone().zip(row.weights()) {
            add(&mut out.slice_mut::<f64>()[own.clone()], p, &inputs.v.slice::<f64>()[row.part(key)]);
        }
    });
    out
}

pub(super) fn backward(
    inputs: &Inputs,
    d_out: &Tensor,
    spec: &DisentangledSpec,
    segments: &Segments,
) -> Gradients {
    let zero = |t: &Tensor| Tensor::zeros(t.shape(), DType::F64, Account::Activation);
    let Inputs { q, k, v, pk, pq } = inputs;
    let mut all = Gradients {
        q: zero(q),
        k: zero(k),
        v: zero(v),
        pk: pk.as_ref().map(zero),
        pq: pq.as_ref().map(zero),
    };
    each(inputs, spec, segments, |row| {
        let own = row.part(row.query);
        let (q_i, d_i) = (&q.slice::<f64>()[own.clone()], &d_out.slice::<f64>()[own.clone()]);
        let p = row.weights();
        let d_p = row.keys.clone().map(|j| dot(d_i, &v.slice::<f64>()[row.part(j)])).collect::<Vec<_>>();
        let mean = dot(&p, &d_p);
        for (i, key) in row.keys.clone().enumerate() {
            let (at, theirs) = (row.relative(key), row.part(key));
            let ds = spec.scale * p[i] * (d_p[i] - mean);
            let k_j = &k.slice::<f64>()[theirs.clone()];
            add(&mut all.q.slice_mut::<f64>()[own.clone()], ds, k_j);
            add(&mut all.k.slice_mut::<f64>()[theirs.clone()], ds, q_i);
            add(&mut all.v.slice_mut::<f64>()[theirs.clone()], p[i], d_i);
            if let (Some(pk), Some(dpk)) = (pk, &mut all.pk) {
                add(&mut all.q.slice_mut::<f64>()[own.clone()], ds, &pk.slice::<f64>()[at.clone()]);
                add(&mut dpk.slice_mut::<f64>()[at.clone()], ds, q_i);
            }
            if let (Some(pq), Some(dpq)) = (pq, &mut all.pq) {
                add(&mut all.k.slice_mut::<f64>()[theirs], ds, &pq.slice::<f64>()[at.clone()]);
                add(&mut dpq.slice_mut::<f64>()[at], ds, k_j);
            }
        }
    });
    all
}
