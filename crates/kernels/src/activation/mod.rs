//! An activation alone, after the bias of the linear before it: `y = act(x + b)`.
//!
//! For plain MLPs and poolers. The bias joins here, so that it costs no pass of its own, forward or backward:
//! `dx = dy act'(x + b)`, `db` the sum of `dx` over rows.
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

pub use crate::gated_mlp::Activation;
use luthier_tensor::{Account, DType, Tape, Tensor, Var, to_dtype};

/// `act(x + bias)` in x's type, from x and the bias in f32 (f64 for f64).
fn forward(x: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Tensor {
    let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
    match x.dtype() {
        DType::F64 => {
            reference::forward(x.slice(), bias.map(Tensor::slice), x.cols(), activation, y.slice_mut());
        }
        _ => cpu::forward(x, bias.map(Tensor::slice), activation, &mut y),
    }
    y
}

/// `act(x + bias)` of `x [n, d]` and `bias [d]`, in x's type. Saves x; whoever consumes the result saves nothing of it.
/// The backward writes the gradient over x if nobody else holds it.
pub fn activate(tape: &Tape, x: &Var, bias: Option<&Var>, activation: Activation) -> Var {
    let value = x.value();
    assert!(bias.is_none_or(|b| b.value().numel() == value.cols()), "a bias as long as a row");
    let wide = bias.map(|b| to_dtype(b.value(), value.dtype().accumulator(), Account::Workspace));
    let y = forward(value, wide.as_ref(), activation);
    let mut parents = vec![x];
    parents.extend(bias);
    if !tape.wants(&parents) {
        return tape.record_one(&parents, y, |_| {});
    }
    let (saved, source, held) = (x.save(), value.clone(), wide.clone());
    let walk = move |bw: &mut luthier_tensor::Backward<'_>| {
        let Some(dy) = bw.output(0) else { return };
        let x = saved.take();
        let mut dx = if x.is_unique() { x } else { x.copy(Account::Activation) };
        let mut db = (wide.is_some() && bw.needs(1))
            .then(|| Tensor::zeros(&[dx.cols()], dx.dtype().accumulator(), Account::Gradient));
        if dx.dtype() == DType::F64 {
            let (bias, db) = (wide.as_ref().map(Tensor::slice), db.as_mut().map(Tensor::slice_mut));
            let cols = dx.cols();
            reference::backward(dy.slice(), bias, cols, activation, dx.slice_mut(), db);
        } else {
            let (bias, db) = (wide.as_ref().map(Tensor::slice), db.as_mut().map(Tensor::slice_mut));
            cpu::backward(&dy, bias, activation, &mut dx, db);
        }
        bw.push(0, dx);
        if let Some(db) = db {
            bw.push(1, db);
        }
    };
    tape.record_one(&parents, y, walk).with_recipe(move || forward(&source, held.as_ref(), activation))
}
