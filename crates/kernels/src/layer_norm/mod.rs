//! LayerNorm: `y = (x - mean(x)) / sqrt(var(x) + eps) * w + b`, alone or after a residual addition.
//!
//! `w`, `b` `[d]`; `x` `[n, d]`. With `s = 1 / sqrt(var + eps)`, `z = (x - mean) s` and `g = w dy`:
//! `dx = s (g - mean(g) - z mean(g z))`, `dw = sum over rows of dy z`, `db = sum over rows of dy`.
//! Ba 2016, "Layer Normalization", equation 4; the variance is the mean of squares about the mean, as PyTorch's.
//!
//! Statistics are f32 (f64 for f64).
mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use luthier_tensor::{Account, Backward, DType, Saved, Tape, Tensor, Var, add_assign, to_dtype};

/// What the norm needs beside its input.
#[derive(Clone)]
struct Norm {
    /// `w` and `b` `[d]`, in f32 (f64 for f64).
    weight: Tensor,
    bias: Tensor,
    /// `mean` and `s` of each row, one after the other `[2 n]`, in f32 (f64 for f64).
    statistics: Tensor,
}

/// Gradients of one norm: `dx` with whether it is added to, `dw`, `db`.
struct Gradients {
    x: Option<(Tensor, bool)>,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Norm {
    fn new(x: &Tensor, weight: &Var, bias: &Var) -> Self {
        let (d, dtype) = (weight.value().numel(), x.dtype().accumulator());
        assert!(d > 0 && x.cols() == d && bias.value().numel() == d, "rows of {d} in {:?}", x.shape());
        let own = |v: &Var| to_dtype(v.value(), dtype, Account::Workspace);
        let statistics = Tensor::scratch(&[2 * x.rows()], dtype, Account::Activation);
        Self { weight: own(weight), bias: own(bias), statistics }
    }

    fn forward(&mut self, x: &Tensor, eps: f64) -> Tensor {
        let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
        if x.dtype() == DType::F64 {
            reference::statistics(x.slice(), x.cols(), eps, self.statistics.slice_mut());
            self.apply(x, &mut y);
        } else {
            let (w, b) = (self.weight.slice(), self.bias.slice());
            cpu::forward(x, w, b, eps, &mut y, self.statistics.slice_mut());
        }
        y
    }

    fn apply(&self, x: &Tensor, y: &mut Tensor) {
        match x.dtype() {
            DType::F64 => {
                let (w, b, s) = (self.weight.slice(), self.bias.slice(), self.statistics.slice());
                reference::apply(x.slice(), w, b, s, y.slice_mut());
            }
            _ => cpu::apply(x, self.weight.slice(), self.bias.slice(), self.statistics.slice(), y),
        }
    }

    /// The normed rows again, from what is saved.
    fn again(&self, x: &Tensor) -> Tensor {
        let mut y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
        self.apply(x, &mut y);
        y
    }

    /// Pushes the gradients of `y`: `dx (+ dsum)` to the parents below `weight`, then those of weight and bias.
    fn backward(&self, bw: &mut Backward<'_>, x: &Tensor, dy: &Tensor, dsum: Option<Tensor>, weight: usize) {
        let dtype = x.dtype();
        let vector = |wanted: bool| {
            wanted.then(|| Tensor::zeros(self.weight.shape(), dtype.accumulator(), Account::Gradient))
        };
        let mut all = Gradients {
            x: (0..weight).any(|i| bw.needs(i)).then(|| match dsum {
                Some(dsum) if dsum.is_unique() && dsum.dtype() == dtype => (dsum, true),
                Some(dsum) => (to_dtype(&dsum, dtype, Account::Activation).copy(Account::Activation), true),
                None => (Tensor::scratch(x.shape(), dtype, Account::Activation), false),
            }),
            weight: vector(bw.needs(weight)),
            bias: vector(bw.needs(weight + 1)),
        };
        match dtype {
            DType::F64 => {
                reference::backward(
                    x.slice(),
                    self.weight.slice(),
                    self.statistics.slice(),
                    dy.slice(),
                    &mut all,
                );
            }
            _ => cpu::backward(x, self.weight.slice(), self.statistics.slice(), dy, &mut all),
        }
        if let Some((dx, _)) = all.x {
            for i in 0..weight {
                bw.push(i, dx.clone());
            }
        }
        for (i, gradient) in [all.weight, all.bias].into_iter().enumerate() {
            if let Some(gradient) = gradient {
                bw.push(weight + i, gradient);
            }
        }
    }
}

/// `(x - mean) / sqrt(var + eps) * w + b` on rows.
///
/// x `[n, d]`, weight and bias `[d]` of any float type, trained or not -> y of x's shape and type. Saves x and two
/// numbers a row; whoever consumes y saves nothing of it.
pub fn layer_norm(tape: &Tape, x: &Var, weight: &Var, bias: &Var, eps: f64) -> Var {
    let value = x.value();
    let mut norm = Norm::new(value, weight, bias);
    let y = norm.forward(value, eps);
    let parents = [x, weight, bias];
    if !tape.wants(&parents) {
        return tape.record_one(&parents, y, |_| {});
    }
    let (again, source, saved) = (norm.clone(), value.clone(), x.save());
    let walk = move |bw: &mut Backward<'_>| {
        let Some(dy) = bw.output(0) else { return };
        norm.backward(bw, &saved.take(), &dy, None, 1);
    };
    tape.record_one(&parents, y, walk).with_recipe(move || again.again(&source))
}

/// `sum = x + delta`, and `layer_norm(sum)`: `(sum, normed)` in one pass.
///
/// x and delta of one shape and type; whichever is unique holds the sum afterwards. The backward adds the sum's own
/// gradient in the same pass.
pub fn add_layer_norm(tape: &Tape, x: Var, delta: Var, weight: &Var, bias: &Var, eps: f64) -> (Var, Var) {
    let ((x, x_place), (delta, delta_place)) = (x.into_parts(), delta.into_parts());
    assert_eq!((x.shape(), x.dtype()), (delta.shape(), delta.dtype()), "a residual and its update");
    let (mut sum, other) = if !x.is_unique() && delta.is_unique() { (delta, x) } else { (x, delta) };
    let mut norm = Norm::new(&other, weight, bias);
    let y = if sum.dtype() == DType::F64 {
        if !sum.is_unique() {
            sum = sum.copy(Account::Activation);
        }
        add_assign(&mut sum, &other);
        norm.forward(&sum, eps)
    } else {
        let mut y = Tensor::scratch(sum.shape(), sum.dtype(), Account::Activation);
        let (w, b) = (norm.weight.slice(), norm.bias.slice());
        cpu::add_forward(&mut sum, &other, w, b, eps, &mut y, norm.statistics.slice_mut());
        y
    };
    drop(other);
    let parents = [&x_place, &delta_place, weight, bias];
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
