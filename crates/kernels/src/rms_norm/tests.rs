use super::*;
use crate::gradient_check::{against_f64, check, distance, normal};
use std::collections::BTreeMap;

const EPS: f64 = 1e-5;

#[test]
fn gradients() {
    let inputs = [normal(&[3, 10], DType::F64, 1), normal(&[5], DType::F64, 2)];
    check(&inputs, |tape, v| vec![rms_norm(tape, &v[0], &v[1], EPS)]);
    let inputs =
        [normal(&[3, 5], DType::F64, 1), normal(&[3, 5], DType::F64, 2), normal(&[5], DType::F64, 3)];
    check(&inputs, |tape, v| {
        let (sum, normed) = add_rms_norm(tape, v[0].clone(), v[1].clone(), &v[2], EPS);
        vec![sum, normed]
    });
}

#[test]
fn equals_f64_on_every_tier() {
    // bf16: one rounding of each result, and the sum's own rounding, which the norm's gradient passes on; a normal
    // number is at most 5, so that an ulp of it is at most 5 of `1 + |x|`'s.
    // f32: sums of d products in 16 lanes, d / 16 roundings each at worst.
    for (rows, d) in [(0, 3), (1, 1), (3, 63), (63, 64), (64, 65), (65, 3), (5, 1000), (1000, 3)] {
        let inputs = [
            normal(&[rows, d], DType::F64, 1),
            normal(&[rows, d], DType::F64, 2),
            normal(&[d], DType::F64, 3),
        ];
        let bound = 20.0 + (d + rows) as f64 / 4.0;
        against_f64(&inputs[1..], bound, |tape, v| vec![rms_norm(tape, &v[0], &v[1], EPS)]);
        against_f64(&inputs, bound, |tape, v| {
            let (sum, normed) = add_rms_norm(tape, v[0].clone(), v[1].clone(), &v[2], EPS);
            vec![sum, normed]
        });
    }
}

#[test]
fn reference_of_narrow_types_agrees_with_the_fast_path() {
    let (x, w) = (normal(&[7, 33], DType::F32, 1), normal(&[33], DType::F32, 2));
    let tape = Tape::off();
    let fast = rms_norm(&tape, &Var::constant(x.clone()), &Var::constant(w.clone()), EPS);
    let mut want = Tensor::zeros(&[7, 33], DType::F32, Account::Workspace);
    reference::forward::<f32>(x.slice(), &w.to_f64_vec(), EPS, want.slice_mut(), &mut [0.0; 7]);
    assert!(distance(fast.value(), &want) < 1e-6);
}

#[test]
fn a_unique_residual_is_written_in_place_and_a_shared_one_is_not() {
    let tape = Tape::off();
    let w = Var::constant(normal(&[8], DType::Bf16, 3));
    let (x, delta) = (normal(&[4, 8], DType::F32, 1), normal(&[4, 8], DType::F32, 2));
    let kept = x.to_f64_vec();
    let run = |x: Tensor, delta: Tensor| {
        let (x_at, delta_at) = (x.bytes().as_ptr(), delta.bytes().as_ptr());
        let (sum, normed) = add_rms_norm(&tape, Var::constant(x), Var::constant(delta), &w, EPS);
        let at = sum.value().bytes().as_ptr();
        (at == x_at, at == delta_at, sum.value().to_f64_vec(), normed.value().to_f64_vec())
    };
    let own = |t: &Tensor| t.copy(Account::Workspace);
    let (first, second, third) =
        (run(own(&x), delta.clone()), run(x.clone(), own(&delta)), run(x.clone(), delta.clone()));
    assert_eq!(
        (first.0, first.1, second.0, second.1, third.0, third.1),
        (true, false, false, true, false, false)
    );
    assert_eq!((&first.2, &first.3), (&second.2, &second.3));
    assert_eq!((&first.2, &first.3), (&third.2, &third.3));
    assert_eq!(kept, x.to_f64_vec());
}

#[test]
fn consumers_get_the_same_bits_again_and_the_weight_may_be_constant() {
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let tape = Tape::new();
        let (x, id) = tape.input(normal(&[5, 12], dtype, 1));
        let y = rms_norm(&tape, &x, &Var::constant(normal(&[4], DType::F16, 2)), EPS);
        let (value, saved) = (y.value().clone(), y.save());
        assert!(matches!(saved, Saved::Again { .. }));
        assert_eq!(saved.take().bytes(), value.bytes());
        let mut sink = BTreeMap::new();
        tape.backward_from(vec![(y, value)], &mut sink);
        assert_eq!(sink.into_keys().collect::<Vec<_>>(), [id]);
    }
}
