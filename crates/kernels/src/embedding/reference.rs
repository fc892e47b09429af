//! The obvious lookup and its transpose.
use luthier_tensor::{DType, Float, Tensor, bf16};

/// `y_i = E[token_i]`
pub(super) fn gather<S: Float>(table: &Tensor, tokens: &[u32], y: &mut Tensor) {
    fn rows<S: Float, D: Float>(table: &Tensor, tokens: &[u32], y: &mut Tensor) {
        let (d, table) = (table.cols(), table.slice::<S>());
        for (i, token) in tokens.iter().enumerate() {
            for j in 0..d {
                y.slice_mut::<D>()[i * d + j] = D::from_f64(table[*token as usize * d + j].to_f64());
            }
        }
    }
    match y.dtype() {
        DType::F64 => rows::<S, f64>(table, tokens, y),
        DType::F32 => rows::<S, f32>(table, tokens, y),
        _ => rows::<S, bf16>(table, tokens, y),
    }
}

/// `dE[token_i] += dy_i`
pub(super) fn scatter<S: Float, D: Float>(dy: &Tensor, tokens: &[u32], sum: &mut Tensor) {
    let (d, dy, sum) = (dy.cols(), dy.slice::<S>(), sum.slice_mut::<D>());
    for (i, token) in tokens.iter().enumerate() {
        for j in 0..d {
            let sum = &mut sum[*token as usize * d + j];
            *sum = D::from_f64(sum.to_f64() + dy[i * d + j].to_f64());
        }
    }
}
