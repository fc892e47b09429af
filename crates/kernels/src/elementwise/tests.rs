use super::*;
use crate::gradient_check::{against_f64, check, normal};

#[test]
fn gradients() {
    let inputs = [normal(&[3, 4], DType::F64, 1), normal(&[3, 4], DType::F64, 2)];
    check(&inputs, |tape, v| {
        let (total, twice) = (add(tape, &v[0], &v[1]), scale(tape, &v[0], -2.5));
        let all = sum(tape, &add(tape, &total, &twice));
        vec![total, twice, all]
    });
}

#[test]
fn equals_f64_on_every_tier() {
    for n in [0, 1, 3, 63, 64, 65, 1000, 40_000] {
        // One rounding of each result and gradient, two where a gradient is a sum.
        against_f64(&[normal(&[n], DType::F64, 1), normal(&[n], DType::F64, 2)], 4.0, |tape, v| {
            vec![add(tape, &v[0], &v[1]), scale(tape, &v[0], 0.3)]
        });
    }
}

#[test]
fn the_reference_is_the_fast_path_rounded_once() {
    let (a, b) = (normal(&[65], DType::Bf16, 1), normal(&[65], DType::Bf16, 2));
    let (mut total, mut scaled) = (a.copy(Account::Workspace), a.copy(Account::Workspace));
    reference::add::<luthier_tensor::bf16>(a.slice(), b.slice(), total.slice_mut());
    reference::scale::<luthier_tensor::bf16>(a.slice(), 0.5, scaled.slice_mut());
    let (tape, a, b) = (Tape::off(), Var::constant(a), Var::constant(b));
    assert_eq!(add(&tape, &a, &b).value().bytes(), total.bytes());
    assert_eq!(scale(&tape, &a, 0.5).value().bytes(), scaled.bytes());
}
