//! `luthier bench step`: training steps, timed.

use super::stopwatch::{median, rounded};
use super::{StepArgs, peak, shape};
use crate::error::CliError;
use crate::output::{Output, bytes};
use luthier_contract::{Adapter, Method, Site};
use luthier_data::{BatchSize, DataSpec, MicroLimit, Sample, Sampler, TemplateChoice, Tokenizer};
use luthier_models::{LoadOptions, Model};
use luthier_objectives::lm::LanguageModelling;
use luthier_optim::{Schedule, Shape, adamw};
use luthier_tensor::{DType, Key, Stream};
use luthier_train::{Base, Judging, Limits, PeakBytes, Session, read_adapter};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Tokens of a forward run at most, as in a run without `micro_batch`.
const MICRO_TOKENS: usize = 4096;

/// ChatML as recipes for PyTorch write it: no system turn of the model's own, nothing behind the last answer.
const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}\
    {% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}";

/// What the steps showed.
#[derive(Default)]
struct Seen {
    ms: Vec<f64>,
    loss: Vec<f64>,
    /// All tokens of a step; those that count in the loss.
    tokens: Vec<usize>,
    labelled: Vec<usize>,
    necessary: f64,
}

/// Runs the command.
pub fn run(args: &StepArgs, output: &Output) -> Result<(), CliError> {
    args.tier.force()?;
    let mut session = session(args)?;
    luthier_tensor::reset_peak();
    let (batch, rows) = (args.size.batch.get(), session.samples.len());
    let mut seen = Seen::default();
    for i in 0..=args.steps.get() {
        let indices = (0..batch.min(rows)).map(|j| (i * batch + j) % rows).collect::<Vec<_>>();
        let start = Instant::now();
        let stepped = session.step_on(&indices);
        let ms = start.elapsed().as_secs_f64() * 1e3;
        seen.loss.push((stepped.loss * 1e6).round() / 1e6);
        output.progress(|| format!("step {i}: {ms:.0} ms, loss {:.4}", stepped.loss));
        if i > 0 {
            seen.ms.push(rounded(ms));
            seen.tokens.push(stepped.all_tokens);
            seen.labelled.push(stepped.tokens);
            seen.necessary += necessary(&session, &indices);
        }
    }
    let (peak_bytes, rss) = (PeakBytes::now(), luthier_platform::memory::peak_rss());
    let json = report(args, &session, &seen, &peak_bytes, rss);
    let text = describe(&json, peak_bytes.total, rss);
    output.result(|| json, || text);
    Ok(())
}

/// [`peak::necessary`] of one step.
fn necessary(session: &Session, rows: &[usize]) -> f64 {
    let samples = rows.iter().map(|&i| &session.samples[i]);
    let lengths = samples.clone().map(|s| s.tokens.len()).collect::<Vec<_>>();
    let labelled = samples.map(Sample::targets).sum();
    peak::necessary(session.model.spec(), &lengths, labelled, added(session), base_trains(session))
}

/// Whether matrices of the base train.
fn base_trains(session: &Session) -> bool {
    session.model.trained().iter().any(|(p, _)| p.shape.len() == 2)
}

/// Elements that an adapter adds.
fn added(session: &Session) -> usize {
    let adapter = session.adapter.as_ref();
    adapter.map_or(0, |a| a.trainable().iter().map(|p| p.value().numel()).sum())
}

fn report(args: &StepArgs, session: &Session, seen: &Seen, peak: &PeakBytes, rss: Option<u64>) -> Value {
    let seconds = seen.ms.iter().sum::<f64>() / 1e3;
    let tokens = seen.tokens.iter().sum::<usize>();
    let mean = (tokens / seen.tokens.len().max(1)).max(1);
    // Measured after the peaks were read: its operands are none of the step's.
    let products = peak::products(session.model.spec(), mean, base_trains(session));
    let rate = peak::rate(&products, |shape| peak::seconds(shape, args.dtype.dtype()));
    json!({
        "method": session_method(args), "dtype": args.dtype.dtype().to_string(), "tier": tier(),
        "threads": rayon::current_num_threads(), "recompute": args.recompute,
        "trainable": session.trainable_parameters(), "ms": seen.ms, "tokens": seen.tokens,
        "labelled": seen.labelled, "tokens_per_s": rounded(tokens as f64 / seconds),
        "gemm_peak_gflops": rounded(rate), "gemm_share": rounded(seen.necessary / seconds / 1e9 / rate),
        "necessary_gflops_per_s": rounded(seen.necessary / seconds / 1e9),
        "peak_rss_mb": rss.map(|b| b >> 20), "peak_bytes": peak, "loss": seen.loss,
    })
}

fn tier() -> &'static str {
    luthier_kernels::isa::tier().name()
}

fn session_method(args: &StepArgs) -> &str {
    if args.init.is_some() { "init" } else { &args.method }
}

fn describe(json: &Value, peak: usize, rss: Option<u64>) -> String {
    let ms = json["ms"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>();
    format!(
        "step    {:.0} ms (median of {})\nrate    {} tokens/s\nshare   {} of {} GFLOP/s\nmemory  {}, process {}",
        median(&ms),
        ms.len(),
        json["tokens_per_s"],
        json["gemm_share"],
        json["gemm_peak_gflops"],
        bytes(peak as u64),
        rss.map_or_else(|| "unknown".to_owned(), bytes)
    )
}

/// The method, its rank set if it has one.
fn method(args: &StepArgs) -> Result<Arc<dyn Method>, CliError> {
    let row = luthier_methods::find(&args.method)
        .ok_or_else(|| CliError::input("method", format!("unknown method `{}`", args.method)))?;
    let refuse = |e: serde_json::Error| CliError::input("method", format!("{}: {e}", args.method));
    let defaults = (row.resolve)(json!({})).map_err(refuse)?;
    let mut table = json!({});
    if defaults.get("rank").is_some() {
        table["rank"] = json!(args.size.rank);
    }
    if defaults.get("alpha").is_some() {
        table["alpha"] = json!(2 * args.size.rank);
    }
    (row.configure)(table).map_err(refuse)
}

fn session(args: &StepArgs) -> Result<Session, CliError> {
    if let Some(folder) = &args.init {
        return from_files(args, folder);
    }
    let (method, dtype) = (method(args)?, args.dtype.dtype());
    let storage = args.storage.map_or(Some(dtype), super::StorageArg::dtype);
    let trains = |p: &luthier_contract::BaseParam| method.trains(p);
    let (model, tokenizer) = if let Some(name) = &args.base {
        let base = Base::open(&luthier_hub::resolve(name)?)?;
        (base.load(dtype, storage, &trains)?, Some(base.tokenizer))
    } else {
        let spec = shape::spec(&args.size.shape)?;
        let source = shape::Noise { dtype };
        (Model::load(spec, &source, &LoadOptions { compute: dtype, storage, trains: &trains })?, None)
    };
    let weight = |site: &Site| model.weight(site, DType::F32);
    let adapter = Adapter::init(method.clone(), &model.spec().sites(), 0, DType::F32, &weight);
    let adds = adapter.sites().next().is_some();
    let adapter = adds.then(|| Arc::new(adapter));
    let samples = match (&args.data, &tokenizer) {
        (Some(data), Some(tokenizer)) => real_rows(data, tokenizer, args.size.seq.get())?,
        _ => random_rows(args, model.spec().vocab),
    };
    Ok(build(args, model, adapter, samples))
}

/// The start that another program wrote: `base/` without a tokenizer, `adapter/` if one is trained, `ids.json`.
fn from_files(args: &StepArgs, folder: &Path) -> Result<Session, CliError> {
    let dtype = args.dtype.dtype();
    let storage = args.storage.map_or(Some(dtype), super::StorageArg::dtype);
    let path = folder.join("ids.json");
    let text = std::fs::read_to_string(&path).map_err(|e| CliError::io("read", &path, &e))?;
    let ids: Vec<Vec<u32>> = serde_json::from_str(&text)
        .map_err(|e| CliError::input("ids", format!("cannot read {}: {e}", path.display())))?;
    let row = |tokens: Vec<u32>| Sample {
        labelled: (0..tokens.len()).map(|i| i > 0).collect(),
        tokens,
        ..Sample::default()
    };
    let samples = ids.into_iter().map(row).collect();
    let base = folder.join("base");
    let adapter = folder.join("adapter");
    if adapter.is_dir() {
        let file = read_adapter(&adapter)?;
        let model = luthier_train::load_weights(&base, dtype, storage, &|p| file.trains(p))?;
        let adapter = file.apply(&model)?;
        return Ok(build(args, model, Some(adapter), samples));
    }
    let row = luthier_methods::find("full-ft").expect("full fine-tuning is a method");
    let full = (row.configure)(json!({})).map_err(|e| CliError::input("method", e.to_string()))?;
    let model = luthier_train::load_weights(&base, dtype, storage, &|p| full.trains(p))?;
    Ok(build(args, model, None, samples))
}

/// Rows of a file in their order, loss on the answers.
fn real_rows(data: &Path, tokenizer: &Tokenizer, max_tokens: usize) -> Result<Vec<Sample>, CliError> {
    let has_chatml = tokenizer.encode("<|im_end|>")?.len() == 1;
    let template = if has_chatml { TemplateChoice::Source(CHATML.to_owned()) } else { TemplateChoice::Auto };
    let spec = DataSpec { train: vec![data.to_owned()], max_tokens, template, ..DataSpec::default() };
    Ok(luthier_data::load(&spec, tokenizer)?.train)
}

/// Random tokens, every one labelled.
fn random_rows(args: &StepArgs, vocab: usize) -> Vec<Sample> {
    let (key, seq) = (Key::new(1, Stream::Test), args.size.seq.get());
    let sample = |row: u64| Sample {
        tokens: (0..seq as u64).map(|i| key.bits(row, i) % vocab as u32).collect(),
        labelled: (0..seq).map(|i| i > 0).collect(),
        ..Sample::default()
    };
    (0..args.size.batch.get() as u64).map(sample).collect()
}

/// The session at step 0, under the yardstick's optimizer.
fn build(args: &StepArgs, model: Model, adapter: Option<Arc<Adapter>>, samples: Vec<Sample>) -> Session {
    let chain = adamw([0.9, 0.999], 1e-8, 0.01, Some(1.0));
    let trained = adapter.iter().flat_map(|a| a.trainable());
    let leaves = trained.chain(model.trained().iter().map(|(_, p)| p.clone())).map(|p| chain.leaf(p));
    let leaves = leaves.collect();
    let sampler = Sampler::new(&samples, BatchSize::Samples(args.size.batch.get()), 0);
    Session {
        model,
        adapter,
        objective: Box::new(LanguageModelling),
        estimator: Arc::new(luthier_train::estimators::Backward),
        chain,
        schedule: Schedule { peak: 1e-4, warmup: 0, steps: 1, shape: Shape::Constant, floor: 0.0 },
        leaves,
        samples,
        held_out: Vec::new(),
        sampler,
        t: 0,
        seed: 0,
        limits: Limits {
            micro: MicroLimit { samples: None, tokens: Some(MICRO_TOKENS.max(args.size.seq.get())) },
            recompute: args.recompute,
        },
        judging: Judging::default(),
    }
}
