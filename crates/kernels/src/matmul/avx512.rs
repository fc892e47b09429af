//! AVX-512 kernels: bf16 pairs on `vdpbf16ps`, and f32 on fused multiply-add. Register tile 12 x 32: 24 of the 32
//! vector registers accumulate, 2 hold B, and A is broadcast from memory.

use super::kernel::{Kernel, Kind, Rows, Source, Target, aliases, f32_in_place, write_tile};
use super::narrow512;
use super::pack512::{in_groups, mask16, narrow, pack_pairs, pack_single, transpose16, widen};
use std::arch::x86_64::{
    __m256i, __m512, __m512bh, __m512i, _CMP_UNORD_Q, _mm256_mask_storeu_epi16, _mm256_maskz_loadu_epi16,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_castsi512_ps,
    _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_or_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_srli_epi32, _mm512_storeu_ps,
};
use std::mem::transmute;

/// bf16 pairs, f32 sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs;

/// f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Single;

/// One step along k of the register tile.
trait Step {
    /// `acc + a b`, where `a` is one broadcast lane.
    ///
    /// # Safety
    /// The machine has the tier's instructions.
    unsafe fn step(acc: __m512, a: u32, b: __m512i) -> __m512;
}

impl Step for Pairs {
    #[inline(always)]
    unsafe fn step(acc: __m512, a: u32, b: __m512i) -> __m512 {
        // SAFETY: `Pairs` is chosen only where avx512bf16 was detected; all are 64 bytes of plain bits.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                transmute::<__m512i, __m512bh>(_mm512_set1_epi32(a as i32)),
                transmute::<__m512i, __m512bh>(b),
            )
        }
    }
}

impl Step for Single {
    #[inline(always)]
    unsafe fn step(acc: __m512, a: u32, b: __m512i) -> __m512 {
        // SAFETY: `Single` is chosen only where avx512f was detected.
        unsafe { _mm512_fmadd_ps(_mm512_set1_ps(f32::from_bits(a)), _mm512_castsi512_ps(b), acc) }
    }
}

/// Generates the register tile for one kernel: `M` rows, `V` vectors, A packed or in place.
macro_rules! register_tile {
    ($name:ident, $kernel:ty, $features:literal) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const M: usize, const V: usize, const DIRECT: bool>(
            units: usize,
            a: *const u8,
            row_bytes: usize,
            b: *const u32,
            tile: *mut f32,
            first: bool,
        ) {
            // SAFETY: the caller's operands cover `units` and its tile has MR x NR elements.
            unsafe {
                let mut acc = [[_mm512_setzero_ps(); V]; M];
                if !first {
                    for (i, row) in acc.iter_mut().enumerate() {
                        for (v, x) in row.iter_mut().enumerate() {
                            *x = _mm512_loadu_ps(tile.add(i * 32 + v * 16));
                        }
                    }
                }
                let mut a = a;
                let mut b = b;
                for _ in 0..units {
                    let mut bv = [_mm512_setzero_si512(); V];
                    for (v, x) in bv.iter_mut().enumerate() {
                        *x = _mm512_loadu_si512(b.add(v * 16).cast());
                    }
                    for (i, row) in acc.iter_mut().enumerate() {
                        let at = if DIRECT { a.add(i * row_bytes) } else { a.add(i * 4) };
                        let x = at.cast::<u32>().read_unaligned();
                        for (v, y) in row.iter_mut().enumerate() {
                            *y = <$kernel>::step(*y, x, bv[v]);
                        }
                    }
                    a = a.add(if DIRECT { 4 } else { 4 * M });
                    b = b.add(16 * V);
                }
                for (i, row) in acc.iter().enumerate() {
                    for (v, x) in row.iter().enumerate() {
                        _mm512_storeu_ps(tile.add(i * 32 + v * 16), *x);
                    }
                }
            }
        }
    };
}
register_tile!(tile_pairs, Pairs, "avx512f,avx512bw,avx512vl,avx512bf16");
register_tile!(tile_single, Single, "avx512f,avx512bw,avx512vl");

/// Picks the register tile for a number of rows and a panel width.
macro_rules! pick_tile {
    ($name:ident, $rows:expr, $width:expr, $units:expr, $a:expr, $b:expr, $tile:expr, $first:expr; $($m:literal)*) => {
        match ($rows, $width, $a) {
            $(
                ($m, 32, Rows::Packed(a)) => $name::<$m, 2, false>($units, a.cast(), 0, $b, $tile, $first),
                ($m, 32, Rows::Direct(a, bytes)) => $name::<$m, 2, true>($units, a, bytes, $b, $tile, $first),
                ($m, _, Rows::Packed(a)) => $name::<$m, 1, false>($units, a.cast(), 0, $b, $tile, $first),
                ($m, _, Rows::Direct(a, bytes)) => $name::<$m, 1, true>($units, a, bytes, $b, $tile, $first),
            )*
            _ => unreachable!("a tile has 1 to 12 rows"),
        }
    };
}

/// Writes a tile whose columns are contiguous.
///
/// # Safety
/// As [`Kernel::write`], with column stride 1 and f32 or bf16 elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn write_rows(target: &Target, i: usize, j: usize, rows: usize, cols: usize, tile: *const f32) {
    let alpha = _mm512_set1_ps(target.alpha);
    for r in 0..rows {
        let at = (i + r) * target.row_stride + j;
        for from in (0..cols).step_by(16) {
            let m = mask16(cols - from);
            // SAFETY: masks keep to the `cols` columns of the target.
            unsafe {
                let mut x = _mm512_mul_ps(alpha, _mm512_loadu_ps(tile.add(r * 32 + from)));
                if target.kind == Kind::F32 {
                    let p = target.ptr.cast::<f32>().add(at + from);
                    if target.accumulate {
                        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(m, p));
                    }
                    _mm512_mask_storeu_ps(p, m, x);
                } else {
                    let p = target.ptr.cast::<i16>().add(at + from);
                    if target.accumulate {
                        x = _mm512_add_ps(x, widen(_mm256_maskz_loadu_epi16(m, p)));
                    }
                    _mm256_mask_storeu_epi16(p, m, narrow(x));
                }
            }
        }
    }
}

/// [`write_rows`] without `avx512bf16`.
///
/// # Safety
/// As [`write_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn write_rows_single(target: &Target, i: usize, j: usize, rows: usize, cols: usize, tile: *const f32) {
    let alpha = _mm512_set1_ps(target.alpha);
    for r in 0..rows {
        let at = (i + r) * target.row_stride + j;
        for from in (0..cols).step_by(16) {
            let m = mask16(cols - from);
            // SAFETY: masks keep to the `cols` columns of the target.
            unsafe {
                let mut x = _mm512_mul_ps(alpha, _mm512_loadu_ps(tile.add(r * 32 + from)));
                if target.kind == Kind::F32 {
                    let p = target.ptr.cast::<f32>().add(at + from);
                    if target.accumulate {
                        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(m, p));
                    }
                    _mm512_mask_storeu_ps(p, m, x);
                } else {
                    let p = target.ptr.cast::<i16>().add(at + from);
                    if target.accumulate {
                        x = _mm512_add_ps(x, widen(_mm256_maskz_loadu_epi16(m, p)));
                    }
                    _mm256_mask_storeu_epi16(p, m, narrow_by_integers(x));
                }
            }
        }
    }
}

/// Generates the writer of a tile whose rows lie side by side in the target: it is transposed in registers.
macro_rules! write_columns {
    ($name:ident, $features:literal, $narrow:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(target: &Target, i: usize, j: usize, rows: usize, cols: usize, tile: *const f32) {
            let (alpha, m) = (_mm512_set1_ps(target.alpha), mask16(rows));
            for from in (0..cols).step_by(16) {
                let mut x = [_mm512_setzero_si512(); 16];
                for (r, x) in x.iter_mut().enumerate().take(rows) {
                    // SAFETY: the tile has MR rows of NR.
                    *x = unsafe { _mm512_loadu_si512(tile.add(r * 32 + from).cast()) };
                }
                transpose16(&mut x);
                for (c, x) in x.iter().enumerate().take(cols - from) {
                    let at = i + (j + from + c) * target.col_stride;
                    // SAFETY: masks keep to the `rows` rows of the target.
                    unsafe {
                        let mut x = _mm512_mul_ps(alpha, _mm512_castsi512_ps(*x));
                        if target.kind == Kind::F32 {
                            let p = target.ptr.cast::<f32>().add(at);
                            if target.accumulate {
                                x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(m, p));
                            }
                            _mm512_mask_storeu_ps(p, m, x);
                        } else {
                            let p = target.ptr.cast::<i16>().add(at);
                            if target.accumulate {
                                x = _mm512_add_ps(x, widen(_mm256_maskz_loadu_epi16(m, p)));
                            }
                            _mm256_mask_storeu_epi16(p, m, $narrow(x));
                        }
                    }
                }
            }
        }
    };
}
write_columns!(write_columns, "avx512f,avx512bw,avx512vl,avx512bf16", narrow);
write_columns!(write_columns_single, "avx512f,avx512bw,avx512vl", narrow_by_integers);

/// 16 f32 rounded to bf16, to nearest even, by integer addition; a NaN stays one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow_by_integers(x: __m512) -> __m256i {
    let bits = _mm512_castps_si512(x);
    let high = _mm512_srli_epi32::<16>(bits);
    let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    let quiet = _mm512_or_si512(high, _mm512_set1_epi32(0x40));
    _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32::<16>(rounded), nan, quiet))
}

impl Kernel for Pairs {
    const MR: usize = 12;
    const VECTOR: usize = 16;
    const UNIT: usize = 2;

    fn reads_in_place(source: &Source, k: usize) -> bool {
        source.kind == Kind::Bf16 && source.along_k == 1 && k.is_multiple_of(2) && !aliases(source.outer * 2)
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
        // SAFETY: passed on from the caller; the machine has avx512bf16 or this kernel is not chosen.
        unsafe {
            in_groups(count, width, |from, n, w| {
                pack_pairs(source, i0 + from, n, k0, k, to.add(from), w, width);
            });
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
        // SAFETY: as above.
        unsafe { pick_tile!(tile_pairs, rows, width, units, a, b, tile, first; 1 2 3 4 5 6 7 8 9 10 11 12) }
    }

    const NARROW: usize = narrow512::ROWS;

    unsafe fn narrow(
        b: &Source,
        (j, count): (usize, usize),
        k: usize,
        (x, stride, m): (*const u32, usize, usize),
        tile: *mut f32,
        first: bool,
    ) {
        // SAFETY: as above.
        unsafe {
            match m {
                1 => narrow512::pairs::<1>(b, j, count, k, x, stride, tile, first),
                2 => narrow512::pairs::<2>(b, j, count, k, x, stride, tile, first),
                3 => narrow512::pairs::<3>(b, j, count, k, x, stride, tile, first),
                _ => narrow512::pairs::<4>(b, j, count, k, x, stride, tile, first),
            }
        }
    }

    unsafe fn write(target: &Target, i: usize, j: usize, rows: usize, cols: usize, tile: *const f32) {
        // SAFETY: as above.
        unsafe {
            if target.col_stride == 1 && matches!(target.kind, Kind::F32 | Kind::Bf16) {
                write_rows(target, i, j, rows, cols, tile);
            } else if target.row_stride == 1 && matches!(target.kind, Kind::F32 | Kind::Bf16) {
                write_columns(target, i, j, rows, cols, tile);
            } else {
                write_tile(target, i, j, rows, cols, tile, Self::NR);
            }
        }
    }
}

impl Kernel for Single {
    const MR: usize = 12;
    const VECTOR: usize = 16;
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
        // SAFETY: passed on from the caller; the machine has AVX-512 or this kernel is not chosen.
        unsafe {
            in_groups(count, width, |from, n, w| {
                pack_single(source, i0 + from, n, k0, k, to.add(from), w, width);
            });
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
        // SAFETY: as above.
        unsafe { pick_tile!(tile_single, rows, width, units, a, b, tile, first; 1 2 3 4 5 6 7 8 9 10 11 12) }
    }

    const NARROW: usize = narrow512::ROWS;

    unsafe fn narrow(
        b: &Source,
        (j, count): (usize, usize),
        k: usize,
        (x, stride, m): (*const u32, usize, usize),
        tile: *mut f32,
        first: bool,
    ) {
        // SAFETY: as above.
        unsafe {
            match m {
                1 => narrow512::single::<1>(b, j, count, k, x, stride, tile, first),
                2 => narrow512::single::<2>(b, j, count, k, x, stride, tile, first),
                3 => narrow512::single::<3>(b, j, count, k, x, stride, tile, first),
                _ => narrow512::single::<4>(b, j, count, k, x, stride, tile, first),
            }
        }
    }

    unsafe fn write(target: &Target, i: usize, j: usize, rows: usize, cols: usize, tile: *const f32) {
        // SAFETY: as above.
        unsafe {
            if target.col_stride == 1 && matches!(target.kind, Kind::F32 | Kind::Bf16) {
                write_rows_single(target, i, j, rows, cols, tile);
            } else if target.row_stride == 1 && matches!(target.kind, Kind::F32 | Kind::Bf16) {
                write_columns_single(target, i, j, rows, cols, tile);
            } else {
                write_tile(target, i, j, rows, cols, tile, Self::NR);
            }
        }
    }
}
