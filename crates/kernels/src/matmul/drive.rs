//! The blocked product that all tiers share.
//!
//! `C = alpha sum_t A_t B_t (+ C)`. Loops, outermost first: columns in chunks whose packed B stays in the third-level
//! cache, rows in chunks likewise, then one parallel phase that packs and one that multiplies. A task owns a block of C;
//! within it k is taken in passes (a block of A then stays in the second-level cache), panels of B, and register tiles.
//!
//! Each element of C is a chain of fused multiply-adds in the order of k, whose breaks depend on k alone: results do
//! not depend on the number of threads, nor an element's on how many rows or columns surround it.

use super::grid::Grid;
use super::kernel::{Kernel, Kind, Rows, Source, Target};
use super::scratch::{self, Use};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::marker::PhantomData;

/// Terms of one sum.
pub(super) const MAX_TERMS: usize = 8;
/// Packed operand bytes shared by all threads at a time: an eighth of a server's third-level cache.
const CHUNK_BYTES: usize = 4 << 20;
/// Bytes along k of a panel row in one pass: two rows of 12 and 32 are read from the second-level cache.
const PASS_BYTES: usize = 4096;
/// Passes from which an f32 C keeps the sums between them itself: chunks of rows and columns stay large, and each operand is
/// packed once. Input gradients of a head go over all of the vocabulary.
const LONG: usize = 4;
/// Panels of A that one task packs.
const GROUP: usize = 4;
/// Elements along k that one of them takes before the next has its turn: even.
const TURN: usize = 32;
/// Rows up to which a task packs B itself: each panel is then read once anyway.
const LOCAL_ROWS: usize = 96;

/// The right operand of a term.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right {
    /// Read from a matrix: outer axis is the column.
    Plain(Source),
    /// Packed beforehand by [`pack_whole`] for the same kernel, n and k.
    Packed(*const u32),
}

// SAFETY: a shared borrow that the caller of the driver holds.
unsafe impl Send for Right {}
// SAFETY: nobody writes through it.
unsafe impl Sync for Right {}

/// One product of the sum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// Outer axis is the row.
    pub(super) a: Source,
    pub(super) b: Right,
    pub(super) k: usize,
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// The calling thread.
    One,
    /// The rayon pool that the call runs in.
    Pool,
}

/// A stretch of one term's k.
#[derive(Clone, Copy, Debug)]
struct Segment {
    term: usize,
    k0: usize,
    k: usize,
    units: usize,
    pass: usize,
}

/// Cuts a term's k into stretches of nearly equal, even length.
fn stretches<K: Kernel>(k: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = PASS_BYTES / 4 * K::UNIT;
    let parts = k.div_ceil(most).max(1);
    let each = k.div_ceil(parts).next_multiple_of(2);
    (0..parts).map(move |p| (p * each, each.min(k.saturating_sub(p * each)))).filter(|(_, n)| *n > 0)
}

fn segments<K: Kernel>(terms: &[Term]) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    let (mut pass, mut filled) = (0, 0);
    for (term, t) in terms.iter().enumerate() {
        for (k0, k) in stretches::<K>(t.k) {
            let units = k.div_ceil(K::UNIT);
            let same_term = out.last().is_some_and(|s| s.term == term);
            if filled > 0 && (same_term || filled + units > PASS_BYTES / 4 + 64) {
                pass += 1;
                filled = 0;
            }
            filled += units;
            out.push(Segment { term, k0, k, units, pass });
        }
    }
    out
}

/// Width of the panel that starts at column `j` of `n`.
fn panel_width<K: Kernel>(j: usize, n: usize) -> usize {
    if n - j > K::VECTOR { K::NR } else { K::VECTOR }
}

/// Columns after padding the last panel.
fn padded<K: Kernel>(n: usize) -> usize {
    n.next_multiple_of(K::VECTOR)
}

/// Lanes of a packed right operand.
pub(super) fn whole_lanes<K: Kernel>(n: usize, k: usize) -> usize {
    stretches::<K>(k).map(|(_, k)| k.div_ceil(K::UNIT) * padded::<K>(n)).sum()
}

/// Packs a whole right operand: for each stretch of k, panel after panel.
///
/// # Safety
/// `to` holds [`whole_lanes`]; the source is `n` by `k`.
pub(super) unsafe fn pack_whole<K: Kernel>(source: &Source, n: usize, k: usize, to: *mut u32) {
    let to = Shared(to);
    let mut at = 0;
    for (k0, kc) in stretches::<K>(k) {
        let units = kc.div_ceil(K::UNIT);
        each(Threads::Pool, n.div_ceil(K::NR), |p| {
            let j = p * K::NR;
            // SAFETY: panel `p` occupies its own lanes; the range is inside the operand.
            unsafe {
                let width = panel_width::<K>(j, n);
                K::pack(source, j, (n - j).min(width), k0, kc, to.get().add(at + j * units), width);
            }
        });
        at += units * padded::<K>(n);
    }
}

/// Runs `body` for 0..count.
pub(super) fn each(threads: Threads, count: usize, body: impl Fn(usize) + Sync + Send) {
    if threads == Threads::One || count <= 1 {
        (0..count).for_each(body);
    } else {
        (0..count).into_par_iter().for_each(body);
    }
}

/// A pointer that tasks share and write disjointly through.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut u32);
// SAFETY: each task writes its own lanes, and readers start after all writers joined.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
impl Shared {
    pub(super) fn get(self) -> *mut u32 {
        self.0
    }
}

/// The product of one chunk of rows and columns.
struct Chunk<'a, K: Kernel> {
    terms: &'a [Term],
    segments: &'a [Segment],
    passes: usize,
    target: Target,
    /// Whether sums start from what C holds.
    goes_on: bool,
    /// Rows and columns of C that the chunk covers.
    i0: usize,
    m: usize,
    j0: usize,
    n: usize,
    /// Where each segment's packed A and B start in `shared`, where they are packed there.
    a_at: Vec<Option<usize>>,
    b_at: Vec<Option<usize>>,
    /// Where each segment's panels start in a prepacked operand.
    whole_at: Vec<usize>,
    shared: Shared,
    kernel: PhantomData<K>,
}

impl<K: Kernel> Chunk<'_, K> {
    /// Packs group number `p`, counting A's groups of panels of every packed segment, then B's panels.
    unsafe fn pack(&self, p: usize) {
        let (ag, bp) = (self.m.div_ceil(GROUP * K::MR), self.n.div_ceil(K::NR));
        let a_total = ag * self.a_at.iter().flatten().count();
        // SAFETY: every panel has its own lanes in `shared`; ranges lie inside the operands.
        unsafe {
            if p < a_total {
                let (s, at) = nth(&self.a_at, p / ag);
                self.pack_group(self.segments[s], at, p % ag * GROUP * K::MR);
            } else {
                let (s, at) = nth(&self.b_at, (p - a_total) / bp);
                let seg = self.segments[s];
                let j = (p - a_total) % bp * K::NR;
                self.pack_panel(seg, j, self.shared.get().add(at + j * seg.units));
            }
        }
    }

    /// Packs a group of A's panels from row `i` on. Where rows are neighbours in memory, a panel is narrower than what a cache
    /// line holds of them: panels take turns along k while their lines are there.
    unsafe fn pack_group(&self, seg: Segment, at: usize, i: usize) {
        let a = &self.terms[seg.term].a;
        let turn = if a.outer == 1 { TURN } else { seg.k.max(1) };
        for k in (0..seg.k).step_by(turn) {
            for ii in (i..self.m.min(i + GROUP * K::MR)).step_by(K::MR) {
                let rows = (self.m - ii).min(K::MR);
                // SAFETY: as in `pack`; a turn is a whole number of units.
                unsafe {
                    let to = self.shared.get().add(at + ii * seg.units + k / K::UNIT * rows);
                    K::pack(a, self.i0 + ii, rows, seg.k0 + k, turn.min(seg.k - k), to, rows);
                }
            }
        }
    }

    /// Packs the panel of B at column `j` of the chunk.
    unsafe fn pack_panel(&self, seg: Segment, j: usize, to: *mut u32) {
        let Right::Plain(source) = &self.terms[seg.term].b else {
            unreachable!("a prepacked operand is not packed again")
        };
        let width = panel_width::<K>(j, self.n);
        // SAFETY: the range lies inside the operand, `to` holds the panel.
        unsafe { K::pack(source, self.j0 + j, (self.n - j).min(width), seg.k0, seg.k, to, width) }
    }

    fn panels_to_pack(&self) -> usize {
        self.m.div_ceil(GROUP * K::MR) * self.a_at.iter().flatten().count()
            + self.n.div_ceil(K::NR) * self.b_at.iter().flatten().count()
    }

    /// Multiplies rows `i` (of `rows`) by columns `j` (of `cols`) of the chunk; both start at a panel.
    unsafe fn block(&self, i: usize, rows: usize, j: usize, cols: usize) {
        let local = (0..self.segments.len()).any(|s| self.packs_locally(s));
        let panel_lanes = if local { self.segments.iter().map(|s| s.units * K::NR).sum() } else { 0 };
        let sums = if self.passes > 1 {
            rows.div_ceil(K::MR) * cols.div_ceil(K::NR) * K::MR * K::NR
        } else {
            K::MR * K::NR
        };
        scratch::with(Use::Panel, panel_lanes, |panel| {
            scratch::with(Use::Sums, sums, |sums| {
                let mut first = 0;
                for pass in 0..self.passes {
                    let count = self.segments[first..].iter().take_while(|s| s.pass == pass).count();
                    for (p, jj) in (j..j + cols).step_by(K::NR).enumerate() {
                        let tiles = if self.passes > 1 { p * rows.div_ceil(K::MR) } else { 0 };
                        // SAFETY: as for this function; each (panel, row panel) has its own tile of sums.
                        unsafe {
                            let sums = sums.cast::<f32>().add(tiles * K::MR * K::NR);
                            self.panel(first..first + count, pass, i, rows, jj, panel, sums);
                        }
                    }
                    first += count;
                }
            });
        });
    }

    fn packs_locally(&self, s: usize) -> bool {
        self.b_at[s].is_none() && matches!(self.terms[self.segments[s].term].b, Right::Plain(_))
    }

    /// One pass over one panel of B: all register tiles of the block's rows.
    unsafe fn panel(
        &self,
        range: std::ops::Range<usize>,
        pass: usize,
        i: usize,
        rows: usize,
        j: usize,
        local: *mut u32,
        sums: *mut f32,
    ) {
        let width = panel_width::<K>(j, self.n);
        let mut b = [std::ptr::null::<u32>(); MAX_TERMS];
        let mut local_at = 0;
        // SAFETY: panels were packed before this phase, or are packed here into the task's own buffer.
        unsafe {
            for (slot, s) in range.clone().enumerate() {
                let seg = self.segments[s];
                b[slot] = match (&self.terms[seg.term].b, self.b_at[s]) {
                    (Right::Packed(p), _) => p.add(self.whole_at[s] + (self.j0 + j) * seg.units),
                    (Right::Plain(_), Some(at)) => self.shared.get().add(at + j * seg.units),
                    (Right::Plain(_), None) => {
                        let to = local.add(local_at);
                        local_at += seg.units * width;
                        self.pack_panel(seg, j, to);
                        to
                    }
                };
            }
            for (t, ii) in (i..i + rows).step_by(K::MR).enumerate() {
                let tile = if self.passes > 1 { sums.add(t * K::MR * K::NR) } else { sums };
                let height = (i + rows - ii).min(K::MR);
                let held = self.goes_on && pass == 0;
                if held {
                    self.read(ii, j, height, width, tile);
                }
                for (slot, s) in range.clone().enumerate() {
                    let seg = self.segments[s];
                    let a = &self.terms[seg.term].a;
                    let from = match self.a_at[s] {
                        Some(at) => Rows::Packed(self.shared.get().add(at + ii * seg.units)),
                        None => Rows::Direct(a.at(self.i0 + ii, seg.k0), a.outer * 4 / K::UNIT),
                    };
                    K::tile(height, width, seg.units, from, b[slot], tile, pass == 0 && slot == 0 && !held);
                }
                if pass + 1 == self.passes {
                    let cols = (self.n - j).min(width);
                    K::write(&self.target, self.i0 + ii, self.j0 + j, height, cols, tile);
                }
            }
        }
    }
}

impl<K: Kernel> Chunk<'_, K> {
    /// Puts what an f32 C holds into the tile.
    unsafe fn read(&self, i: usize, j: usize, rows: usize, width: usize, tile: *mut f32) {
        let (cols, target) = ((self.n - j).min(width), &self.target);
        for r in 0..rows {
            let at = (self.i0 + i + r) * target.row_stride + (self.j0 + j) * target.col_stride;
            for c in 0..cols {
                // SAFETY: the element lies inside the target, the tile has MR x NR.
                unsafe {
                    *tile.add(r * K::NR + c) = *target.ptr.cast::<f32>().add(at + c * target.col_stride);
                }
            }
        }
    }
}

/// The n-th present entry and its index.
fn nth(at: &[Option<usize>], n: usize) -> (usize, usize) {
    at.iter()
        .enumerate()
        .filter_map(|(s, a)| a.map(|a| (s, a)))
        .nth(n)
        .expect("panels are counted from these entries")
}

/// `C[m, n] = alpha sum_t A_t B_t (+ C)`.
///
/// # Safety
/// Sources cover `[m, k]` and `[k, n]`, the target `[m, n]`; nobody else touches the target; the machine has the
/// kernel's instructions.
pub(super) unsafe fn product<K: Kernel>(
    m: usize,
    n: usize,
    terms: &[Term],
    target: Target,
    threads: Threads,
) {
    assert!(terms.len() <= MAX_TERMS, "at most {MAX_TERMS} terms in a sum");
    if m == 0 || n == 0 {
        return;
    }
    if let ([term], Kind::F32, false) = (terms, target.kind, target.accumulate)
        && let Right::Plain(b) = term.b
        && term.k > LONG * PASS_BYTES / 4 * K::UNIT
    {
        for (k0, k) in stretches::<K>(term.k) {
            let part = Term { a: from_k(&term.a, k0), b: Right::Plain(from_k(&b, k0)), k };
            // C holds the sums until the last stretch scales them.
            let alpha = if k0 + k == term.k { target.alpha } else { 1.0 };
            // SAFETY: the stretch lies inside the operands.
            unsafe { sum::<K>(m, n, &[part], Target { alpha, ..target }, threads, k0 > 0) };
        }
        return;
    }
    // SAFETY: passed on from the caller.
    unsafe { sum::<K>(m, n, terms, target, threads, false) }
}

/// [`product`] in one go; with `goes_on`, sums start from what C holds.
unsafe fn sum<K: Kernel>(
    m: usize,
    n: usize,
    terms: &[Term],
    target: Target,
    threads: Threads,
    goes_on: bool,
) {
    let segments = segments::<K>(terms);
    if segments.is_empty() {
        // SAFETY: the target is whole by the caller's promise.
        unsafe { write_zeros::<K>(m, n, &target) };
        return;
    }
    let passes = segments.last().map_or(0, |s| s.pass + 1);
    let k: usize = terms.iter().map(|t| t.k).sum();
    let serial = threads == Threads::One || rayon::current_num_threads() == 1 || m * n * k < (1 << 19);
    let threads = if serial { Threads::One } else { Threads::Pool };
    let row_lanes: usize = segments.iter().map(|s| s.units).sum();
    let n_chunk = (CHUNK_BYTES / 4 / row_lanes).max(8 * K::NR) / K::NR * K::NR;
    let m_chunk = (CHUNK_BYTES / 4 / row_lanes).max(8 * K::MR) / K::MR * K::MR;
    for j0 in (0..n).step_by(n_chunk) {
        for i0 in (0..m).step_by(m_chunk) {
            let (mc, nc) = ((m - i0).min(m_chunk), (n - j0).min(n_chunk));
            // SAFETY: passed on from the caller.
            unsafe {
                chunk::<K>(terms, &segments, passes, (target, goes_on), (i0, mc), (j0, nc), n, threads);
            };
        }
    }
}

/// The operand from `k0` on.
fn from_k(source: &Source, k0: usize) -> Source {
    Source { ptr: source.ptr.wrapping_add(k0 * source.along_k * source.kind.size()), ..*source }
}

unsafe fn write_zeros<K: Kernel>(m: usize, n: usize, target: &Target) {
    if target.accumulate {
        return;
    }
    let zeros = vec![0f32; K::MR * K::NR];
    for i in (0..m).step_by(K::MR) {
        for j in (0..n).step_by(K::NR) {
            // SAFETY: the tile lies inside the target.
            unsafe { K::write(target, i, j, (m - i).min(K::MR), (n - j).min(K::NR), zeros.as_ptr()) };
        }
    }
}

unsafe fn chunk<K: Kernel>(
    terms: &[Term],
    segments: &[Segment],
    passes: usize,
    (target, goes_on): (Target, bool),
    (i0, m): (usize, usize),
    (j0, n): (usize, usize),
    all_n: usize,
    threads: Threads,
) {
    let local_b = m <= LOCAL_ROWS;
    let (mut lanes, mut whole) = (0, 0);
    let (mut a_at, mut b_at, mut whole_at) = (Vec::new(), Vec::new(), Vec::new());
    let mut last_term = usize::MAX;
    for seg in segments {
        let term = &terms[seg.term];
        let pack_a = !K::reads_in_place(&term.a, term.k);
        a_at.push(pack_a.then_some(lanes));
        lanes += if pack_a { (seg.units * m).next_multiple_of(16) } else { 0 };
        let pack_b = matches!(term.b, Right::Plain(_)) && !local_b;
        b_at.push(pack_b.then_some(lanes));
        lanes += if pack_b { (seg.units * padded::<K>(n)).next_multiple_of(16) } else { 0 };
        whole = if last_term == seg.term { whole } else { 0 };
        whole_at.push(whole);
        whole += seg.units * padded::<K>(all_n);
        last_term = seg.term;
    }
    let row_lanes: usize = segments.iter().map(|s| s.units).sum();
    scratch::with(Use::Shared, lanes, |shared| {
        let chunk = Chunk::<K> {
            terms,
            segments,
            passes,
            target,
            goes_on,
            i0,
            m,
            j0,
            n,
            a_at,
            b_at,
            whole_at,
            shared: Shared(shared),
            kernel: PhantomData,
        };
        // SAFETY: panels are disjoint; the phases are separated by a join.
        each(threads, chunk.panels_to_pack(), |p| unsafe { chunk.pack(p) });
        let tasks = Grid::new::<K>(m, n, row_lanes, passes, threads);
        each(threads, tasks.rows.len() * tasks.cols.len(), |t| {
            let (i, h) = tasks.rows[t / tasks.cols.len()];
            let (j, w) = tasks.cols[t % tasks.cols.len()];
            // SAFETY: blocks of C are disjoint.
            unsafe { chunk.block(i, h, j, w) };
        });
    });
}
