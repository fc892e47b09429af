//! Some rows of a batch: `y_i = x[rows_i]`, one a segment for pooling, those with a label for a head.
//!
//! The backward adds each row's gradient where it came from; rows may repeat.
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, DType, Float, Tape, Tensor, Var, bf16};
use std::sync::Arc;

/// `x[rows]` of `x [n, d]`, in the type of sums (f32; f64 for f64): heads compute in it, whatever the blocks do.
pub fn gather(tape: &Tape, x: &Var, rows: &Arc<[u32]>) -> Var {
    let (value, shape) = (x.value(), x.value().shape().to_vec());
    let (n, d) = (value.rows(), value.cols());
    assert!(rows.iter().all(|r| (*r as usize) < n), "a row beyond the batch's {n}");
    let mut y = Tensor::scratch(&[rows.len(), d], value.dtype().accumulator(), Account::Activation);
    match value.dtype() {
        DType::F64 => read::<f64, f64>(value, rows, &mut y),
        DType::F32 => read::<f32, f32>(value, rows, &mut y),
        DType::Bf16 => read::<bf16, f32>(value, rows, &mut y),
        other => panic!("activations are f64, f32 or bf16, not {other}"),
    }
    let (rows, dtype) = (rows.clone(), value.dtype());
    tape.record_one(&[x], y, move |bw| {
        let Some(dy) = bw.output(0) else { return };
        bw.accumulate(0, &shape, dtype, Account::Activation, |dx, accumulate| {
            if !accumulate {
                dx.bytes_mut().fill(0);
            }
            match dtype {
                DType::F64 => add::<f64, f64>(&dy, &rows, dx),
                DType::F32 => add::<f32, f32>(&dy, &rows, dx),
                _ => add::<f32, bf16>(&dy, &rows, dx),
            }
        });
    })
}

fn read<S: Float, D: Float>(x: &Tensor, rows: &[u32], y: &mut Tensor) {
    let (d, x) = (x.cols(), x.slice::<S>());
    for (i, row) in rows.iter().enumerate() {
        let from = &x[*row as usize * d..][..d];
        let to = &mut y.slice_mut::<D>()[i * d..][..d];
        to.iter_mut().zip(from).for_each(|(to, from)| *to = D::from_f64(from.to_f64()));
    }
}

fn add<S: Float, D: Float>(dy: &Tensor, rows: &[u32], dx: &mut Tensor) {
    let (d, dy, dx) = (dy.cols(), dy.slice::<S>(), dx.slice_mut::<D>());
    for (i, row) in rows.iter().enumerate() {
        let to = &mut dx[*row as usize * d..][..d];
        to.iter_mut()
            .zip(&dy[i * d..][..d])
            .for_each(|(to, dy)| *to = D::from_f64(to.to_f64() + dy.to_f64()));
    }
}
