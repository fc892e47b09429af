//! A whole run: prepare, train, save, prove.
use crate::adapter_file::{base_name, save_adapter, write_text};
use crate::checkpoint::Checkpoints;
use crate::error::Error;
use crate::event::{Event, Flow, Observer};
use crate::model_folder::save_model;
use crate::output::{self, Existing};
use crate::prepare::{Prepared, prepare};
use crate::proof::{Before, Held, Proof};
use crate::session::Session;
use crate::task::TaskFile;
use crate::train_loop::{Outcome, Stopped, train};
use luthier_config::Run;
use luthier_data::{BatchSize, Example, Report};
use luthier_platform::interrupt;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Stack of a worker: as large as a main thread's, since the whole run is on one.
const STACK: usize = 8 << 20;

/// What to do with an output folder that holds a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Goes on from the newest intact checkpoint.
    pub resume: bool,
    /// Removes it and begins again.
    pub overwrite: bool,
}

/// Bytes by account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeakBytes {
    /// Weights of the base.
    pub base: usize,
    /// Tensors of the adapter.
    pub adapter: usize,
    /// Gradients of trained tensors.
    pub gradient: usize,
    /// Optimizer state.
    pub optimizer: usize,
    /// Values kept between forward and backward.
    pub activation: usize,
    /// Scratch memory.
    pub workspace: usize,
    /// The most held at once: at most the sum of the others.
    pub total: usize,
}

impl PeakBytes {
    /// The peaks since they were last reset.
    pub fn now() -> Self {
        let p = luthier_tensor::peak();
        Self {
            base: p.base,
            adapter: p.adapter,
            gradient: p.gradient,
            optimizer: p.optimizer,
            activation: p.activation,
            workspace: p.workspace,
            total: p.total,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, Serialize)]
pub struct Finished {
    /// The output folder.
    pub output: PathBuf,
    /// The adapter's folder, for methods that add something; none if the run was stopped.
    pub adapter: Option<PathBuf>,
    /// The model's folder, for methods that change the base; none if the run was stopped.
    pub model: Option<PathBuf>,
    /// The method's id.
    pub method: String,
    /// What the adapter calls its base.
    pub base: String,
    /// Elements that train.
    pub trainable_parameters: usize,
    /// Elements of the base.
    pub base_parameters: usize,
    /// Type of activations.
    pub compute: String,
    /// The step that the run went on from; none if it began.
    pub resumed_from: Option<u64>,
    /// Mean loss of the base on the held-out rows (training rows where there are none).
    pub loss_before: f64,
    /// Mean loss of the result on the same rows.
    pub loss_after: Option<f64>,
    /// Exponential of `loss_before`.
    pub perplexity_before: f64,
    /// Exponential of `loss_after`.
    pub perplexity_after: Option<f64>,
    /// Losses with their intervals, and what else was shown; none if the run was stopped.
    pub proof: Option<Proof>,
    /// The base on the same rows.
    pub before: Held,
    /// Most bytes held at once while training, by account.
    pub peak_bytes: PeakBytes,
    /// Largest resident set of the process, bytes, where the system says.
    pub peak_rss: Option<u64>,
    /// Wall time of the training steps of this process.
    pub step_seconds: f64,
    /// Wall time of all of it.
    pub seconds: f64,
    /// Tokens of this process's steps.
    pub tokens: usize,
    /// Tokens a second of training steps.
    pub tokens_per_s: f64,
    /// How the run ended.
    pub outcome: Outcome,
    /// What the data doctor found.
    #[serde(skip)]
    pub report: Report,
    /// Held-out conversations to generate answers for.
    #[serde(skip)]
    pub examples: Vec<Example>,
}

/// Runs a configuration to its end, in a thread pool of its own. On Ctrl-C (see [`interrupt`]) it saves and stops.
pub fn run(config: &Run, options: Options, observers: &mut [&mut dyn Observer]) -> Result<Finished, Error> {
    let threads = config.threads.map_or_else(rayon::current_num_threads, NonZeroUsize::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build();
    let pool = pool.map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
    // The whole run, not each operation: going in and out of a pool wakes threads.
    pool.install(|| run_here(config, options, observers))
}

fn run_here(config: &Run, options: Options, observers: &mut [&mut dyn Observer]) -> Result<Finished, Error> {
    let start = Instant::now();
    let existing = match options {
        Options { overwrite: true, .. } => Existing::Overwrite,
        Options { resume: true, .. } => Existing::Resume,
        Options { .. } => Existing::Refuse,
    };
    output::check(&config.output, existing)?;
    luthier_tensor::reset_peak();
    let mut prepared = prepare(config)?;
    let _lock = output::take(&config.output, existing)?;
    let mut checkpoints = checkpoints(config, &prepared);
    checkpoints.clean()?;
    let found = if existing == Existing::Resume { checkpoints.newest()? } else { None };
    if let Some(found) = &found {
        checkpoints.check(&found.folder)?;
        let lost = found.damaged.iter().map(|d| format!("damaged checkpoint passed over: {d}"));
        prepared.notes.extend(lost);
    } else if existing == Existing::Resume {
        prepared.notes.push("there is no checkpoint to go on from: the run begins at step 0".into());
    }
    write_text(&config.output.join("resolved.toml"), &prepared.resolved)?;

    // The base is measured before a checkpoint changes it.
    let before = Before::measure(&mut prepared.session);
    let mut outcome = Outcome::default();
    if let Some(found) = &found {
        outcome = checkpoints.restore(&found.folder, &mut prepared.session)?.outcome;
    }
    let resumed_from = found.map(|_| prepared.session.t);
    let mut recorder = Recorder::open(&config.output.join("metrics.jsonl"), resumed_from)?;
    let mut watching: Vec<&mut dyn Observer> = observers.iter_mut().map(|o| &mut **o as _).collect();
    watching.push(&mut recorder);
    announce(&prepared, &before, resumed_from, &mut watching);
    let outcome = train(&mut prepared.session, &prepared.plan, outcome, &mut checkpoints, &mut watching)?;
    let (tokens, step_seconds) = recorder.finish()?;
    let finished = Finished {
        output: config.output.clone(),
        adapter: None,
        model: None,
        method: config.method.id().to_string(),
        base: base_name(&prepared.base),
        trainable_parameters: prepared.session.trainable_parameters(),
        base_parameters: prepared.base.spec.parameters(),
        compute: prepared.session.compute().to_string(),
        resumed_from,
        loss_before: before.held().loss,
        loss_after: None,
        perplexity_before: before.held().perplexity,
        perplexity_after: None,
        proof: None,
        before: before.held(),
        peak_bytes: PeakBytes::now(),
        peak_rss: luthier_platform::memory::peak_rss(),
        step_seconds,
        seconds: 0.0,
        tokens,
        tokens_per_s: if step_seconds > 0.0 { tokens as f64 / step_seconds } else { 0.0 },
        outcome,
        report: prepared.report.clone(),
        examples: std::mem::take(&mut prepared.examples),
    };
    let mut finished = conclude(config, prepared, &checkpoints, before, finished)?;
    finished.seconds = start.elapsed().as_secs_f64();
    let text = serde_json::to_string_pretty(&finished).expect("plain data with text keys");
    write_text(&config.output.join("finished.json"), &(text + "\n"))?;
    Ok(finished)
}

fn checkpoints(config: &Run, prepared: &Prepared) -> Checkpoints {
    let size = match config.train.batch {
        luthier_config::Batch::Samples(n) => BatchSize::Samples(n),
        luthier_config::Batch::Tokens(n) => BatchSize::Tokens(n),
    };
    let folder = config.output.join("checkpoints");
    Checkpoints::new(folder, config.train.keep, size, prepared.facts.clone())
}

fn announce(
    prepared: &Prepared,
    before: &Before,
    resumed_from: Option<u64>,
    observers: &mut [&mut dyn Observer],
) {
    let mut tell = |event: Event| {
        for observer in observers.iter_mut() {
            observer.on(&event);
        }
    };
    prepared.notes.iter().for_each(|n| tell(Event::Note { message: n.clone() }));
    if resumed_from.is_none() && !prepared.session.held_out.is_empty() {
        tell(Event::eval(0, &before.evaluated(prepared.session.judging.labels.len()), false));
    }
}

/// Saves the result and proves it, unless the run was stopped or diverged.
fn conclude(
    config: &Run,
    prepared: Prepared,
    checkpoints: &Checkpoints,
    before: Before,
    mut finished: Finished,
) -> Result<Finished, Error> {
    let outcome = finished.outcome;
    match outcome.stopped {
        Some(Stopped::Asked) => return Ok(finished),
        Some(Stopped::Diverged) => {
            let last_good = checkpoints.newest().ok().flatten().map(|f| f.folder);
            return Err(Error::Diverged { step: outcome.step, last_good });
        }
        Some(Stopped::Patience) | None => {}
    }
    let Prepared { mut session, base, storage, task, .. } = prepared;
    let last = session.t;
    let best = outcome.best.filter(|(step, _)| *step != last);
    let mut memory = outcome.eval.filter(|(step, _)| *step == last).map(|(_, loss)| loss);
    if let Some((step, loss)) = best {
        let folder = checkpoints.at(step);
        checkpoints.verify(&folder)?;
        checkpoints.restore_tensors(&folder, &mut session)?;
        if config.train.best {
            memory = Some(loss);
        } else {
            if let Some(adapter) = &session.adapter {
                let folder = config.output.join("best");
                save_adapter(&folder, adapter, &session.model, &finished.base)?;
                task.write_for(&folder)?;
            }
            checkpoints.restore_tensors(&checkpoints.at(last), &mut session)?;
        }
    }
    let result = save(&config.output, &session, &base, &task, &mut finished)?;
    let mut proof = before.prove(session, &base, storage, &result, memory)?;
    let counts = finished.report.labels.as_ref().and_then(|l| l.eval.as_ref().or(Some(&l.train)));
    proof.majority = counts.filter(|c| c.values.is_none() && !task.multi_label).map(|c| c.majority);
    finished.loss_after = Some(proof.after.loss);
    finished.perplexity_after = Some(proof.after.perplexity);
    finished.proof = Some(proof);
    Ok(finished)
}

fn save(
    output: &Path,
    session: &Session,
    base: &crate::base::Base,
    task: &TaskFile,
    finished: &mut Finished,
) -> Result<PathBuf, Error> {
    if let Some(adapter) = &session.adapter {
        let folder = output.join("adapter");
        save_adapter(&folder, adapter, &session.model, &finished.base)?;
        task.write_for(&folder)?;
        finished.adapter = Some(folder.clone());
        return Ok(folder);
    }
    let folder = output.join("model");
    save_model(&folder, base, &session.model)?;
    finished.model = Some(folder.clone());
    Ok(folder)
}

/// Writes every event as a line, counts, and stops the run when the user asks.
#[derive(Debug)]
struct Recorder {
    path: PathBuf,
    file: File,
    failed: Option<std::io::Error>,
    tokens: usize,
    seconds: f64,
}

impl Recorder {
    /// Begins `path`, or goes on with it after the events up to `resumed_from`.
    fn open(path: &Path, resumed_from: Option<u64>) -> Result<Self, Error> {
        let mut kept = String::new();
        if let (Some(step), true) = (resumed_from, path.is_file()) {
            let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
            // A line that was cut by a crash is no JSON; events of steps that are done again come again.
            let is_past = |line: &&str| {
                serde_json::from_str::<serde_json::Value>(line)
                    .is_ok_and(|v| v["step"].as_u64().is_none_or(|s| s <= step))
            };
            for line in text.lines().filter(is_past) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        write_text(path, &kept)?;
        let file = File::options().append(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.into(), file, failed: None, tokens: 0, seconds: 0.0 })
    }

    /// Tokens and seconds of all steps.
    fn finish(self) -> Result<(usize, f64), Error> {
        match self.failed {
            Some(source) => Err(Error::Io { action: "write", path: self.path, source }),
            None => Ok((self.tokens, self.seconds)),
        }
    }
}

impl Observer for Recorder {
    fn on(&mut self, event: &Event) -> Flow {
        let mut line = serde_json::to_string(event).expect("plain data with text keys");
        line.push('\n');
        // One call a line, straight to the file: a line is whole for whoever follows it.
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            self.failed.get_or_insert(error);
        }
        if let Event::Step { all_tokens, seconds, .. } = event {
            self.tokens += all_tokens;
            self.seconds += seconds;
        }
        let stop = self.failed.is_some() || interrupt::requested();
        if stop { Flow::Stop } else { Flow::Continue }
    }
}
