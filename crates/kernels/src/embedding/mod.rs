//! Embedding: `y_i = E[token_i]`, and `dE[t] = sum of dy_i with token_i = t`.
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::linear::Weight;
use luthier_tensor::{Account, DType, Tape, Tensor, Var, bf16, f16};
use std::sync::Arc;

/// Rows `tokens [n]` of `table [vocab, d]` in `dtype`: `[n, d]`. Every token must be below `vocab`.
///
/// The gradient of a trained table is in f32 (f64 for f64) and dense: what a tied head adds to it is dense anyway. Each
/// row's share is summed in the tokens' order.
pub fn embedding(tape: &Tape, table: &Weight, tokens: &Arc<[u32]>, dtype: DType) -> Var {
    let (vocab, d) = (table.d_out(), table.d_in());
    assert!(tokens.iter().all(|t| (*t as usize) < vocab), "a token beyond the vocabulary of {vocab}");
    let mut y = Tensor::scratch(&[tokens.len(), d], dtype, Account::Activation);
    let table = match table {
        Weight::Frozen(base) => {
            base.rows_into(tokens, &mut y);
            return Var::constant(y);
        }
        Weight::Trained(table) => table,
    };
    let value = table.value();
    match value.dtype() {
        DType::F64 => reference::gather::<f64>(value, tokens, &mut y),
        DType::F32 => cpu::gather::<f32>(value, tokens, &mut y),
        DType::Bf16 => cpu::gather::<bf16>(value, tokens, &mut y),
        DType::F16 => cpu::gather::<f16>(value, tokens, &mut y),
        other => panic!("an embedding of {other}"),
    }
    let (tokens, gradient) = (tokens.clone(), value.dtype().accumulator());
    tape.record_one(&[table], y, move |bw| {
        let Some(dy) = bw.output(0) else { return };
        bw.accumulate(0, &[vocab, d], gradient, Account::Gradient, |sum, accumulate| {
            if !accumulate {
                sum.bytes_mut().fill(0);
            }
            match (sum.dtype(), dy.dtype()) {
                (DType::F64, DType::F64) => reference::scatter::<f64, f64>(&dy, &tokens, sum),
                (DType::F64, DType::F32) => reference::scatter::<f32, f64>(&dy, &tokens, sum),
                (DType::F64, _) => reference::scatter::<bf16, f64>(&dy, &tokens, sum),
                (_, DType::F64) => reference::scatter::<f64, f32>(&dy, &tokens, sum),
                (_, DType::F32) => cpu::scatter::<f32>(&dy, &tokens, sum),
                _ => cpu::scatter::<bf16>(&dy, &tokens, sum),
            }
        });
    })
}
