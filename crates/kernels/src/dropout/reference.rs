//! The obvious dropout: one draw an element.
use super::Dropout;
use luthier_tensor::Float;

fn kept(x: f64, at: usize, cols: usize, dropout: &Dropout) -> f64 {
    let (row, col) = (dropout.first_row + (at / cols) as u64, (at % cols) as u64);
    if dropout.key.bits(row, col) < dropout.threshold() { 0.0 } else { x * dropout.factor() }
}

/// `y = x m / (1 - p)`
pub(super) fn apply<T: Float>(x: &[T], cols: usize, dropout: &Dropout, y: &mut [T]) {
    for (at, (x, y)) in x.iter().zip(y).enumerate() {
        *y = T::from_f64(kept(x.to_f64(), at, cols, dropout));
    }
}

/// `sum += t m / (1 - p)`
pub(super) fn add<T: Float>(t: &[T], cols: usize, dropout: &Dropout, sum: &mut [T]) {
    for (at, (t, sum)) in t.iter().zip(sum).enumerate() {
        *sum = T::from_f64(sum.to_f64() + kept(t.to_f64(), at, cols, dropout));
    }
}
