//! A tiny session in memory, and the embedded base with a small configuration on disk.
use luthier_config::Run;
use luthier_contract::{Adapter, Method};
use luthier_data::{BatchSize, MicroLimit, Sample, Sampler};
use luthier_models::{LoadOptions, Model, RandomSource};
use luthier_objectives::lm::LanguageModelling;
use luthier_optim::{Schedule, Shape, adamw};
use luthier_tensor::DType;
use luthier_train::{Checkpoints, Event, Facts, Flow, Judging, Limits, Observer, Session};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Samples of a step: with eleven samples, steps end in the middle of an epoch and at its short end.
pub(crate) const SIZE: BatchSize = BatchSize::Samples(3);

pub(crate) fn lora() -> Arc<dyn Method> {
    let table =
        serde_json::json!({ "rank": 2, "alpha": 3.0, "dropout": 0.25, "modules_to_save": ["lm_head"] });
    (luthier_methods::find("lora").unwrap().configure)(table).unwrap()
}

pub(crate) fn configured(id: &str, table: serde_json::Value) -> Arc<dyn Method> {
    (luthier_methods::find(id).unwrap().configure)(table).unwrap()
}

pub(crate) fn full(master: &str) -> Arc<dyn Method> {
    (luthier_methods::find("full-ft").unwrap().configure)(serde_json::json!({ "master": master })).unwrap()
}

/// A session at step 0, always the same for the same arguments.
pub(crate) fn session(method: &Arc<dyn Method>, compute: DType, micro: Option<usize>) -> Session {
    let spec = luthier_testkit::spec(0);
    let vocab = spec.vocab as u32;
    let (sites, source) = (spec.sites(), RandomSource { seed: 5, std: 0.3, dtype: DType::Bf16 });
    let trains = |p: &luthier_contract::BaseParam| method.trains(p);
    let model = Model::load(spec, &source, &LoadOptions { compute, storage: None, trains: &trains }).unwrap();
    let weight = |site: &luthier_contract::Site| model.weight(site, DType::F32);
    let adapter = Adapter::init(method.clone(), &sites, 7, compute.accumulator(), &weight);
    let adds = adapter.sites().next().is_some();
    let adapter = adds.then(|| Arc::new(adapter));
    let chain = adamw([0.9, 0.999], 1e-8, 0.01, Some(1.0));
    let leaves = luthier_train::leaves(&chain, method.as_ref(), adapter.as_deref(), &model);
    let sample = |i: u32| {
        let n = 3 + i % 5;
        let tokens = (0..n).map(|j| (i * 7 + j * 3) % vocab).collect::<Vec<_>>();
        Sample { labelled: (0..n).map(|j| j > 0 && j % 3 != 2).collect(), tokens, ..Sample::default() }
    };
    let samples = (0..11).map(sample).collect::<Vec<_>>();
    let sampler = Sampler::new(&samples, SIZE, 3);
    Session {
        model,
        adapter,
        objective: Box::new(LanguageModelling),
        estimator: luthier_train::estimator(method.update()),
        chain,
        schedule: Schedule { peak: 0.02, warmup: 1, steps: 6, shape: Shape::Cosine, floor: 0.0 },
        leaves,
        samples,
        held_out: (20..24).map(sample).collect(),
        sampler,
        t: 0,
        seed: 3,
        limits: Limits { micro: MicroLimit { samples: micro, tokens: None }, recompute: false },
        judging: Judging::default(),
    }
}

/// Everything that a run has changed, as bytes.
pub(crate) fn state(session: &Session) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for leaf in &session.leaves {
        all.insert(leaf.param.name().to_string(), leaf.param.value().bytes().to_vec());
        for (i, (_, slot)) in leaf.slots.iter().enumerate() {
            all.insert(format!("{}#{i}", leaf.param.name()), slot.bytes().to_vec());
        }
    }
    all
}

pub(crate) fn checkpoints(folder: &Path, keep: usize) -> Checkpoints {
    Checkpoints::new(folder.to_owned(), keep, SIZE, Facts::default())
}

/// Remembers all events, and stops after a step.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) events: Vec<Event>,
    pub(crate) stop_after: Option<u64>,
}

impl Observer for Watch {
    fn on(&mut self, event: &Event) -> Flow {
        self.events.push(event.clone());
        match event {
            Event::Step { step, .. } if Some(*step) == self.stop_after => Flow::Stop,
            _ => Flow::Continue,
        }
    }
}

impl Watch {
    /// Steps with their losses.
    pub(crate) fn losses(&self) -> Vec<(u64, f64)> {
        let step = |e: &Event| match e {
            Event::Step { step, loss, .. } => Some((*step, *loss)),
            _ => None,
        };
        self.events.iter().filter_map(step).collect()
    }

    pub(crate) fn notes(&self) -> String {
        let note = |e: &Event| match e {
            Event::Note { message } => Some(message.clone()),
            _ => None,
        };
        self.events.iter().filter_map(note).collect::<Vec<_>>().join("\n")
    }
}

pub(crate) fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

/// A run of six steps of the embedded base in `folder`, with `more` overrides.
pub(crate) fn config(folder: &Path, method: &str, more: &[&str]) -> Run {
    let rows =
        (0..14).map(|i| format!("{{\"text\": \"The {i} cats sat and Alice looked at {i} of them.\"}}\n"));
    let (data, base) = (folder.join("data.jsonl"), assets().join("glass-en"));
    if !data.exists() {
        std::fs::write(&data, rows.collect::<String>()).unwrap();
    }
    let text = format!(
        "base = '{}'\noutput = \"out\"\nseed = 3\ncompute = \"f32\"\nthreads = 1\n{method}\n\
         [data]\ntrain = \"data.jsonl\"\neval = 0.3\nloss = \"all\"\nmax_tokens = 32\n\
         [optimizer.adamw]\nlr = 1e-3\n[train]\nsteps = 6\nbatch = 4\nsave_every = 2\neval_every = 3\n",
        base.display()
    );
    let overrides = more.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
    let raw = luthier_config::RawConfig::parse("run.toml", &text, &overrides, &["lora", "full-ft"]).unwrap();
    raw.resolve(folder).unwrap()
}

pub(crate) const LORA: &str = "[method.lora]\nrank = 2\ndropout = 0.1";
