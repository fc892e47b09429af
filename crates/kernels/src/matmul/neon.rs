//! NEON kernel: f32 on fused multiply-add, register tile 6 x 16: 24 of the 32 registers accumulate, 4 hold B.

use super::kernel::{Kernel, Rows, Source, f32_in_place, pack_f32};
use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vfmaq_n_f32, vld1q_f32, vst1q_f32};

/// f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Single;

/// `V` vectors of four columns.
#[target_feature(enable = "neon")]
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
        let mut acc: [[float32x4_t; V]; M] = [[vdupq_n_f32(0.0); V]; M];
        if !first {
            for (i, row) in acc.iter_mut().enumerate() {
                for (v, x) in row.iter_mut().enumerate() {
                    *x = vld1q_f32(tile.add(i * 16 + v * 4));
                }
            }
        }
        for u in 0..units {
            let mut columns = [vdupq_n_f32(0.0); V];
            for (v, x) in columns.iter_mut().enumerate() {
                *x = vld1q_f32(b.add((u * V + v) * 4));
            }
            for (i, row) in acc.iter_mut().enumerate() {
                let x = *a.add(i * row_step + u * unit_step);
                for (v, y) in row.iter_mut().enumerate() {
                    *y = vfmaq_n_f32(*y, columns[v], x);
                }
            }
        }
        for (i, row) in acc.iter().enumerate() {
            for (v, x) in row.iter().enumerate() {
                vst1q_f32(tile.add(i * 16 + v * 4), *x);
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
        // SAFETY: passed on from the caller.
        unsafe { pack_f32(source, i0, count, k0, k, to, width) }
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
                        ($m, 16) => register_tile::<$m, 4>(units, a, row, unit, b, tile, first),
                        ($m, _) => register_tile::<$m, 2>(units, a, row, unit, b, tile, first),
                    )*
                    _ => unreachable!("a tile has 1 to 6 rows"),
                }
            };
        }
        // SAFETY: every aarch64 machine that the standard library supports has NEON; operands are the caller's word.
        unsafe { pick!(1 2 3 4 5 6) }
    }
}
