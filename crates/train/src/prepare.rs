//! From a configuration to a session: everything that can be wrong with the input is found here, before any step.
use crate::base::Base;
use crate::data_spec::data_spec;
use crate::error::Error;
use crate::facts::Facts;
use crate::fisher;
use crate::session::{Judging, Limits, Session};
use crate::task::{TaskFile, fit, objective, open_for_task};
use crate::train_loop::Plan;
use crate::update;
use luthier_config::{Batch, Compute, Length, Run, Storage, Warmup};
use luthier_contract::{Adapter, BaseParam, Direction, Master, Method, Training};
use luthier_data::{BatchSize, Dataset, Example, LabelSet, Level, MicroLimit, Report, Sample, Sampler, Task};
use luthier_optim::{Schedule, Shape};
use luthier_tensor::DType;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens of a forward run where `micro_batch` is not set: what a forward run keeps for backward grows with them, and
/// matrix products gain little from more.
const MICRO_TOKENS: usize = 4096;

/// A run that is ready to begin.
#[derive(Debug)]
pub struct Prepared {
    /// The run.
    pub session: Session,
    /// When to evaluate, save and stop.
    pub plan: Plan,
    /// What the data doctor found.
    pub report: Report,
    /// Held-out conversations to generate answers for.
    pub examples: Vec<Example>,
    /// The base, opened.
    pub base: Base,
    /// The method, configured.
    pub method: Arc<dyn Method>,
    /// How frozen matrices are held; none: as the file holds them.
    pub storage: Option<DType>,
    /// What the result answers.
    pub task: TaskFile,
    /// What a resumed run must find again.
    pub facts: Facts,
    /// The configuration with every default written out.
    pub resolved: String,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Opens the base of a configuration: a folder, a GGUF file, or a model that was pulled.
pub fn open_base(run: &Run) -> Result<Base, Error> {
    Base::open(&base_path(run)?)
}

/// Where the base of a configuration lies.
pub fn base_path(run: &Run) -> Result<PathBuf, Error> {
    match &run.base {
        luthier_config::Base::Path(path) => Ok(path.clone()),
        luthier_config::Base::Hub(id) => {
            let settings = luthier_hub::Settings::from_env()?;
            Ok(luthier_hub::resolve_in(&settings, Path::new("."), id)?)
        }
    }
}

/// The base with the head of the run's task, its data, and what the user should know. Labels come from the data, so that
/// the base is opened for its tokenizer first.
fn base_and_data(run: &Run, notes: &mut Vec<String>) -> Result<(Base, Dataset, Task), Error> {
    let base = open_base(run)?;
    let mut spec = data_spec(run)?;
    let task = spec.task;
    if task == Task::Lm && !base.spec.generates() {
        let message = "the base is an encoder, which predicts no next token".to_string();
        let help = "set `task` to classification, regression, token-classification or masked-lm".to_string();
        return Err(run.refuse("task", message, Some(help)).into());
    }
    notes.extend(fit(&mut spec, &base));
    let data = luthier_data::load(&spec, &base.tokenizer)?;
    if task == Task::Lm {
        return Ok((base, data, task));
    }
    let base = open_for_task(&base.path, task, &data.labels)?;
    if !base.spec.head.missing.is_empty() {
        let names = base.spec.head.missing.join(", ");
        notes.push(format!("the base has no such head: it starts at random values ({names})"));
    }
    Ok((base, data, task))
}

/// Reads base, data and settings, and builds the session at step 0.
pub fn prepare(run: &Run) -> Result<Prepared, Error> {
    let (method, table) = configure(run)?;
    let mut notes = Vec::new();
    let (base, data, task) = base_and_data(run, &mut notes)?;
    let (sites, params) = (base.spec.sites(), base.spec.base_params());
    method.check(&sites, &params)?;
    let method = method.fitted(&sites, &params).unwrap_or(method);
    let update = method.update();
    update::check(run, update)?;
    let compute = compute(run.compute);
    let storage = storage(run, &base, &mut notes)?;
    check_tokens(&base, data.train.iter().chain(&data.eval))?;
    remark(run, &base, &data.report, &mut notes);
    let resolved = run.to_toml(Some(table))?;

    let size = match run.train.batch {
        Batch::Samples(n) => BatchSize::Samples(n),
        Batch::Tokens(n) => BatchSize::Tokens(n),
    };
    let sampler = Sampler::new(&data.train, size, run.seed);
    let steps = steps(run.train.length, &sampler);
    let plan = Plan {
        steps,
        eval_every: run.train.eval_every.map(|n| n as u64),
        save_every: run.train.save_every.map(|n| n as u64),
        patience: run.train.early_stopping,
    };
    method.check_steps(steps)?;
    let (chain, peak) = update::chain(&run.optimizer, update);
    let schedule = schedule(&run.schedule, peak, steps);

    let model = base.load(compute, storage, &|p| with_head(method.trains(p), p, &base, task))?;
    let weight = |site: &luthier_contract::Site| model.weight(site, compute.accumulator());
    let adapter = Adapter::init(method.clone(), &sites, run.seed, compute.accumulator(), &weight);
    let adds = adapter.sites().next().is_some();
    let adapter = adds.then(|| Arc::new(adapter));
    let leaves = update::leaves(&chain, method.as_ref(), adapter.as_deref(), &model);
    let facts = Facts::of(run, &resolved, &base, compute)?;
    let mut session = Session {
        model,
        adapter,
        objective: objective(run, &data, &base, task)?,
        estimator: update::estimator(update),
        chain,
        schedule,
        leaves,
        samples: data.train,
        held_out: data.eval,
        sampler,
        t: 0,
        seed: run.seed,
        limits: limits(run),
        judging: Judging { labels: data.labels.clone(), metric: metric(run, task, &data.labels)? },
    };
    let task = TaskFile::of(task, &data.labels);
    if let Direction::Masked { keep, samples } = update.direction {
        let trains = fisher::fill(&mut session, keep, samples);
        notes.push(format!(
            "the mask leaves {trains} of {} elements to train",
            session.trainable_parameters()
        ));
    }
    let (report, examples) = (data.report, data.examples);
    Ok(Prepared { session, plan, report, examples, base, method, storage, task, facts, resolved, notes })
}

/// A task's head trains whatever the method; a pretrained one of masked tokens only as far as the base lacks it.
fn with_head(training: Training, param: &BaseParam, base: &Base, task: Task) -> Training {
    let is_new = match task {
        Task::Lm => false,
        Task::MaskedLm => base.spec.head.missing.contains(&param.name),
        _ => param.head,
    };
    if is_new && training == Training::Frozen { Training::Trained(Master::F32) } else { training }
}

/// The metric that makes a step the best, if the task has it.
fn metric(run: &Run, task: Task, labels: &LabelSet) -> Result<Option<String>, Error> {
    let Some(name) = &run.train.metric else { return Ok(None) };
    let known: &[&str] = match task {
        Task::Lm | Task::MaskedLm => &["loss"],
        Task::Classification { multi_label: true } => &["micro-f1", "macro-f1", "exact", "loss"],
        Task::Classification { .. } if labels.len() == 2 => {
            &["accuracy", "macro-f1", "f1", "matthews", "calibration-error", "loss"]
        }
        Task::Classification { .. } => &["accuracy", "macro-f1", "matthews", "calibration-error", "loss"],
        Task::Regression => &["pearson", "spearman", "squared-error", "loss"],
        Task::TokenClassification if luthier_eval::are_entities(labels.names()) => {
            &["entity-f1", "entity-precision", "entity-recall", "accuracy", "loss"]
        }
        Task::TokenClassification => &["accuracy", "loss"],
    };
    if known.contains(&name.as_str()) {
        return Ok(Some(name.clone()));
    }
    let near = luthier_config::nearest(name, known.iter().copied());
    let help = near.map(|near| format!("did you mean `{near}`?"));
    let message = format!("`{name}` is no metric of this task, expected one of: {}", known.join(", "));
    Err(run.refuse("train.metric", message, help).into())
}

/// The method, and its table with every default written out.
fn configure(run: &Run) -> Result<(Arc<dyn Method>, toml::Table), Error> {
    let choice = &run.method;
    let refuse = |message: String| {
        let table = choice.table();
        let key = table.keys().find(|k| message.contains(&format!("`{k}`"))).cloned();
        Error::from(choice.refuse(key.as_deref(), message, None))
    };
    let row = luthier_methods::find(choice.id())
        .ok_or_else(|| refuse(format!("method {} is not here yet", choice.id())))?;
    let table = serde_json::to_value(choice.table()).map_err(|e| refuse(e.to_string()))?;
    let method = (row.configure)(table.clone()).map_err(|e| refuse(e.to_string()))?;
    let mut full = (row.resolve)(table).map_err(|e| refuse(e.to_string()))?;
    drop_nulls(&mut full);
    let full = toml::Table::try_from(full).map_err(|e| refuse(e.to_string()))?;
    Ok((method, full))
}

/// TOML has no null: the key is left out.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

fn compute(setting: Compute) -> DType {
    match setting {
        Compute::Bf16 => DType::Bf16,
        // Elsewhere bf16 is widened to f32 before each product: slower, and no more exact.
        Compute::Auto if luthier_kernels::isa::tier() == luthier_kernels::isa::Tier::Avx512Bf16 => {
            DType::Bf16
        }
        Compute::F32 | Compute::Auto => DType::F32,
    }
}

/// How frozen matrices are held; none is as they are in the file. Blocks of a GGUF that are decoded are named as such.
fn storage(run: &Run, base: &Base, notes: &mut Vec<String>) -> Result<Option<DType>, Error> {
    let blocked = || {
        let encodings = base.files.names().filter_map(|n| base.files.info(n).map(|(e, _)| e));
        encodings.into_iter().any(luthier_storage::Encoding::is_blocked)
    };
    if matches!(run.storage, Storage::Bf16 | Storage::F32) && base.files.gguf().is_some() && blocked() {
        notes.push("the base's quantised blocks are decoded; `storage = \"as-is\"` trains over them".into());
    }
    match run.storage {
        Storage::F32 => Ok(Some(DType::F32)),
        Storage::Bf16 => Ok(Some(DType::Bf16)),
        Storage::AsIs => Ok(None),
        Storage::Int8 | Storage::Nf4 => {
            let name = if run.storage == Storage::Nf4 { "nf4" } else { "int8" };
            let message = format!("storage {name} is not here yet, expected f32, bf16 or as-is");
            Err(run.refuse("storage", message, None).into())
        }
    }
}

fn check_tokens<'a>(base: &Base, samples: impl Iterator<Item = &'a Sample>) -> Result<(), Error> {
    let most = samples.flat_map(|s| s.tokens.iter().copied()).max().unwrap_or(0);
    if (most as usize) < base.spec.vocab {
        return Ok(());
    }
    Err(Error::Vocabulary { token: most, vocab: base.spec.vocab })
}

fn remark(run: &Run, base: &Base, report: &Report, notes: &mut Vec<String>) {
    if base.brings_code() {
        notes.push("the base brings code of its own (`auto_map`), which is never run".into());
    }
    let longest = report.train.lengths.max as usize;
    if longest > base.spec.max_positions {
        notes.push(format!(
            "the longest sample has {longest} tokens, the model was made for {}: lower data.max_tokens",
            base.spec.max_positions
        ));
    }
    if run.train.micro_batch.is_none() {
        notes.push(format!(
            "a forward run takes at most {MICRO_TOKENS} tokens (or one longer sample); \
             train.micro_batch sets a number of samples instead"
        ));
    }
    notes.extend(report.findings.iter().filter(|f| f.level == Level::Warning).map(|f| f.message.clone()));
}

fn limits(run: &Run) -> Limits {
    let micro = match run.train.micro_batch {
        Some(samples) => MicroLimit { samples: Some(samples), tokens: None },
        None => MicroLimit { samples: None, tokens: Some(MICRO_TOKENS) },
    };
    Limits { micro, recompute: run.train.recompute }
}

fn steps(length: Length, sampler: &Sampler) -> u64 {
    match length {
        Length::Steps(steps) => steps as u64,
        Length::Epochs(epochs) => {
            let whole = epochs.floor();
            let rest = (epochs - whole) * sampler.steps_in_epoch(whole as u64) as f64;
            (sampler.steps_in(whole as u64) + rest.ceil() as u64).max(1)
        }
    }
}

fn schedule(setting: &luthier_config::Schedule, peak: f64, steps: u64) -> Schedule {
    use luthier_config::Schedule as Written;
    let (warmup, shape, floor) = match setting {
        Written::Constant(c) => (c.warmup, Shape::Constant, 0.0),
        Written::Linear(l) => (l.warmup, Shape::Linear, l.floor.get()),
        Written::Cosine(c) => (c.warmup, Shape::Cosine, c.floor.get()),
    };
    let warmup = match warmup {
        Warmup::Steps(n) => n,
        // transformers: math.ceil(steps * warmup_ratio)
        Warmup::Share(share) => (share.get() * steps as f64).ceil() as usize,
    };
    Schedule { peak, warmup, steps: steps as usize, shape, floor }
}
