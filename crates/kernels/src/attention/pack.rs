//! Layouts of the blocks: words by lane, pairs of rows, and back; scratch memory of a thread.
use super::simd::Simd;
use luthier_tensor::Float;
use std::cell::RefCell;

/// Queries, and keys, of a block. Blocks start at the segment's first key, so that a row's sums do not depend on where
/// its segment lies nor on what follows.
pub(super) const BLOCK: usize = 64;

/// A cache line of scratch.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line {
    _floats: [f32; 16],
}

/// Runs `body` on `floats` f32 of the thread's scratch, aligned to a cache line, with arbitrary contents.
pub(super) fn with_scratch<R>(floats: usize, body: impl FnOnce(Carve) -> R) -> R {
    thread_local!(static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) });
    SCRATCH.with_borrow_mut(|lines| {
        let count = floats.div_ceil(16);
        if lines.len() < count {
            lines.resize(count, Line { _floats: [0.0; 16] });
        }
        body(Carve { at: lines.as_mut_ptr().cast(), left: count * 16 })
    })
}

/// Hands out scratch piece by piece.
pub(super) struct Carve {
    at: *mut f32,
    left: usize,
}

impl Carve {
    /// `count` f32, aligned to a cache line.
    pub(super) fn take(&mut self, count: usize) -> *mut f32 {
        let count = count.next_multiple_of(16);
        assert!(count <= self.left, "scratch was sized by the sum of its pieces");
        let piece = self.at;
        // SAFETY: within the scratch, by the line above.
        self.at = unsafe { self.at.add(count) };
        self.left -= count;
        piece
    }

    /// The same scratch from its start, for the next task.
    pub(super) fn again(&self) -> Self {
        Self { ..*self }
    }

    /// `count` words.
    pub(super) fn words(&mut self, count: usize) -> *mut u32 {
        self.take(count).cast()
    }
}

/// The first `count` vectors of a tile. A whole tile takes the path without conditions.
#[inline(always)]
fn fill<S: Simd>(tile: &mut [S::V; 16], count: usize, make: impl Fn(usize) -> S::V) {
    if count >= S::LANES {
        for (i, tile) in tile.iter_mut().take(S::LANES).enumerate() {
            *tile = make(i);
        }
    } else {
        for (i, tile) in tile.iter_mut().take(count).enumerate() {
            *tile = make(i);
        }
    }
}

/// `to[i] = a_i . b_i` for rows of `columns` elements, `stride` apart; lanes from `rows` to `lanes` are zero.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
pub(super) unsafe fn dots_of_rows<S: Simd>(
    (a, b): (*const S::E, *const S::E),
    stride: usize,
    rows: usize,
    columns: usize,
    lanes: usize,
    to: *mut f32,
) {
    let whole = columns / S::LANES * S::LANES;
    // SAFETY: rows below `rows`, and lanes below `lanes`, are there.
    unsafe {
        for first in (0..lanes).step_by(S::LANES) {
            let mut tile = [S::splat(0.0); 16];
            fill::<S>(&mut tile, rows - first, |i| {
                let row = (first + i) * stride;
                let mut sum = S::splat(0.0);
                for column in (0..whole).step_by(S::LANES) {
                    sum = S::fma(S::widen(a.add(row + column)), S::widen(b.add(row + column)), sum);
                }
                sum
            });
            S::transpose(&mut tile);
            let sum = tile.iter().take(S::LANES).fold(S::splat(0.0), |sum, &lane| S::add(sum, lane));
            S::store(to.add(first), sum);
        }
        for row in 0..rows {
            for at in (whole..columns).map(|column| row * stride + column) {
                *to.add(row) += (*a.add(at)).to_f32() * (*b.add(at)).to_f32();
            }
        }
    }
}

/// `to [words, BLOCK]` from `rows` rows of `words` words, `stride` words apart; lanes from `rows` to `lanes` are zero.
///
/// # Safety
/// The rows and `to` must be there.
#[inline(always)]
pub(super) unsafe fn lanes_of_rows<S: Simd>(
    from: *const u32,
    stride: usize,
    rows: usize,
    words: usize,
    lanes: usize,
    to: *mut u32,
) {
    let whole = words / S::LANES * S::LANES;
    // SAFETY: rows below `rows`, and lanes below `lanes`, are there.
    unsafe {
        for first in (0..lanes).step_by(S::LANES) {
            for word in (0..whole).step_by(S::LANES) {
                let mut tile = [S::splat(0.0); 16];
                let from = from.add(first * stride + word);
                fill::<S>(&mut tile, rows - first, |i| S::load(from.add(i * stride).cast()));
                S::transpose(&mut tile);
                for (i, &tile) in tile.iter().take(S::LANES).enumerate() {
                    S::store(to.add((word + i) * BLOCK + first).cast(), tile);
                }
            }
        }
        for word in whole..words {
            for lane in 0..lanes {
                let value = if lane < rows { from.add(lane * stride + word).read_unaligned() } else { 0 };
                *to.add(word * BLOCK + lane) = value;
            }
        }
    }
}

/// `to [rows, columns]`, rows `stride` apart, from `from [columns, BLOCK]`, lane `i` times `by[i]`.
///
/// # Safety
/// All of it must be there.
#[inline(always)]
pub(super) unsafe fn rows_of_lanes<S: Simd>(
    from: *const f32,
    by: *const f32,
    rows: usize,
    columns: usize,
    to: *mut S::E,
    stride: usize,
) {
    let whole = columns / S::LANES * S::LANES;
    // SAFETY: rows below `rows`, and the lanes of their vectors, are there.
    unsafe {
        for first in (0..rows).step_by(S::LANES) {
            let by = S::load(by.add(first));
            for column in (0..whole).step_by(S::LANES) {
                let mut tile = [by; 16];
                for (i, tile) in tile.iter_mut().take(S::LANES).enumerate() {
                    *tile = S::mul(S::load(from.add((column + i) * BLOCK + first)), by);
                }
                S::transpose(&mut tile);
                let to = to.add(first * stride + column);
                for (i, &tile) in tile.iter().take(S::LANES).enumerate() {
                    if i < rows - first {
                        S::put(to.add(i * stride).cast(), tile);
                    }
                }
            }
        }
        for row in 0..rows {
            for column in whole..columns {
                let value = *from.add(column * BLOCK + row) * *by.add(row);
                to.add(row * stride + column).write(S::E::from_f32(value));
            }
        }
    }
}

/// `to [rows / PACK, width]` words that each hold one column of `PACK` rows, from rows of `columns` elements `stride`
/// apart. Missing rows and columns are zero.
///
/// # Safety
/// The rows and `to` must be there.
#[inline(always)]
pub(super) unsafe fn words_of_rows<S: Simd>(
    from: *const S::E,
    stride: usize,
    rows: usize,
    columns: usize,
    width: usize,
    to: *mut u32,
) {
    // SAFETY: rows below `rows` are read, and `rows / PACK` rows of `width` words written.
    unsafe {
        for row in (0..rows).step_by(S::PACK) {
            let to = to.add(row / S::PACK * width);
            let low = from.add(row * stride);
            if S::PACK == 1 {
                std::ptr::copy_nonoverlapping(low.cast::<u32>(), to, columns);
            } else {
                let (low, high) = (low.cast::<u16>(), low.add(stride).cast::<u16>());
                if row + 1 < rows {
                    for i in 0..columns {
                        *to.add(i) = u32::from(*low.add(i)) | u32::from(*high.add(i)) << 16;
                    }
                } else {
                    for i in 0..columns {
                        *to.add(i) = u32::from(*low.add(i));
                    }
                }
            }
            std::ptr::write_bytes(to.add(columns), 0, width - columns);
        }
    }
}
