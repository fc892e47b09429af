//! Full fine-tuning against PyTorch: three steps of AdamW with decay and clipping on a whole tiny model, with a head of its
//! own and with one that is the embedding.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::Method as _;
use luthier_methods::full::full_ft::FullFt;
use luthier_models::{LoadOptions, Model, Run, parse};
use luthier_optim::{Leaf, Step, adamw};
use luthier_tensor::{Account, DType, ParamId, Tape, Tensor};
use luthier_testkit::golden::{Golden, config, largest_difference};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The script's SETTINGS.
const LR: f64 = 1e-2;
const DECAY: f64 = 0.1;

fn follow(name: &str, dtype: DType, tolerance: f64) {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = Golden::open(&crate_folder.join("golden/full-ft").join(name).join("golden.safetensors"));
    let base = crate_folder.join("../models/golden/llama").join(name);
    let spec = parse(&config(&base.join("config.json"))).unwrap();
    let trains = |p: &_| FullFt::default().trains(p);
    let options = LoadOptions { compute: dtype, storage: None, trains: &trains };
    let model = Model::load(spec, &Golden::open(&base), &options).unwrap();
    let (context, rows, targets) = golden.batch();
    let run = Run { context: Arc::new(context), adapters: Vec::new(), recompute: false };
    let near = |part: &str, ours: f64, theirs: f64| {
        assert!((ours - theirs).abs() < tolerance, "{name} {dtype}: {part} is {ours}, torch's {theirs}");
    };

    let chain = adamw([0.9, 0.999], 1e-8, DECAY, Some(1.0));
    let mut leaves: Vec<Leaf> = model.trained().iter().map(|(_, p)| chain.leaf(p.clone())).collect();
    let (losses, norms) = (golden.get("losses").to_f64_vec(), golden.get("grad_norms").to_f64_vec());
    for (t, expected) in losses.iter().enumerate() {
        let tape = Tape::new();
        let loss = model.loss(&tape, &run, &rows, &targets);
        near(&format!("loss {t}"), loss.sum.value().item() / rows.len() as f64, *expected);
        let Some(norm) = norms.get(t) else { break };
        let mut gradients = BTreeMap::<ParamId, Tensor>::new();
        tape.backward(loss.sum, 1.0, &mut gradients);
        let gradients: Vec<Tensor> = leaves
            .iter()
            .map(|leaf| gradients.remove(&leaf.param.id()).expect("every weight trains"))
            .collect();
        let step = Step { t: t as u64, lr: LR, seed: 0 };
        near(
            &format!("norm {t}"),
            chain.update(&mut leaves, &gradients, 1.0 / rows.len() as f64, &step),
            *norm,
        );
    }

    let logits = model.logits(model.hidden(&Tape::off(), &run).value(), &run);
    near("largest difference of the logits", largest_difference(&logits, golden.get("final.logits")), 0.0);
    let mut compared = 0;
    for (weight, theirs) in golden.with_prefix("final.model.") {
        let (_, param) =
            model.trained().iter().find(|(p, _)| p.name == format!("model.{weight}")).expect("trained");
        near(weight, largest_difference(&param.value().copy(Account::Workspace), theirs), 0.0);
        compared += 1;
    }
    assert!(compared >= 5, "the golden has weights");
}

// Measured: 2e-5 on the logits. AdamW divides by the root of a tiny second moment, which lifts rounding of 1e-7.
#[test]
fn three_steps_are_torch_s() {
    for name in ["default", "tied"] {
        follow(name, DType::F64, 1e-4);
        follow(name, DType::F32, 1e-4);
    }
}
