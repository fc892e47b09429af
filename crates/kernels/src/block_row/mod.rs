//! Rows of ggml's blocks times one vector, without decoding them: what generation from a quantised base does.
//!
//! ```text
//! y_i = sum_b d_ib <q_ib, x_b> + m_ib sum(x_b)          over the blocks b of row i, 32 values each
//!
//! Q8_0  d: f16 | q: 32 x i8                     value j = d q_j
//! Q4_0  d: f16 | q: 16 bytes                    value j = d (n_j - 8)
//! Q4_1  d: f16 | m: f16 | q: 16 bytes           value j = d n_j + m
//!       n_j = low nibble of byte j for j < 16, high nibble of byte j - 16 for j >= 16
//! ```
//!
//! The layout is ggml's (`ggml-quants.c`). Products are summed in 16 lanes of f32, multiplied and added apart, and the
//! lanes folded in a fixed order: all tiers give the same bits.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Tier, tier};

/// Values of a block.
pub const BLOCK: usize = 32;

/// How blocks are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// 34 bytes: scale, 32 signed bytes.
    Q8_0,
    /// 18 bytes: scale, 32 nibbles around 8.
    Q4_0,
    /// 20 bytes: scale, shift, 32 nibbles.
    Q4_1,
}

impl Blocks {
    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
        }
    }
}

/// A vector `x`, with the sums over its blocks that shifts multiply.
#[derive(Clone, Debug)]
pub struct BlockVector<'a> {
    x: &'a [f32],
    sums: Vec<f32>,
}

impl<'a> BlockVector<'a> {
    /// Of whole blocks.
    pub fn new(x: &'a [f32]) -> Self {
        assert!(x.len().is_multiple_of(BLOCK), "a vector of {} is no whole number of blocks", x.len());
        Self { x, sums: x.as_chunks::<BLOCK>().0.iter().map(|b| b.iter().sum()).collect() }
    }
}

/// `y [rows]`, the products of the encoded `rows` with `x`, on the calling thread.
pub fn block_rows(kind: Blocks, rows: &[u8], x: &BlockVector<'_>, y: &mut [f32]) {
    let row = x.x.len() / BLOCK * kind.bytes();
    assert_eq!(rows.len(), row * y.len(), "rows of {row} bytes");
    luthier_tensor::add_flops(2 * (x.x.len() * y.len()) as u64);
    #[cfg(target_arch = "x86_64")]
    if matches!(tier(), Tier::Avx512 | Tier::Avx512Bf16) {
        // SAFETY: the tier in use is one that the machine has; lengths are checked above.
        return unsafe { x86::block_rows(kind, rows, x.x, &x.sums, y) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (tier, Tier::ALL);
    match kind {
        Blocks::Q8_0 => cpu::q8_0(rows, x.x, &x.sums, y),
        Blocks::Q4_0 => cpu::q4_0(rows, x.x, &x.sums, y),
        Blocks::Q4_1 => cpu::q4_1(rows, x.x, &x.sums, y),
    }
}
