//! The obvious activation, in f64.
use crate::gated_mlp::{Activation, reference::activate};

fn biased(x: f64, bias: Option<&[f64]>, col: usize) -> f64 {
    x + bias.map_or(0.0, |b| b[col])
}

/// `y = act(x + b)`
pub(super) fn forward(x: &[f64], bias: Option<&[f64]>, cols: usize, activation: Activation, y: &mut [f64]) {
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        *y = activate(biased(*x, bias, i % cols), activation).0;
    }
}

/// Writes `dx` over `x`; adds the sums over rows to `db`.
pub(super) fn backward(
    dy: &[f64],
    bias: Option<&[f64]>,
    cols: usize,
    activation: Activation,
    x: &mut [f64],
    mut db: Option<&mut [f64]>,
) {
    for (i, (dy, x)) in dy.iter().zip(x).enumerate() {
        *x = dy * activate(biased(*x, bias, i % cols), activation).1;
        if let Some(db) = &mut db {
            db[i % cols] += *x;
        }
    }
}
