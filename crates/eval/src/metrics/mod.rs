//! Metrics by their fields' definitions, each held to cases of scikit-learn, scipy and seqeval (`golden/metrics.py`).
mod classes;
mod entities;
mod numbers;
#[cfg(test)]
mod tests;

pub use classes::{ClassScore, Confusion, calibration_error, softmax};
pub use entities::{Entity, EntityCounts, entities};
pub use numbers::{pearson, spearman};

/// `2 hits / (gold + predicted)`: the harmonic mean of precision and recall; 0 where there is neither.
pub fn f1(hits: f64, gold: f64, predicted: f64) -> f64 {
    if gold + predicted == 0.0 { 0.0 } else { 2.0 * hits / (gold + predicted) }
}

/// `a / b`, 0 where `b` is 0.
pub(crate) fn share(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}
