//! Times training steps, as JSON: the other side of `bench/` scripts that time PyTorch and PEFT.
//!
//! `step [--method lora|full-ft] [--dtype bf16|f32] [--batch 4] [--seq 256] [--steps 5] [--threads 2] [--recompute]`
//! trains a random model of SmolLM2-135M's shape on random tokens, every one labelled. A step is forward, backward,
//! clipping and AdamW; the first is not counted.
#![allow(clippy::print_stdout)] // an example prints what it measured
use luthier_contract::{Adapter, BaseParam};
use luthier_data::{BatchSize, MicroLimit, Sample, Sampler};
use luthier_models::{Config, LoadOptions, Model, RandomSource, parse};
use luthier_objectives::lm::LanguageModelling;
use luthier_optim::{Schedule, Shape, adamw};
use luthier_tensor::{DType, Key, Stream};
use luthier_train::{Event, Flow, Limits, Observer, Outcome, Plan, Save, Session, train};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;

struct Watch {
    ms: Vec<f64>,
    loss: Vec<f64>,
    tokens: usize,
}

impl Observer for Watch {
    fn on(&mut self, event: &Event) -> Flow {
        if let Event::Step { step, loss, all_tokens, seconds, .. } = event {
            self.loss.push(*loss);
            if *step > 1 {
                self.ms.push(seconds * 1e3);
                self.tokens += all_tokens;
            }
        }
        Flow::Continue
    }
}

struct NoSave;

impl Save for NoSave {
    type Error = Infallible;
    fn save(&mut self, _: &Session, _: &Outcome) -> Result<String, Infallible> {
        Ok(String::new())
    }
}

fn main() {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let get = |name: &str, default: &str| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|i| arguments.get(i + 1)).map_or_else(|| default.to_string(), Clone::clone)
    };
    let number = |name: &str, default: &str| get(name, default).parse::<usize>().expect("a whole number");
    let threads = number("--threads", "2");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
    let dtype = if get("--dtype", "bf16") == "f32" { DType::F32 } else { DType::Bf16 };
    let (batch, seq, steps) = (number("--batch", "4"), number("--seq", "256"), number("--steps", "5"));
    let id = get("--method", "lora");
    let recompute = arguments.iter().any(|a| a == "--recompute");
    let report = pool.install(|| {
        let mut session = session(&id, dtype, batch, seq, recompute);
        let mut watch = Watch { ms: Vec::new(), loss: Vec::new(), tokens: 0 };
        luthier_tensor::reset_peak();
        let plan = Plan { steps: steps as u64 + 1, eval_every: None, save_every: None, patience: None };
        train(&mut session, &plan, Outcome::default(), &mut NoSave, &mut [&mut watch]).expect("nothing is saved");
        let seconds = watch.ms.iter().sum::<f64>() / 1e3;
        let p = luthier_tensor::peak();
        json!({
            "method": id, "dtype": dtype.to_string(), "trainable": session.trainable_parameters(), "ms": watch.ms,
            "tokens_per_s": watch.tokens as f64 / seconds, "loss": watch.loss,
            "peak_rss_mb": luthier_platform::memory::peak_rss().map(|b| b >> 20),
            "peak_bytes": { "base": p.base, "adapter": p.adapter, "gradient": p.gradient, "optimizer": p.optimizer,
                            "activation": p.activation, "workspace": p.workspace, "total": p.total },
        })
    });
    println!("{report}");
}

fn session(id: &str, dtype: DType, batch: usize, seq: usize, recompute: bool) -> Session {
    let config = Config(json!({
        "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true,
    }));
    let spec = parse(&config).expect("a Llama's config");
    let method = (luthier_methods::find(id).expect("a ready method").configure)(json!({})).expect("defaults");
    let trains = |p: &BaseParam| method.trains(p);
    let source = RandomSource { seed: 0, std: 0.02, dtype };
    let options = LoadOptions { compute: dtype, storage: None, trains: &trains };
    let model = Model::load(spec.clone(), &source, &options).expect("random weights fit");
    let weight = |site: &luthier_contract::Site| model.weight(site, DType::F32);
    let adapter = Arc::new(Adapter::init(method.clone(), &spec.sites(), 0, DType::F32, &weight));
    let chain = adamw([0.9, 0.999], 1e-8, 0.01, Some(1.0));
    let trained = adapter.trainable().into_iter().chain(model.trained().iter().map(|(_, p)| p.clone()));
    let leaves = trained.map(|p| chain.leaf(p)).collect();
    let key = Key::new(1, Stream::Test);
    let sample = |row: u64| Sample {
        tokens: (0..seq as u64).map(|i| key.bits(row, i) % 49152).collect(),
        labelled: (0..seq).map(|i| i > 0).collect(),
        ..Sample::default()
    };
    let samples = (0..batch as u64).map(sample).collect::<Vec<_>>();
    let sampler = Sampler::new(&samples, BatchSize::Samples(batch), 0);
    let limits = Limits { micro: MicroLimit { samples: None, tokens: None }, recompute };
    let schedule = Schedule { peak: 1e-4, warmup: 0, steps: 1, shape: Shape::Constant, floor: 0.0 };
    let objective = Box::new(LanguageModelling);
    Session {
        model,
        adapter: Some(adapter),
        objective,
        chain,
        schedule,
        leaves,
        samples,
        held_out: Vec::new(),
        sampler,
        t: 0,
        seed: 0,
        limits,
    }
}
