//! Fast rotation for f32 and bf16: tokens in parallel, in f32.
use super::Turn;
use crate::simd::{rows_per_task, tiered, with_fast};
use luthier_tensor::{Float, Tensor};
use rayon::prelude::*;

tiered! {
    fn turn_rows<T: Float>(x: &mut [T], positions: &[u32], heads: usize, table: &[f32], half: usize, sign: f32) {
        let width = x.len() / positions.len();
        let head_dim = width / heads;
        for (n, &position) in positions.iter().enumerate() {
            let angles = &table[position as usize * 2 * half..][..2 * half];
            let (cos, sin) = angles.split_at(half);
            for head in 0..heads {
                let x = &mut x[n * width + head * head_dim..][..2 * half];
                let (a, b) = x.split_at_mut(half);
                let (cos, sin, b) = (&cos[..half], &sin[..half], &mut b[..half]);
                for i in 0..half {
                    let (u, v, s) = (a[i].to_f32(), b[i].to_f32(), sign * sin[i]);
                    a[i] = T::from_f32(u * cos[i] - v * s);
                    b[i] = T::from_f32(v * cos[i] + u * s);
                }
            }
        }
    }
}

/// Turns `y` in place, or a copy of `source` if there is one.
pub(super) fn turn(
    source: Option<&Tensor>,
    y: &mut Tensor,
    positions: &[u32],
    heads: usize,
    table: &[f32],
    half: usize,
    way: Turn,
) {
    fn run<T: Float>(
        source: Option<&Tensor>,
        y: &mut Tensor,
        positions: &[u32],
        heads: usize,
        table: &[f32],
        half: usize,
        sign: f32,
    ) {
        let width = y.numel() / positions.len().max(1);
        if width == 0 {
            return;
        }
        let rows = rows_per_task(width);
        let source = source.map(Tensor::slice::<T>);
        let tasks = y.slice_mut::<T>().par_chunks_mut(rows * width).zip(positions.par_chunks(rows));
        tasks.enumerate().for_each(|(i, (y, positions))| {
            if let Some(source) = source {
                y.copy_from_slice(&source[i * rows * width..][..y.len()]);
            }
            turn_rows(y, positions, heads, table, half, sign);
        });
    }
    let sign = if way == Turn::Back { -1.0 } else { 1.0 };
    with_fast!(y.dtype(), run(source, y, positions, heads, table, half, sign));
}
