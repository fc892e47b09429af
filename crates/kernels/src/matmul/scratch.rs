//! Buffers that a thread keeps between products, aligned to cache lines.

use std::cell::Cell;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// A growable run of lanes, 64-byte aligned; what it holds is garbage until written.
#[derive(Debug, Default)]
pub(super) struct Lanes(Vec<Line>);

impl Lanes {
    /// At least `lanes` lanes, not cleared.
    pub(super) fn at_least(&mut self, lanes: usize) -> *mut u32 {
        let lines = lanes.div_ceil(16);
        if self.0.len() < lines {
            self.0.clear(); // nothing to copy when the vector moves
            self.0.resize(lines, Line([0; 16]));
        }
        self.0.as_mut_ptr().cast()
    }

    /// The first lane.
    pub(super) fn as_ptr(&self) -> *const u32 {
        self.0.as_ptr().cast()
    }

    /// Bytes that the run occupies.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * size_of::<Line>()
    }
}

/// What a buffer is for; a thread keeps one of each.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    /// Operands packed for all threads.
    Shared = 0,
    /// A panel of B packed for one task.
    Panel = 1,
    /// Sums of a task whose k is taken in several passes.
    Sums = 2,
}

thread_local! {
    static KEPT: [Cell<Lanes>; 3] = const { [const { Cell::new(Lanes(Vec::new())) }; 3] };
}

/// Runs `body` with this thread's buffer of at least `lanes`. A product that starts inside another one's task (a thread
/// that waits may be given one) finds the buffer taken and gets a new one; the larger is kept.
pub(super) fn with<R>(purpose: Use, lanes: usize, body: impl FnOnce(*mut u32) -> R) -> R {
    let mut buffer = KEPT.with(|kept| kept[purpose as usize].take());
    let out = body(buffer.at_least(lanes));
    KEPT.with(|kept| {
        let other = kept[purpose as usize].take();
        kept[purpose as usize].set(if other.bytes() > buffer.bytes() { other } else { buffer });
    });
    out
}
