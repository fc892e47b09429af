//! AVX2 kernel: f32 on fused multiply-add, register tile 6 x 16.

use super::kernel::{Kernel, Kind, Rows, Source, f32_in_place, pack_f32};
use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
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
