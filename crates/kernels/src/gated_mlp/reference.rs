//! The obvious gate, in f64 whatever the element type.
use super::Activation;
use luthier_tensor::Float;
use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

/// `P(Z <= x)` of a standard normal, by the all-positive series of erf (Abramowitz and Stegun, 7.1.6).
pub(super) fn normal_cdf(x: f64) -> f64 {
    let z = x.abs() / SQRT_2;
    if z > 6.0 {
        return if x > 0.0 { 1.0 } else { 0.0 }; // erfc(6) = 2e-17
    }
    let (mut term, mut sum, mut k) = (z, 0.0, 0.0);
    while term > 1e-18 * sum {
        sum += term;
        k += 1.0;
        term *= 2.0 * z * z / (2.0 * k + 1.0);
    }
    let erf = FRAC_2_SQRT_PI * (-z * z).exp() * sum;
    0.5 * (1.0 + erf.copysign(x))
}

/// `act(g)` and `act'(g)`.
pub(crate) fn activate(g: f64, activation: Activation) -> (f64, f64) {
    match activation {
        Activation::Silu => {
            let s = 1.0 / (1.0 + (-g).exp());
            (g * s, s * (1.0 + g * (1.0 - s)))
        }
        Activation::Gelu => {
            let cdf = normal_cdf(g);
            (g * cdf, cdf + g * (-0.5 * g * g).exp() / (2.0 * PI).sqrt())
        }
        Activation::GeluTanh => {
            let c = (2.0 / PI).sqrt();
            let t = (c * (g + 0.044_715 * g.powi(3))).tanh();
            let slope = c * (1.0 + 3.0 * 0.044_715 * g * g);
            (0.5 * g * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * g * (1.0 - t * t) * slope)
        }
        Activation::Tanh => (g.tanh(), 1.0 - g.tanh().powi(2)),
        Activation::Relu => {
            if g > 0.0 {
                (g, 1.0)
            } else {
                (0.0, 0.0)
            }
        }
    }
}

/// `y = act(gate) up`
pub(super) fn forward<T: Float>(gate: &[T], up: &[T], y: &mut [T], activation: Activation) {
    for ((g, u), y) in gate.iter().zip(up).zip(y) {
        *y = T::from_f64(activate(g.to_f64(), activation).0 * u.to_f64());
    }
}

/// Writes `dgate` over `gate`, `dup` over `up`.
pub(super) fn backward<T: Float>(dy: &[T], gate: &mut [T], up: &mut [T], activation: Activation) {
    for ((dy, g), u) in dy.iter().zip(gate).zip(up) {
        let (act, slope) = activate(g.to_f64(), activation);
        let dy = dy.to_f64();
        (*g, *u) = (T::from_f64(dy * u.to_f64() * slope), T::from_f64(dy * act));
    }
}
