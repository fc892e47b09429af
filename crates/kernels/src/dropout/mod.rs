//! Dropout: `y = x m / (1 - p)`, with `m` regenerated from its key, never stored.
use luthier_tensor::Key;

/// Which elements are dropped, as a function of place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability that an element is zeroed; in [0, 1).
    pub p: f64,
    /// Keyed by (seed, stream, step, pass, site).
    pub key: Key,
    /// Row of the whole step at which this micro-batch starts: the draws of row `i` are those of `first_row + i`.
    pub first_row: u64,
}
