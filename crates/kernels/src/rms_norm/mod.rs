//! RMSNorm: `y = x / sqrt(mean(x^2) + eps) * w`, alone or after a residual addition.
//!
//! `w [d]`; `x [.., k d]` is seen as rows of `d`, so that a norm over heads needs
//! no reshape. With `s = 1 / sqrt(mean(x^2) + eps)` and `g = w dy`:
//! `dx = s g - x s^3 mean(g x)`, `dw = sum over rows of dy x s`.
//! Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", equation 4.
//!
//! Statistics are f32 (f64 for f64).
//! Differs from transformers: the product with `w` is rounded once, not after each factor.
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, Backward, DType, Saved, Tape, Tensor, Var, add_assign, to_dtype};

/// What the norm needs beside its input.
#[derive(Clone)]
struct Norm {
    /// `w [d]`, in f32 (f64 for f64).
    weight: Tensor,
    /// `s` of each row, in f32 (f64 for f64).
    inverse: Tensor,
}

impl Norm {
    fn new(x: &Tensor, weight: &Var) -> Self {
        let (d, dtype) = (weight.value().numel(), x.dtype().accumulator());
        assert!(d > 0 && x.cols().is_multiple_of(d), "rows of {d} in {:?}", x.shape());
        Self {
            weight: to_dtype(weight.value(), dtype, Account::Workspace),
            inverse: Tensor::scratch(&[x.numel() / d], dtype, Account::Activation),
        }
    }

    /// The normed rows again, from what is saved.
    fn again(&self, x: &Tensor) -> Tensor {
        let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
        match x.dtype() {
            DType::F64 => {
                reference::apply(x.slice::<f64>(), self.weight.slice(), self.inverse.slice(), y.slice_mut());
            }
            _ => cpu::apply(x, self.weight.slice(), self.inverse.slice(), &mut y),
        }
        y
    }

    /// Pushes the gradients of `y`: `dx (+ dsum)` to the parents below `weight`, `dw` to parent `weight`.
    fn backward(&self, bw: &mut Backward<'_>, x: &Tensor, dy: &Tensor, dsum: Option<Tensor>, weight: usize) {
        let dtype = x.dtype();
        let mut dx = (0..weight).any(|i| bw.needs(i)).then(|| match dsum {
            Some(dsum) if dsum.is_unique() && dsum.dtype() == dtype => (dsum, true),
            Some(dsum) => (to_dtype(&dsum, dtype, Account::Activation).copy(Account::Activation), true),
            None => (Tensor::scratch(x.shape(), dtype, Account::Activation), false),
        });
        let mut dw = bw
            .needs(weight)
            .then(|| Tensor::zeros(self.weight.shape(), dtype.accumulator(), Account::Gradient));
        match dtype {
            DType::F64 => {
                let dx = dx.as_mut().map(|(dx, add)| (dx.slice_mut::<f64>(), *add));
                let (x, dy, dw) = (x.slice(), dy.slice(), dw.as_mut().map(Tensor::slice_mut));
                reference::backward::<f64>(x, self.weight.slice(), self.inverse.slice(), dy, dx, dw);
            }
            _ => cpu::backward(x, self.weight.slice(), self.inverse.slice(), dy, dx.as_mut(), dw.as_mut()),
        }
        if let Some((dx, _)) = dx {
            for i in 0..weight {
                bw.push(i, dx.clone());
            }
        }
        if let Some(dw) = dw {
            bw.push(weight, dw);
        }
    }
}

/// `y = x / sqrt(mean(x^2) + eps) * w` on rows of `w.numel()`.
///
/// x `[.., k d]`, weight `[d]` of any float type, trained or not -> y of x's shape and type. Saves x and one number a
/// row; whoever consumes y saves nothing of it.
pub fn rms_norm(tape: &Tape, x: &Var, weight: &Var, eps: f64) -> Var {
    let value = x.value();
    let mut norm = Norm::new(value, weight);
    let mut y = Tensor::scratch(value.shape(), value.dtype(), Account::Activation);
    match value.dtype() {
        DType::F64 => reference::forward::<f64>(
            value.slice(),
            norm.weight.slice(),
            eps,
            y.slice_mut(),
            norm.inverse.slice_mut(),
        ),
        _ => cpu::forward(value, norm.weight.slice(), eps, &mut y, norm.inverse.slice_mut()),
    }
    if !tape.wants(&[x, weight]) {
        return tape.record_one(&[x, weight], y, |_| {});
    }
    let (again, source, saved) = (norm.clone(), value.clone(), x.save());
    let walk = move |bw: &mut Backward<'_>| {
        let Some(dy) = bw.output(0) else { return };
        norm.backward(bw, &saved.take(), &dy, None, 1);
    };
    tape.record_one(&[x, weight], y, walk).with_recipe(move || again.again(&source))
}

/// `sum = x + delta`, and `rms_norm(sum)`: `(sum, normed)` in one pass.
///
/// x and delta of one shape and type; whichever is unique holds the sum afterwards. The backward adds the sum's own
/// gradient in the same pass.
pub fn add_rms_norm(tape: &Tape, x: Var, delta: Var, weight: &Var, eps: f64) -> (Var, Var) {
    let ((x, x_place), (delta, delta_place)) = (x.into_parts(), delta.into_parts());
    assert_eq!((x.shape(), x.dtype()), (delta.shape(), delta.dtype()), "a residual and its update");
    let (mut sum, other) = if !x.is_unique() && delta.is_unique() { (delta, x) } else { (x, delta) };
    let mut norm = Norm::new(&other, weight);
    let mut y = Tensor::scratch(other.shape(), other.dtype(), Account::Activation);
    match sum.dtype() {
        DType::F64 => {
            if !sum.is_unique() {
                sum = sum.copy(Account::Activation);
            }
            add_assign(&mut sum, &other);
            reference::forward::<f64>(
                sum.slice(),
                norm.weight.slice(),
                eps,
                y.slice_mut(),
                norm.inverse.slice_mut(),
            );
        }
        _ => cpu::add_forward(&mut sum, &other, norm.weight.slice(), eps, &mut y, norm.inverse.slice_mut()),
    }
    drop(other);
    let parents = [&x_place, &delta_place, weight];
    let outputs = vec![sum.clone(), y];
    let wants = tape.wants(&parents);
    let again = wants.then(|| (norm.clone(), sum.clone()));
    let saved = wants.then(|| Saved::Kept(sum));
    let mut vars = tape.record(&parents, outputs, move |bw| {
        let (dsum, dy) = (bw.output(0), bw.output(1));
        let sum = saved.expect("a node that is walked was wanted").take();
        match (dsum, dy) {
            (dsum, Some(dy)) => norm.backward(bw, &sum, &dy, dsum, 2),
            (Some(dsum), None) => (0..2).for_each(|i| bw.push(i, dsum.clone())),
            (None, None) => {}
        }
    });
    let normed = vars.pop().expect("two outputs");
    let sum = vars.pop().expect("two outputs");
    let normed = match again {
        Some((norm, sum)) => normed.with_recipe(move || norm.again(&sum)),
        None => normed,
    };
    (sum, normed)
}
