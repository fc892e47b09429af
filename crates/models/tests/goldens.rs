//! Every family against transformers: logits, loss and gradients of a tiny random model, from both spellings of its
//! config. The golden's values are f32, so that f64 agrees to its rounding and f32 to 1e-4.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::{Master, Training};
use luthier_models::{LoadOptions, Model, Run, parse};
use luthier_tensor::{DType, ParamId, Tape, Tensor};
use luthier_testkit::golden::{Golden, config, largest_difference};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn variants(family: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(family);
    let all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    let mut all = all.filter(|p| p.join("golden.safetensors").exists()).collect::<Vec<_>>();
    all.sort();
    assert!(!all.is_empty(), "{family} has goldens");
    all
}

fn check(family: &str) {
    for folder in variants(family) {
        for spelling in
            ["config.json", "config.old.json"].iter().map(|n| folder.join(n)).filter(|p| p.exists())
        {
            for (dtype, tolerance) in [(DType::F64, 1e-5), (DType::F32, 1e-4)] {
                compare(&folder, &spelling, dtype, tolerance);
            }
        }
    }
}

fn compare(folder: &Path, spelling: &Path, dtype: DType, tolerance: f64) {
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let weights = Golden::open(folder);
    let what = |part: &str| format!("{} {dtype}: {part}", spelling.display());
    let options = LoadOptions { compute: dtype, storage: None, trains: &|_| Training::Trained(Master::F32) };
    let spec = parse(&config(spelling)).unwrap_or_else(|e| panic!("{}: {e}", spelling.display()));
    let model = Model::load(spec, &weights, &options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let (context, rows, targets) = golden.batch();
    let run = Run { context: Arc::new(context), adapters: Vec::new(), recompute: false };
    let near = |part: &str, ours: &Tensor, theirs: &Tensor| {
        let difference = largest_difference(ours, theirs);
        assert!(difference < tolerance, "{}", what(&format!("{part} differs by {difference:e}")));
    };

    let hidden = model.hidden(&Tape::off(), &run);
    near("hidden", hidden.value(), golden.get("hidden.final"));
    near("logits", &model.logits(hidden.value(), &run), golden.get("logits"));

    let tape = Tape::new();
    let loss = model.loss(&tape, &run, &rows, &targets);
    let mean = loss.sum.value().item() / rows.len() as f64;
    assert!((mean - golden.get("loss").item()).abs() < tolerance, "{}", what("loss"));
    let mut gradients = BTreeMap::<ParamId, Tensor>::new();
    tape.backward(loss.sum, 1.0 / rows.len() as f64, &mut gradients);
    let mut compared = 0;
    for (name, theirs) in golden.with_prefix("grad.") {
        let (_, param) =
            model.trained().iter().find(|(p, _)| p.name == name).expect("the golden's weight trains");
        near(name, &gradients[&param.id()], theirs);
        compared += 1;
    }
    assert!(compared >= 4, "the golden has gradients");
}

#[test]
fn llama() {
    check("llama");
}

#[test]
fn mistral() {
    check("mistral");
}

#[test]
fn qwen2() {
    check("qwen2");
}

#[test]
fn qwen3() {
    check("qwen3");
}
