use super::*;
use crate::gradient_check::{against_f64, check, normal};
use luthier_tensor::Saved;

const ALL: [Activation; 5] =
    [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Tanh];

#[test]
fn gradients() {
    for activation in ALL {
        let inputs = [normal(&[4, 9], DType::F64, 1), normal(&[9], DType::F64, 2)];
        check(&inputs, |tape, v| vec![activate(tape, &v[0], Some(&v[1]), activation)]);
        check(&inputs[..1], |tape, v| vec![activate(tape, &v[0], None, activation)]);
    }
}

#[test]
fn equals_f64_on_every_tier() {
    for activation in ALL {
        for (n, d) in [(0, 3), (1, 1), (3, 63), (64, 65), (2, 20_000), (700, 33)] {
            // Slopes and results of a sum of two normal numbers (at most 8), with a few f32 roundings; gelu's distribution
            // function is within 1e-7, which is two half ulps more. A bias sums n gradients of one rounding each.
            let inputs = [normal(&[n, d], DType::F64, 1), normal(&[d], DType::F64, 2)];
            against_f64(&inputs, 60.0 + 4.0 * n as f64, |tape, v| {
                vec![activate(tape, &v[0], Some(&v[1]), activation)]
            });
        }
    }
}

#[test]
fn tanh_is_odd_bounded_and_finite_far_out() {
    let at = [-1000.0, -20.0, -1e-4, 0.0, 1e-4, 20.0, 1000.0];
    let x = Tensor::from_f64(&[1, 7], &at, DType::F32, Account::Workspace);
    let y = forward(&x, None, Activation::Tanh).to_f64_vec();
    for (y, x) in y.iter().zip(at) {
        assert!((y - x.tanh()).abs() < 1e-7, "tanh({x}) = {y}");
    }
}

#[test]
fn consumers_get_the_same_bits_again() {
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let tape = Tape::new();
        let (x, _) = tape.input(normal(&[5, 12], dtype, 1));
        let y = activate(&tape, &x, Some(&Var::constant(normal(&[12], DType::F32, 2))), Activation::Gelu);
        let (value, saved) = (y.value().clone(), y.save());
        assert!(matches!(saved, Saved::Again { .. }));
        assert_eq!(saved.take().bytes(), value.bytes());
    }
}
