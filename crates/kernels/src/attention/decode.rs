//! Attention of one query to many keys: a stream over keys and values, each read once a group of heads.
//!
//! Keys are taken in chunks that start at multiples of 512 in the segment, so that
//! threads share one long segment, and the chunks' results are joined in order:
//! the same bits at any thread count.
//!
//! ```text
//! s_j = c q . k_j     m = max s     p_j = 2^(s_j - m)     l = sum p     o = sum p_j v_j       (of a chunk)
//! O = sum_chunks 2^(m - M) o / sum_chunks 2^(m - M) l                                       M = max m
//! ```
use super::cpu::{Shared, workers};
use super::pack::with_scratch;
use super::simd::{Kernel, Simd};
use super::{AttentionSpec, Segments, visible};
use luthier_tensor::{Account, DType, Float, Tensor, bf16};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Keys of a chunk: their scores of four heads fit the first-level cache beside the tile at work.
const CHUNK: usize = 512;
/// Key elements below which a second thread costs more than it brings (some 20 microseconds of work).
const GRAIN: usize = 1 << 17;

/// Whether [`decode`] takes a segment with this many queries: the rule is the same on every tier.
pub(super) fn takes(queries: usize, spec: &AttentionSpec) -> bool {
    queries == 1 && spec.head_dim.is_multiple_of(16)
}

/// A chunk of the keys of one segment and kv head.
struct Chunk {
    segment: usize,
    kv_head: usize,
    /// Rows of `k` and `v`.
    keys: Range<usize>,
}

/// Writes the rows of `out` that belong to the segments that [`takes`] names.
///
/// # Safety
/// The machine must have the instructions of `S`, and the tensors hold bf16 or f32.
pub(super) unsafe fn decode<S: Simd>(
    q: &Tensor,
    q_segments: &Segments,
    k: &Tensor,
    v: &Tensor,
    k_segments: &Segments,
    spec: &AttentionSpec,
    out: &mut Tensor,
) {
    // SAFETY: passed on.
    unsafe {
        match q.dtype() {
            DType::Bf16 => over::<S, bf16>(q, q_segments, k, v, k_segments, spec, out),
            _ => over::<S, f32>(q, q_segments, k, v, k_segments, spec, out),
        }
    }
}

/// # Safety
/// As [`decode`].
unsafe fn over<S: Simd, T: Float>(
    q: &Tensor,
    q_segments: &Segments,
    k: &Tensor,
    v: &Tensor,
    k_segments: &Segments,
    spec: &AttentionSpec,
    out: &mut Tensor,
) {
    let mut chunks = Vec::new();
    for segment in (0..q_segments.count()).filter(|&i| takes(q_segments.range(i).len(), spec)) {
        let keys = k_segments.range(segment);
        let seen = visible(spec, keys.len() - 1, keys.len());
        for first in (seen.start / CHUNK * CHUNK..seen.end).step_by(CHUNK) {
            let (from, to) = (first.max(seen.start), (first + CHUNK).min(seen.end));
            let rows = keys.start + from..keys.start + to;
            chunks.extend((0..spec.kv_heads).map(|kv_head| Chunk { segment, kv_head, keys: rows.clone() }));
        }
    }
    let group = spec.heads / spec.kv_heads;
    let width = spec.head_dim + 2;
    let mut partial = Tensor::scratch(&[chunks.len(), group, width], DType::F32, Account::Workspace);
    let shared = Shared::new(partial.slice_mut::<f32>());
    let (q_rows, k_rows, v_rows) = (q.slice::<T>(), k.slice::<T>(), v.slice::<T>());
    let work = chunks.iter().map(|c| c.keys.len()).sum::<usize>() * spec.head_dim;
    let next = AtomicUsize::new(0);
    workers(if work < GRAIN { 1 } else { chunks.len() }, || {
        with_scratch(group * (CHUNK + spec.head_dim), |mut scratch| {
            let queries = scratch.take(group * spec.head_dim);
            let scores = scratch.take(group * CHUNK);
            loop {
                let i = next.fetch_add(1, Relaxed);
                let Some(chunk) = chunks.get(i) else { break };
                let row = q_segments.range(chunk.segment).start;
                let place = (row * spec.heads + chunk.kv_head * group) * spec.head_dim;
                let at = (chunk.keys.start * spec.kv_heads + chunk.kv_head) * spec.head_dim;
                // SAFETY: the caller's word; the chunk's rows are in the tensors, and each chunk has its own partial.
                unsafe {
                    S::call(Stream {
                        spec,
                        q: q_rows[place..].as_ptr(),
                        k: k_rows[at..].as_ptr(),
                        v: v_rows[at..].as_ptr(),
                        keys: chunk.keys.len(),
                        queries,
                        scores,
                        to: shared.at(i * group * width),
                        element: PhantomData::<T>,
                    });
                }
            }
        });
    });
    join::<T>(&chunks, partial.slice(), q_segments, spec, out.slice_mut());
}

/// Joins the chunks of each head in their order.
fn join<T: Float>(
    chunks: &[Chunk],
    partial: &[f32],
    q_segments: &Segments,
    spec: &AttentionSpec,
    out: &mut [T],
) {
    let (d, group) = (spec.head_dim, spec.heads / spec.kv_heads);
    let part = |i: usize, head: usize| &partial[(i * group + head) * (d + 2)..][..d + 2];
    let mut sum = vec![0f32; d];
    let mut first = 0;
    while first < chunks.len() {
        let segment = chunks[first].segment;
        let end = first + chunks[first..].iter().take_while(|c| c.segment == segment).count();
        for head in 0..spec.heads {
            let (kv_head, head_in_group) = (head / group, head % group);
            let own = (first + kv_head..end).step_by(spec.kv_heads);
            let top = own.clone().map(|i| part(i, head_in_group)[d]).fold(f32::MIN, f32::max);
            let mut norm = 0.0;
            sum.fill(0.0);
            for i in own {
                let part = part(i, head_in_group);
                let factor = (part[d] - top).exp2();
                norm += factor * part[d + 1];
                sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += factor * x);
            }
            let place = (q_segments.range(segment).start * spec.heads + head) * d;
            out[place..place + d].iter_mut().zip(&sum).for_each(|(out, sum)| *out = T::from_f32(sum / norm));
        }
        first = end;
    }
}

/// One chunk for all heads of a group.
struct Stream<'a, T> {
    spec: &'a AttentionSpec,
    /// `[group, head_dim]`.
    q: *const T,
    /// Rows `kv_heads head_dim` apart.
    k: *const T,
    v: *const T,
    keys: usize,
    /// `[group, head_dim]`: the queries times `c`.
    queries: *mut f32,
    /// `[group, CHUNK]`.
    scores: *mut f32,
    /// `[group, head_dim + 2]`: `o`, `m`, `l`.
    to: *mut f32,
    element: PhantomData<T>,
}

/// Calls `$f::<S, T, G>` with as many heads as are left, up to four.
macro_rules! by_heads {
    ($left:expr, $f:ident($($argument:expr),*)) => {
        match $left {
            1 => { $f::<S, T, 1>($($argument),*); 1 }
            2 => { $f::<S, T, 2>($($argument),*); 2 }
            3 => { $f::<S, T, 3>($($argument),*); 3 }
            _ => { $f::<S, T, 4>($($argument),*); 4 }
        }
    };
}

impl<T: Float> Kernel for Stream<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let AttentionSpec { heads, kv_heads, head_dim: d, .. } = *self.spec;
        let (group, stride) = (heads / kv_heads, kv_heads * d);
        // SAFETY: the ranges are those of the fields.
        unsafe {
            let c = S::splat(self.spec.scale as f32 * std::f32::consts::LOG2_E);
            for i in (0..group * d).step_by(S::LANES) {
                S::store(self.queries.add(i), S::mul(S::widen(self.q.add(i)), c));
            }
            for key in (0..self.keys).step_by(S::LANES) {
                let count = S::LANES.min(self.keys - key);
                let mut head = 0;
                while head < group {
                    let (q, to) = (self.queries.add(head * d), self.scores.add(head * CHUNK + key));
                    head += by_heads!(group - head, score(q, self.k.add(key * stride), stride, count, d, to));
                }
            }
            for head in 0..group {
                let (top, norm) = soften::<S>(self.scores.add(head * CHUNK), self.keys);
                let to = self.to.add(head * (d + 2) + d);
                *to = top;
                *to.add(1) = norm;
            }
            let mut column = 0;
            while column < d {
                let mut head = 0;
                // Wider or narrower by whole vectors: four at once where they are left.
                let wide = d - column >= 4 * S::LANES;
                while head < group {
                    let (p, to) = (self.scores.add(head * CHUNK), self.to.add(head * (d + 2) + column));
                    let v = self.v.add(column);
                    head += if wide {
                        by_heads!(group - head, gather_wide(p, v, stride, self.keys, d, to))
                    } else {
                        by_heads!(group - head, gather_narrow(p, v, stride, self.keys, d, to))
                    };
                }
                column += if wide { 4 * S::LANES } else { S::LANES };
            }
        }
    }
}

/// Scores of up to `LANES` keys for `G` heads, `CHUNK` apart; lanes from `count` on are -inf.
///
/// # Safety
/// `count` rows of keys and a vector of scores for each head must be there.
#[inline(always)]
unsafe fn score<S: Simd, T: Float, const G: usize>(
    q: *const f32,
    k: *const T,
    stride: usize,
    count: usize,
    d: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's word.
    unsafe {
        let mut tiles = [[S::splat(f32::NEG_INFINITY); 16]; G];
        for key in 0..count {
            let k = k.add(key * stride);
            let mut sums = [S::splat(0.0); G];
            for at in (0..d).step_by(S::LANES) {
                let key = S::widen(k.add(at));
                for (head, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(key, S::load(q.add(head * d + at)), *sum);
                }
            }
            for (tile, sum) in tiles.iter_mut().zip(sums) {
                tile[key] = sum;
            }
        }
        for (head, tile) in tiles.iter_mut().enumerate() {
            S::transpose(tile);
            let mut sums = [tile[0], tile[1], tile[2], tile[3]];
            for (i, &lane) in tile.iter().enumerate().take(S::LANES).skip(4) {
                sums[i % 4] = S::add(sums[i % 4], lane);
            }
            let sum = S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3]));
            S::store(to.add(head * CHUNK), sum);
        }
    }
}

/// Turns scores into weights; their maximum and sum. Scores beyond `count` in the last vector are -inf.
///
/// # Safety
/// The scores, in whole vectors, must be there.
#[inline(always)]
unsafe fn soften<S: Simd>(scores: *mut f32, count: usize) -> (f32, f32) {
    // SAFETY: the caller's word.
    unsafe {
        let mut most = S::splat(f32::MIN);
        for at in (0..count).step_by(S::LANES) {
            most = S::max(S::load(scores.add(at)), most);
        }
        let mut lanes = [f32::MIN; 16];
        S::store(lanes.as_mut_ptr(), most);
        let top = lanes.iter().copied().fold(f32::MIN, f32::max);
        let shift = S::splat(top);
        let mut sum = S::splat(0.0);
        for at in (0..count).step_by(S::LANES) {
            let p = S::exp2(S::sub(S::load(scores.add(at)), shift));
            sum = S::add(sum, p);
            S::store(scores.add(at), p);
        }
        let mut lanes = [0.0; 16];
        S::store(lanes.as_mut_ptr(), sum);
        (top, lanes.iter().sum())
    }
}

macro_rules! gather {
    ($name:ident, $columns:literal) => {
        /// Weighted sum of value rows for `G` heads over vectors of columns.
        ///
        /// # Safety
        /// The rows, weights and outputs must be there.
        #[inline(always)]
        unsafe fn $name<S: Simd, T: Float, const G: usize>(
            p: *const f32,
            v: *const T,
            stride: usize,
            keys: usize,
            d: usize,
            to: *mut f32,
        ) {
            // SAFETY: the caller's word.
            unsafe {
                let mut sums = [[S::splat(0.0); $columns]; G];
                for key in 0..keys {
                    let v = v.add(key * stride);
                    let values: [S::V; $columns] = std::array::from_fn(|i| S::widen(v.add(i * S::LANES)));
                    for (head, sums) in sums.iter_mut().enumerate() {
                        let p = S::splat(*p.add(head * CHUNK + key));
                        for (sum, &value) in sums.iter_mut().zip(&values) {
                            *sum = S::fma(p, value, *sum);
                        }
                    }
                }
                for (head, sums) in sums.iter().enumerate() {
                    for (i, &sum) in sums.iter().enumerate() {
                        S::store(to.add(head * (d + 2) + i * S::LANES), sum);
                    }
                }
            }
        }
    };
}
gather!(gather_wide, 4);
gather!(gather_narrow, 1);
