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
    for word in 0..words {
        for lane in 0..lanes {
            // SAFETY: row `lane` and lane `lane` are there.
            unsafe {
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
    for row in 0..rows {
        for column in 0..columns {
            // SAFETY: in range by the caller's word.
            unsafe {
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
