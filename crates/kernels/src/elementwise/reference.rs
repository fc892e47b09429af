//! The obvious loops.
use luthier_tensor::Float;

/// `y = a + b`
pub(super) fn add<T: Float>(a: &[T], b: &[T], y: &mut [T]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = T::from_f64(a.to_f64() + b.to_f64());
    }
}

/// `y = factor a`
pub(super) fn scale<T: Float>(a: &[T], factor: f64, y: &mut [T]) {
    for (y, a) in y.iter_mut().zip(a) {
        *y = T::from_f64(a.to_f64() * factor);
    }
}

/// The sum of all elements, in f64.
pub(super) fn sum<T: Float>(a: &[T]) -> f64 {
    a.iter().map(|a| a.to_f64()).sum()
}
