//! Attention of one query to many keys: a stream over keys and values, each read once, for all heads, in memory's order.
//!
//! Keys are taken in chunks that start at multiples of 128 in the segment, so that
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

/// Keys of a chunk: enough that joining, once a chunk, costs nothing; the scores of 32 heads are 16 KiB.
const CHUNK: usize = 128;
/// Value rows that are read for all heads in turn, small enough for the second-level cache.
const TILE: usize = 16;
/// Key elements below which a second thread costs more than it brings (some 20 microseconds of work).
const GRAIN: usize = 1 << 17;

/// Whether [`decode`] takes a segment with this many queries: the rule is the same on every tier.
pub(super) fn takes(queries: usize, spec: &AttentionSpec) -> bool {
    queries == 1 && spec.head_dim.is_multiple_of(16)
}

/// A chunk of the keys of one segment.
struct Chunk {
    segment: usize,
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
            chunks.push(Chunk { segment, keys: keys.start + from..keys.start + to });
        }
    }
    let width = spec.head_dim + 2;
    let mut partial = Tensor::scratch(&[chunks.len(), spec.heads, width], DType::F32, Account::Workspace);
    let shared = Shared::new(partial.slice_mut::<f32>());
    let (q_rows, k_rows, v_rows) = (q.slice::<T>(), k.slice::<T>(), v.slice::<T>());
    let work = chunks.iter().map(|c| c.keys.len()).sum::<usize>() * spec.kv_heads * spec.head_dim;
    let next = AtomicUsize::new(0);
    workers(if work < GRAIN { 1 } else { chunks.len() }, || {
        with_scratch(spec.heads * (CHUNK + spec.head_dim), |mut scratch| {
            let queries = scratch.take(spec.heads * spec.head_dim);
            let scores = scratch.take(spec.heads * CHUNK);
            loop {
                let i = next.fetch_add(1, Relaxed);
                let Some(chunk) = chunks.get(i) else { break };
                let row = q_segments.range(chunk.segment).start;
                let place = row * spec.heads * spec.head_dim;
                let at = chunk.keys.start * spec.kv_heads * spec.head_dim;
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
                        to: shared.at(i * spec.heads * width),
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
    let d = spec.head_dim;
    let part = |i: usize, head: usize| &partial[(i * spec.heads + head) * (d + 2)..][..d + 2];
    let mut sum = vec![0f32; d];
    let mut first = 0;
    while first < chunks.len() {
        let segment = chunks[first].segment;
        let end = first + chunks[first..].iter().take_while(|c| c.segment == segment).count();
        for head in 0..spec.heads {
            let top = (first..end).map(|i| part(i, head)[d]).fold(f32::MIN, f32::max);
            let mut norm = 0.0;
            sum.fill(0.0);
            for i in first..end {
                let part = part(i, head);
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

/// One chunk for all heads.
struct Stream<'a, T> {
    spec: &'a AttentionSpec,
    /// `[heads, head_dim]`.
    q: *const T,
    /// Rows `kv_heads head_dim` apart.
    k: *const T,
    v: *const T,
    keys: usize,
    /// `[heads, head_dim]`: the query times `c`.
    queries: *mut f32,
    /// `[heads, CHUNK]`.
    scores: *mut f32,
    /// `[heads, head_dim + 2]`: `o`, `m`, `l`.
    to: *mut f32,
    element: PhantomData<T>,
}

/// Calls `$f::<S, T, G>` with as many heads as are left, up to four; says how many.
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
            for i in (0..heads * d).step_by(S::LANES) {
                S::store(self.queries.add(i), S::mul(S::widen(self.q.add(i)), c));
            }
            for key in (0..self.keys).step_by(S::LANES) {
                let count = S::LANES.min(self.keys - key);
                for kv_head in 0..kv_heads {
                    let k = self.k.add(key * stride + kv_head * d);
                    let (mut head, end) = (kv_head * group, (kv_head + 1) * group);
                    while head < end {
                        let (q, to) = (self.queries.add(head * d), self.scores.add(head * CHUNK + key));
                        head += by_heads!(end - head, score(q, k, stride, count, d, to));
                    }
                }
            }
            for head in 0..heads {
                let (top, norm) = soften::<S>(self.scores.add(head * CHUNK), self.keys);
                let to = self.to.add(head * (d + 2));
                std::ptr::write_bytes(to, 0, d);
                *to.add(d) = top;
                *to.add(d + 1) = norm;
            }
            for key in (0..self.keys).step_by(TILE) {
                let count = TILE.min(self.keys - key);
                for kv_head in 0..kv_heads {
                    let v = self.v.add(key * stride + kv_head * d);
                    let (mut head, end) = (kv_head * group, (kv_head + 1) * group);
                    while head < end {
                        let (p, to) = (self.scores.add(head * CHUNK + key), self.to.add(head * (d + 2)));
                        head += by_heads!(end - head, gather(p, v, stride, count, d, to));
                    }
                }
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

/// Adds weighted value rows to the sums of `G` heads.
///
/// # Safety
/// The rows, weights and sums must be there.
#[inline(always)]
unsafe fn gather<S: Simd, T: Float, const G: usize>(
    p: *const f32,
    v: *const T,
    stride: usize,
    keys: usize,
    d: usize,
    to: *mut f32,
) {
    let mut column = 0;
    while column < d {
        // SAFETY: the caller's word; columns are left for as many vectors.
        unsafe {
            let (v, to) = (v.add(column), to.add(column));
            if d - column >= 4 * S::LANES {
                columns::<S, T, G, 4>(p, v, stride, keys, d, to);
                column += 4 * S::LANES;
            } else {
                columns::<S, T, G, 1>(p, v, stride, keys, d, to);
                column += S::LANES;
            }
        }
    }
}

/// [`gather`] over `C` vectors of columns.
///
/// # Safety
/// As [`gather`].
#[inline(always)]
unsafe fn columns<S: Simd, T: Float, const G: usize, const C: usize>(
    p: *const f32,
    v: *const T,
    stride: usize,
    keys: usize,
    d: usize,
    to: *mut f32,
) {
    // SAFETY: the caller's word.
    unsafe {
        let at = |head: usize, i: usize| to.add(head * (d + 2) + i * S::LANES);
        let mut sums: [[S::V; C]; G] =
            std::array::from_fn(|head| std::array::from_fn(|i| S::load(at(head, i))));
        for key in 0..keys {
            let v = v.add(key * stride);
            let values: [S::V; C] = std::array::from_fn(|i| S::widen(v.add(i * S::LANES)));
            for (head, sums) in sums.iter_mut().enumerate() {
                let p = S::splat(*p.add(head * CHUNK + key));
                for (sum, &value) in sums.iter_mut().zip(&values) {
                    *sum = S::fma(p, value, *sum);
                }
            }
        }
        for (head, sums) in sums.iter().enumerate() {
            for (i, &sum) in sums.iter().enumerate() {
                S::store(at(head, i), sum);
            }
        }
    }
}
