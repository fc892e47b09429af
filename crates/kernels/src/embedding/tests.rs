use super::*;
use crate::gradient_check::{against_f64, check, normal};
use crate::linear::DenseBase;
use luthier_tensor::Param;
use std::collections::BTreeMap;

#[test]
fn gradients() {
    let tokens: Arc<[u32]> = Arc::from([3, 0, 3, 3, 4]);
    check(&[normal(&[5, 3], DType::F64, 1)], |tape, v| {
        vec![embedding(tape, &Weight::Trained(v[0].clone()), &tokens, DType::F64)]
    });
}

#[test]
fn equals_f64_on_every_tier() {
    for (n, vocab, d) in [(0, 3, 4), (1, 1, 1), (3, 63, 65), (65, 64, 63), (1000, 65, 3), (64, 3, 1000)] {
        let tokens = (0..n as u32).map(|i| i * i % vocab as u32).collect::<Arc<[u32]>>();
        // The gradients' seeds are rounded to the activations' type on one side only: half an ulp of each of the at most
        // n terms of a row; its sums in f32 are far more exact in bf16 and of the same order in f32.
        against_f64(&[normal(&[vocab, d], DType::F64, 1)], 8.0 + 4.0 * f64::from(n), |tape, v| {
            let dtype = v[0].value().dtype();
            vec![embedding(tape, &Weight::Trained(v[0].clone()), &tokens, dtype)]
        });
    }
}

#[test]
fn a_frozen_table_gives_the_same_rows_and_no_gradient() {
    let table = normal(&[9, 5], DType::F32, 1);
    let tokens: Arc<[u32]> = Arc::from([8, 0, 8]);
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let tape = Tape::new();
        let trained = Weight::Trained(tape.input(table.clone()).0);
        let frozen = Weight::Frozen(Arc::new(DenseBase::new(table.clone())));
        let (a, b) = (embedding(&tape, &trained, &tokens, dtype), embedding(&tape, &frozen, &tokens, dtype));
        assert_eq!(a.value().bytes(), b.value().bytes());
        assert!(a.needs_grad() && !b.needs_grad());
    }
}

#[test]
fn a_micro_batch_adds_to_what_the_sink_holds_in_place() {
    let table = Param::new("embed", normal(&[6, 4], DType::Bf16, 1));
    let mut sink = BTreeMap::new();
    let mut places = Vec::new();
    for tokens in [[0u32, 5, 0], [5, 5, 1]] {
        let tape = Tape::new();
        let y = embedding(&tape, &Weight::Trained(tape.leaf(&table)), &Arc::from(tokens), DType::Bf16);
        let ones = Tensor::from_f64(&[3, 4], &[1.0; 12], DType::Bf16, Account::Activation);
        tape.backward_from(vec![(y, ones)], &mut sink);
        places.push(sink[&table.id()].bytes().as_ptr());
    }
    assert_eq!(places[0], places[1]);
    let gradient = &sink[&table.id()];
    let counts = gradient.to_f64_vec().chunks(4).map(|row| row[3]).collect::<Vec<_>>();
    assert_eq!((gradient.dtype(), counts), (DType::F32, vec![2.0, 1.0, 0.0, 0.0, 0.0, 3.0]));
}
