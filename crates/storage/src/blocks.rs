//! ggml's blocks of 32 quantised values: what they mean, and how Q8_0 is made.
//!
//! ```text
//! Q8_0  d: f16 | q: 32 x i8                     x_j = d q_j
//! Q4_0  d: f16 | q: 16 bytes                    x_j = d (n_j - 8)
//! Q4_1  d: f16 | m: f16 | q: 16 bytes           x_j = d n_j + m
//!       n_j = low nibble of byte j for j < 16, high nibble of byte j - 16 for j >= 16
//! ```
//!
//! Source: ggml (`ggml-quants.c`: `dequantize_row_q8_0`, `_q4_0`, `_q4_1`, `quantize_row_q8_0_ref`). All arithmetic is in
//! f32, the scale widened from f16 exactly, so decoding equals ggml's bit for bit.

#![expect(
    clippy::inline_always,
    reason = "the block loops must be compiled within the caller's instruction set"
)]

use half::{bf16, f16};

use crate::encoding::{BLOCK, Encoding};

/// An element that no block can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockFault {
    /// Its position in the values given.
    pub index: usize,
    /// Its value.
    pub value: f32,
}

/// Decodes stored elements of a weight encoding to f32.
///
/// `bytes` holds exactly `out.len()` elements; plain numbers are widened, blocks decoded.
pub fn decode_f32(encoding: Encoding, bytes: &[u8], out: &mut [f32]) {
    debug_assert_eq!(encoding.row_bytes(out.len()), Ok(bytes.len()));
    match encoding {
        Encoding::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        Encoding::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = f16::from_le_bytes(*b).to_f32();
            }
        }
        Encoding::Bf16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = bf16::from_le_bytes(*b).to_f32();
            }
        }
        _ => decode_blocks(encoding, bytes, out.as_chunks_mut().0, |x| x),
    }
}

/// Decodes stored elements of a weight encoding to bf16, rounded to nearest even from the f32 value.
pub fn decode_bf16(encoding: Encoding, bytes: &[u8], out: &mut [bf16]) {
    debug_assert_eq!(encoding.row_bytes(out.len()), Ok(bytes.len()));
    match encoding {
        Encoding::F32 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = bf16::from_f32(f32::from_le_bytes(*b));
            }
        }
        Encoding::F16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = bf16::from_f32(f16::from_le_bytes(*b).to_f32());
            }
        }
        Encoding::Bf16 => {
            for (o, b) in out.iter_mut().zip(bytes.as_chunks().0) {
                *o = bf16::from_le_bytes(*b);
            }
        }
        _ => decode_blocks(encoding, bytes, out.as_chunks_mut().0, bf16::from_f32),
    }
}

/// One block's content, apart from its storage: `x_j = scale * level_j + shift`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) scale: f32,
    pub(crate) shift: f32,
    pub(crate) levels: [i8; BLOCK],
}

#[inline(always)]
pub(crate) fn q8_0(bytes: &[u8; 34]) -> Block {
    let mut levels = [0; BLOCK];
    for (l, &b) in levels.iter_mut().zip(&bytes[2..]) {
        *l = b.cast_signed();
    }
    Block { scale: half_at(bytes, 0), shift: 0.0, levels }
}

#[inline(always)]
pub(crate) fn q4_0(bytes: &[u8; 18]) -> Block {
    let mut levels = [0; BLOCK];
    for (j, &b) in bytes[2..].iter().enumerate() {
        levels[j] = (b & 15) as i8 - 8;
        levels[j + BLOCK / 2] = (b >> 4) as i8 - 8;
    }
    Block { scale: half_at(bytes, 0), shift: 0.0, levels }
}

#[inline(always)]
pub(crate) fn q4_1(bytes: &[u8; 20]) -> Block {
    let mut levels = [0; BLOCK];
    for (j, &b) in bytes[4..].iter().enumerate() {
        levels[j] = (b & 15) as i8;
        levels[j + BLOCK / 2] = (b >> 4) as i8;
    }
    Block { scale: half_at(bytes, 0), shift: half_at(bytes, 2), levels }
}

#[inline(always)]
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

#[inline(always)]
fn decode_blocks<T>(encoding: Encoding, bytes: &[u8], out: &mut [[T; BLOCK]], to: impl Fn(f32) -> T) {
    // Without a minimum the sum is not formed: `-0.0 + 0.0` would lose the sign of `d * 0`.
    let plain = |b: Block, o: &mut [T; BLOCK]| {
        for (o, l) in o.iter_mut().zip(b.levels) {
            *o = to(b.scale * f32::from(l));
        }
    };
    match encoding {
        Encoding::Q8_0 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, o)| plain(q8_0(b), o)),
        Encoding::Q4_0 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, o)| plain(q4_0(b), o)),
        Encoding::Q4_1 => bytes.as_chunks().0.iter().zip(out).for_each(|(b, o)| {
            let b = q4_1(b);
            for (o, l) in o.iter_mut().zip(b.levels) {
                *o = to(b.scale * f32::from(l) + b.shift);
            }
        }),
        _ => debug_assert!(false, "{encoding} has no blocks"),
    }
}

/// Encodes `values` (whole blocks) as Q8_0.
///
/// `d = max |x| / 127`, `q = round(x / d)`, halves away from zero; `d` is stored as f16 after the division, as ggml does.
/// A value that is not finite, or so large that `d` is not, is refused.
pub fn encode_q8_0(values: &[f32], out: &mut [u8]) -> Result<(), BlockFault> {
    debug_assert_eq!(Encoding::Q8_0.row_bytes(values.len()), Ok(out.len()));
    for (at, (block, out)) in
        values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<34>().0).enumerate()
    {
        let largest = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let d = largest / 127.0;
        let stored = f16::from_f32(d);
        if block.iter().any(|x| !x.is_finite()) || !stored.is_finite() {
            // `fold(max)` passes over NaN, so the culprit is looked for separately.
            let of = |wanted: &dyn Fn(f32) -> bool| block.iter().position(|&x| wanted(x));
            let j = of(&|x| !x.is_finite()).or_else(|| of(&|x| x.abs() == largest)).unwrap_or(0);
            return Err(BlockFault { index: at * BLOCK + j, value: block[j] });
        }
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out[..2].copy_from_slice(&stored.to_le_bytes());
        for (o, x) in out[2..].iter_mut().zip(block) {
            *o = ((x * inverse).round() as i8).cast_unsigned();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(x: f32) -> [u8; 2] {
        f16::from_f32(x).to_le_bytes()
    }

    #[test]
    fn q8_0_by_hand() {
        let mut block = half(0.5).to_vec();
        block.extend((0..32).map(|j| (j * 8 - 128i32) as u8));
        let mut x = [0.0; 32];
        decode_f32(Encoding::Q8_0, &block, &mut x);
        assert_eq!(x[0], -64.0);
        assert_eq!(x[1], -60.0);
        assert_eq!(x[31], 60.0);
    }

    #[test]
    fn q4_0_by_hand() {
        let mut block = half(2.0).to_vec();
        block.extend((0..16).map(|j: u8| j | ((15 - j) << 4)));
        let mut x = [0.0; 32];
        decode_f32(Encoding::Q4_0, &block, &mut x);
        assert_eq!(x[..3], [-16.0, -14.0, -12.0], "low nibbles are the first half");
        assert_eq!(x[16..19], [14.0, 12.0, 10.0], "high nibbles the second");
    }

    #[test]
    fn q4_1_by_hand() {
        let mut block = half(0.25).to_vec();
        block.extend(half(-1.0));
        block.extend((0..16).map(|j: u8| j | ((15 - j) << 4)));
        let mut x = [0.0; 32];
        decode_f32(Encoding::Q4_1, &block, &mut x);
        assert_eq!(x[..3], [-1.0, -0.75, -0.5]);
        assert_eq!(x[16..19], [2.75, 2.5, 2.25]);
        let mut b = [bf16::ZERO; 32];
        decode_bf16(Encoding::Q4_1, &block, &mut b);
        assert!(b.iter().zip(x).all(|(b, x)| b.to_f32() == x), "these values are exact in bf16");
    }

    #[test]
    fn q8_0_encodes_within_half_a_step_and_keeps_levels() {
        let values: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 31.0) * 0.01).collect();
        let mut bytes = vec![0; 68];
        encode_q8_0(&values, &mut bytes).unwrap();
        let mut back = vec![0.0; 64];
        decode_f32(Encoding::Q8_0, &bytes, &mut back);
        for (block, (v, b)) in values.chunks(32).zip(values.chunks(32).zip(back.chunks(32))) {
            let d = block.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
            // Half a step of rounding, and 2^-11 of the scale's f16 rounding on up to 127 steps.
            let bound = d * (0.5 + 127.0 / 2048.0) * 1.0001;
            assert!(v.iter().zip(b).all(|(v, b)| (v - b).abs() <= bound));
        }
        assert!(bytes[2..34].contains(&127) || bytes[2..34].contains(&(-127i8).cast_unsigned()));
        encode_q8_0(&[0.0; 32], &mut bytes[..34]).unwrap();
        assert!(bytes[..34].iter().all(|&b| b == 0));
    }

    #[test]
    fn q8_0_refuses_what_it_cannot_hold() {
        let mut bytes = vec![0; 68];
        let mut values = vec![1.0; 64];
        values[40] = f32::NAN;
        let fault = encode_q8_0(&values, &mut bytes).unwrap_err();
        assert_eq!(fault.index, 40);
        values[40] = f32::NEG_INFINITY;
        assert_eq!(encode_q8_0(&values, &mut bytes).unwrap_err().index, 40);
        values[40] = 1e8; // d = 787401, over f16's largest 65504
        assert_eq!(encode_q8_0(&values, &mut bytes), Err(BlockFault { index: 40, value: 1e8 }));
    }
}
