//! Methods against PEFT: adapters that PEFT saved, in combinations of options, give PEFT's logits, loss, gradients and
//! merged weights; AdaLoRA's schedule gives PEFT's ranks.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::{Adapter, BaseParam};
use luthier_models::{Applied, LoadOptions, Model, Run, parse};
use luthier_tensor::{DType, ParamId, Tape, Tensor, to_dtype};
use luthier_testkit::golden::{Golden, config, largest_difference};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn goldens(id: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(id)
}

/// The script's own choice: cases about biases need a base that has some.
fn base_folder(golden: &Path) -> PathBuf {
    let name = golden.file_name().and_then(|n| n.to_str()).unwrap();
    let variant = if name.contains("bias") { "bias" } else { "default" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden/llama").join(variant)
}

fn compare(folder: &Path, dtype: DType, tolerance: f64) {
    let what = |part: &str| format!("{} {dtype}: {part}", folder.display());
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let file = luthier_methods::read_config(&serde_json::from_str(&text).unwrap()).unwrap();
    let (golden, tensors) = (
        Golden::open(&folder.join("golden.safetensors")),
        Golden::open(&folder.join("adapter_model.safetensors")),
    );
    let base = base_folder(folder);
    let spec = parse(&config(&base.join("config.json"))).unwrap();
    let method = file.method.clone();
    method.check(&spec.sites(), &spec.base_params()).unwrap();
    let trains = |p: &BaseParam| method.trains(p);
    let options = LoadOptions { compute: dtype, storage: None, trains: &trains };
    let model = Model::load(spec.clone(), &Golden::open(&base), &options).unwrap();
    let weight = |site: &luthier_contract::Site| model.weight(site, dtype.accumulator());
    let adapter = Arc::new(Adapter::init(method.clone(), &spec.sites(), 0, dtype.accumulator(), &weight));
    let (context, rows, targets) = golden.batch();
    let run = Run {
        context: Arc::new(context),
        adapters: vec![Applied::to_all(adapter.clone())],
        recompute: false,
    };
    let logits = || {
        let hidden = model.hidden(&Tape::off(), &run);
        model.logits(hidden.value(), &run)
    };
    let near = |part: &str, ours: &Tensor, theirs: &Tensor| {
        let difference = largest_difference(ours, theirs);
        assert!(difference < tolerance, "{}", what(&format!("{part} differs by {difference:e}")));
    };
    near("logits at first values", &logits(), golden.get("fresh.logits"));

    // PEFT's tensors, all of them and no others.
    let mut slots = adapter.saved();
    slots.extend(model.trained().iter().map(|(p, param)| (method.base_key(p), param.clone())));
    let mut ours = slots.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    ours.sort();
    let theirs = tensors.with_prefix("").map(|(name, _)| name.to_string()).collect::<Vec<_>>();
    assert_eq!(ours, theirs, "{}", what("keys"));
    for (key, param) in &slots {
        let value = param.value();
        param.set(to_dtype(tensors.get(key), value.dtype(), value.account()).reshape(value.shape()));
    }
    near("logits", &logits(), golden.get("logits"));

    let tape = Tape::new();
    let loss = model.loss(&tape, &run, &rows, &targets);
    assert!(
        (loss.sum.value().item() / rows.len() as f64 - golden.get("loss").item()).abs() < tolerance,
        "{}",
        what("loss")
    );
    let mut gradients = BTreeMap::<ParamId, Tensor>::new();
    tape.backward(loss.sum, 1.0 / rows.len() as f64, &mut gradients);
    let mut compared = 0;
    for (key, theirs) in golden.with_prefix("grad.") {
        let (_, param) = slots.iter().find(|(k, _)| k == key).expect("PEFT trains what we train");
        near(key, &gradients[&param.id()], theirs);
        compared += 1;
    }
    let mut trained = adapter.trainable();
    trained.extend(model.trained().iter().map(|(_, p)| p.clone()));
    assert_eq!(compared, trained.len(), "{}", what("gradients"));

    for (name, theirs) in golden.with_prefix("merged.") {
        let site = spec
            .sites()
            .into_iter()
            .find(|s| name == format!("{}.weight", s.module))
            .expect("a site's weight");
        let plain = model.weight(&site, dtype.accumulator());
        match method.merge(&site, &adapter.values(&site.path).expect("adapted"), &plain) {
            Ok(merged) => near(name, &merged, theirs),
            Err(reason) => assert!(folder.ends_with("lora-bias"), "{reason}"),
        }
    }

    // The counts agree, and what we would write names the same sites.
    assert_eq!(trained.iter().map(|p| p.value().numel()).sum::<usize>().to_string(), trainable(folder));
    let written = method.adapter_config("x", &spec.sites());
    let again = luthier_methods::read_config(&written).unwrap();
    for site in spec.sites() {
        let scope = luthier_contract::Scope::Site(&site);
        assert_eq!(
            again.method.count(scope),
            method.count(scope),
            "{} {}",
            what("rewritten config at"),
            site.path
        );
    }
}

fn trainable(folder: &Path) -> String {
    let text = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let length = u64::from_le_bytes(text[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&text[8..8 + length]).unwrap();
    header["__metadata__"]["trainable"].as_str().unwrap().to_string()
}

fn every(id: &str, least: usize) {
    let mut folders = std::fs::read_dir(goldens(id)).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    folders.retain(|p| p.join("adapter_config.json").exists());
    folders.sort();
    assert!(folders.len() >= least);
    for folder in folders {
        compare(&folder, DType::F64, 1e-5);
        compare(&folder, DType::F32, 1e-4);
    }
}

#[test]
fn every_option_of_lora_is_peft_s() {
    every("lora", 10);
}

#[test]
fn dora_is_peft_s() {
    every("dora", 2);
}

#[test]
fn vera_is_peft_s() {
    every("vera", 2);
}

#[test]
fn ia3_is_peft_s() {
    every("ia3", 2);
}

#[test]
fn adalora_is_peft_s() {
    every("adalora", 1);
}

/// The script's SETTINGS.
#[test]
fn adalora_s_schedule_is_peft_s() {
    let golden = Golden::open(&goldens("adalora").join("schedule/golden.safetensors"));
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden/llama/default");
    let spec = parse(&config(&base.join("config.json"))).unwrap();
    let method = (luthier_methods::find("adalora").unwrap().configure)(serde_json::json!({
        "rank": 4, "target_rank": 2, "alpha": 8.0, "start": 3, "finish": 6, "every": 2, "orthogonality": 0.1,
        "memory": [0.85, 0.8], "targets": ["q", "v"],
    }));
    let method = method.unwrap();
    let model = Model::load(spec.clone(), &Golden::open(&base), &LoadOptions::frozen(DType::F64)).unwrap();
    let weight = |site: &luthier_contract::Site| model.weight(site, DType::F64);
    let adapter = Arc::new(Adapter::init(method.clone(), &spec.sites(), 0, DType::F64, &weight));
    let saved = adapter.saved();
    for (key, param) in &saved {
        let value = to_dtype(golden.get(&format!("start.{key}")), DType::F64, param.value().account());
        param.set(value.reshape(param.value().shape()));
    }
    let (context, rows, targets) = golden.batch();
    let run = Run {
        context: Arc::new(context),
        adapters: vec![Applied::to_all(adapter.clone())],
        recompute: false,
    };
    let chain = luthier_optim::adamw([0.9, 0.999], 1e-8, 0.0, None);
    let mut leaves = adapter.trainable().into_iter().map(|p| chain.leaf(p)).collect::<Vec<_>>();
    let (losses, ranks) = (golden.get("losses").to_f64_vec(), golden.get("ranks").to_f64_vec());
    let mean = 1.0 / rows.len() as f64;
    for t in 0..20 {
        let mut sums = BTreeMap::<ParamId, Tensor>::new();
        let tape = Tape::new();
        let loss = model.loss(&tape, &run, &rows, &targets);
        let value = loss.sum.value().item() * mean;
        // Ours is f64, PEFT's f32: AdamW lifts rounding of 1e-7 by the root of a small second moment.
        assert!((value - losses[t]).abs() < 2e-3, "loss {t} is {value}, PEFT's {}", losses[t]);
        tape.backward(loss.sum, 1.0, &mut sums);
        let tape = Tape::new();
        let penalty = method.penalty(&tape, &adapter).unwrap();
        tape.backward(penalty, rows.len() as f64, &mut sums);
        let gradients = leaves.iter().map(|l| sums.remove(&l.param.id()).unwrap()).collect::<Vec<_>>();
        let step = luthier_optim::Step { t: t as u64, lr: 2e-2, seed: 0 };
        chain.update(&mut leaves, &gradients, mean, &step);
        let by_id = leaves.iter().map(|l| l.param.id()).zip(&gradients).collect::<BTreeMap<_, _>>();
        let gradient = |p: &luthier_tensor::Param| {
            Some(by_id.get(&p.id())?.to_f64_vec().into_iter().map(|g| g * mean).collect())
        };
        let done = luthier_contract::Done { t: t as u64 + 1, steps: 20, gradient: &gradient };
        method.after_step(&adapter, &done);
        let values = saved.iter().filter(|(key, _)| key.ends_with("lora_E"));
        let left = values.flat_map(|(_, p)| p.value().to_f64_vec()).filter(|e| *e != 0.0).count();
        assert_eq!(left as f64, ranks[t], "triplets after step {}", t + 1);
    }
    for (key, param) in &saved {
        let difference = largest_difference(&param.value(), golden.get(&format!("final.{key}")));
        assert!(difference < 2e-3, "{key} differs by {difference:e} after twenty steps");
    }
}
