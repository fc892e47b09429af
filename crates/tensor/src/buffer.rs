//! Aligned, accounted, pooled memory. The one file of this crate with `unsafe`.
//!
//! A training step asks for the same sizes again and again. Fresh pages cost a
//! fault and a zeroing by the kernel each, so that freed blocks are kept in size
//! classes and handed out again as they are. Blocks come zeroed, and every bit
//! pattern is a value of every [`Element`], so a reused block holds arbitrary but
//! initialised numbers.
//!
//! Large blocks are mappings of their own: batches of real rows differ in length,
//! and a heap that has held their blocks cannot give the holes back (measured:
//! half of a run's resident set).
#![allow(unsafe_code)]
use crate::account::{Account, credit, debit};
use crate::dtype::Element;
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Start of every block: a cache line, and the width of an AVX-512 register.
const ALIGN: usize = 64;
/// Blocks from this capacity on are mappings.
const LARGE: usize = 1 << 20;

/// A range of bytes that belongs to an account.
pub(crate) struct Buffer {
    start: NonNull<u8>,
    len: usize,
    account: Account,
    memory: Memory,
}

enum Memory {
    /// A block of the pool; none once it has been given back.
    Pooled(Option<Block>),
    /// Somebody else's memory, read-only: a mapped file. The value keeps it alive.
    Foreign(#[expect(dead_code, reason = "held for its drop")] Arc<dyn Any + Send + Sync>),
}

// SAFETY: a buffer owns its block, or shares immutable foreign memory; `&Buffer` only reads.
unsafe impl Send for Buffer {}
// SAFETY: as above; writing needs `&mut Buffer`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` bytes with arbitrary contents.
    pub(crate) fn scratch(len: usize, account: Account) -> Self {
        let capacity = class(len);
        let mut block = pool().take(capacity);
        credit(account, len);
        Self { start: block.start(), len, account, memory: Memory::Pooled(Some(block)) }
    }

    /// A view of `bytes`, which `owner` keeps alive and unchanged. Read-only for ever.
    pub(crate) fn foreign<O: AsRef<[u8]> + Send + Sync + 'static>(
        owner: Arc<O>,
        range: std::ops::Range<usize>,
        account: Account,
    ) -> Self {
        let bytes = &(*owner).as_ref()[range];
        let (start, len) = (NonNull::from(bytes).cast::<u8>(), bytes.len());
        credit(account, len);
        Self { start, len, account, memory: Memory::Foreign(owner) }
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.memory, Memory::Foreign(_))
    }

    pub(crate) fn slice<T: Element>(&self, offset: usize, count: usize) -> &[T] {
        self.check::<T>(offset, count);
        // SAFETY: in bounds and aligned (checked), initialised (module head), and `&self` forbids writers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset).cast::<T>(), count) }
    }

    pub(crate) fn slice_mut<T: Element>(&mut self, offset: usize, count: usize) -> &mut [T] {
        self.check::<T>(offset, count);
        assert!(!self.is_foreign(), "mapped memory is read-only");
        // SAFETY: in bounds, aligned, initialised; `&mut self` makes the access exclusive, and the block is ours.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset).cast::<T>(), count) }
    }

    fn check<T: Element>(&self, offset: usize, count: usize) {
        let bytes = count.checked_mul(size_of::<T>()).and_then(|b| b.checked_add(offset));
        assert!(bytes.is_some_and(|end| end <= self.len), "view outside its buffer");
        assert!((self.start.as_ptr() as usize + offset).is_multiple_of(align_of::<T>()), "misaligned view");
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        debit(self.account, self.len);
        if let Memory::Pooled(block) = &mut self.memory
            && let Some(block) = block.take()
        {
            pool().give(block);
        }
    }
}

/// Freed blocks by capacity. Bytes in use plus cached stay within the most that was ever in use (and a twentieth).
struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
    cached: usize,
    in_use: usize,
    most: usize,
}

/// Memory from the operating system or the allocator, at first zeroed.
enum Block {
    Small { start: NonNull<u8>, capacity: usize },
    Large(MmapMut),
}

// SAFETY: a block has one owner.
unsafe impl Send for Block {}

impl Block {
    fn new(capacity: usize) -> Self {
        if capacity >= LARGE {
            return Self::Large(
                MmapMut::map_anon(capacity).unwrap_or_else(|_| handle_alloc_error(layout(capacity))),
            );
        }
        // SAFETY: the layout's size is at least ALIGN, not zero.
        let start = unsafe { alloc_zeroed(layout(capacity)) };
        Self::Small {
            start: NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout(capacity))),
            capacity,
        }
    }

    fn start(&mut self) -> NonNull<u8> {
        match self {
            Self::Small { start, .. } => *start,
            Self::Large(map) => NonNull::from(&mut **map).cast(),
        }
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Small { capacity, .. } => *capacity,
            Self::Large(map) => map.len(),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Self::Small { start, capacity } = self {
            // SAFETY: allocated by `new` with this layout, and owned by nobody else.
            unsafe { dealloc(start.as_ptr(), layout(*capacity)) }
        }
    }
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), cached: 0, in_use: 0, most: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    // No code that can panic runs between a change of the map and its counters.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Capacity for `len` bytes: eight classes to a power of two, so that at most an eighth is wasted.
fn class(len: usize) -> usize {
    let len = len.max(ALIGN);
    let step = (len.next_power_of_two() / 16).max(ALIGN);
    len.next_multiple_of(step)
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGN).expect("capacity within isize, alignment a power of two")
}

impl Pool {
    fn take(&mut self, capacity: usize) -> Block {
        self.in_use += capacity;
        self.most = self.most.max(self.in_use);
        if let Some(block) = self.free.get_mut(&capacity).and_then(Vec::pop) {
            self.cached -= capacity;
            return block;
        }
        self.shrink_to((self.most + self.most / 20).saturating_sub(self.in_use));
        Block::new(capacity)
    }

    fn give(&mut self, block: Block) {
        let capacity = block.capacity();
        self.in_use -= capacity;
        self.cached += capacity;
        self.free.entry(capacity).or_default().push(block);
    }

    /// Frees the largest cached blocks until at most `bytes` are cached.
    fn shrink_to(&mut self, bytes: usize) {
        while self.cached > bytes {
            let Some(mut entry) = self.free.last_entry() else { return };
            let capacity = *entry.key();
            match entry.get_mut().pop() {
                Some(block) => {
                    self.cached -= capacity;
                    drop(block);
                }
                None => drop(entry.remove()),
            }
        }
    }
}

/// Returns all cached blocks to the operating system's allocator.
pub fn trim() {
    let mut pool = pool();
    pool.shrink_to(0);
    pool.most = pool.in_use;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_little_and_cover() {
        for len in [0, 1, 63, 64, 65, 1000, 4096, 4097, 1 << 20, (1 << 20) + 1, 123_456_789] {
            let c = class(len);
            assert!(c >= len && c.is_multiple_of(ALIGN));
            assert!(c <= len + len / 8 + ALIGN, "{len} -> {c}");
        }
    }

    #[test]
    fn blocks_are_aligned_and_writable() {
        for len in [100, LARGE - 4, LARGE, 3 * LARGE + 4] {
            let mut b = Buffer::scratch(len, Account::Workspace);
            assert_eq!(b.start.as_ptr() as usize % ALIGN, 0);
            b.slice_mut::<f32>(0, len / 4).fill(1.5);
            assert_eq!(b.slice::<f32>(len - 4, 1), &[1.5]);
        }
    }
}
