//! AVX2 kernel: f32 on fused multiply-add, register tile 6 x 16.

use super::kernel::{Kernel, Kind, Rows, Source, f32_in_place, pack_f32};
use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_maskstore_ps, _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

/// f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Single;

#[target_feature(enable = "avx2,fma")]
unsafe fn register_tile<const M: usize, const V: usize>(
    units: usize,
    a: *const f32,
    row_step: usize,
    unit_step: usize,
    b: *const f32,
    tile: *mut f32,
    first: bool,
) {
    // SAFETY: the caller's operands cover `units` and its tile has MR x NR elements.
    unsafe {
        let mut acc: [[__m256; V]; M] = [[_mm256_setzero_ps(); V]; M];
        if !first {
            for (i, row) in acc.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = _mm256_loadu_ps(tile.add(i * 16 + v * 8));
                }
            }
        }
        for u in 0..units {
            let mut bv = [_mm256_setzero_ps(); V];
            for (v, x) in bv.iter_mut().enumerate() {
                *x = _mm256_loadu_ps(b.add((u * V + v) * 8));
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*a.add(i * row_step + u * unit_step));
                for (v, y) in row.iter_mut().enumerate() {
                    *y = _mm256_fmadd_ps(x, bv[v], *y);
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                _mm256_storeu_ps(tile.add(i * 16 + v * 8), *x);
            }
        }
    }
}

/// Widens bf16 whose outer axis is contiguous, 8 at a time.
///
/// # Safety
/// As [`Kernel::pack`].
#[target_feature(enable = "avx2")]
unsafe fn pack_bf16_rows(
    source: &Source,
    i0: usize,
    count: usize,
    k0: usize,
    k: usize,
    to: *mut f32,
    width: usize,
) {
    // SAFETY: whole groups of 8 lie inside the row; the rest is read one by one.
    unsafe {
        for u in 0..k {
            let row = source.at(i0, k0 + u).cast::<u16>();
            let mut i = 0;
            while i + 8 <= count {
                let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(row.add(i).cast()));
                _mm256_storeu_ps(to.add(u * width + i), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)));
                i += 8;
            }
            while i < width {
                *to.add(u * width + i) = if i < count { source.get(i0 + i, k0 + u) } else { 0.0 };
                i += 1;
            }
        }
    }
}

/// 8 neighbours along k as f32.
///
/// # Safety
/// They lie at `p`, f32 or bf16.
#[inline(always)]
unsafe fn load8(p: *const u8, kind: Kind) -> __m256 {
    // SAFETY: the caller's word.
    unsafe {
        if kind == Kind::F32 {
            _mm256_loadu_ps(p.cast())
        } else {
            let x = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
        }
    }
}

/// Packs f32 or bf16 that lie along k: 8 x 8 blocks are transposed in registers.
///
/// # Safety
/// As [`Kernel::pack`].
#[target_feature(enable = "avx2")]
unsafe fn pack_along_k(
    source: &Source,
    i0: usize,
    count: usize,
    k0: usize,
    k: usize,
    to: *mut f32,
    width: usize,
) {
    let whole = k / 8 * 8;
    // SAFETY: blocks lie inside the range and stores keep to the panel; the rest is read one by one.
    unsafe {
        for i in (0..width).step_by(8) {
            let (filled, stored) = (count.saturating_sub(i).min(8), (width - i).min(8));
            let mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - stored).cast());
            for u in (0..whole).step_by(8) {
                let mut x = [_mm256_setzero_ps(); 8];
                for (r, x) in x.iter_mut().enumerate().take(filled) {
                    *x = load8(source.at(i0 + i + r, k0 + u), source.kind);
                }
                for (r, x) in transposed(x).into_iter().enumerate() {
                    _mm256_maskstore_ps(to.add((u + r) * width + i), mask, x);
                }
            }
        }
        for u in whole..k {
            for i in 0..width {
                *to.add(u * width + i) = if i < count { source.get(i0 + i, k0 + u) } else { 0.0 };
            }
        }
    }
}

/// From place `8 - n`: the mask of the first `n` of 8 lanes.
const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// An 8 x 8 block, columns for rows.
#[inline(always)]
fn transposed(x: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: called from functions that have AVX2 only.
    unsafe {
        let mut pairs = x;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
        }
        let mut fours = pairs;
        for i in [0, 4] {
            fours[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
            fours[i + 1] = _mm256_shuffle_ps::<0xee>(pairs[i], pairs[i + 2]);
            fours[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
            fours[i + 3] = _mm256_shuffle_ps::<0xee>(pairs[i + 1], pairs[i + 3]);
        }
        let mut out = fours;
        for i in 0..4 {
            out[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            out[i + 4] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        }
        out
    }
}

impl Kernel for Single {
    const MR: usize = 6;
    const VECTOR: usize = 8;
    const UNIT: usize = 1;

    fn reads_in_place(source: &Source, _k: usize) -> bool {
        f32_in_place(source)
    }

    unsafe fn pack(
        source: &Source,
        i0: usize,
        count: usize,
        k0: usize,
        k: usize,
        to: *mut u32,
        width: usize,
    ) {
        // SAFETY: passed on from the caller; the machine has AVX2 or this kernel is not chosen.
        unsafe {
            if source.kind == Kind::Bf16 && source.outer == 1 {
                pack_bf16_rows(source, i0, count, k0, k, to.cast(), width);
            } else if source.along_k == 1 && matches!(source.kind, Kind::F32 | Kind::Bf16) {
                pack_along_k(source, i0, count, k0, k, to.cast(), width);
            } else {
                pack_f32(source, i0, count, k0, k, to, width);
            }
        }
    }

    unsafe fn tile(
        rows: usize,
        width: usize,
        units: usize,
        a: Rows,
        b: *const u32,
        tile: *mut f32,
        first: bool,
    ) {
        let (a, row, unit) = match a {
            Rows::Packed(p) => (p.cast::<f32>(), 1, rows),
            Rows::Direct(p, bytes) => (p.cast::<f32>(), bytes / 4, 1),
        };
        let b = b.cast();
        macro_rules! pick {
            ($($m:literal)*) => {
                match (rows, width) {
                    $(
                        ($m, 16) => register_tile::<$m, 2>(units, a, row, unit, b, tile, first),
                        ($m, _) => register_tile::<$m, 1>(units, a, row, unit, b, tile, first),
                    )*
                    _ => unreachable!("a tile has 1 to 6 rows"),
                }
            };
        }
        // SAFETY: as above.
        unsafe { pick!(1 2 3 4 5 6) }
    }
}
