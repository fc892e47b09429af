//! The linear op against its definition, and its gradients against differences and f64.

use super::*;
use crate::isa::on_each_tier;
use luthier_tensor::{Key, Param, ParamId, Stream, add_assign, bf16, to_dtype};
use std::collections::BTreeMap;

fn normal(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let key = Key::new(seed, Stream::Test);
    let values: Vec<f64> = (0..shape.iter().product::<usize>()).map(|i| key.normal(0, i as u64)).collect();
    Tensor::from_f64(shape, &values, dtype, Account::Workspace)
}

fn in_type(t: &Tensor, dtype: DType) -> Tensor {
    to_dtype(t, dtype, Account::Workspace)
}

fn dropout(p: f64) -> Dropout {
    Dropout { p, key: Key::new(5, Stream::Dropout), first_row: 2 }
}

/// x, W, bias, A, B, delta bias; r = 3.
fn tensors(n: usize, d_in: usize, d_out: usize, dtype: DType) -> Vec<Tensor> {
    let shapes = [vec![n, d_in], vec![d_out, d_in], vec![d_out], vec![3, d_in], vec![d_out, 3], vec![d_out]];
    shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| in_type(&normal(shape, DType::Bf16, i as u64), dtype))
        .collect()
}

fn deltas(vars: &[Var], dropout: Option<Dropout>) -> Vec<Delta> {
    let low_rank = LowRank { dropout, ..LowRank::new(vars[3].clone(), vars[4].clone(), 0.75) };
    vec![Delta { low_rank: Some(low_rank), bias: Some(vars[5].clone()), ..Delta::default() }]
}

fn whole(tape: &Tape, vars: &[Var], dropout: Option<Dropout>) -> Var {
    let weight = Weight::Trained(vars[1].clone());
    linear(tape, &vars[0], &weight, Some(&vars[2]), &deltas(vars, dropout))
}

/// Output, and gradients of all inputs for a drawn gradient of the output.
fn run(inputs: &[Tensor], op: impl Fn(&Tape, &[Var]) -> Var) -> (Tensor, Vec<Option<Tensor>>) {
    let tape = Tape::new();
    let (vars, ids): (Vec<Var>, Vec<ParamId>) = inputs.iter().map(|t| tape.input(t.clone())).unzip();
    let y = op(&tape, &vars);
    let value = y.value().copy(Account::Workspace);
    drop(vars);
    let dy = normal(value.shape(), value.dtype(), 99);
    let mut sink = BTreeMap::new();
    tape.backward_from(vec![(y, dy)], &mut sink);
    (value, ids.iter().map(|id| sink.remove(id)).collect())
}

#[test]
fn matches_the_definition_with_every_part() {
    let t = tensors(5, 7, 4, DType::F64);
    let drop = dropout(0.4);
    let mask = drop.apply(&Tensor::from_f64(&[5, 7], &[1.0; 35], DType::F64, Account::Workspace));
    let kept = mask.to_f64_vec().iter().filter(|m| **m != 0.0).count();
    assert!(kept > 10 && kept < 30, "a mask of 35 at 0.4 keeps about 21, not {kept}");
    assert!(mask.to_f64_vec().iter().all(|m| *m == 0.0 || (m - 1.0 / 0.6).abs() < 1e-15));
    let values: Vec<Vec<f64>> = t.iter().map(Tensor::to_f64_vec).collect();
    let mask = mask.to_f64_vec();
    let low_rank = reference::LowRank { a: &values[3], b: &values[4], scale: 0.75, mask: Some(&mask) };
    let bias: Vec<f64> = values[2].iter().zip(&values[5]).map(|(a, b)| a + b).collect();
    let expected = reference::linear(&values[0], &values[1], 7, 4, Some(&bias), Some(low_rank));
    let vars: Vec<Var> = t.into_iter().map(Var::constant).collect();
    let y = whole(&Tape::off(), &vars, Some(drop));
    assert_eq!(y.value().shape(), [5, 4]);
    for (x, y) in y.value().to_f64_vec().iter().zip(&expected) {
        assert!((x - y).abs() < 1e-12, "{x} {y}");
    }
}

#[test]
fn gradients_equal_differences() {
    for drop in [None, Some(dropout(0.3))] {
        let inputs = tensors(4, 6, 5, DType::F64);
        let (_, gradients) = run(&inputs, |tape, vars| whole(tape, vars, drop));
        let seed = normal(&[4, 5], DType::F64, 99).to_f64_vec();
        let loss = |inputs: &[Tensor]| {
            let vars: Vec<Var> = inputs.iter().cloned().map(Var::constant).collect();
            let y = whole(&Tape::off(), &vars, drop).value().to_f64_vec();
            y.iter().zip(&seed).map(|(y, s)| y * s).sum::<f64>()
        };
        for (which, gradient) in gradients.iter().enumerate() {
            let gradient = gradient.as_ref().unwrap().to_f64_vec();
            for (at, got) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut all = inputs.clone();
                    let mut own = all[which].copy(Account::Workspace);
                    own.slice_mut::<f64>()[at] += by;
                    all[which] = own;
                    loss(&all)
                };
                let want = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!(
                    (got - want).abs() < 1e-7 * (1.0 + want.abs()),
                    "input {which} at {at}: {got} {want}"
                );
            }
        }
    }
}

/// Each value is a chain of few sums of at most k terms. A bf16 result carries a handful of roundings of half an ulp of the
/// typical value (the root of the mean square, or that of k products where few values cancel); sums in f32 err by sqrt(k) ulps of it.
fn close(got: &Tensor, want: &Tensor, k: usize, dtype: DType, what: &str) {
    let ulp = if dtype == DType::Bf16 { bf16::EPSILON.to_f64() } else { f64::from(f32::EPSILON) };
    let roundings = if dtype == DType::Bf16 { 4.0 } else { (k as f64).sqrt().max(4.0) };
    let want = want.to_f64_vec();
    let typical =
        (want.iter().map(|x| x * x).sum::<f64>() / want.len().max(1) as f64).sqrt().max((k as f64).sqrt());
    for (x, y) in got.to_f64_vec().iter().zip(want) {
        let bound = ulp * (roundings * typical + 2.0 * y.abs());
        assert!((x - y).abs() <= bound, "{what}: {x} against {y}, bound {bound:e}");
    }
}

#[test]
fn every_tier_agrees_with_f64_at_odd_sizes() {
    on_each_tier(|tier| {
        for (n, d_in, d_out) in [(0, 5, 3), (1, 1, 1), (3, 63, 65), (65, 130, 64), (64, 65, 1), (130, 3, 63)]
        {
            for dtype in [DType::F32, DType::Bf16] {
                let inputs = tensors(n, d_in, d_out, dtype);
                let exact: Vec<Tensor> = inputs.iter().map(|t| in_type(t, DType::F64)).collect();
                let (y, gradients) = run(&inputs, |tape, vars| whole(tape, vars, None));
                let (exact_y, exact_gradients) = run(&exact, |tape, vars| whole(tape, vars, None));
                let what = format!("{tier} {dtype} [{n}, {d_in}] -> {d_out}");
                assert_eq!(y.dtype(), dtype);
                let longest = n.max(d_in).max(d_out);
                close(&y, &exact_y, longest, dtype, &what);
                for (i, (got, want)) in gradients.iter().zip(&exact_gradients).enumerate() {
                    let (got, want) = (got.as_ref().unwrap(), want.as_ref().unwrap());
                    assert_eq!(got.dtype(), if i == 0 { dtype } else { DType::F32 }, "{what}: gradient {i}");
                    close(got, want, longest, dtype, &format!("{what}: gradient {i}"));
                }
            }
        }
    });
}

#[test]
fn only_what_is_needed_is_computed() {
    let t = tensors(6, 8, 5, DType::F32);
    let params: Vec<_> = t.iter().map(|t| Param::new("p", t.clone())).collect();
    let weight = Weight::Frozen(Arc::new(DenseBase::new(t[1].clone())));
    let tape = Tape::new();
    let vars: Vec<Var> = params.iter().map(|p| tape.leaf(p)).collect();
    let x = Var::constant(t[0].clone());
    let before = luthier_tensor::flops();
    let y = linear(&tape, &x, &weight, None, &deltas(&vars, None));
    let dy = normal(&[6, 5], DType::F32, 1);
    let mut sink = BTreeMap::new();
    tape.backward_from(vec![(y, dy)], &mut sink);
    let wanted: Vec<ParamId> = params[3..].iter().map(|p| p.id()).collect();
    assert_eq!(sink.keys().copied().collect::<Vec<_>>(), wanted);
    // Other tests count as well: at least forward (base, A, B, bias) and backward (du, dB, dA, bias), no dx.
    let (n, d_in, d_out, r) = (6, 8, 5, 3);
    let forward = 2 * n * (d_in * d_out + r * d_in + r * d_out + d_out);
    let backward = 2 * n * (r * d_out + r * d_out + r * d_in + d_out);
    assert!(luthier_tensor::flops() - before >= forward + backward);
}

#[test]
fn a_shared_input_sums_its_gradients_in_place() {
    let t = tensors(9, 8, 5, DType::F64);
    let (_, once) = run(&t, |tape, vars| whole(tape, vars, None));
    let twice = {
        let tape = Tape::new();
        let (x, id) = tape.input(t[0].clone());
        let base = Weight::Frozen(Arc::new(DenseBase::new(t[1].clone())));
        let vars: Vec<Var> = t.iter().cloned().map(Var::constant).collect();
        let ys = [(); 2].map(|()| linear(&tape, &x, &base, None, &deltas(&vars, None)));
        let mut sink = BTreeMap::new();
        tape.backward_from(ys.map(|y| (y, normal(&[9, 5], DType::F64, 99))).to_vec(), &mut sink);
        sink.remove(&id).unwrap()
    };
    let mut sum = once[0].as_ref().unwrap().copy(Account::Workspace);
    add_assign(&mut sum, once[0].as_ref().unwrap());
    for (x, y) in twice.to_f64_vec().iter().zip(sum.to_f64_vec()) {
        assert!((x - y).abs() < 1e-12);
    }
}

#[test]
fn storage_and_panels_are_transparent() {
    on_each_tier(|tier| {
        let w = normal(&[37, 20], DType::Bf16, 1);
        let x = normal(&[13, 20], DType::Bf16, 2);
        let dy = normal(&[13, 37], DType::Bf16, 3);
        let run = |base: &DenseBase| {
            let mut y = Tensor::scratch(&[13, 37], DType::Bf16, Account::Workspace);
            let mut dx = Tensor::scratch(&[13, 20], DType::Bf16, Account::Workspace);
            base.forward_into(&x, &mut y, false);
            base.input_grad_into(&dy, &mut dx, false);
            base.input_grad_into(&dy, &mut dx, true);
            (y.bytes().to_vec(), dx.bytes().to_vec())
        };
        let plain = DenseBase::new(w.clone());
        let expected = run(&plain);
        for panels in [Panels::None, Panels::Forward, Panels::Both] {
            for dtype in [DType::Bf16, DType::F32, DType::F16, DType::F64] {
                let base = DenseBase::new(in_type(&w, dtype)).with_panels(panels);
                assert!(run(&base) == expected || dtype == DType::F64, "{tier} {dtype} {panels:?}");
                assert_eq!((base.d_in(), base.d_out()), (20, 37));
                assert!(base.bytes() >= plain.bytes());
                assert_eq!(base.weight(DType::Bf16).bytes(), w.bytes());
            }
        }
        let mut rows = Tensor::scratch(&[3, 20], DType::F32, Account::Workspace);
        plain.rows_into(&[36, 0, 36], &mut rows);
        let all = w.to_f64_vec();
        let expected: Vec<f64> = [36, 0, 36].iter().flat_map(|r| all[r * 20..r * 20 + 20].to_vec()).collect();
        assert_eq!(rows.to_f64_vec(), expected);
    });
}

#[test]
fn f32_activations_keep_f32_under_bf16_panels() {
    let w = normal(&[9, 40], DType::Bf16, 1);
    let x = normal(&[3, 40], DType::F32, 2);
    let base = DenseBase::new(w.clone()).with_panels(Panels::Both);
    let mut y = Tensor::scratch(&[3, 9], DType::F32, Account::Workspace);
    base.forward_into(&x, &mut y, false);
    let exact = reference::linear(&x.to_f64_vec(), &w.to_f64_vec(), 40, 9, None, None);
    for (x, y) in y.to_f64_vec().iter().zip(exact) {
        assert!((x - y).abs() < 1e-5, "{x} {y}");
    }
}
