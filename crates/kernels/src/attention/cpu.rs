//! Attention by blocks of 64 queries and 64 keys, forward.
//!
//! Flash attention (Dao 2022, algorithm 1; Dao 2023 for the order of the loops),
//! transposed: a lane is a query, a row is a key, so that maxima, sums and
//! rescaling need no reduction across lanes.
//!
//! ```text
//! S' = K Q'                 [keys, queries]
//! m  = max(m, c max S')     c = scale log2 e
//! P' = 2^(c S' - m)         l = l 2^(m_old - m) + sum P'
//! O' = O' 2^(m_old - m) + V' P'      O = O' / l
//! ```
//!
//! Keys before a query's first block and after its own leave `m`, `l` and `O'` as they are, to the bit.
use super::pack::{BLOCK, Carve, lanes_of_rows, rows_of_lanes, with_scratch, words_of_rows};
use super::product::{Axes, HALF, Product};
use super::simd::{Kernel, Simd};
use super::{AttentionSpec, Segments};
use luthier_tensor::{Account, DType, Tensor};
use rayon::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A pointer that the tasks of one call share. They write disjoint ranges, or in an order that they keep.
pub(super) struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
// SAFETY: see the type.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: see the type.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }
    pub(super) fn read(slice: &[T]) -> Self {
        Self(slice.as_ptr().cast_mut())
    }
    /// The element at `i`.
    ///
    /// # Safety
    /// `i` must be in the slice.
    pub(super) unsafe fn at(self, i: usize) -> *mut T {
        // SAFETY: passed on.
        unsafe { self.0.add(i) }
    }
}

/// Runs `body` on as many threads as the pool has, but no more than `tasks`.
pub(super) fn workers(tasks: usize, body: impl Fn() + Sync) {
    let threads = rayon::current_num_threads().min(tasks);
    if threads <= 1 {
        return body();
    }
    rayon::scope(|scope| {
        (1..threads).for_each(|_| scope.spawn(|_| body()));
        body();
    });
}

/// Which keys a query sees, by position in the segment.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    causal: bool,
    window: usize,
}

impl Sight {
    pub(super) fn new(spec: &AttentionSpec) -> Self {
        Self { causal: spec.causal, window: spec.window.unwrap_or(usize::MAX / 4) }
    }

    /// Keys, of `keys`, that some query from `first` to `last` sees; none is skipped between.
    pub(super) fn keys(self, first: usize, last: usize, keys: usize) -> std::ops::Range<usize> {
        let end = if self.causal { last + 1 } else { (last + self.window).min(keys) };
        (first + 1).saturating_sub(self.window)..end
    }

    /// Blocks of those keys, first and last.
    pub(super) fn blocks(self, first: usize, last: usize, keys: usize) -> (usize, usize) {
        let keys = self.keys(first, last, keys);
        (keys.start / BLOCK, (keys.end - 1) / BLOCK)
    }

    /// Whether the pair of blocks, queries from `first` and keys from `key`, is one for
    /// [`Product::run_below_diagonal`].
    pub(super) fn is_diagonal(self, first: usize, key: usize, rows: usize) -> bool {
        self.causal && first == key && rows > HALF
    }

    /// Queries, from `first` on, that see `key`: a range of lanes below `lanes`.
    fn lanes(self, key: usize, first: usize, lanes: usize) -> std::ops::Range<usize> {
        let from = if self.causal { key } else { (key + 1).saturating_sub(self.window) };
        from.saturating_sub(first).min(lanes)..(key + self.window).saturating_sub(first).min(lanes)
    }

    /// Sets `scores [keys, BLOCK]` to -inf where lane (query `first + lane`) does not see row (key `key + row`).
    ///
    /// # Safety
    /// The scores must be there.
    #[inline(always)]
    pub(super) unsafe fn mask(
        self,
        scores: *mut f32,
        key: usize,
        keys: usize,
        first: usize,
        rows: usize,
        lanes: usize,
    ) {
        if self.lanes(key + keys - 1, first, rows).start == 0 && self.lanes(key, first, rows).end == rows {
            return;
        }
        for row in 0..keys {
            // SAFETY: a row of BLOCK scores, by the caller's word.
            let scores = unsafe { std::slice::from_raw_parts_mut(scores.add(row * BLOCK), lanes) };
            let seen = self.lanes(key + row, first, lanes);
            scores[..seen.start].fill(f32::NEG_INFINITY);
            scores[seen.end..].fill(f32::NEG_INFINITY);
        }
    }
}

/// Rows of a segment's keys or values as the left operand of a product over keys: words of `PACK` rows.
pub(super) struct ByRows<'a> {
    packed: Option<Tensor>,
    plain: &'a Tensor,
    starts: Vec<usize>,
}

impl<'a> ByRows<'a> {
    /// Packs the segments `wanted` where a word holds two rows; `t [n, kv_heads head_dim]`.
    pub(super) fn new<S: Simd>(
        t: &'a Tensor,
        segments: &Segments,
        spec: &AttentionSpec,
        wanted: impl Fn(usize) -> bool,
    ) -> Self {
        let mut starts = vec![0];
        for i in 0..segments.count() {
            starts.push(starts[i] + segments.range(i).len().div_ceil(S::PACK));
        }
        if S::PACK == 1 {
            return Self { packed: None, plain: t, starts };
        }
        let (width, from) = (spec.kv_heads * spec.head_dim, t.slice::<S::E>());
        let total = starts[segments.count()];
        let mut packed = Tensor::scratch(&[total, width], DType::U32, Account::Workspace);
        let to = Shared::new(packed.slice_mut::<u32>());
        let tasks = (0..segments.count())
            .filter(|&i| wanted(i))
            .flat_map(|i| (0..segments.range(i).len().div_ceil(BLOCK)).map(move |b| (i, b)))
            .collect::<Vec<_>>();
        tasks.par_iter().for_each(|&(i, block)| {
            let range = segments.range(i);
            let first = range.start + block * BLOCK;
            let rows = BLOCK.min(range.end - first);
            let source = &from[first * width..(first + rows) * width];
            // SAFETY: the caller has checked the tier; blocks of different tasks are disjoint.
            unsafe {
                let to = to.at((starts[i] + block * BLOCK / S::PACK) * width);
                S::call(PackRows { from: source.as_ptr().cast(), rows, width, to });
            }
        });
        Self { packed: Some(packed), plain: t, starts }
    }

    /// First word, and words from row to row, of key `key` (a multiple of `PACK`) of `segment` at column `column`.
    ///
    /// # Safety
    /// They must be there.
    #[inline(always)]
    pub(super) unsafe fn at(
        &self,
        segment: usize,
        start: usize,
        key: usize,
        column: usize,
    ) -> (*const u32, usize) {
        let width = self.plain.cols();
        match &self.packed {
            None => {
                let from = self.plain.bytes().as_ptr().cast::<u32>();
                // SAFETY: passed on.
                (unsafe { from.add((start + key) * width + column) }, width)
            }
            // SAFETY: passed on.
            Some(t) => (
                unsafe { t.slice::<u32>().as_ptr().add((self.starts[segment] + key / 2) * width + column) },
                width,
            ),
        }
    }
}

struct PackRows {
    from: *const u8,
    rows: usize,
    width: usize,
    to: *mut u32,
}

impl Kernel for PackRows {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on.
        unsafe {
            words_of_rows::<S>(self.from.cast(), self.width, self.rows, self.width, self.width, self.to);
        }
    }
}

/// A block of queries of one head.
#[derive(Clone, Copy)]
struct Item {
    segment: usize,
    head: usize,
    /// First query, and queries, of the block within the queries' segment.
    first: usize,
    rows: usize,
}

/// Output `[queries, heads head_dim]` and base-2 log-sum-exp `[heads, queries]` of `c S`, written for the segments
/// `wanted`.
///
/// # Safety
/// The machine must have the instructions of `S`, and the tensors hold `S::E`.
pub(super) unsafe fn forward<S: Simd>(
    q: &Tensor,
    q_segments: &Segments,
    k: &Tensor,
    v: &Tensor,
    k_segments: &Segments,
    spec: &AttentionSpec,
    wanted: impl Fn(usize) -> bool,
) -> (Tensor, Tensor) {
    let n = q_segments.total();
    let mut out = Tensor::scratch(q.shape(), q.dtype(), Account::Activation);
    let mut lse = Tensor::scratch(&[spec.heads, n], DType::F32, Account::Activation);
    let values = ByRows::new::<S>(v, k_segments, spec, &wanted);
    let items = (0..q_segments.count())
        .filter(|&i| wanted(i))
        .flat_map(|segment| {
            let len = q_segments.range(segment).len();
            // The last blocks see the most keys: first, for balance.
            (0..len).step_by(BLOCK).rev().flat_map(move |first| {
                (0..spec.heads).map(move |head| Item { segment, head, first, rows: BLOCK.min(len - first) })
            })
        })
        .collect::<Vec<_>>();
    let call = Forward {
        spec,
        sight: Sight::new(spec),
        q_segments,
        k_segments,
        q: Shared::read(q.bytes()),
        k: Shared::read(k.bytes()),
        values: &values,
        out: Shared::new(out.bytes_mut()),
        lse: Shared::new(lse.slice_mut()),
    };
    let next = AtomicUsize::new(0);
    workers(items.len(), || {
        with_scratch(call.scratch(), |scratch| {
            while let Some(&item) = items.get(next.fetch_add(1, Relaxed)) {
                let scratch = scratch.again();
                // SAFETY: the caller's word; items write disjoint blocks of the output.
                unsafe { S::call(ForwardBlock { call: &call, item, scratch }) };
            }
        });
    });
    (out, lse)
}

struct Forward<'a> {
    spec: &'a AttentionSpec,
    sight: Sight,
    q_segments: &'a Segments,
    k_segments: &'a Segments,
    q: Shared<u8>,
    k: Shared<u8>,
    values: &'a ByRows<'a>,
    out: Shared<u8>,
    lse: Shared<f32>,
}

impl Forward<'_> {
    /// f32 that a block needs.
    fn scratch(&self) -> usize {
        2 * self.spec.head_dim * BLOCK + 2 * BLOCK * BLOCK + 3 * BLOCK
    }
}

struct ForwardBlock<'a> {
    call: &'a Forward<'a>,
    item: Item,
    scratch: Carve,
}

impl Kernel for ForwardBlock<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { call, item, mut scratch } = self;
        let AttentionSpec { heads, kv_heads, head_dim, .. } = *call.spec;
        let (queries, keys) = (call.q_segments.range(item.segment), call.k_segments.range(item.segment));
        let kv_head = item.head / (heads / kv_heads);
        let words = head_dim / S::PACK;
        let vecs = item.rows.div_ceil(S::LANES);
        let lanes = vecs * S::LANES;
        let position = keys.len() - queries.len() + item.first;
        let c = call.spec.scale as f32 * std::f32::consts::LOG2_E;
        let place = (queries.start + item.first) * heads * head_dim + item.head * head_dim;
        let size = size_of::<S::E>();
        // SAFETY: all ranges lie in the tensors, whose shapes `mod.rs` has checked, or in the scratch.
        unsafe {
            let right = scratch.words(head_dim * BLOCK); // q' [words, BLOCK]
            let scores = scratch.take(BLOCK * BLOCK); // [keys, BLOCK]
            let weights = scratch.words(BLOCK * BLOCK); // [keys / PACK, BLOCK]
            let sum = scratch.take(head_dim * BLOCK); // O' [head_dim, BLOCK]
            let (top, norm, factor) = (scratch.take(BLOCK), scratch.take(BLOCK), scratch.take(BLOCK));
            let from = call.q.at(place * size).cast_const().cast::<u32>();
            lanes_of_rows::<S>(from, heads * words, item.rows, words, lanes, right);
            for lane in 0..lanes {
                *top.add(lane) = f32::MIN;
                *norm.add(lane) = 0.0;
            }
            let (low, high) = call.sight.blocks(position, position + item.rows - 1, keys.len());
            for block in low..=high {
                let key = block * BLOCK;
                let count = BLOCK.min(keys.len() - key);
                let left = call.k.at(((keys.start + key) * kv_heads + kv_head) * head_dim * size);
                let scored = Product {
                    m: count,
                    vecs,
                    steps: words,
                    a: left.cast_const().cast(),
                    sm: kv_heads * words,
                    sk: 1,
                    b: right,
                    ldb: BLOCK,
                    c: scores,
                    ldc: BLOCK,
                    add: false,
                };
                let diagonal = call.sight.is_diagonal(position, key, item.rows);
                scored.over::<S>(Axes::KeysQueries, diagonal);
                call.sight.mask(scores, key, count, position, item.rows, lanes);
                for lane in (0..lanes).step_by(S::LANES) {
                    let count = if diagonal && lane < HALF { HALF } else { count };
                    soften::<S>(
                        scores.add(lane),
                        count,
                        c,
                        top.add(lane),
                        norm.add(lane),
                        factor.add(lane),
                        weights.add(lane),
                    );
                }
                if block > low {
                    for row in 0..head_dim {
                        for lane in (0..lanes).step_by(S::LANES) {
                            let at = sum.add(row * BLOCK + lane);
                            S::store(at, S::mul(S::load(at), S::load(factor.add(lane))));
                        }
                    }
                }
                let (a, sk) = call.values.at(item.segment, keys.start, key, kv_head * head_dim);
                let weighed = Product {
                    m: head_dim,
                    steps: count.div_ceil(S::PACK),
                    a,
                    sm: 1,
                    sk,
                    b: weights,
                    c: sum,
                    add: block > low,
                    ..scored
                };
                weighed.over::<S>(Axes::ElementsQueries, diagonal);
            }
            let lse = call.lse.at(item.head * call.q_segments.total() + queries.start + item.first);
            for row in 0..item.rows {
                *lse.add(row) = *top.add(row) + (*norm.add(row)).log2();
                *factor.add(row) = 1.0 / *norm.add(row);
            }
            let to = call.out.at(place * size).cast::<S::E>();
            rows_of_lanes::<S>(sum, factor, item.rows, head_dim, to, heads * head_dim);
        }
    }
}

/// One vector of queries over a block of keys: the running maximum and sum, what to rescale by, and the weights.
///
/// # Safety
/// `count` rows of scores, and as many of weights, must be there.
#[inline(always)]
unsafe fn soften<S: Simd>(
    scores: *const f32,
    count: usize,
    c: f32,
    top: *mut f32,
    norm: *mut f32,
    factor: *mut f32,
    weights: *mut u32,
) {
    // SAFETY: the caller's word.
    unsafe {
        // Four chains hide the latency; a maximum does not depend on their order.
        let mut most = [S::splat(f32::NEG_INFINITY); 4];
        for row in 0..count {
            let at = &mut most[row % 4];
            *at = S::max(*at, S::load(scores.add(row * BLOCK)));
        }
        let c = S::splat(c);
        let most = S::max(S::max(most[0], most[1]), S::max(most[2], most[3]));
        let old = S::load(top);
        let new = S::max(S::mul(most, c), old);
        let rescale = S::exp2(S::sub(old, new));
        let shift = S::sub(S::splat(0.0), new);
        let mut sums = [S::splat(0.0); 2];
        for row in (0..count).step_by(S::PACK) {
            let first = S::exp2(S::fma(S::load(scores.add(row * BLOCK)), c, shift));
            sums[0] = S::add(sums[0], first);
            let mut second = S::splat(0.0);
            if S::PACK == 2 && row + 1 < count {
                second = S::exp2(S::fma(S::load(scores.add((row + 1) * BLOCK)), c, shift));
                sums[1] = S::add(sums[1], second);
            }
            S::put_rows(weights.add(row / S::PACK * BLOCK), first, second);
        }
        S::store(top, new);
        S::store(norm, S::fma(S::load(norm), rescale, S::add(sums[0], sums[1])));
        S::store(factor, rescale);
    }
}
