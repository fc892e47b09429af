//! Central differences in f64, and seeded inputs: what every op's tests share.
use crate::isa;
use luthier_tensor::{Account, DType, Key, ParamId, Stream, Tape, Tensor, Var, bf16};
use std::collections::BTreeMap;

/// Standard normal numbers, the same for the same seed, rounded to `dtype`.
pub(crate) fn normal(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let key = Key::new(seed, Stream::Test);
    let values = (0..shape.iter().product::<usize>()).map(|i| key.normal(0, i as u64)).collect::<Vec<_>>();
    Tensor::from_f64(shape, &values, dtype, Account::Workspace)
}

/// Outputs of `op`, and gradients of its inputs for outputs' gradients drawn by seed.
pub(crate) fn run(inputs: &[Tensor], op: impl Fn(&Tape, &[Var]) -> Vec<Var>) -> (Vec<Tensor>, Vec<Tensor>) {
    let tape = Tape::new();
    let (vars, ids): (Vec<Var>, Vec<ParamId>) = inputs.iter().map(|t| tape.input(t.clone())).unzip();
    let outputs = op(&tape, &vars);
    let values = outputs.iter().map(|o| o.value().copy(Account::Workspace)).collect();
    drop(vars);
    let seeds = outputs
        .into_iter()
        .enumerate()
        .map(|(i, o)| {
            let seed = normal(o.value().shape(), o.value().dtype(), 900 + i as u64);
            (o, seed)
        })
        .collect();
    let mut sink = BTreeMap::new();
    tape.backward_from(seeds, &mut sink);
    let gradients = ids
        .iter()
        .zip(inputs)
        .map(|(id, input)| {
            let zero = || Tensor::zeros(input.shape(), input.dtype().accumulator(), Account::Workspace);
            sink.remove(id).unwrap_or_else(zero)
        })
        .collect();
    (values, gradients)
}

/// Holds the gradients of `op` in f64 against central differences, element by element.
pub(crate) fn check(inputs: &[Tensor], op: impl Fn(&Tape, &[Var]) -> Vec<Var>) {
    let (_, gradients) = run(inputs, &op);
    let loss = |inputs: &[Tensor]| {
        let tape = Tape::off();
        let vars = inputs.iter().map(|t| Var::constant(t.clone())).collect::<Vec<_>>();
        let outputs = op(&tape, &vars);
        let terms = outputs.iter().enumerate().map(|(i, o)| {
            let seed = normal(o.value().shape(), DType::F64, 900 + i as u64).to_f64_vec();
            o.value().to_f64_vec().iter().zip(seed).map(|(o, s)| o * s).sum::<f64>()
        });
        terms.sum::<f64>()
    };
    // Error of a central difference: h^2 f''' / 6 + 2^-53 |f| / h, about 1e-10 for values of order ten.
    let h = 1e-5;
    for (which, gradient) in gradients.iter().enumerate() {
        assert_eq!(gradient.shape(), inputs[which].shape());
        for (element, got) in gradient.to_f64_vec().into_iter().enumerate() {
            let moved = |by: f64| {
                let mut all = inputs.to_vec();
                let mut own = all[which].copy(Account::Workspace);
                own.slice_mut::<f64>()[element] += by;
                all[which] = own;
                loss(&all)
            };
            let want = (moved(h) - moved(-h)) / (2.0 * h);
            let close = (got - want).abs() <= 1e-7 * (1.0 + want.abs());
            assert!(close, "input {which}, element {element}: {got}, by differences {want}");
        }
    }
}

/// Largest `|a - b| / (1 + |b|)`.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let pairs = a.to_f64_vec().into_iter().zip(b.to_f64_vec());
    pairs.map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max)
}

/// Half an ulp, relative: what rounding a result to `dtype` costs.
pub(crate) fn half_ulp(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(f32::EPSILON) / 2.0,
        DType::Bf16 => bf16::EPSILON.to_f64() / 2.0,
        _ => f64::EPSILON / 2.0,
    }
}

/// Runs `op` on `inputs` in f32 and bf16 on every tier and holds outputs and gradients against f64 on the same
/// numbers: within `factor` half ulps of `1 + |value|`. All tiers must agree bit for bit, and so must one thread and
/// three.
pub(crate) fn against_f64(inputs: &[Tensor], factor: f64, op: impl Fn(&Tape, &[Var]) -> Vec<Var> + Sync) {
    hold(inputs, factor, Tiers::Equal, &op);
}

/// [`against_f64`] for ops with matrix products, whose sums differ between tiers.
pub(crate) fn close_to_f64(inputs: &[Tensor], factor: f64, op: impl Fn(&Tape, &[Var]) -> Vec<Var> + Sync) {
    hold(inputs, factor, Tiers::Close, &op);
}

#[derive(Clone, Copy, PartialEq)]
enum Tiers {
    Equal,
    Close,
}

fn hold(inputs: &[Tensor], factor: f64, tiers: Tiers, op: &(impl Fn(&Tape, &[Var]) -> Vec<Var> + Sync)) {
    for dtype in [DType::F32, DType::Bf16] {
        let to = |dtype| move |t: &Tensor| luthier_tensor::to_dtype(t, dtype, Account::Workspace);
        let rounded = inputs.iter().map(to(dtype)).collect::<Vec<_>>();
        let exact = rounded.iter().map(to(DType::F64)).collect::<Vec<_>>();
        let (want, want_gradients) = run(&exact, op);
        let mut first: Option<Vec<Vec<u8>>> = None;
        isa::on_each_tier(|tier| {
            if tiers == Tiers::Close {
                first = None;
            }
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
                let (bytes, errors) = pool.install(|| {
                    let (got, got_gradients) = run(&rounded, op);
                    let pairs = got.iter().zip(&want).chain(got_gradients.iter().zip(&want_gradients));
                    let errors = pairs.map(|(got, want)| distance(got, want)).collect::<Vec<_>>();
                    let all = got.iter().chain(&got_gradients);
                    (all.map(|t| t.bytes().to_vec()).collect::<Vec<_>>(), errors)
                });
                let worst = errors.iter().copied().fold(0.0, f64::max);
                let bound = factor * half_ulp(dtype);
                assert!(worst <= bound, "{dtype} on {tier}: {errors:?} above {bound}");
                assert!(first.as_ref().is_none_or(|f| *f == bytes), "{dtype} on {tier}, {threads} threads");
                first = Some(bytes);
            }
        });
    }
}
