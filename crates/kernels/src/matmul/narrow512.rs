//! AVX-512: few rows of A times columns of B that lie along k, as a decoder's one row times a weight.
//!
//! 16 columns are read side by side, 64 bytes each, and transposed in registers; nothing is written between.

#![allow(clippy::needless_range_loop)] // registers: an index is a name here

use super::kernel::Source;
use super::pack512::{load_f32, load_pairs, prefetch, transpose16, whole_pairs, whole_single};
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_storeu_ps,
};
use std::mem::transmute;

/// Rows that have accumulators beside the 16 columns' registers.
pub(super) const ROWS: usize = 4;

/// Generates the kernel of one number format: elements that 64 bytes of lanes cover along k, how some or all are loaded, and
/// the step.
macro_rules! narrow {
    ($name:ident, $features:literal, $along:literal, $unit:literal, $load:expr, $whole:expr, $step:expr) => {
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const M: usize>(
            b: &Source,
            j: usize,
            count: usize,
            k: usize,
            x: *const u32,
            stride: usize,
            tile: *mut f32,
            first: bool,
        ) {
            // SAFETY: loads are masked to the operand, `x` holds the lanes of k, the tile its rows.
            unsafe {
                let mut acc = [_mm512_setzero_ps(); M];
                if !first {
                    for (i, sum) in acc.iter_mut().enumerate() {
                        *sum = _mm512_loadu_ps(tile.add(i * 32));
                    }
                }
                // Whole blocks with bounds that the compiler sees: all stays in registers.
                let whole = if count == 16 { k / $along * $along } else { 0 };
                for at in (0..whole).step_by($along) {
                    let mut columns = [_mm512_setzero_si512(); 16];
                    for i in 0..16 {
                        prefetch(b, j, at / $along * 16 + i, 0, k);
                        columns[i] = $whole(b.at(j + i, at), b.kind);
                    }
                    transpose16(&mut columns);
                    for u in 0..16 {
                        for i in 0..M {
                            acc[i] = $step(acc[i], *x.add(i * stride + at / $unit + u), columns[u]);
                        }
                    }
                }
                for at in (whole..k).step_by($along) {
                    let n = (k - at).min($along);
                    let mut columns = [_mm512_setzero_si512(); 16];
                    for (i, column) in columns.iter_mut().enumerate().take(count) {
                        *column = $load(b.at(j + i, at), b.kind, n);
                    }
                    transpose16(&mut columns);
                    for (u, lanes) in columns.iter().enumerate().take(n.div_ceil($unit)) {
                        for (i, sum) in acc.iter_mut().enumerate() {
                            *sum = $step(*sum, *x.add(i * stride + at / $unit + u), *lanes);
                        }
                    }
                }
                for (i, sum) in acc.iter().enumerate() {
                    _mm512_storeu_ps(tile.add(i * 32), *sum);
                }
            }
        }
    };
}

narrow!(
    pairs,
    "avx512f,avx512bw,avx512vl,avx512bf16",
    32,
    2,
    |p, kind, n| load_pairs(p, kind, n),
    |p, kind| whole_pairs(p, kind),
    |sum: __m512, x: u32, lanes: __m512i| _mm512_dpbf16_ps(
        sum,
        transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x.cast_signed())),
        transmute::<__m512i, __m512bh>(lanes)
    )
);
narrow!(
    single,
    "avx512f,avx512bw,avx512vl",
    16,
    1,
    |p, kind, n| _mm512_castps_si512(load_f32(p, kind, n)),
    |p, kind| whole_single(p, kind),
    |sum: __m512, x: u32, lanes: __m512i| _mm512_fmadd_ps(
        _mm512_set1_ps(f32::from_bits(x)),
        _mm512_castsi512_ps(lanes),
        sum
    )
);
