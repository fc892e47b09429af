//! AVX-512: four rows at a time, which share what is read of `x` and hide one another's latency.

use super::{BLOCK, Blocks};
use crate::simd::{LANES, fold};
use std::arch::x86_64::{
    __m128, __m512, _MM_HINT_T0, _mm_add_ps, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si128,
    _mm_movehdup_ps, _mm_mul_ps, _mm_prefetch, _mm_set1_ps, _mm_setzero_ps, _mm512_add_ps,
    _mm512_broadcastss_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_loadu_ps,
    _mm512_mul_ps, _mm512_permutexvar_ps, _mm512_setzero_ps, _mm512_srli_epi32, _mm512_storeu_ps,
};

/// Groups of rows between what is read and what is asked for: mapped files lie in small pages, where the hardware's own
/// looking ahead ends.
const AHEAD: usize = 2;

/// One encoding.
trait Read {
    const BYTES: usize;
    const SHIFTED: bool;
    /// Levels of a block: the first 16, the last 16.
    ///
    /// # Safety
    /// A block lies at `p`; the machine has AVX-512.
    unsafe fn levels(p: *const u8) -> (__m512, __m512);
}

struct Q8_0;
struct Q4_0;
struct Q4_1;

/// The values of `table` that the low and the high nibbles of 16 bytes name: a permutation looks at four bits of its index.
#[inline(always)]
unsafe fn nibbles(p: *const u8, table: &[f32; 16]) -> (__m512, __m512) {
    // SAFETY: the caller's word: 16 bytes lie at `p`.
    unsafe {
        let (q, table) = (_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())), _mm512_loadu_ps(table.as_ptr()));
        (_mm512_permutexvar_ps(q, table), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(q), table))
    }
}

/// Levels from `first` on.
const fn levels_from(first: i8) -> [f32; 16] {
    let mut out = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        out[i] = (first + i as i8) as f32;
        i += 1;
    }
    out
}

impl Read for Q8_0 {
    const BYTES: usize = 34;
    const SHIFTED: bool = false;
    #[inline(always)]
    unsafe fn levels(p: *const u8) -> (__m512, __m512) {
        // SAFETY: the caller's word.
        unsafe {
            let at = |i: usize| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.add(i).cast())));
            (at(2), at(18))
        }
    }
}

impl Read for Q4_0 {
    const BYTES: usize = 18;
    const SHIFTED: bool = false;
    #[inline(always)]
    unsafe fn levels(p: *const u8) -> (__m512, __m512) {
        // SAFETY: the caller's word.
        unsafe { nibbles(p.add(2), const { &levels_from(-8) }) }
    }
}

impl Read for Q4_1 {
    const BYTES: usize = 20;
    const SHIFTED: bool = true;
    #[inline(always)]
    unsafe fn levels(p: *const u8) -> (__m512, __m512) {
        // SAFETY: the caller's word.
        unsafe { nibbles(p.add(4), const { &levels_from(0) }) }
    }
}

/// Two f16 at `p`: the scale, and the shift where there is one.
#[inline(always)]
unsafe fn halves(p: *const u8) -> __m128 {
    // SAFETY: four bytes lie at `p`; every machine with AVX-512 has F16C.
    unsafe { _mm_cvtph_ps(_mm_cvtsi32_si128(p.cast::<i32>().read_unaligned())) }
}

/// `R` rows that lie `stride` bytes apart.
///
/// # Safety
/// The rows, of as many blocks as `sums` has, lie at `rows`; `x` has 32 values for each.
#[inline(always)]
unsafe fn dots<K: Read, const R: usize>(
    rows: *const u8,
    stride: usize,
    x: *const f32,
    sums: &[f32],
) -> [f32; R] {
    // SAFETY: the caller's word.
    unsafe {
        let (mut lanes, mut shifted) = ([_mm512_setzero_ps(); R], [_mm_setzero_ps(); R]);
        for (b, sum) in sums.iter().enumerate() {
            let (first, second) =
                (_mm512_loadu_ps(x.add(b * BLOCK)), _mm512_loadu_ps(x.add(b * BLOCK + LANES)));
            let ahead = rows.wrapping_add((AHEAD * stride + b * K::BYTES) * R);
            for line in 0..(K::BYTES * R).div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
            }
            for (r, lane) in lanes.iter_mut().enumerate() {
                let p = rows.add(r * stride + b * K::BYTES);
                let (low, high) = K::levels(p);
                let both = _mm512_add_ps(_mm512_mul_ps(low, first), _mm512_mul_ps(high, second));
                let scales = halves(p);
                *lane = _mm512_add_ps(*lane, _mm512_mul_ps(_mm512_broadcastss_ps(scales), both));
                if K::SHIFTED {
                    shifted[r] = _mm_add_ps(shifted[r], _mm_mul_ps(scales, _mm_set1_ps(*sum)));
                }
            }
        }
        let mut out = [0f32; R];
        for r in 0..R {
            let mut apart = [0f32; LANES];
            _mm512_storeu_ps(apart.as_mut_ptr(), lanes[r]);
            out[r] = if K::SHIFTED {
                fold(apart) + _mm_cvtss_f32(_mm_movehdup_ps(shifted[r]))
            } else {
                fold(apart)
            };
        }
        out
    }
}

/// # Safety
/// As [`block_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,f16c")]
unsafe fn all<K: Read>(rows: &[u8], x: &[f32], sums: &[f32], y: &mut [f32]) {
    const AT_ONCE: usize = 4;
    let stride = sums.len() * K::BYTES;
    let whole = y.len() / AT_ONCE * AT_ONCE;
    for i in (0..whole).step_by(AT_ONCE) {
        // SAFETY: the caller's lengths fit.
        let four = unsafe { dots::<K, AT_ONCE>(rows.as_ptr().add(i * stride), stride, x.as_ptr(), sums) };
        y[i..i + AT_ONCE].copy_from_slice(&four);
    }
    for (i, y) in y.iter_mut().enumerate().skip(whole) {
        // SAFETY: as above.
        [*y] = unsafe { dots::<K, 1>(rows.as_ptr().add(i * stride), stride, x.as_ptr(), sums) };
    }
}

/// # Safety
/// The machine has AVX-512; `rows` holds `y.len()` rows of `sums.len()` blocks, `x` 32 values for each block.
pub(super) unsafe fn block_rows(kind: Blocks, rows: &[u8], x: &[f32], sums: &[f32], y: &mut [f32]) {
    // SAFETY: passed on.
    unsafe {
        match kind {
            Blocks::Q8_0 => all::<Q8_0>(rows, x, sums, y),
            Blocks::Q4_0 => all::<Q4_0>(rows, x, sums, y),
            Blocks::Q4_1 => all::<Q4_1>(rows, x, sums, y),
        }
    }
}
