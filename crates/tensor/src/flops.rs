//! Floating-point operations that the engine has done.
use std::cell::Cell;

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Counts `n` operations (a multiply and an add are two) for the calling thread: the one that runs the tape, whatever
/// threads the operation uses inside.
pub fn add_flops(n: u64) {
    DONE.set(DONE.get() + n);
}

/// Operations counted on this thread since it began.
pub fn flops() -> u64 {
    DONE.get()
}
