use super::*;
use crate::gradient_check::{against_f64, check, normal};

#[test]
fn gradients() {
    let rows: Arc<[u32]> = Arc::from([3, 0, 3]);
    check(&[normal(&[4, 5], DType::F64, 1)], |tape, v| vec![gather(tape, &v[0], &rows)]);
}

#[test]
fn equals_f64_on_every_tier() {
    for (n, d, rows) in [(1, 1, vec![0]), (3, 0, vec![1]), (9, 65, vec![8, 2, 8, 0]), (5, 7, vec![])] {
        let rows: Arc<[u32]> = rows.into();
        // Repeated rows sum two gradients: a rounding each in bf16.
        against_f64(&[normal(&[n, d], DType::F64, 1)], 8.0, |tape, v| vec![gather(tape, &v[0], &rows)]);
    }
}

#[test]
fn rows_come_in_the_order_asked_for_and_in_the_type_of_sums() {
    let x = Tensor::from_f64(&[3, 2], &[0., 1., 2., 3., 4., 5.], DType::Bf16, Account::Workspace);
    let y = gather(&Tape::off(), &Var::constant(x), &Arc::from([2, 0]));
    assert_eq!((y.value().dtype(), y.value().to_f64_vec()), (DType::F32, vec![4., 5., 0., 1.]));
}
