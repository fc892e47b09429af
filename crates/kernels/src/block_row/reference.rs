//! The definition, in f64.

use super::{BLOCK, Blocks};
use half::f16;

/// The values of one row.
pub fn decode(kind: Blocks, row: &[u8]) -> Vec<f64> {
    let mut out = Vec::new();
    for block in row.chunks_exact(kind.bytes()) {
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f64();
        let nibble = |q: &[u8], j: usize| f64::from(if j < 16 { q[j] & 15 } else { q[j - 16] >> 4 });
        out.extend((0..BLOCK).map(|j| match kind {
            Blocks::Q8_0 => half(0) * f64::from(block[2 + j].cast_signed()),
            Blocks::Q4_0 => half(0) * (nibble(&block[2..], j) - 8.0),
            Blocks::Q4_1 => half(0) * nibble(&block[4..], j) + half(2),
        }));
    }
    out
}
