//! Fast gate for f32 and bf16, in f32.
use super::Activation;
use crate::simd::{GRAIN, exp, tiered, with_fast};
use luthier_tensor::{Float, Tensor};
use rayon::prelude::*;

/// `act(g)` and `act'(g)`.
pub(crate) trait Gate {
    fn activate(g: f32) -> (f32, f32);
}

pub(crate) struct Silu;
impl Gate for Silu {
    #[inline(always)]
    fn activate(g: f32) -> (f32, f32) {
        let s = 1.0 / (1.0 + exp(-g));
        (g * s, s * (1.0 + g * (1.0 - s)))
    }
}

pub(crate) struct Gelu;
impl Gate for Gelu {
    /// Abramowitz and Stegun, 7.1.26: the distribution function within 1e-7.
    #[inline(always)]
    fn activate(g: f32) -> (f32, f32) {
        let t = 1.0 / (1.0 + 0.327_591_1 * (g.abs() * std::f32::consts::FRAC_1_SQRT_2));
        let mut p = 1.061_405_4;
        p = p * t - 1.453_152;
        p = p * t + 1.421_413_7;
        p = p * t - 0.284_496_74;
        p = p * t + 0.254_829_6;
        let bell = exp(-0.5 * g * g);
        let tail = 0.5 * p * t * bell;
        let cdf = if g < 0.0 { tail } else { 1.0 - tail };
        // 1 / sqrt(2 pi)
        (g * cdf, cdf + g * bell * 0.398_942_3)
    }
}

pub(crate) struct GeluTanh;
impl Gate for GeluTanh {
    /// `(1 + tanh z) / 2 = 1 / (1 + e^(-2z))`, which keeps small results exact.
    #[inline(always)]
    fn activate(g: f32) -> (f32, f32) {
        // 2 sqrt(2 / pi)
        const C: f32 = 1.595_769;
        let s = 1.0 / (1.0 + exp(-C * (g + 0.044_715 * (g * g * g))));
        (g * s, s + g * s * (1.0 - s) * (C * (1.0 + 0.134_145 * (g * g))))
    }
}

pub(crate) struct Relu;
impl Gate for Relu {
    #[inline(always)]
    fn activate(g: f32) -> (f32, f32) {
        if g > 0.0 { (g, 1.0) } else { (0.0, 0.0) }
    }
}

pub(crate) struct Tanh;
impl Gate for Tanh {
    #[inline(always)]
    fn activate(g: f32) -> (f32, f32) {
        let y = 2.0 / (1.0 + exp(-2.0 * g)) - 1.0;
        (y, 1.0 - y * y)
    }
}

tiered! {
    fn forward_slice<T: Float, G: Gate>(gate: &[T], up: &[T], y: &mut [T]) {
        let n = y.len();
        let (gate, up) = (&gate[..n], &up[..n]);
        for i in 0..n {
            y[i] = T::from_f32(G::activate(gate[i].to_f32()).0 * up[i].to_f32());
        }
    }
}

tiered! {
    fn backward_slice<T: Float, G: Gate>(dy: &[T], gate: &mut [T], up: &mut [T]) {
        let n = dy.len();
        let (gate, up) = (&mut gate[..n], &mut up[..n]);
        for i in 0..n {
            let (act, slope) = G::activate(gate[i].to_f32());
            let dy = dy[i].to_f32();
            gate[i] = T::from_f32(dy * up[i].to_f32() * slope);
            up[i] = T::from_f32(dy * act);
        }
    }
}

/// `y = act(gate) up`
pub(super) fn forward(gate: &Tensor, up: &Tensor, y: &mut Tensor, activation: Activation) {
    fn run<T: Float>(gate: &Tensor, up: &Tensor, y: &mut Tensor, activation: Activation) {
        let chunks = y.slice_mut::<T>().par_chunks_mut(GRAIN);
        let chunks = chunks.zip(gate.slice::<T>().par_chunks(GRAIN)).zip(up.slice::<T>().par_chunks(GRAIN));
        chunks.for_each(|((y, gate), up)| match activation {
            Activation::Silu => forward_slice::<T, Silu>(gate, up, y),
            Activation::Gelu => forward_slice::<T, Gelu>(gate, up, y),
            Activation::GeluTanh => forward_slice::<T, GeluTanh>(gate, up, y),
            Activation::Relu => forward_slice::<T, Relu>(gate, up, y),
            Activation::Tanh => forward_slice::<T, Tanh>(gate, up, y),
        });
    }
    with_fast!(gate.dtype(), run(gate, up, y, activation));
}

/// Writes `dgate` over `gate`, `dup` over `up`.
pub(super) fn backward(dy: &Tensor, gate: &mut Tensor, up: &mut Tensor, activation: Activation) {
    fn run<T: Float>(dy: &Tensor, gate: &mut Tensor, up: &mut Tensor, activation: Activation) {
        let chunks = gate.slice_mut::<T>().par_chunks_mut(GRAIN);
        let chunks =
            chunks.zip(up.slice_mut::<T>().par_chunks_mut(GRAIN)).zip(dy.slice::<T>().par_chunks(GRAIN));
        chunks.for_each(|((gate, up), dy)| match activation {
            Activation::Silu => backward_slice::<T, Silu>(dy, gate, up),
            Activation::Gelu => backward_slice::<T, Gelu>(dy, gate, up),
            Activation::GeluTanh => backward_slice::<T, GeluTanh>(dy, gate, up),
            Activation::Relu => backward_slice::<T, Relu>(dy, gate, up),
            Activation::Tanh => backward_slice::<T, Tanh>(dy, gate, up),
        });
    }
    with_fast!(dy.dtype(), run(dy, gate, up, activation));
}
