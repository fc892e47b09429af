//! What holds of every method, at moved parameters, on the f64 reference path unless said otherwise.
#![allow(clippy::neg_cmp_op_on_partial_ord)] // `!(error < tolerance)` also catches NaN
use crate::tiny::{Built, Case, batch, build, summed};
use luthier_contract::{Context, Mode, Segments};
use luthier_models::{Cache, ModelSpec, Run};
use luthier_tensor::{DType, Key, ParamId, Stream, Tape, Tensor, flops};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Law = Result<(), String>;

/// A law that forces a tier runs alone among its kind; the others hold on any tier.
static ALONE: Mutex<()> = Mutex::new(());

/// The shapes on which every law is held.
pub fn shapes() -> Vec<ModelSpec> {
    (0..3).map(crate::tiny::spec).collect()
}

const LENGTHS: [usize; 3] = [5, 1, 7];

fn training(first_row: u64) -> Mode {
    Mode::Train { seed: 3, step: 0, pass: 0, first_row }
}

/// Logits of every token.
fn logits(built: &Built, run: &Run) -> Vec<f64> {
    let hidden = built.model.hidden(&Tape::off(), run);
    built.model.logits(hidden.value(), run).to_f64_vec()
}

fn eval(built: &Built, spec: &ModelSpec) -> Vec<f64> {
    logits(built, &built.run(&batch(spec, &LENGTHS, 1, Mode::Eval).0))
}

fn without(built: &Built, spec: &ModelSpec) -> Vec<f64> {
    let mut run = built.run(&batch(spec, &LENGTHS, 1, Mode::Eval).0);
    run.adapters.clear();
    logits(built, &run)
}

fn base(case: &Case, dtype: DType) -> Built {
    let frozen = Case { method: Arc::new(crate::mutants::Nothing), spec: case.spec.clone() };
    build(&frozen, dtype)
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn equal(what: &str, a: &[f64], b: &[f64], tolerance: f64) -> Law {
    let d = largest_difference(a, b);
    // A NaN is never within a tolerance.
    if d <= tolerance && a.iter().chain(b).all(|v| v.is_finite()) {
        Ok(())
    } else {
        Err(format!("{what} differ by {d:e}, allowed {tolerance:e}"))
    }
}

fn differ(what: &str, a: &[f64], b: &[f64]) -> Law {
    let d = largest_difference(a, b);
    if d > 1e-6 { Ok(()) } else { Err(format!("{what} differ by {d:e} only")) }
}

/// Loss sum and the gradients of everything that trains, in order.
fn gradients(
    built: &Built,
    spec: &ModelSpec,
    lengths: &[usize],
    mode: Mode,
    recompute: bool,
) -> (f64, Vec<Vec<f64>>) {
    let (context, rows, targets) = batch(spec, lengths, 1, mode);
    gradients_of(built, &context, &rows, &targets, recompute)
}

fn gradients_of(
    built: &Built,
    context: &Context,
    rows: &[u32],
    targets: &[u32],
    recompute: bool,
) -> (f64, Vec<Vec<f64>>) {
    let tape = Tape::new();
    let run = Run { recompute, ..built.run(context) };
    let loss = built.model.loss(&tape, &run, rows, targets);
    let value = loss.sum.value().item();
    let mut sums = BTreeMap::<ParamId, Tensor>::new();
    tape.backward(loss.sum, 1.0, &mut sums);
    let of = |p: &Arc<luthier_tensor::Param>| {
        sums.get(&p.id()).map_or_else(|| vec![0.0; p.value().numel()], Tensor::to_f64_vec)
    };
    (value, built.trainable().iter().map(of).collect())
}

fn descend(built: &Built, spec: &ModelSpec, steps: usize, rate: f64) {
    for _ in 0..steps {
        let (_, gradients) = gradients(built, spec, &LENGTHS, training(0), false);
        for (param, gradient) in built.trainable().iter().zip(gradients) {
            let value = param.value();
            let next = value.to_f64_vec().iter().zip(gradient).map(|(v, g)| v - rate * g).collect::<Vec<_>>();
            param.set(Tensor::from_f64(value.shape(), &next, value.dtype(), value.account()));
        }
    }
}

/// Step 0 is the base model.
pub fn init_equals_base(case: &Case) -> Law {
    equal(
        "logits at first values and the base's",
        &eval(&build(case, DType::F64), &case.spec),
        &eval(&base(case, DType::F64), &case.spec),
        1e-12,
    )
}

/// After a push it is not.
pub fn moves_when_trained(case: &Case) -> Law {
    let built = build(case, DType::F64);
    let before = eval(&built, &case.spec);
    built.push(2);
    differ("logits before and after a push", &before, &eval(&built, &case.spec))
}

/// A base with the merged weights gives what the adapted model gives; or the method says that it cannot be merged.
pub fn merge_equals_unmerged(case: &Case) -> Law {
    let built = build(case, DType::F64);
    built.push(2);
    let merged = build(case, DType::F64);
    let trained = built.model.trained().iter().zip(merged.model.trained());
    trained.for_each(|((_, from), (_, to))| to.set(from.value()));
    let source = Merged { from: &built };
    let options = luthier_models::LoadOptions::frozen(DType::F64);
    match luthier_models::Model::load(untied(case), &source, &options) {
        Err(e) if case.method.card().mergeable => Err(format!("a mergeable method does not merge: {e}")),
        Err(_) => Ok(()),
        Ok(model) => {
            let plain = Built { model, adapter: base(case, DType::F64).adapter };
            equal("logits merged and unmerged", &eval(&plain, &case.spec), &eval(&built, &case.spec), 1e-10)
        }
    }
}

/// Merged weights may differ between a head and the embedding that it was tied to.
fn untied(case: &Case) -> ModelSpec {
    ModelSpec { tied: false, ..case.spec.clone() }
}

struct Merged<'a> {
    from: &'a Built,
}

impl luthier_models::Source for Merged<'_> {
    fn shape(&self, param: &luthier_contract::BaseParam) -> Option<Vec<usize>> {
        Some(param.shape.clone())
    }

    fn tensor(
        &self,
        param: &luthier_contract::BaseParam,
        account: luthier_tensor::Account,
    ) -> Result<Tensor, luthier_models::Error> {
        let plain = self.from.model.values(param, DType::F64).copy(account);
        let (path, leaf) = param.path.rsplit_once('.').expect("a tensor's path ends in its leaf");
        let site = self.from.model.spec().sites().into_iter().find(|s| s.path == path);
        let method = &self.from.adapter.method;
        match (site, self.from.adapter.values(path)) {
            (Some(site), Some(tensors)) if leaf == "bias" => method
                .merge_bias(&site, &tensors, &plain)
                .map_err(|e| luthier_models::Error::Weights { summary: e.to_string() }),
            (Some(site), Some(tensors)) => method
                .merge(&site, &tensors, &plain)
                .map_err(|e| luthier_models::Error::Weights { summary: e.to_string() }),
            _ => Ok(plain),
        }
    }

    fn base(
        &self,
        param: &luthier_contract::BaseParam,
        _: Option<DType>,
    ) -> Result<Arc<dyn luthier_contract::Base>, luthier_models::Error> {
        Ok(Arc::new(luthier_kernels::linear::DenseBase::new(
            self.tensor(param, luthier_tensor::Account::Base)?,
        )))
    }
}

/// The paper's formula is the number of elements that train.
pub fn formula_equals_counted(case: &Case) -> Law {
    let built = build(case, DType::F32);
    let base_own = built.model.trained().iter().map(|(p, _)| p.numel()).sum::<usize>();
    let trains = built.trainable().iter().map(|p| p.value().numel()).sum::<usize>();
    let formula = summed(case, |s| case.method.count(s)) + base_own;
    if trains == formula {
        Ok(())
    } else {
        Err(format!("{trains} elements train, the formula says {formula}"))
    }
}

/// Reverse mode against a central difference, each trained tensor along one random direction of its own.
pub fn gradient(case: &Case) -> Law {
    let built = build(case, DType::F64);
    built.push(2);
    let (_, gradients) = gradients(&built, &case.spec, &LENGTHS, training(0), false);
    let (context, rows, targets) = batch(&case.spec, &LENGTHS, 1, training(0));
    let run = built.run(&context);
    let loss = || built.model.loss(&Tape::off(), &run, &rows, &targets).sum.value().item();
    let scale = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
    for (param, gradient) in built.trainable().iter().zip(&gradients) {
        let start = param.value();
        let key = Key::new(11, Stream::Test).at(param.name());
        // Of length one, so that a step is a step.
        let draws = (0..start.numel() as u64).map(|i| key.normal(0, i)).collect::<Vec<_>>();
        let length = draws.iter().map(|d| d * d).sum::<f64>().sqrt();
        let direction = draws.iter().map(|d| d / length).collect::<Vec<_>>();
        let at = |h: f64| {
            let moved = start.to_f64_vec().iter().zip(&direction).map(|(v, d)| v + h * d).collect::<Vec<_>>();
            param.set(Tensor::from_f64(start.shape(), &moved, start.dtype(), start.account()));
            loss()
        };
        // Fourth order: h^4 is 1e-14, rounding of a loss of about 100 over h is 1e-10.
        let h = 3e-4;
        let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h);
        param.set(start.clone());
        let ours = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum::<f64>();
        if !((slope - ours).abs() < 1e-8 * scale.max(1.0)) {
            return Err(format!("{}: slope {slope}, gradient {ours}", param.name()));
        }
    }
    Ok(())
}

/// Without the adapter, the base is as it was. A method that trains the base itself has nothing to disable.
pub fn disabling_restores_the_base(case: &Case) -> Law {
    let built = build(case, DType::F64);
    if !built.model.trained().is_empty() {
        return Ok(());
    }
    descend(&built, &case.spec, 2, 0.1);
    equal(
        "logits without the adapter and the base's",
        &without(&built, &case.spec),
        &eval(&base(case, DType::F64), &case.spec),
        0.0,
    )
}

/// Ten steps leave every tensor that is not declared to train bit for bit as it was.
pub fn only_declared_tensors_change(case: &Case) -> Law {
    let built = build(case, DType::F64);
    let trains = built.model.trained().iter().map(|(p, _)| p.path.clone()).collect::<Vec<_>>();
    let snapshot = || {
        let mut all = BTreeMap::new();
        let visit = &mut |p: &luthier_contract::BaseParam, t: &Tensor| -> Result<(), ()> {
            all.insert(p.path.clone(), t.bytes().to_vec());
            Ok(())
        };
        built.model.each_tensor(DType::F64, visit).expect("visits do not fail");
        all
    };
    let before = snapshot();
    descend(&built, &case.spec, 10, 0.01);
    let changed = snapshot().into_iter().filter(|(k, v)| before[k] != *v).map(|(k, _)| k).collect::<Vec<_>>();
    match changed.iter().find(|k| !trains.contains(k)) {
        Some(path) => Err(format!("{path} changed and is not declared to train")),
        None => Ok(()),
    }
}

/// A batch as one micro-batch, or segment by segment: the same loss and gradients.
pub fn micro_batches_do_not_matter(case: &Case) -> Law {
    let built = build(case, DType::F64);
    built.push(2);
    let (whole, rows, targets) = batch(&case.spec, &LENGTHS, 1, training(0));
    let (loss, gradients) = gradients_of(&built, &whole, &rows, &targets, false);
    let mut sum = 0.0;
    let mut parts = gradients.iter().map(|g| vec![0.0; g.len()]).collect::<Vec<_>>();
    for i in 0..whole.segments.count() {
        let range = whole.segments.range(i);
        let mut context = Context::eval(whole.tokens[range.clone()].to_vec(), Segments::one(range.len()));
        context.mode = training(range.start as u64);
        let own = rows.iter().zip(&targets).filter(|(r, _)| range.contains(&(**r as usize)));
        let (r, t): (Vec<u32>, Vec<u32>) = own.map(|(r, t)| (r - range.start as u32, *t)).unzip();
        let (loss, part) = gradients_of(&built, &context, &r, &t, false);
        sum += loss;
        parts.iter_mut().flatten().zip(part.iter().flatten()).for_each(|(s, p)| *s += p);
    }
    equal("losses", &[sum], &[loss], 1e-10)?;
    equal("gradients", &parts.concat(), &gradients.concat(), 1e-10)
}

/// A changed later token changes nothing before it (but on an encoder, which reads both ways), and another segment
/// nothing here: bit for bit.
pub fn causal_and_isolated(case: &Case) -> Law {
    let built = build(case, DType::F32);
    built.push(2);
    let (context, ..) = batch(&case.spec, &LENGTHS, 1, Mode::Eval);
    let before = logits(&built, &built.run(&context));
    let mut changed = context.clone();
    let mut tokens = context.tokens.to_vec();
    let at = LENGTHS[0] - 1; // the first segment's last token
    tokens[at] = (tokens[at] + 1) % case.spec.vocab as u32;
    changed.tokens = tokens.into();
    let after = logits(&built, &built.run(&changed));
    let vocab = case.spec.vocab;
    if case.spec.wiring.causal {
        equal("logits before a changed token", &before[..at * vocab], &after[..at * vocab], 0.0)?;
    } else {
        differ("logits before a changed token", &before[..vocab], &after[..vocab])?;
    }
    equal("logits of other segments", &before[(at + 1) * vocab..], &after[(at + 1) * vocab..], 0.0)?;
    differ(
        "logits of the changed token",
        &before[at * vocab..(at + 1) * vocab],
        &after[at * vocab..(at + 1) * vocab],
    )
}

/// Feeding tokens through the cache, some at once and then one by one, gives what one forward run gives; after a
/// rollback too.
pub fn cache_equals_forward(case: &Case) -> Law {
    let built = build(case, DType::F64);
    built.push(2);
    let (context, ..) = batch(&case.spec, &[9], 4, Mode::Eval);
    let whole = logits(&built, &built.run(&context));
    let vocab = case.spec.vocab;
    let run = built.run(&context);
    let mut cache = Cache::new(&case.spec, DType::F64);
    let feed = |cache: &mut Cache, tokens: &[u32]| {
        let hidden = built.model.decode(&mut [(cache, tokens)], &run.adapters);
        built.model.logits(&hidden, &run).to_f64_vec()
    };
    feed(&mut cache, &context.tokens[..4]);
    feed(&mut cache, &[0, 1, 2]);
    cache.truncate(4);
    for i in 4..9 {
        let step = feed(&mut cache, &context.tokens[i..=i]);
        equal("logits with and without the cache", &step, &whole[i * vocab..(i + 1) * vocab], 1e-10)?;
    }
    Ok(())
}

/// f32 and bf16 on every tier of this machine agree with f64.
pub fn fast_equals_reference(case: &Case) -> Law {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let reference = build(case, DType::F64);
    reference.push(2);
    let (loss, gradients) = gradients(&reference, &case.spec, &LENGTHS, training(0), false);
    let norm = |g: &[Vec<f64>]| g.iter().flatten().map(|v| v * v).sum::<f64>().sqrt();
    let exact = (loss, norm(&gradients));
    for tier in luthier_kernels::isa::supported() {
        for (dtype, tolerance) in [(DType::F32, 2e-5), (DType::Bf16, 6e-2)] {
            luthier_kernels::isa::force(Some(tier)).map_err(|e| e.to_string())?;
            let built = build(case, dtype);
            for (from, to) in reference.trainable().iter().zip(built.trainable()) {
                to.set(luthier_tensor::to_dtype(&from.value(), to.value().dtype(), from.value().account()));
            }
            let (loss, g) = crate::laws::gradients(&built, &case.spec, &LENGTHS, training(0), false);
            let difference =
                g.iter().flatten().zip(gradients.iter().flatten()).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            luthier_kernels::isa::force(None).map_err(|e| e.to_string())?;
            let errors = [(loss - exact.0).abs() / exact.0, difference.sqrt() / exact.1];
            // Relative errors of a sum over some forty rows through up to three blocks: a few units of rounding
            // (6e-8, 4e-3) a layer, added in quadrature.
            if errors.iter().any(|e| !(e < &tolerance)) {
                return Err(format!(
                    "{dtype} on {tier:?}: loss {:e}, gradient {:e} off",
                    errors[0], errors[1]
                ));
            }
        }
    }
    Ok(())
}

/// Adapter bytes are four an element of the formulas, trained and not, and what is allocated.
pub fn bytes_equal_formula(case: &Case) -> Law {
    let built = build(case, DType::F32);
    let (held, formula) =
        (built.adapter.bytes(), 4 * summed(case, |s| case.method.count(s) + case.method.count_frozen(s)));
    if held == formula { Ok(()) } else { Err(format!("{held} bytes held, {formula} by formula")) }
}

/// The operations that the engine counts for the adapter are those of the method's formula.
pub fn flops_equal_formula(case: &Case) -> Law {
    let n = LENGTHS.iter().sum::<usize>();
    let built = build(case, DType::F32);
    if !built.model.trained().is_empty() {
        return Ok(()); // what the base itself costs is the model's formula, not the method's
    }
    built.push(2);
    let (context, ..) = batch(&case.spec, &LENGTHS, 1, Mode::Eval);
    let count = |run: &Run| {
        let before = flops();
        built.model.hidden(&Tape::off(), run);
        flops() - before
    };
    let with = built.run(&context);
    let plain = Run { adapters: Vec::new(), ..with.clone() };
    let counted = count(&with) - count(&plain);
    let inner = case.spec.sites().into_iter().filter(|s| s.layer.is_some());
    let formula = inner.map(|s| case.method.cost(&s, n).forward_flops).sum::<u64>();
    if counted == formula {
        Ok(())
    } else {
        Err(format!("{counted} operations counted, {formula} by formula"))
    }
}

/// Recompute gives the same bits.
pub fn recompute_changes_nothing(case: &Case) -> Law {
    let built = build(case, DType::F32);
    built.push(2);
    let plain = gradients(&built, &case.spec, &LENGTHS, training(0), false);
    let again = gradients(&built, &case.spec, &LENGTHS, training(0), true);
    equal("losses", &[plain.0], &[again.0], 0.0)?;
    equal("gradients", &plain.1.concat(), &again.1.concat(), 0.0)
}

/// Two adapters in one batch, each on its own segments, equal each alone.
pub fn adapters_do_not_mix(case: &Case) -> Law {
    let built = build(case, DType::F64);
    if !built.model.trained().is_empty() {
        return Ok(()); // a method that trains the base makes bases, not adapters
    }
    built.push(2);
    let other = Built { model: built.model.clone(), adapter: Arc::new(built.adapter.duplicate()) };
    other.push(9);
    let (context, ..) = batch(&case.spec, &LENGTHS, 1, Mode::Eval);
    let (one, two) = (logits(&built, &built.run(&context)), logits(&other, &other.run(&context)));
    let mut run = built.run(&context);
    run.adapters = vec![
        luthier_models::Applied { adapter: built.adapter.clone(), segments: Some(0..1) },
        luthier_models::Applied { adapter: other.adapter.clone(), segments: Some(1..3) },
    ];
    let mixed = logits(&built, &run);
    let at = LENGTHS[0] * case.spec.vocab;
    equal("logits of the first adapter's segment", &mixed[..at], &one[..at], 1e-12)?;
    equal("logits of the second adapter's segments", &mixed[at..], &two[at..], 1e-12)
}
