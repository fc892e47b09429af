use super::*;
use crate::gradient_check::{against_f64, check, normal};
use luthier_tensor::Stream;

fn drop_a_third(first_row: u64) -> Dropout {
    Dropout { p: 1.0 / 3.0, key: Key::new(7, Stream::Dropout).at("layers.0"), first_row }
}

#[test]
fn gradients() {
    check(&[normal(&[3, 9], DType::F64, 1)], |tape, v| vec![dropout(tape, &v[0], &drop_a_third(5))]);
}

#[test]
fn equals_f64_on_every_tier() {
    // A row beyond 2^32: both halves of the counter are used.
    let dropout_at = drop_a_third((1 << 32) - 2);
    for (n, d) in [(0, 3), (3, 0), (1, 1), (3, 63), (63, 64), (64, 65), (5, 1000), (1000, 3)] {
        // One product with a rounded factor, on normal numbers.
        against_f64(&[normal(&[n, d], DType::F64, 1)], 4.0, |tape, v| {
            vec![dropout(tape, &v[0], &dropout_at)]
        });
    }
}

#[test]
fn moments() {
    let ones = Tensor::from_f64(&[500, 400], &vec![1.0; 200_000], DType::F32, Account::Workspace);
    for p in [0.05, 1.0 / 3.0, 0.9] {
        let y = Dropout { p, ..drop_a_third(0) }.apply(&ones).to_f64_vec();
        let n = y.len() as f64;
        let mean = y.iter().sum::<f64>() / n;
        let variance = y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / n;
        // y is 1 / (1 - p) with probability 1 - p: mean 1, variance p / (1 - p); five standard errors.
        let spread = p / (1.0 - p);
        assert!((mean - 1.0).abs() < 5.0 * (spread / n).sqrt(), "{p}: mean {mean}");
        assert!(
            (variance / spread - 1.0).abs() < 5.0 / (n * p * (1.0 - p)).sqrt(),
            "{p}: variance {variance}"
        );
    }
}

#[test]
fn micro_batches_draw_what_the_batch_would_and_keys_differ() {
    let x = normal(&[64, 130], DType::Bf16, 1);
    let whole = drop_a_third(10).apply(&x);
    assert_eq!(whole.bytes(), drop_a_third(10).apply(&x).bytes());
    for range in [0..1, 1..20, 20..64] {
        let part = drop_a_third(10 + range.start as u64).apply(&x.narrow(range.clone()));
        assert_eq!(part.bytes(), whole.narrow(range).bytes());
    }
    let other = Dropout { key: drop_a_third(0).key.with(1), ..drop_a_third(10) };
    assert_ne!(whole.bytes(), other.apply(&x).bytes());
    assert_eq!(Dropout { p: 0.0, ..other }.apply(&x).bytes(), x.bytes());
}

#[test]
fn adding_is_applying_and_then_adding() {
    for (from, to) in [(DType::F64, DType::F64), (DType::F32, DType::F32), (DType::F32, DType::Bf16)] {
        let (t, mut sum) = (normal(&[5, 70], from, 1), normal(&[5, 70], to, 2));
        let mut want = sum.copy(Account::Workspace);
        luthier_tensor::add_assign(&mut want, &drop_a_third(3).apply(&t));
        drop_a_third(3).add_to(&mut sum, &t);
        assert_eq!(sum.bytes(), want.bytes());
    }
}

#[test]
fn taken_rows_draw_what_they_would_in_the_batch() {
    let x = normal(&[9, 33], DType::F32, 1);
    let whole = drop_a_third(4).apply(&x);
    let rows: Arc<[u32]> = Arc::from([7, 0, 3]);
    let taken = crate::rows::gather(&Tape::off(), &Var::constant(x), &rows);
    let dropped = dropout_rows(&Tape::off(), &taken, &drop_a_third(4), &rows);
    let want = crate::rows::gather(&Tape::off(), &Var::constant(whole), &rows);
    assert_eq!(dropped.value().bytes(), want.value().bytes());
    check(&[normal(&[3, 9], DType::F64, 1)], |tape, v| {
        vec![dropout_rows(tape, &v[0], &drop_a_third(5), &rows)]
    });
}
