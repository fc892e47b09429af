//! LoRA against PEFT: adapters that PEFT saved, in every combination of options, give PEFT's logits, loss, gradients
//! and merged weights.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::{Adapter, BaseParam};
use luthier_models::{Applied, LoadOptions, Model, Run, parse};
use luthier_tensor::{DType, ParamId, Tape, Tensor, to_dtype};
use luthier_testkit::golden::{Golden, config, largest_difference};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("lora")
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
    let weight =
        |_: &luthier_contract::Site| -> Tensor { unreachable!("LoRA's first values do not read the base") };
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
    assert_eq!(compared, slots.len(), "{}", what("gradients"));

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
    assert_eq!(slots.iter().map(|(_, p)| p.value().numel()).sum::<usize>().to_string(), trainable(folder));
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

#[test]
fn every_option_is_peft_s() {
    let mut folders = std::fs::read_dir(goldens()).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    folders.retain(|p| p.join("adapter_config.json").exists());
    folders.sort();
    assert!(folders.len() >= 10);
    for folder in folders {
        compare(&folder, DType::F64, 1e-5);
        compare(&folder, DType::F32, 1e-4);
    }
}
