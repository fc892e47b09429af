//! The order of query and key rows: halves in Hugging Face's files, pairs in GGUF's of the llama family.
//!
//! ```text
//! half order   h_0 h_1 .. h_{d/2-1} g_0 g_1 .. g_{d/2-1}      rotation i turns (h_i, g_i)
//! pair order   h_0 g_0 h_1 g_1 ..                             as ggml's adjacent-pair rotation wants them
//! ```
//!
//! Rows move whole, and a row is whole blocks, so the reordering is exact for quantised weights too. Biases of these
//! projections are vectors whose elements move in the same way. Source: `LlamaModel.permute` of llama.cpp's converter:
//! `w.reshape(heads, 2, d/2, ..).swapaxes(1, 2)` makes the pair order; [`Stored::unpermute_rope`] is its inverse.

use std::sync::Arc;

use crate::Error;
use crate::mmap::FileBytes;
use crate::stored::Stored;

impl Stored {
    /// Pair order (a llama GGUF's `attn_q`, `attn_k`) to half order. `heads` are this projection's own: the key's are
    /// `kv_heads`.
    pub fn unpermute_rope(&self, heads: usize) -> Result<Self, Error> {
        self.reorder(heads, |row, half| row % half * 2 + row / half)
    }

    /// Half order to pair order: the inverse, for writing a GGUF.
    pub fn permute_rope(&self, heads: usize) -> Result<Self, Error> {
        self.reorder(heads, |row, half| row % 2 * half + row / 2)
    }

    /// A copy whose row `row` of each head is the stored row `from(row, head_dim / 2)`.
    fn reorder(&self, heads: usize, from: impl Fn(usize, usize) -> usize) -> Result<Self, Error> {
        let rows = self.rows();
        let head_dim = rows.checked_div(heads).unwrap_or(0);
        if head_dim == 0 || !head_dim.is_multiple_of(2) || head_dim * heads != rows || self.shape.is_empty() {
            return Err(Error::RopeRows { tensor: self.name.clone(), rows, heads });
        }
        let bytes = self.bytes();
        let row_bytes = bytes.len() / rows;
        if self.encoding.is_blocked() && self.shape.len() == 1 {
            return Err(self.not_a_weight()); // one row of blocks: its elements cannot move alone
        }
        let mut moved = Vec::with_capacity(bytes.len());
        for head in 0..heads {
            for row in 0..head_dim {
                let at = (head * head_dim + from(row, head_dim / 2)) * row_bytes;
                moved.extend_from_slice(&bytes[at..at + row_bytes]);
            }
        }
        let range = 0..moved.len();
        let owner = Arc::new(FileBytes::from_vec(self.owner.path(), moved));
        Ok(Self { name: self.name.clone(), encoding: self.encoding, shape: self.shape.clone(), owner, range })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Encoding;

    fn stored(encoding: Encoding, shape: &[usize], bytes: Vec<u8>) -> Stored {
        let range = 0..bytes.len();
        assert_eq!(encoding.bytes_of(shape), Ok(bytes.len()));
        Stored {
            name: "q".into(),
            encoding,
            shape: shape.to_vec(),
            owner: Arc::new(FileBytes::from_vec("q", bytes)),
            range,
        }
    }

    #[test]
    fn pairs_become_halves_within_each_head() {
        // Two heads of width 4; a row is one byte that names itself.
        let q = stored(Encoding::U8, &[8, 1], vec![0, 1, 2, 3, 10, 11, 12, 13]);
        let un = q.unpermute_rope(2).unwrap();
        assert_eq!(un.bytes(), [0, 2, 1, 3, 10, 12, 11, 13]);
        let q = stored(Encoding::U8, &[6, 1], vec![0, 1, 2, 3, 4, 5]);
        assert_eq!(q.unpermute_rope(1).unwrap().bytes(), [0, 2, 4, 1, 3, 5]);
        assert_eq!(q.permute_rope(1).unwrap().bytes(), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn the_two_are_inverse_on_blocks_and_biases() {
        let bytes: Vec<u8> = (0..12 * 2 * 20u32).map(|i| (i * 7 % 251) as u8).collect();
        let q = stored(Encoding::Q4_1, &[12, 64], bytes);
        let there = q.permute_rope(2).unwrap();
        assert_ne!(there.bytes(), q.bytes());
        assert_eq!(there.unpermute_rope(2).unwrap().bytes(), q.bytes());
        let bias = stored(Encoding::F32, &[6], (0..24).collect());
        assert_eq!(bias.unpermute_rope(1).unwrap().bytes()[4..8], [8, 9, 10, 11]);
    }

    #[test]
    fn rows_that_are_no_heads_are_refused() {
        let q = stored(Encoding::U8, &[6, 1], vec![0; 6]);
        for heads in [0, 2, 4, 7] {
            assert!(matches!(q.unpermute_rope(heads), Err(Error::RopeRows { rows: 6, .. })), "{heads}");
        }
    }
}
