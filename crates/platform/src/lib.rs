//! What differs between operating systems, and nothing else: files that survive a crash, memory, threads, the terminal,
//! interrupts.
//!
//! Every other crate is written once for all systems; a `cfg(target_os)` outside this crate is a mistake.
//! Tested on Linux. Where another system needs code of its own, the function says what it does there.

pub mod fs;
pub mod interrupt;
pub mod memory;
pub mod terminal;
pub mod threads;
pub mod tls;
