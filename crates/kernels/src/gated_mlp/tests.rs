use super::*;
use crate::gradient_check::{against_f64, check, normal};
use luthier_tensor::Saved;

const ALL: [Activation; 4] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu];

#[test]
fn gradients() {
    for activation in ALL {
        let inputs = [normal(&[4, 9], DType::F64, 1), normal(&[4, 9], DType::F64, 2)];
        check(&inputs, |tape, v| vec![gated(tape, &v[0], &v[1], activation)]);
    }
}

#[test]
fn equals_f64_on_every_tier() {
    for activation in ALL {
        for n in [0, 1, 3, 63, 64, 65, 1000, 40_000] {
            // A product of three normal numbers (at most 40) with a few f32 roundings; gelu's distribution function is
            // within 1e-7, which is two half ulps more of each.
            let inputs = [normal(&[n], DType::F64, 1), normal(&[n], DType::F64, 2)];
            against_f64(&inputs, 60.0, |tape, v| vec![gated(tape, &v[0], &v[1], activation)]);
        }
    }
}

#[test]
fn far_gates_stay_finite_and_zeros_keep_their_sign_of_nothing() {
    for activation in ALL {
        let gates = [-1000.0, -90.0, -20.0, 0.0, 20.0, 90.0, 1000.0];
        let g = Tensor::from_f64(&[7], &gates, DType::F32, Account::Workspace);
        let u = Tensor::from_f64(&[7], &[1.0; 7], DType::F32, Account::Workspace);
        let y = forward(&g, &u, activation).to_f64_vec();
        for (y, g) in y.iter().zip(gates) {
            assert!((y - g.max(0.0)).abs() < 1e-6, "{activation:?}({g}) = {y}");
        }
        let (mut dg, mut du) = (g.copy(Account::Workspace), u.copy(Account::Workspace));
        cpu::backward(&u, &mut dg, &mut du, activation);
        for (dg, g) in dg.to_f64_vec().iter().zip(gates) {
            let slope =
                if g == 0.0 && activation != Activation::Relu { 0.5 } else { f64::from(u8::from(g > 0.0)) };
            assert!((dg - slope).abs() < 1e-6, "{activation:?}'({g}) = {dg}");
        }
    }
}

#[test]
fn the_normal_distribution_function_is_the_tables() {
    // Abramowitz and Stegun, table 26.1.
    for (x, p) in [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (2.0, 0.977_249_868_051_821)] {
        assert!((reference::normal_cdf(x) - p).abs() < 1e-15);
        assert!((reference::normal_cdf(-x) - (1.0 - p)).abs() < 1e-15);
    }
}

#[test]
fn consumers_get_the_same_bits_again() {
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let tape = Tape::new();
        let (g, _) = tape.input(normal(&[5, 12], dtype, 1));
        let y = gated(&tape, &g, &Var::constant(normal(&[5, 12], dtype, 2)), Activation::Silu);
        let (value, saved) = (y.value().clone(), y.save());
        assert!(matches!(saved, Saved::Again { .. }));
        assert_eq!(saved.take().bytes(), value.bytes());
    }
}
