//! Dropout: `y = x m / (1 - p)`, with `m` regenerated from its key, never stored.
//!
//! Element (row, col) falls where the 32 bits of the step's row and `col` are
//! below `p 2^32`; one Philox block serves four columns. A micro-batch knows its
//! first row within the step, so that it draws what the whole batch would. The
//! operation is linear and symmetric: its backward is itself.
//! Srivastava 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", section 4.
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, DType, Key, Tape, Tensor, Var};
use std::sync::Arc;

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

impl Dropout {
    /// Words below this drop their element: the share is p to 2^-32.
    fn threshold(&self) -> u32 {
        assert!((0.0..1.0).contains(&self.p), "dropout of {}", self.p);
        (self.p * 4_294_967_296.0) as u32
    }

    /// What is kept is multiplied by this.
    fn factor(&self) -> f64 {
        1.0 / (1.0 - self.p)
    }

    /// `x m / (1 - p)` for `x [n, d]`, in x's type: forward and backward alike.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        if self.p == 0.0 {
            return x.clone();
        }
        let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
        match x.dtype() {
            DType::F64 => reference::apply::<f64>(x.slice(), x.cols(), self, y.slice_mut()),
            _ => cpu::apply(x, self, &mut y),
        }
        y
    }

    /// `sum += t m / (1 - p)`, of one shape; f64 into f64, f32 into f32 or bf16.
    pub fn add_to(&self, sum: &mut Tensor, t: &Tensor) {
        assert_eq!(sum.shape(), t.shape(), "sum of two shapes");
        match sum.dtype() {
            DType::F64 => reference::add::<f64>(t.slice(), t.cols(), self, sum.slice_mut()),
            _ => cpu::add(t.slice::<f32>(), t.cols(), self, sum),
        }
    }
}

/// [`Dropout::apply`] on the tape. Saves nothing but the key.
pub fn dropout(tape: &Tape, x: &Var, dropout: &Dropout) -> Var {
    let again = *dropout;
    tape.record_one(&[x], dropout.apply(x.value()), move |bw| {
        let Some(dy) = bw.output(0) else { return };
        bw.push(0, again.apply(&dy));
    })
}

/// [`dropout`] of rows taken from a batch: row `i` of x draws what row `rows[i]` of the batch would, so that what is
/// dropped after pooling depends on no other segment.
pub fn dropout_rows(tape: &Tape, x: &Var, dropout: &Dropout, rows: &Arc<[u32]>) -> Var {
    assert_eq!(x.value().rows(), rows.len(), "one row of the batch each");
    let apply = |x: &Tensor, rows: &[u32], dropout: Dropout| {
        let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
        let width = x.cols() * x.dtype().size();
        for (i, row) in rows.iter().enumerate() {
            let one = Dropout { first_row: dropout.first_row + u64::from(*row), ..dropout };
            let dropped = one.apply(&x.narrow(i..i + 1));
            y.bytes_mut()[i * width..(i + 1) * width].copy_from_slice(dropped.bytes());
        }
        y
    };
    let (again, rows) = (*dropout, rows.clone());
    tape.record_one(&[x], apply(x.value(), &rows, again), move |bw| {
        let Some(dy) = bw.output(0) else { return };
        bw.push(0, apply(&dy, &rows, again));
    })
}
