use super::*;
use crate::gradient_check::{against_f64, check, normal};
use std::collections::BTreeMap;

const EPS: f64 = 1e-5;

#[test]
fn gradients() {
    let vector = |seed| normal(&[7], DType::F64, seed);
    let inputs = [normal(&[3, 7], DType::F64, 1), vector(2), vector(3)];
    check(&inputs, |tape, v| vec![layer_norm(tape, &v[0], &v[1], &v[2], EPS)]);
    let inputs = [normal(&[3, 7], DType::F64, 1), normal(&[3, 7], DType::F64, 4), vector(2), vector(3)];
    check(&inputs, |tape, v| {
        let (sum, normed) = add_layer_norm(tape, v[0].clone(), v[1].clone(), &v[2], &v[3], EPS);
        vec![sum, normed]
    });
}

#[test]
fn equals_f64_on_every_tier() {
    // bf16: one rounding of each result, and the sum's own rounding, which the norm's gradient passes on; a normal
    // number is at most 5, so that an ulp of it is at most 5 of `1 + |x|`'s. Rows of 17 or more have a deviation near
    // one, so that dividing by it enlarges no error.
    // f32: sums of d products in 16 lanes, d / 16 roundings each at worst.
    for (rows, d) in [(0, 17), (1, 17), (3, 63), (63, 64), (64, 65), (130, 33), (5, 1000)] {
        let inputs = [
            normal(&[rows, d], DType::F64, 1),
            normal(&[rows, d], DType::F64, 2),
            normal(&[d], DType::F64, 3),
            normal(&[d], DType::F64, 4),
        ];
        let bound = 40.0 + (d + rows) as f64 / 4.0;
        against_f64(&inputs[1..], bound, |tape, v| vec![layer_norm(tape, &v[0], &v[1], &v[2], EPS)]);
        against_f64(&inputs, bound, |tape, v| {
            let (sum, normed) = add_layer_norm(tape, v[0].clone(), v[1].clone(), &v[2], &v[3], EPS);
            vec![sum, normed]
        });
    }
}

#[test]
fn a_row_of_equal_numbers_is_the_bias_and_a_large_mean_loses_nothing() {
    let tape = Tape::off();
    let (w, b) = (normal(&[40], DType::F32, 1), normal(&[40], DType::F32, 2));
    let run = |x: Tensor| {
        let y =
            layer_norm(&tape, &Var::constant(x), &Var::constant(w.clone()), &Var::constant(b.clone()), EPS);
        y.value().to_f64_vec()
    };
    let equal = Tensor::from_f64(&[1, 40], &[3.0; 40], DType::F32, Account::Workspace);
    assert_eq!(run(equal), b.to_f64_vec());
    // Numbers in eighths, so that the shifted ones are exact.
    let small = (0..40).map(|i| f64::from(i * 7 % 40) / 8.0).collect::<Vec<_>>();
    let moved = small.iter().map(|x| x + 4096.0).collect::<Vec<_>>();
    let at = |values: &[f64]| run(Tensor::from_f64(&[1, 40], values, DType::F32, Account::Workspace));
    for (a, b) in at(&small).iter().zip(at(&moved)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn a_unique_residual_is_written_in_place_and_a_shared_one_is_not() {
    let tape = Tape::off();
    let [w, b] = [3, 4].map(|seed| Var::constant(normal(&[8], DType::Bf16, seed)));
    let (x, delta) = (normal(&[4, 8], DType::F32, 1), normal(&[4, 8], DType::F32, 2));
    let kept = x.to_f64_vec();
    let run = |x: Tensor, delta: Tensor| {
        let (x_at, delta_at) = (x.bytes().as_ptr(), delta.bytes().as_ptr());
        let (sum, normed) = add_layer_norm(&tape, Var::constant(x), Var::constant(delta), &w, &b, EPS);
        let at = sum.value().bytes().as_ptr();
        ((at == x_at, at == delta_at), sum.value().to_f64_vec(), normed.value().to_f64_vec())
    };
    let own = |t: &Tensor| t.copy(Account::Workspace);
    let first = run(own(&x), delta.clone());
    let second = run(x.clone(), own(&delta));
    let third = run(x.clone(), delta.clone());
    assert_eq!([first.0, second.0, third.0], [(true, false), (false, true), (false, false)]);
    assert_eq!((&first.1, &first.2), (&second.1, &second.2));
    assert_eq!((&first.1, &first.2), (&third.1, &third.2));
    assert_eq!(kept, x.to_f64_vec());
}

#[test]
fn consumers_get_the_same_bits_again_and_the_weight_may_be_constant() {
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let tape = Tape::new();
        let (x, id) = tape.input(normal(&[5, 12], dtype, 1));
        let [w, b] = [2, 3].map(|seed| Var::constant(normal(&[12], DType::F16, seed)));
        let y = layer_norm(&tape, &x, &w, &b, EPS);
        let (value, saved) = (y.value().clone(), y.save());
        assert!(matches!(saved, Saved::Again { .. }));
        assert_eq!(saved.take().bytes(), value.bytes());
        let mut sink = BTreeMap::new();
        tape.backward_from(vec![(y, value)], &mut sink);
        assert_eq!(sink.into_keys().collect::<Vec<_>>(), [id]);
    }
}
