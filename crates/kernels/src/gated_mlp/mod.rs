//! The gate of a gated MLP: `y = act(gate) * up`.
//!
//! Shazeer 2020, "GLU Variants Improve Transformer", section 2. The backward
//! writes `dgate = dy up act'(gate)` and `dup = dy act(gate)` in one pass.
pub(crate) mod cpu;
pub(crate) mod reference;
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, DType, Tape, Tensor, Var};

/// What the gate goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `g / (1 + e^-g)`
    Silu,
    /// `g P(Z <= g)` of a standard normal `Z`.
    Gelu,
    /// Gelu by `tanh(sqrt(2/pi) (g + 0.044715 g^3))` (Hendrycks and Gimpel 2016, section 2).
    GeluTanh,
    /// `max(g, 0)`
    Relu,
    /// `tanh(g)`: poolers.
    Tanh,
}

fn forward(gate: &Tensor, up: &Tensor, activation: Activation) -> Tensor {
    let mut y = Tensor::scratch(gate.shape(), gate.dtype(), Account::Activation);
    match gate.dtype() {
        DType::F64 => reference::forward::<f64>(gate.slice(), up.slice(), y.slice_mut(), activation),
        _ => cpu::forward(gate, up, &mut y, activation),
    }
    y
}

/// A tensor that may be written: itself, or a copy.
fn own(t: Tensor) -> Tensor {
    if t.is_unique() { t } else { t.copy(Account::Activation) }
}

/// `act(gate) * up`, of one shape and type. Saves gate and up; whoever consumes the result saves nothing of it. The
/// backward writes their gradients over them if nobody else holds them.
pub fn gated(tape: &Tape, gate: &Var, up: &Var, activation: Activation) -> Var {
    let (g, u) = (gate.value(), up.value());
    assert_eq!((g.shape(), g.dtype()), (u.shape(), u.dtype()), "gate and up");
    let y = forward(g, u, activation);
    if !tape.wants(&[gate, up]) {
        return tape.record_one(&[gate, up], y, |_| {});
    }
    let (saved, again) = ((gate.save(), up.save()), (g.clone(), u.clone()));
    let walk = move |bw: &mut luthier_tensor::Backward<'_>| {
        let Some(dy) = bw.output(0) else { return };
        let (mut gate, mut up) = (own(saved.0.take()), own(saved.1.take()));
        match dy.dtype() {
            DType::F64 => {
                reference::backward::<f64>(dy.slice(), gate.slice_mut(), up.slice_mut(), activation);
            }
            _ => cpu::backward(&dy, &mut gate, &mut up, activation),
        }
        bw.push(0, gate);
        bw.push(1, up);
    };
    tape.record_one(&[gate, up], y, walk).with_recipe(move || forward(&again.0, &again.1, activation))
}
