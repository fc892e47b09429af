//! AVX-512 packing: loads of any element type, transposed or interleaved into lanes.

#![allow(clippy::needless_range_loop)] // registers: an index is a name here

use super::kernel::{Kind, Source};
use half::bf16;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_HINT_T1, _mm_prefetch, _mm256_maskz_loadu_epi16, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_cvtph_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi16,
    _mm512_maskz_loadu_ps, _mm512_permutex2var_epi16, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::mem::transmute;

/// The lowest `n` (at most 16) bits.
#[inline(always)]
pub(super) fn mask16(n: usize) -> u16 {
    ((1u32 << n.min(16)) - 1) as u16
}

/// Transposes a 16 x 16 block of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose16(r: &mut [__m512i; 16]) {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for i in 0..4 {
        t[i] = _mm512_shuffle_i32x4::<0x88>(r[i], r[i + 4]);
        t[i + 4] = _mm512_shuffle_i32x4::<0xdd>(r[i], r[i + 4]);
        t[i + 8] = _mm512_shuffle_i32x4::<0x88>(r[i + 8], r[i + 12]);
        t[i + 12] = _mm512_shuffle_i32x4::<0xdd>(r[i + 8], r[i + 12]);
    }
    for i in 0..4 {
        r[i] = _mm512_shuffle_i32x4::<0x88>(t[i], t[i + 8]);
        r[i + 8] = _mm512_shuffle_i32x4::<0xdd>(t[i], t[i + 8]);
        r[i + 4] = _mm512_shuffle_i32x4::<0x88>(t[i + 4], t[i + 12]);
        r[i + 12] = _mm512_shuffle_i32x4::<0xdd>(t[i + 4], t[i + 12]);
    }
}

/// `n <= 16` elements from `p` as f32, zeros after them.
///
/// # Safety
/// `p` must be valid for `n` elements of `kind`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn load_f32(p: *const u8, kind: Kind, n: usize) -> __m512 {
    let m = mask16(n);
    // SAFETY: masked loads touch the first `n` elements only.
    unsafe {
        match kind {
            Kind::F32 => _mm512_maskz_loadu_ps(m, p.cast()),
            Kind::Bf16 => widen(_mm256_maskz_loadu_epi16(m, p.cast())),
            Kind::F16 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p.cast())),
            Kind::F64 => {
                let mut wide = [0f32; 16];
                for (i, x) in wide.iter_mut().enumerate().take(n) {
                    *x = *p.cast::<f64>().add(i) as f32;
                }
                _mm512_loadu_ps(wide.as_ptr())
            }
        }
    }
}

/// 16 bf16 as f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widen(x: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x)))
}

/// 16 f32 rounded to bf16, to nearest even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
pub(super) fn narrow(x: __m512) -> __m256i {
    // SAFETY: both are 32 bytes of plain bits.
    unsafe { transmute(_mm512_cvtneps_pbh(x)) }
}

/// `n <= 32` neighbours along k as 16 lanes of pairs.
///
/// # Safety
/// `p` must be valid for `n` elements of `kind`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn load_pairs(p: *const u8, kind: Kind, n: usize) -> __m512i {
    // SAFETY: at most `n` elements are touched.
    unsafe {
        if kind == Kind::Bf16 {
            return _mm512_maskz_loadu_epi16(((1u64 << n) - 1) as u32, p.cast());
        }
        let bytes = kind.size();
        let low = narrow(load_f32(p, kind, n));
        let high = if n > 16 {
            narrow(load_f32(p.add(16 * bytes), kind, n - 16))
        } else {
            narrow(_mm512_setzero_ps())
        };
        transmute::<[__m256i; 2], __m512i>([low, high])
    }
}

/// Lanes that pair row k (`low`) with row k + 1 (`high`) of an operand whose outer axis is contiguous.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave(low: __m256i, high: __m256i) -> __m512i {
    const INDEX: [u16; 32] = {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[2 * i] = i as u16;
            index[2 * i + 1] = 32 + i as u16;
            i += 1;
        }
        index
    };
    // SAFETY: plain bits of equal size; the upper halves are never selected.
    unsafe {
        let low = transmute::<[__m256i; 2], __m512i>([low, low]);
        let high = transmute::<[__m256i; 2], __m512i>([high, high]);
        _mm512_permutex2var_epi16(low, _mm512_loadu_si512(INDEX.as_ptr().cast()), high)
    }
}

/// Asks for a cache line that the group of 16 after the one at (`i`, `k0`) will read of its `k` elements along k: 16 short rows
/// at once are more streams than the hardware follows. Whole rows are asked for in the order of memory.
#[inline(always)]
pub(super) fn prefetch(source: &Source, i: usize, line: usize, k0: usize, k: usize) {
    let size = source.kind.size();
    let from = ((i + 16) * source.outer + k0) * size;
    let ahead = if source.outer == k { line * 64 } else { line % 16 * source.outer * size + line / 16 * 64 };
    // SAFETY: a prefetch never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(source.ptr.wrapping_add(from + ahead).cast()) }
}

/// 32 neighbours along k as 16 lanes of pairs.
///
/// # Safety
/// They lie at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn whole_pairs(p: *const u8, kind: Kind) -> __m512i {
    // SAFETY: the caller's word.
    unsafe { if kind == Kind::Bf16 { _mm512_loadu_si512(p.cast()) } else { load_pairs(p, kind, 32) } }
}

/// 16 neighbours along k as lanes of f32.
///
/// # Safety
/// They lie at `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn whole_single(p: *const u8, kind: Kind) -> __m512i {
    // SAFETY: the caller's word.
    unsafe {
        if kind == Kind::F32 {
            _mm512_loadu_si512(p.cast())
        } else {
            _mm512_castps_si512(load_f32(p, kind, 16))
        }
    }
}

/// Packs up to 16 outer indices into lanes `to[unit * stride ..][..width]`, `width <= 16`.
///
/// # Safety
/// As `Kernel::pack`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_pairs(
    source: &Source,
    i0: usize,
    count: usize,
    k0: usize,
    k: usize,
    to: *mut u32,
    width: usize,
    stride: usize,
) {
    let store = mask16(width);
    // SAFETY: loads are masked to the range, stores to the panel.
    unsafe {
        if source.along_k == 1 {
            // Whole blocks with bounds that the compiler sees: all stays in registers.
            let whole = if count == 16 && width == 16 { k / 32 * 32 } else { 0 };
            for kb in (0..whole).step_by(32) {
                let mut r = [_mm512_setzero_si512(); 16];
                for i in 0..16 {
                    prefetch(source, i0, kb / 32 * 16 + i, k0, k);
                    r[i] = whole_pairs(source.at(i0 + i, k0 + kb), source.kind);
                }
                transpose16(&mut r);
                for j in 0..16 {
                    _mm512_storeu_si512(to.add((kb / 2 + j) * stride).cast(), r[j]);
                }
            }
            for kb in (whole..k).step_by(32) {
                let n = (k - kb).min(32);
                let mut r = [_mm512_setzero_si512(); 16];
                for (i, x) in r.iter_mut().enumerate().take(count) {
                    *x = load_pairs(source.at(i0 + i, k0 + kb), source.kind, n);
                }
                transpose16(&mut r);
                for (j, x) in r.iter().enumerate().take(n.div_ceil(2)) {
                    _mm512_mask_storeu_epi32(to.add((kb / 2 + j) * stride).cast(), store, *x);
                }
            }
        } else if source.outer == 1 {
            let load = |k: usize| {
                if source.kind == Kind::Bf16 {
                    _mm256_maskz_loadu_epi16(mask16(count), source.at(i0, k).cast())
                } else {
                    narrow(load_f32(source.at(i0, k), source.kind, count))
                }
            };
            for u in 0..k.div_ceil(2) {
                let low = load(k0 + 2 * u);
                let high = if 2 * u + 1 < k { load(k0 + 2 * u + 1) } else { narrow(_mm512_setzero_ps()) };
                _mm512_mask_storeu_epi32(to.add(u * stride).cast(), store, interleave(low, high));
            }
        } else {
            let get = |i: usize, kk: usize| {
                if i < count && kk < k {
                    u32::from(bf16::from_f32(source.get(i0 + i, k0 + kk)).to_bits())
                } else {
                    0
                }
            };
            for u in 0..k.div_ceil(2) {
                for i in 0..width {
                    *to.add(u * stride + i) = get(i, 2 * u) | get(i, 2 * u + 1) << 16;
                }
            }
        }
    }
}

/// As [`pack_pairs`], with f32 lanes.
///
/// # Safety
/// As `Kernel::pack`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn pack_single(
    source: &Source,
    i0: usize,
    count: usize,
    k0: usize,
    k: usize,
    to: *mut u32,
    width: usize,
    stride: usize,
) {
    let store = mask16(width);
    // SAFETY: loads are masked to the range, stores to the panel.
    unsafe {
        if source.along_k == 1 {
            // Whole blocks with bounds that the compiler sees: all stays in registers.
            let whole = if count == 16 && width == 16 { k / 16 * 16 } else { 0 };
            for kb in (0..whole).step_by(16) {
                let mut r = [_mm512_setzero_si512(); 16];
                for i in 0..16 {
                    prefetch(source, i0, kb / 16 * 16 + i, k0, k);
                    r[i] = whole_single(source.at(i0 + i, k0 + kb), source.kind);
                }
                transpose16(&mut r);
                for j in 0..16 {
                    _mm512_storeu_si512(to.add((kb + j) * stride).cast(), r[j]);
                }
            }
            for kb in (whole..k).step_by(16) {
                let n = (k - kb).min(16);
                let mut r = [_mm512_setzero_si512(); 16];
                for (i, x) in r.iter_mut().enumerate().take(count) {
                    *x = _mm512_castps_si512(load_f32(source.at(i0 + i, k0 + kb), source.kind, n));
                }
                transpose16(&mut r);
                for (j, x) in r.iter().enumerate().take(n) {
                    _mm512_mask_storeu_epi32(to.add((kb + j) * stride).cast(), store, *x);
                }
            }
        } else if source.outer == 1 {
            for u in 0..k {
                let x = load_f32(source.at(i0, k0 + u), source.kind, count);
                _mm512_mask_storeu_ps(to.add(u * stride).cast(), store, x);
            }
        } else {
            for u in 0..k {
                for i in 0..width {
                    let x = if i < count { source.get(i0 + i, k0 + u) } else { 0.0 };
                    *to.add(u * stride + i) = x.to_bits();
                }
            }
        }
    }
}

/// Splits a panel into groups of 16 outer indices.
///
/// # Safety
/// As `Kernel::pack`.
pub(super) unsafe fn in_groups(count: usize, width: usize, mut group: impl FnMut(usize, usize, usize)) {
    for from in (0..width).step_by(16) {
        group(from, count.saturating_sub(from).min(16), (width - from).min(16));
    }
}
