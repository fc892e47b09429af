//! Lookup and scatter in parallel.
use crate::simd::{rows_per_task, tiered};
use luthier_tensor::{DType, Float, Tensor, bf16};
use rayon::prelude::*;

tiered! {
    fn convert<S: Float, D: Float>(from: &[S], to: &mut [D]) {
        let n = to.len();
        let from = &from[..n];
        for i in 0..n {
            to[i] = D::from_f32(from[i].to_f32());
        }
    }
}

tiered! {
    fn add<S: Float>(from: &[S], to: &mut [f32]) {
        let n = to.len();
        let from = &from[..n];
        for i in 0..n {
            to[i] += from[i].to_f32();
        }
    }
}

/// `y_i = E[token_i]`
pub(super) fn gather<S: Float>(table: &Tensor, tokens: &[u32], y: &mut Tensor) {
    fn rows<S: Float, D: Float>(table: &Tensor, tokens: &[u32], y: &mut Tensor) {
        let (d, table) = (table.cols(), table.slice::<S>());
        if d == 0 {
            return;
        }
        let rows = rows_per_task(d);
        y.slice_mut::<D>().par_chunks_mut(rows * d).zip(tokens.par_chunks(rows)).for_each(|(y, tokens)| {
            for (y, token) in y.chunks_mut(d).zip(tokens) {
                convert(&table[*token as usize * d..][..d], y);
            }
        });
    }
    match y.dtype() {
        DType::F64 => super::reference::gather::<S>(table, tokens, y),
        DType::F32 => rows::<S, f32>(table, tokens, y),
        _ => rows::<S, bf16>(table, tokens, y),
    }
}

/// `dE[token_i] += dy_i`: rows of the table in parallel, each in the tokens' order.
pub(super) fn scatter<S: Float>(dy: &Tensor, tokens: &[u32], sum: &mut Tensor) {
    let (vocab, d) = (sum.dim(0), sum.dim(1));
    if d == 0 {
        return;
    }
    // A counting sort: `order[start[t]..start[t + 1]]` are the places of token t.
    let mut start = vec![0u32; vocab + 1];
    tokens.iter().for_each(|t| start[*t as usize + 1] += 1);
    (0..vocab).for_each(|t| start[t + 1] += start[t]);
    let (mut next, mut order) = (start.clone(), vec![0u32; tokens.len()]);
    for (i, token) in tokens.iter().enumerate() {
        let place = &mut next[*token as usize];
        order[*place as usize] = i as u32;
        *place += 1;
    }
    let (dy, rows) = (dy.slice::<S>(), rows_per_task(d));
    sum.slice_mut::<f32>().par_chunks_mut(rows * d).enumerate().for_each(|(task, sum)| {
        for (i, sum) in sum.chunks_mut(d).enumerate() {
            let t = task * rows + i;
            for place in &order[start[t] as usize..start[t + 1] as usize] {
                add(&dy[*place as usize * d..][..d], sum);
            }
        }
    });
}
