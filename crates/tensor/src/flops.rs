//! Floating-point operations that the matrix products of the engine have done.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static DONE: AtomicU64 = AtomicU64::new(0);

/// Counts `n` operations (a multiply and an add are two).
pub fn add_flops(n: u64) {
    DONE.fetch_add(n, Relaxed);
}

/// Operations counted since the start of the process.
pub fn flops() -> u64 {
    DONE.load(Relaxed)
}
