use super::*;
use crate::gradient_check::{check, distance, normal, run};
use luthier_tensor::DType;

const CLASSES: [u32; 4] = [2, 0, 1, 2];
const WEIGHTS: [f64; 3] = [0.5, 2.0, 1.25];
const LABELS: [f32; 12] = [1., 0., 1., 0., 0., 0., 1., 1., 1., 0., 1., 0.];
const VALUES: [f64; 4] = [0.5, -1.0, 2.0, 3.5];

fn losses(name: &str, tape: &Tape, z: &Var) -> LabelLoss {
    match name {
        "plain" => cross_entropy(tape, z, &CLASSES, 0.0, None),
        "smooth" => cross_entropy(tape, z, &CLASSES, 0.1, None),
        "weight" => cross_entropy(tape, z, &CLASSES, 0.0, Some(&WEIGHTS)),
        "both" => cross_entropy(tape, z, &CLASSES, 0.2, Some(&WEIGHTS)),
        "binary" => binary_cross_entropy(tape, z, &LABELS),
        "squared" => squared_error(tape, z, &VALUES),
        other => panic!("no case {other}"),
    }
}

fn width(name: &str) -> usize {
    if name == "squared" { 1 } else { 3 }
}

const CASES: [&str; 6] = ["plain", "smooth", "weight", "both", "binary", "squared"];

#[test]
fn equals_pytorch() {
    let numbers = |line: &str| line.split(' ').map(|v| v.parse::<f64>().unwrap()).collect::<Vec<_>>();
    let lines = include_str!("../../golden/label_loss.txt").lines().skip(1).collect::<Vec<_>>();
    assert_eq!(lines.len(), 3 * CASES.len());
    for (lines, name) in lines.chunks(3).zip(CASES) {
        let divisor = lines[0].strip_prefix(name).unwrap().trim().parse::<f64>().unwrap();
        let all = (0..12).map(|i| 0.3 * f64::from((7 * i) % 11) - 1.2).collect::<Vec<_>>();
        let z = match width(name) {
            1 => all.chunks(3).map(|row| row[0]).collect::<Vec<_>>(),
            _ => all,
        };
        let z = Tensor::from_f64(&[4, width(name)], &z, DType::F64, Account::Workspace);
        let tape = Tape::new();
        let (input, id) = tape.input(z);
        let loss = losses(name, &tape, &input);
        drop(input);
        let mean = loss.sum.value().item() / divisor;
        assert!((mean - numbers(lines[1])[0]).abs() < 1e-14, "{name}: {mean}");
        let mut sink = std::collections::BTreeMap::new();
        tape.backward(loss.sum, 1.0 / divisor, &mut sink);
        for (got, want) in sink[&id].to_f64_vec().into_iter().zip(numbers(lines[2])) {
            assert!((got - want).abs() < 1e-14, "{name}: gradient {got}, expected {want}");
        }
    }
}

#[test]
fn gradients() {
    for name in CASES {
        check(&[normal(&[4, width(name)], DType::F64, 3)], |tape, v| vec![losses(name, tape, &v[0]).sum]);
    }
}

#[test]
fn other_types_round_the_result_once() {
    for name in CASES {
        for (dtype, bound) in [(DType::F32, 1e-7), (DType::Bf16, 4e-3)] {
            let z = normal(&[4, width(name)], dtype, 3);
            let exact = luthier_tensor::to_dtype(&z, DType::F64, Account::Workspace);
            let op = |tape: &Tape, v: &[Var]| vec![losses(name, tape, &v[0]).sum];
            // The sum has the type of sums, and so its seed is of another precision: one output of seed 1.
            let ((sums, gradients), (want, exact)) = (run(&[z], op), run(&[exact], op));
            assert_eq!(sums[0].dtype(), DType::F32);
            assert!(distance(&sums[0], &want[0]) < 1e-6, "{name}");
            assert!(distance(&gradients[0], &exact[0]) < bound, "{name} in {dtype}");
        }
    }
}

#[test]
fn the_rows_losses_are_plain_and_far_logits_stay_finite() {
    let z = Var::constant(normal(&[4, 3], DType::F64, 3));
    let tape = Tape::off();
    assert_eq!(losses("both", &tape, &z).rows, losses("plain", &tape, &z).rows);
    assert_eq!(losses("binary", &tape, &z).rows.len(), 12);
    let far = Tensor::from_f64(&[2, 2], &[1e4, -1e4, -1e4, 1e4], DType::F32, Account::Workspace);
    let far = Var::constant(far);
    assert_eq!(cross_entropy(&tape, &far, &[1, 1], 0.0, None).rows, [2e4, 0.0]);
    assert_eq!(cross_entropy(&tape, &far, &[0, 0], 0.0, Some(&[1.0, 0.0])).rows, [0.0, 2e4]);
    assert_eq!(binary_cross_entropy(&tape, &far, &[0.0, 0.0, 0.0, 1.0]).rows, [1e4, 0.0, 0.0, 0.0]);
}

#[test]
fn no_rows_have_no_loss() {
    let none = Var::constant(Tensor::from_f64(&[0, 3], &[], DType::F32, Account::Workspace));
    let loss = cross_entropy(&Tape::off(), &none, &[], 0.0, None);
    assert_eq!((loss.sum.value().item(), loss.rows.len()), (0.0, 0));
}
