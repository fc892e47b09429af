use super::*;
use crate::gradient_check::{check, close_to_f64, normal};

#[test]
fn gradients() {
    let inputs = [normal(&[5, 3], DType::F64, 1), normal(&[3], DType::F64, 2), normal(&[3], DType::F64, 3)];
    check(&inputs, |tape, v| {
        let part = 1..4;
        vec![
            column_scale(tape, &v[0], &v[1], Some(&v[2]), None),
            column_scale(tape, &v[0], &v[1], None, Some(&part)),
        ]
    });
}

#[test]
fn equals_f64_on_every_tier() {
    for (n, d) in [(0, 3), (1, 1), (3, 63), (65, 64), (7, 1000)] {
        let inputs =
            [normal(&[n, d], DType::F64, 1), normal(&[d], DType::F64, 2), normal(&[d], DType::F64, 3)];
        // The vectors stay in f32 beside bf16 rows; sums of n rows of bf16 products, each exact in f32.
        close_to_f64(&inputs[..1], 4.0, |tape, v| {
            let dtype = v[0].value().dtype().accumulator();
            let vector = |t: &Tensor| Var::constant(luthier_tensor::to_dtype(t, dtype, Account::Workspace));
            vec![column_scale(tape, &v[0], &vector(&inputs[1]), Some(&vector(&inputs[2])), None)]
        });
    }
}

#[test]
fn rows_outside_are_left_alone() {
    let x = Var::constant(normal(&[3, 2], DType::F32, 1));
    let f = Var::constant(Tensor::from_slice(&[2], &[2f32, -1.0], Account::Workspace));
    let y = column_scale(&Tape::off(), &x, &f, None, Some(&(1..2)));
    let (x, y) = (x.value().to_f64_vec(), y.value().to_f64_vec());
    assert_eq!([y[0], y[1], y[4], y[5]], [x[0], x[1], x[4], x[5]]);
    assert_eq!([y[2], y[3]], [2.0 * x[2], -x[3]]);
}
