//! Attention by blocks, backward with recompute.
//!
//! Dao 2022, algorithm 4, transposed as the forward is; `D = rowsum(dO o O)`, `L` the base-2 log-sum-exp.
//!
//! ```text
//! P'  = 2^(c K Q' - L)            dP' = V dO'          dS' = P' o (dP' - D)
//! dV += P' dO      dK += scale dS' Q      dQ' += scale K' dS'
//! ```
//!
//! A task is one block of queries of one kv head, with all its query heads: it owns `dQ`, and adds to `dK` and `dV` of
//! the key blocks that it sees. Each key block takes its additions in the order of the query blocks: a task waits until
//! the one before has been there. Tasks are claimed in that order, so that whoever is waited for is running.
use super::cpu::{ByRows, Shared, Sight, workers};
use super::pack::{BLOCK, Carve, dots_of_rows, lanes_of_rows, rows_of_lanes, with_scratch, words_of_rows};
use super::product::{Axes, HALF, Product};
use super::simd::{Kernel, Simd};
use super::{AttentionSpec, Gradients, Saved, Segments};
use luthier_tensor::{Account, DType, Float, Tensor};
use std::ops::Range;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// A segment's keys and values of one kv head, and the progress of its tasks.
struct Group {
    segment: usize,
    range: Range<usize>,
    kv_head: usize,
    /// Next block of queries to claim.
    next: AtomicUsize,
    keys: Vec<KeyBlock>,
}

/// Whose turn it is at a block of keys.
struct KeyBlock {
    /// First and last block of queries that see it.
    first: usize,
    last: usize,
    turn: AtomicUsize,
}

impl Group {
    fn new(segment: usize, range: Range<usize>, kv_head: usize, sight: Sight) -> Self {
        let len = range.len();
        let blocks = len.div_ceil(BLOCK);
        let mut keys = (0..blocks)
            .map(|_| KeyBlock { first: usize::MAX, last: 0, turn: AtomicUsize::new(0) })
            .collect::<Vec<_>>();
        for i in 0..blocks {
            let (low, high) = sight.blocks(i * BLOCK, len.min((i + 1) * BLOCK) - 1, len);
            for key in &mut keys[low..=high] {
                key.first = key.first.min(i);
                key.last = i;
                key.turn = AtomicUsize::new(key.first);
            }
        }
        Self { segment, range, kv_head, next: AtomicUsize::new(0), keys }
    }
}

struct Call<'a> {
    spec: &'a AttentionSpec,
    sight: Sight,
    n: usize,
    /// Columns of `dK` and `dV` in the workspace: `head_dim` in whole vectors.
    width: usize,
    q: Shared<u8>,
    k: Shared<u8>,
    v: Shared<u8>,
    out: Shared<u8>,
    d_out: Shared<u8>,
    lse: Shared<f32>,
    keys: ByRows<'a>,
    dq: Option<Shared<u8>>,
    dk: Option<Side>,
    dv: Option<Side>,
}

/// A gradient over keys: its sum in f32, `[kv_heads, n, width]`, and where it goes when complete.
#[derive(Clone, Copy)]
struct Side {
    sum: Shared<f32>,
    to: Shared<u8>,
}

/// Gradients of the inputs that are wanted.
///
/// # Safety
/// The machine must have the instructions of `S`, and the tensors hold `S::E`.
pub(super) unsafe fn backward<S: Simd>(
    saved: &Saved,
    d_out: &Tensor,
    spec: &AttentionSpec,
    segments: &Segments,
    wanted: [bool; 3],
) -> Gradients {
    let (n, width) = (segments.total(), spec.head_dim.next_multiple_of(S::LANES));
    let dtype = saved.q.dtype();
    let gradient = |like: &Tensor, i: usize| {
        wanted[i].then(|| Tensor::scratch(like.shape(), dtype, Account::Activation))
    };
    let (mut dq, mut dk, mut dv) = (gradient(&saved.q, 0), gradient(&saved.k, 1), gradient(&saved.v, 2));
    let sum = |i: usize| {
        wanted[i].then(|| Tensor::scratch(&[spec.kv_heads, n, width], DType::F32, Account::Workspace))
    };
    let (mut k_sum, mut v_sum) = (sum(1), sum(2));
    let side = |sum: &mut Option<Tensor>, to: &mut Option<Tensor>| match (sum, to) {
        (Some(sum), Some(to)) => {
            Some(Side { sum: Shared::new(sum.slice_mut()), to: Shared::new(to.bytes_mut()) })
        }
        _ => None,
    };
    let call = Call {
        spec,
        sight: Sight::new(spec),
        n,
        width,
        q: Shared::read(saved.q.bytes()),
        k: Shared::read(saved.k.bytes()),
        v: Shared::read(saved.v.bytes()),
        out: Shared::read(saved.out.bytes()),
        d_out: Shared::read(d_out.bytes()),
        lse: Shared::read(saved.lse.slice()),
        keys: ByRows::new::<S>(&saved.k, segments, spec, |_| wanted[0]),
        dq: dq.as_mut().map(|t| Shared::new(t.bytes_mut())),
        dk: side(&mut k_sum, &mut dk),
        dv: side(&mut v_sum, &mut dv),
    };
    let groups = (0..segments.count())
        .filter(|&i| !segments.range(i).is_empty())
        .flat_map(|i| (0..spec.kv_heads).map(move |head| (i, head)))
        .map(|(i, head)| Group::new(i, segments.range(i), head, call.sight))
        .collect::<Vec<_>>();
    let tasks = groups.iter().map(|g| g.keys.len()).sum::<usize>();
    let opened = AtomicUsize::new(0);
    workers(tasks, || {
        with_scratch(call.scratch(), |scratch| {
            let finish = |group: &Group| loop {
                let block = group.next.fetch_add(1, Relaxed);
                if block >= group.keys.len() {
                    return;
                }
                let scratch = scratch.again();
                // SAFETY: the caller's word; tasks write disjoint blocks, or in the order of their turns.
                unsafe { S::call(Task { call: &call, group, block, scratch }) };
            };
            while let Some(group) = groups.get(opened.fetch_add(1, Relaxed)) {
                finish(group);
            }
            // Every group has an owner: help those that are not done.
            groups.iter().for_each(finish);
        });
    });
    Gradients { q: dq, k: dk, v: dv }
}

impl Call<'_> {
    /// f32 that a task needs.
    fn scratch(&self) -> usize {
        (3 * self.spec.head_dim + 2 * self.width) * BLOCK + 5 * BLOCK * BLOCK + 3 * BLOCK
    }
}

struct Task<'a> {
    call: &'a Call<'a>,
    group: &'a Group,
    block: usize,
    scratch: Carve,
}

/// One head's block of queries, laid out for the products.
struct Queries {
    rows: usize,
    lanes: usize,
    q_lanes: *mut u32, // [words, BLOCK]
    d_lanes: *mut u32, // [words, BLOCK]
    q_words: *mut u32, // [rows / PACK, width]
    d_words: *mut u32, // [rows / PACK, width]
    lse: *mut f32,
    dot: *mut f32, // D
    dq: *mut f32,  // [head_dim, BLOCK]
}

/// Intermediates of one pair of blocks.
struct Pair {
    scores: *mut f32,   // [keys, BLOCK]
    d_p: *mut f32,      // [keys, BLOCK]
    p: *mut u32,        // [keys, BLOCK / PACK]
    ds: *mut u32,       // [keys, BLOCK / PACK]
    ds_words: *mut u32, // [keys / PACK, BLOCK]
}

impl Kernel for Task<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { call, group, block, mut scratch } = self;
        let (spec, len) = (call.spec, group.range.len());
        let first = block * BLOCK;
        let rows = BLOCK.min(len - first);
        let size = spec.head_dim * BLOCK;
        let queries = Queries {
            rows,
            lanes: rows.next_multiple_of(S::LANES),
            q_lanes: scratch.words(size),
            d_lanes: scratch.words(size),
            q_words: scratch.words(call.width * BLOCK),
            d_words: scratch.words(call.width * BLOCK),
            dq: scratch.take(size),
            lse: scratch.take(BLOCK),
            dot: scratch.take(BLOCK),
        };
        let factor = scratch.take(BLOCK);
        let pair = Pair {
            scores: scratch.take(BLOCK * BLOCK),
            d_p: scratch.take(BLOCK * BLOCK),
            p: scratch.words(BLOCK * BLOCK),
            ds: scratch.words(BLOCK * BLOCK),
            ds_words: scratch.words(BLOCK * BLOCK),
        };
        let (low, high) = call.sight.blocks(first, first + rows - 1, len);
        let per = spec.heads / spec.kv_heads;
        // SAFETY: all ranges lie in the tensors, whose shapes `mod.rs` has checked, or in the scratch.
        unsafe {
            for lane in 0..BLOCK {
                *factor.add(lane) = spec.scale as f32;
            }
            for head in group.kv_head * per..(group.kv_head + 1) * per {
                queries.fill::<S>(call, head, group.range.start + first);
                for key in low..=high {
                    let state = &group.keys[key];
                    if head % per == 0 {
                        wait(&state.turn, block);
                    }
                    let fresh = block == state.first && head % per == 0;
                    call.pair::<S>(&queries, &pair, group, (first, key * BLOCK), key == low, fresh);
                    if head % per == per - 1 {
                        if block == state.last {
                            call.complete::<S>(group, key * BLOCK);
                        }
                        state.turn.store(block + 1, Release);
                    }
                }
                if let Some(dq) = call.dq {
                    let place = ((group.range.start + first) * spec.heads + head) * spec.head_dim;
                    let to = dq.at(place * size_of::<S::E>()).cast::<S::E>();
                    rows_of_lanes::<S>(
                        queries.dq,
                        factor,
                        rows,
                        spec.head_dim,
                        to,
                        spec.heads * spec.head_dim,
                    );
                }
            }
        }
    }
}

/// Waits for the task before, which is running.
fn wait(turn: &AtomicUsize, block: usize) {
    let mut spins = 0u32;
    while turn.load(Acquire) != block {
        spins += 1;
        if spins < 1000 {
            std::hint::spin_loop();
        } else {
            // More threads than cores: let it run.
            std::thread::yield_now();
        }
    }
}

impl Queries {
    /// # Safety
    /// As [`backward`]; `row` is the first query's row in the tensors.
    #[inline(always)]
    unsafe fn fill<S: Simd>(&self, call: &Call<'_>, head: usize, row: usize) {
        let AttentionSpec { heads, head_dim, .. } = *call.spec;
        let (stride, words) = (heads * head_dim, head_dim / S::PACK);
        let place = (row * stride + head * head_dim) * size_of::<S::E>();
        // SAFETY: the block's rows are in the tensors, and the scratch is sized for them.
        unsafe {
            let q = call.q.at(place).cast_const();
            let d = call.d_out.at(place).cast_const();
            let out = call.out.at(place).cast_const().cast::<S::E>();
            lanes_of_rows::<S>(q.cast(), stride / S::PACK, self.rows, words, self.lanes, self.q_lanes);
            lanes_of_rows::<S>(d.cast(), stride / S::PACK, self.rows, words, self.lanes, self.d_lanes);
            words_of_rows::<S>(q.cast(), stride, self.rows, head_dim, call.width, self.q_words);
            words_of_rows::<S>(d.cast(), stride, self.rows, head_dim, call.width, self.d_words);
            let lse = call.lse.at(head * call.n + row);
            dots_of_rows::<S>((d.cast(), out), stride, self.rows, head_dim, self.lanes, self.dot);
            for lane in 0..self.lanes {
                // Weights of the lanes beyond the queries are 2^-inf = 0.
                *self.lse.add(lane) = if lane < self.rows { *lse.add(lane) } else { f32::INFINITY };
            }
        }
    }
}

impl Call<'_> {
    /// One pair of blocks: queries from `at.0`, keys from `at.1` of the group's segment.
    ///
    /// # Safety
    /// As [`backward`], and it must be this task's turn at the key block.
    #[inline(always)]
    unsafe fn pair<S: Simd>(
        &self,
        queries: &Queries,
        pair: &Pair,
        group: &Group,
        at: (usize, usize),
        first: bool,
        fresh: bool,
    ) {
        let AttentionSpec { kv_heads, head_dim, .. } = *self.spec;
        let words = head_dim / S::PACK;
        let (rows, lanes) = (queries.rows, queries.lanes);
        let key = group.range.start + at.1;
        let count = BLOCK.min(group.range.end - key);
        let place = (key * kv_heads + group.kv_head) * head_dim * size_of::<S::E>();
        let sums = (group.kv_head * self.n + key) * self.width;
        // SAFETY: the blocks' rows are in the tensors, and the scratch is sized for them.
        unsafe {
            let scored = Product {
                m: count,
                vecs: lanes / S::LANES,
                steps: words,
                a: self.k.at(place).cast_const().cast(),
                sm: kv_heads * words,
                sk: 1,
                b: queries.q_lanes,
                ldb: BLOCK,
                c: pair.scores,
                ldc: BLOCK,
                add: false,
            };
            let diagonal = self.sight.is_diagonal(at.0, at.1, rows);
            scored.over::<S>(Axes::KeysQueries, diagonal);
            let d_p = Product {
                a: self.v.at(place).cast_const().cast(),
                b: queries.d_lanes,
                c: pair.d_p,
                ..scored
            };
            d_p.over::<S>(Axes::KeysQueries, diagonal);
            self.sight.mask(pair.scores, at.1, count, at.0, rows, lanes);
            self.weigh::<S>(queries, pair, count, diagonal);
            let over_queries = Product {
                vecs: self.width / S::LANES,
                steps: rows.div_ceil(S::PACK),
                sm: BLOCK / S::PACK,
                ldb: self.width,
                ldc: self.width,
                add: !fresh,
                ..scored
            };
            if let Some(side) = self.dv {
                let dv = Product { a: pair.p, b: queries.d_words, c: side.sum.at(sums), ..over_queries };
                dv.over::<S>(Axes::KeysElements, diagonal);
            }
            if let Some(side) = self.dk {
                let dk = Product { a: pair.ds, b: queries.q_words, c: side.sum.at(sums), ..over_queries };
                dk.over::<S>(Axes::KeysElements, diagonal);
            }
            if self.dq.is_some() {
                let (a, sk) = self.keys.at(group.segment, group.range.start, at.1, group.kv_head * head_dim);
                let dq = Product {
                    m: head_dim,
                    steps: count.div_ceil(S::PACK),
                    a,
                    sm: 1,
                    sk,
                    b: pair.ds_words,
                    c: queries.dq,
                    add: !first,
                    ..scored
                };
                dq.over::<S>(Axes::ElementsQueries, diagonal);
            }
        }
    }

    /// `P'` and `dS'` from the scores and `dP'`, in the layouts of the products.
    ///
    /// # Safety
    /// The blocks must be there.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(&self, queries: &Queries, pair: &Pair, count: usize, diagonal: bool) {
        let stride = BLOCK / S::PACK;
        // SAFETY: the caller's word.
        unsafe {
            let c = S::splat(self.spec.scale as f32 * std::f32::consts::LOG2_E);
            for lane in (0..queries.lanes).step_by(S::LANES) {
                let shift = S::sub(S::splat(0.0), S::load(queries.lse.add(lane)));
                let dot = S::load(queries.dot.add(lane));
                let count = if diagonal && lane < HALF { HALF } else { count };
                for row in (0..count).step_by(S::PACK) {
                    let mut ds = [S::splat(0.0); 2];
                    for (i, ds) in ds.iter_mut().take(S::PACK.min(count - row)).enumerate() {
                        let at = (row + i) * BLOCK + lane;
                        let p = S::exp2(S::fma(S::load(pair.scores.add(at)), c, shift));
                        *ds = S::mul(p, S::sub(S::load(pair.d_p.add(at)), dot));
                        let to = (row + i) * stride + lane / S::PACK;
                        S::put(pair.p.add(to), p);
                        S::put(pair.ds.add(to), *ds);
                    }
                    S::put_rows(pair.ds_words.add(row / S::PACK * BLOCK + lane), ds[0], ds[1]);
                }
            }
        }
    }

    /// Writes the finished sums of the key block at `first` in the activation's type.
    ///
    /// # Safety
    /// As [`backward`], and no task may add to them any more.
    #[inline(always)]
    unsafe fn complete<S: Simd>(&self, group: &Group, first: usize) {
        let AttentionSpec { kv_heads, head_dim, .. } = *self.spec;
        let start = group.range.start + first;
        for (side, by) in [(self.dk, self.spec.scale as f32), (self.dv, 1.0)] {
            let Some(side) = side else { continue };
            for row in start..group.range.end.min(start + BLOCK) {
                // SAFETY: the row is in the sum and in the gradient.
                unsafe {
                    let from = side.sum.at((group.kv_head * self.n + row) * self.width);
                    let to = side.to.at((row * kv_heads + group.kv_head) * head_dim * size_of::<S::E>());
                    for i in 0..head_dim {
                        to.cast::<S::E>().add(i).write(S::E::from_f32(*from.add(i) * by));
                    }
                }
            }
        }
    }
}
