//! One source for AVX2 and the compiler's own target.

use super::BLOCK;
use crate::simd::{LANES, fold, tiered};

/// f16 bits as f32, exactly.
#[inline(always)]
fn half(low: u8, high: u8) -> f32 {
    let bits = u32::from(u16::from_le_bytes([low, high]));
    let magnitude = bits & 0x7fff;
    // The exponent's bias differs by 112; what was subnormal becomes normal by the product.
    let finite = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    let infinite = (magnitude << 13) | 0x7f80_0000;
    let value = if magnitude >= 0x7c00 { infinite } else { finite };
    f32::from_bits(value | (bits & 0x8000) << 16)
}

/// Adds one block's products to the lanes.
#[inline(always)]
fn add(lanes: &mut [f32; LANES], scale: f32, low: &[f32; LANES], high: &[f32; LANES], x: &[f32; BLOCK]) {
    for j in 0..LANES {
        lanes[j] += scale * (low[j] * x[j] + high[j] * x[j + LANES]);
    }
}

tiered! {
    pub(super) fn q8_0(rows: &[u8], x: &[f32], sums: &[f32], y: &mut [f32]) {
        let (blocks, _) = x.as_chunks::<BLOCK>();
        let row_bytes = sums.len() * 34;
        for (i, y) in y.iter_mut().enumerate() {
            let (row, _) = rows[i * row_bytes..][..row_bytes].as_chunks::<34>();
            let mut lanes = [0f32; LANES];
            for (block, x) in row.iter().zip(blocks) {
                let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
                for j in 0..LANES {
                    low[j] = f32::from(block[2 + j].cast_signed());
                    high[j] = f32::from(block[2 + LANES + j].cast_signed());
                }
                add(&mut lanes, half(block[0], block[1]), &low, &high, x);
            }
            *y = fold(lanes);
        }
    }
}

tiered! {
    pub(super) fn q4_0(rows: &[u8], x: &[f32], sums: &[f32], y: &mut [f32]) {
        let (blocks, _) = x.as_chunks::<BLOCK>();
        let row_bytes = sums.len() * 18;
        for (i, y) in y.iter_mut().enumerate() {
            let (row, _) = rows[i * row_bytes..][..row_bytes].as_chunks::<18>();
            let mut lanes = [0f32; LANES];
            for (block, x) in row.iter().zip(blocks) {
                let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
                for j in 0..LANES {
                    low[j] = (i32::from(block[2 + j] & 15) - 8) as f32;
                    high[j] = (i32::from(block[2 + j] >> 4) - 8) as f32;
                }
                add(&mut lanes, half(block[0], block[1]), &low, &high, x);
            }
            *y = fold(lanes);
        }
    }
}

tiered! {
    pub(super) fn q4_1(rows: &[u8], x: &[f32], sums: &[f32], y: &mut [f32]) {
        let (blocks, _) = x.as_chunks::<BLOCK>();
        let row_bytes = sums.len() * 20;
        for (i, y) in y.iter_mut().enumerate() {
            let (row, _) = rows[i * row_bytes..][..row_bytes].as_chunks::<20>();
            let mut lanes = [0f32; LANES];
            let mut shifted = 0f32;
            for ((block, x), sum) in row.iter().zip(blocks).zip(sums) {
                let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
                for j in 0..LANES {
                    low[j] = f32::from(block[4 + j] & 15);
                    high[j] = f32::from(block[4 + j] >> 4);
                }
                add(&mut lanes, half(block[0], block[1]), &low, &high, x);
                shifted += half(block[2], block[3]) * sum;
            }
            *y = fold(lanes) + shifted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::half;

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let [low, high] = bits.to_le_bytes();
            let (got, expected) = (half(low, high), half::f16::from_bits(bits).to_f32());
            assert!(got == expected || got.is_nan() && expected.is_nan(), "{bits:#x}: {got} {expected}");
            assert_eq!(got.is_sign_negative(), expected.is_sign_negative(), "{bits:#x}");
        }
    }
}
