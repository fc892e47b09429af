//! Chains against PyTorch, and the rounding of bf16 weights.
use super::*;
use crate::aliases::{Projection, adalomo, adamw, galore, sgd};
use crate::schedule::{Schedule, Shape};
use safetensors::SafeTensors;
use std::path::Path;

struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).join("golden.safetensors");
        Self(std::fs::read(path).unwrap())
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let values = view.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())));
        (view.shape().to_vec(), values.collect())
    }
}

/// Ten steps of `chain` from the golden's start, on its gradients and rates; every parameter after every step.
fn follow(name: &str, chain: &Chain, dtype: DType, tolerance: f64) {
    let golden = Golden::open(name);
    let names = ["cube", "matrix", "vector"];
    let start = |n: &&str| {
        let (shape, values) = golden.tensor(&format!("start.{n}"));
        let param = Param::new(*n, Tensor::from_f64(&shape, &values, dtype, Account::Adapter));
        chain.leaf_of(param, 1.0, !chain.projected.is_empty() && shape.len() == 2)
    };
    let mut leaves = names.iter().map(start).collect::<Vec<_>>();
    let (rates, norms) = (golden.tensor("lr").1, golden.tensor("norm").1);
    for t in 0..10 {
        let gradient = |n: &&str| {
            let (shape, values) = golden.tensor(&format!("grad.{}.{n}", t + 1));
            // Twice the mean over two tokens: the scale must be applied before the norm is taken.
            let sums = values.iter().map(|v| 2.0 * v).collect::<Vec<_>>();
            Tensor::from_f64(&shape, &sums, dtype, Account::Gradient)
        };
        let gradients = names.iter().map(gradient).collect::<Vec<_>>();
        let step = Step { t: t as u64, lr: rates[t], seed: 0 };
        let norm = chain.update(&mut leaves, &gradients, 0.5, &step);
        assert!((norm - norms[t]).abs() < 1e-6 * norms[t], "norm at step {t}: {norm} and {}", norms[t]);
        for (leaf, n) in leaves.iter().zip(names) {
            let expected = golden.tensor(&format!("param.{}.{n}", t + 1)).1;
            for (got, want) in leaf.param.value().to_f64_vec().iter().zip(expected) {
                assert!((got - want).abs() < tolerance, "{n} at step {t}: {got} and {want}");
            }
        }
    }
}

// The golden was computed in f64 and written in f32: values of about 3 carry 1.2e-7 of rounding; ten steps in f32
// add less than ten times that.
#[test]
fn adamw_is_pytorch_s() {
    follow("adamw", &adamw([0.9, 0.95], 1e-8, 0.1, Some(1.0)), DType::F64, 3e-7);
    follow("adamw", &adamw([0.9, 0.95], 1e-8, 0.1, Some(1.0)), DType::F32, 3e-6);
}

#[test]
fn sgd_is_pytorch_s() {
    follow("sgd", &sgd(0.9, 0.0, Some(1.0)), DType::F64, 3e-7);
    follow("sgd", &sgd(0.9, 0.0, Some(1.0)), DType::F32, 3e-6);
}

#[test]
fn adalomo_is_the_published_algorithm() {
    let chain = || adalomo(-0.8, 1e-30, 1.0, 1e-3, 0.1).clipped(Some(1.0));
    follow("adalomo", &chain(), DType::F64, 3e-7);
    follow("adalomo", &chain(), DType::F32, 3e-6);
}

#[test]
fn galore_is_the_published_algorithm() {
    let projection = Projection { rank: 2, every: 4, scale: 0.25 };
    let chain = || galore(projection, [0.9, 0.95], 1e-8, 0.1, Some(1.0));
    follow("galore", &chain(), DType::F64, 3e-7);
    follow("galore", &chain(), DType::F32, 3e-6);
}

#[test]
fn state_is_what_the_formulas_say() {
    let elements = |chain: &Chain, shape: &[usize], projected: bool| {
        let param = Param::new("w", Tensor::zeros(shape, DType::F32, Account::Workspace));
        chain.leaf_of(param, 1.0, projected).slots.iter().map(|(_, t)| t.numel()).sum::<usize>()
    };
    let factored = adalomo(-0.8, 1e-30, 1.0, 1e-3, 0.0);
    assert_eq!(elements(&factored, &[30, 20], false), 30 + 20);
    assert_eq!(elements(&factored, &[30], false), 30);
    let low = galore(Projection { rank: 4, every: 1, scale: 1.0 }, [0.9, 0.99], 1e-8, 0.0, None);
    // m r + 2 n r, with m the smaller side.
    assert_eq!(elements(&low, &[30, 20], true), 20 * 4 + 2 * 30 * 4);
    assert_eq!(elements(&low, &[20, 30], true), 20 * 4 + 2 * 30 * 4);
    assert_eq!(elements(&low, &[20, 30], false), 2 * 20 * 30);
}

#[test]
fn a_full_rank_projection_of_unscaled_gradients_is_the_gradient() {
    let plain = sgd(0.0, 0.0, None);
    let link =
        crate::transforms::project_gradient::ProjectGradient { rank: 9, every: 1, scale: 1.0, links: vec![] };
    let rate = Box::new(crate::transforms::scale_by_learning_rate::ScaleByLearningRate);
    let full = sgd(0.0, 0.0, None).with_projected(vec![Box::new(link), rate]);
    let key = Key::new(1, Stream::Test);
    for shape in [[6, 4], [4, 6]] {
        let draw = |row| (0..24).map(|i| key.normal(row, i)).collect::<Vec<_>>();
        let tensor = |row| Tensor::from_f64(&shape, &draw(row), DType::F64, Account::Workspace);
        let moved = |chain: &Chain, projected| {
            let mut leaf = chain.leaf_of(Param::new("w", tensor(0)), 1.0, projected);
            let step = Step { t: 0, lr: 0.1, seed: 0 };
            chain.update_leaf(&mut leaf, Direction::Gradient(&tensor(1)), 1.0, &step);
            leaf.param.value().to_f64_vec()
        };
        for (a, b) in moved(&plain, false).iter().zip(moved(&full, true)) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }
}

#[test]
fn a_masked_element_keeps_its_bits_under_decay_and_momentum() {
    let chain = adamw([0.9, 0.99], 1e-8, 0.5, None).then(crate::transforms::mask_updates::MaskUpdates);
    let values = [0.3f32, -0.0, 1e-30, 2.0];
    let mut leaf = chain.leaf(Param::new("w", Tensor::from_slice(&[4], &values, Account::Workspace)));
    let (name, keep) = leaf.slots.last_mut().expect("the mask");
    assert_eq!(name, "mask.keep");
    keep.slice_mut::<f32>()[3] = 1.0;
    let gradient = Tensor::from_slice(&[4], &[1f32, 2.0, 3.0, 4.0], Account::Workspace);
    for t in 0..3 {
        let step = Step { t, lr: 0.1, seed: 0 };
        chain.update_leaf(&mut leaf, Direction::Gradient(&gradient), 1.0, &step);
    }
    let after = leaf.param.value();
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&after.slice::<f32>()[..3]), bits(&values[..3]));
    assert!(after.slice::<f32>()[3] < 1.9);
}

#[test]
fn schedules_are_those_of_transformers() {
    let golden = Golden::open("schedules");
    for (name, shape) in [("constant", Shape::Constant), ("linear", Shape::Linear), ("cosine", Shape::Cosine)]
    {
        for warmup in [0, 7] {
            let schedule = Schedule { peak: 1.0, warmup, steps: 50, shape, floor: 0.0 };
            for (t, want) in golden.tensor(&format!("{name}.{warmup}")).1.iter().enumerate() {
                assert!(
                    (schedule.rate(t) - want).abs() < 1e-6,
                    "{name} {warmup} {t}: {} {want}",
                    schedule.rate(t)
                );
            }
        }
    }
}

#[test]
fn a_schedule_ends_at_its_floor() {
    for shape in [Shape::Linear, Shape::Cosine] {
        let schedule = Schedule { peak: 2.0, warmup: 2, steps: 10, shape, floor: 0.25 };
        assert_eq!((schedule.rate(2), schedule.rate(10)), (2.0, 0.5));
    }
}

#[test]
fn stochastic_rounding_keeps_the_mean_and_moves_below_half_a_unit() {
    let n = 20_000;
    let chain = sgd(0.0, 0.0, None);
    let mut leaves =
        vec![chain.leaf(Param::new("w", Tensor::from_slice(&[n], &vec![bf16::ONE; n], Account::Base)))];
    // An eighth of the gap between 1 and the next bf16, 2^-7: rounding to nearest would never move.
    let gradient = Tensor::from_slice(&[n], &vec![-0.125f32 / 128.0; n], Account::Gradient);
    chain.update(&mut leaves, &[gradient], 1.0, &Step { t: 0, lr: 1.0, seed: 1 });
    let values = leaves[0].param.value().to_f64_vec();
    let moved = values.iter().filter(|v| **v > 1.0).count() as f64 / n as f64;
    assert!(values.iter().all(|v| *v == 1.0 || *v == 1.0 + 1.0 / 128.0));
    // Five standard errors of a share of 1/8.
    assert!((moved - 0.125).abs() < 5.0 * (0.125 * 0.875 / n as f64).sqrt(), "{moved}");
}
