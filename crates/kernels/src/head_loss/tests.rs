use super::*;
use crate::dropout::Dropout;
use crate::gradient_check::{check, close_to_f64, distance, normal};
use crate::isa;
use crate::linear::{DenseBase, LowRank};
use luthier_tensor::{Key, Stream};
use std::sync::Arc;

fn frozen(vocab: usize, d: usize, dtype: DType) -> Weight {
    Weight::Frozen(Arc::new(DenseBase::new(normal(&[vocab, d], dtype, 77))))
}

fn low_rank(a: &Var, b: &Var, bias: Option<&Var>) -> Delta {
    let key = Key::new(5, Stream::Dropout);
    let dropout = Some(Dropout { p: 0.4, key, first_row: 3 });
    let low_rank = Some(LowRank { dropout, ..LowRank::new(a.clone(), b.clone(), 1.7) });
    Delta { low_rank, bias: bias.cloned(), ..Delta::default() }
}

#[test]
fn gradients_of_every_input() {
    let (rows, targets, weights) = ([0, 1, 3, 4], [2, 0, 6, 6], [1.0, 0.5, 0.0, 2.0]);
    let inputs = [
        normal(&[6, 4], DType::F64, 1),
        normal(&[7, 4], DType::F64, 2),
        normal(&[2, 4], DType::F64, 3),
        normal(&[7, 2], DType::F64, 4),
        normal(&[7], DType::F64, 5),
    ];
    check(&inputs, |tape, v| {
        let trained = Weight::Trained(v[1].clone());
        let deltas = [low_rank(&v[2], &v[3], Some(&v[4]))];
        vec![head_loss(tape, &v[0], &trained, &deltas, &rows, &targets, Some(&weights)).sum]
    });
    check(&inputs[..1], |tape, v| {
        vec![head_loss(tape, &v[0], &frozen(7, 4, DType::F64), &[], &rows, &targets, None).sum]
    });
}

#[test]
fn is_the_cross_entropy_of_the_whole_logits() {
    let (n, d, vocab) = (300, 5, 11);
    let (h, w) = (normal(&[n, d], DType::F64, 1), normal(&[vocab, d], DType::F64, 77));
    let rows = (0..n as u32).filter(|r| r % 7 != 3).collect::<Vec<_>>();
    let targets = rows.iter().map(|r| r * 5 % vocab as u32).collect::<Vec<_>>();
    let tape = Tape::off();
    let weight = frozen(vocab, d, DType::F64);
    let got = head_loss(&tape, &Var::constant(h.clone()), &weight, &[], &rows, &targets, None);
    let (h, w) = (h.to_f64_vec(), w.to_f64_vec());
    let mut total = 0.0;
    for ((row, target), got) in rows.iter().zip(&targets).zip(&got.rows) {
        let z = |v: usize| (0..d).map(|i| h[*row as usize * d + i] * w[v * d + i]).sum::<f64>();
        let want = (0..vocab).map(|v| z(v).exp()).sum::<f64>().ln() - z(*target as usize);
        assert!((got - want).abs() < 1e-12);
        total += want;
    }
    assert!((got.sum.value().item() - total).abs() < 1e-9);
}

#[test]
fn is_close_to_f64_on_every_tier() {
    for (n, d, vocab) in [(1, 1, 1), (3, 63, 65), (65, 64, 63), (130, 3, 1000), (5, 65, 1000)] {
        let rows = (0..n as u32).filter(|r| r % 3 != 1).collect::<Vec<_>>();
        let targets = rows.iter().map(|r| r * 7 % vocab as u32).collect::<Vec<_>>();
        let narrowed = |shape: &[usize], seed| {
            let mut t = normal(shape, DType::F64, seed);
            scale_assign(&mut t, 1.0 / (d as f64).sqrt());
            t
        };
        let inputs = [
            narrowed(&[n, d], 1),
            normal(&[vocab, d], DType::F64, 2),
            narrowed(&[2, d], 3),
            normal(&[vocab, 2], DType::F64, 4),
            normal(&[vocab], DType::F64, 5),
        ];
        // Logits are of order 3, so that a few half ulps of each reach dz, whose own rounding counts for each of its at
        // most 3 units a row; sums over n rows and d channels add independent errors; the seed is about 2.
        let bound = 64.0 + 8.0 * (n.max(d) as f64).sqrt();
        close_to_f64(&inputs, bound, |tape, v| {
            let trained = Weight::Trained(v[1].clone());
            let deltas = [low_rank(&v[2], &v[3], Some(&v[4]))];
            vec![head_loss(tape, &v[0], &trained, &deltas, &rows, &targets, None).sum]
        });
    }
}

#[test]
fn a_row_is_the_same_alone_and_without_a_tape() {
    let (n, d, vocab) = (270, 24, 65);
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let (h, weight) = (normal(&[n, d], dtype, 1), frozen(vocab, d, dtype));
        let rows = (0..n as u32).collect::<Vec<_>>();
        let targets = rows.iter().map(|r| r * 3 % vocab as u32).collect::<Vec<_>>();
        isa::on_each_tier(|tier| {
            let tape = Tape::new();
            let (input, _) = tape.input(h.clone());
            let all = head_loss(&tape, &input, &weight, &[], &rows, &targets, None).rows;
            for row in [0, 100, 255, 256, 269] {
                let h = Var::constant(h.clone());
                let alone =
                    head_loss(&Tape::off(), &h, &weight, &[], &rows[row..=row], &targets[row..=row], None);
                assert_eq!(alone.rows, all[row..=row], "{dtype} on {tier}, row {row}");
                assert!(!alone.sum.needs_grad());
            }
        });
    }
}

#[test]
fn the_seed_scales_and_unlabelled_rows_get_nothing() {
    let gradient = |seed: f64, rows: &[u32]| {
        let tape = Tape::new();
        let (h, id) = tape.input(normal(&[4, 6], DType::F32, 1));
        let loss = head_loss(&tape, &h, &frozen(9, 6, DType::F32), &[], rows, &vec![1; rows.len()], None);
        let mut sink = std::collections::BTreeMap::new();
        tape.backward(loss.sum, seed, &mut sink);
        sink.remove(&id).expect("the input is a leaf")
    };
    // Under a forced tier: a tier that another test forces between the two runs would round otherwise.
    isa::on_each_tier(|tier| {
        let (one, half) = (gradient(1.0, &[1, 2]), gradient(0.5, &[1, 2]));
        let mut halved = one.copy(Account::Workspace);
        scale_assign(&mut halved, 0.5);
        assert_eq!(half.bytes(), halved.bytes(), "{tier}");
    });
    let one = gradient(1.0, &[1, 2]);
    assert!(one.narrow(0..1).to_f64_vec().iter().chain(&one.narrow(3..4).to_f64_vec()).all(|g| *g == 0.0));
    assert!(one.narrow(1..3).to_f64_vec().iter().all(|g| *g != 0.0));
    assert!(gradient(1.0, &[]).to_f64_vec().iter().all(|g| *g == 0.0));
}

#[test]
fn far_logits_stay_finite_and_a_nan_is_seen() {
    let h = Var::constant(Tensor::from_f64(&[2, 1], &[1e4, f64::NAN], DType::F32, Account::Workspace));
    let w = Tensor::from_f64(&[3, 1], &[1.0, -1.0, 0.5], DType::F32, Account::Workspace);
    let weight = Weight::Frozen(Arc::new(DenseBase::new(w)));
    let losses = head_loss(&Tape::off(), &h, &weight, &[], &[0, 1], &[1, 1], None).rows;
    assert!((losses[0] - 2e4).abs() < 1.0 && losses[1].is_nan());
}

#[test]
fn chunks_are_bounded_and_their_number_changes_nothing() {
    assert_eq!([1, 49_152, 128_256, 1 << 20].map(chunk_rows), [256, 160, 64, 64]);
    // dW sums over chunks: 300 rows are two.
    let (h, w) = (normal(&[300, 4], DType::F32, 1), normal(&[5, 4], DType::F32, 2));
    let rows = (0..300).collect::<Vec<u32>>();
    let run = |dtype| {
        let to = |t: &Tensor| luthier_tensor::to_dtype(t, dtype, Account::Workspace);
        let (_, gradients) = crate::gradient_check::run(&[to(&h), to(&w)], |tape, v| {
            let weight = Weight::Trained(v[1].clone());
            vec![head_loss(tape, &v[0], &weight, &[], &rows, &vec![3; 300], None).sum]
        });
        gradients[1].clone()
    };
    assert!(distance(&run(DType::F32), &run(DType::F64)) < 1e-5);
}
