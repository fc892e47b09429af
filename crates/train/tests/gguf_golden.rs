//! A GGUF file in every type that we read, written by llama.cpp's package, against transformers' Llama over the decoded
//! weights: names, row order of q and k, blocks and header all have to be right.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::Training;
use luthier_models::Run;
use luthier_tensor::{DType, Tape};
use luthier_testkit::golden::{Golden, largest_difference};
use luthier_train::Base;
use std::path::Path;
use std::sync::Arc;

#[test]
fn every_type_gives_transformers_logits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden/gguf");
    let golden = Golden::open(&folder.join("golden.safetensors"));
    let base = Base::open(&folder.join("mixed.gguf")).unwrap();
    assert_eq!(base.family.model_type, "llama");
    let (context, rows, targets) = golden.batch();
    let run = Run { context: Arc::new(context), adapters: Vec::new(), recompute: false };
    // As they are: blocks are multiplied without decoding the whole weight. F32: decoded first.
    for storage in [None, Some(DType::F32)] {
        let model = base.load(DType::F32, storage, &|_| Training::Frozen).unwrap();
        let hidden = model.hidden(&Tape::off(), &run);
        let difference = largest_difference(&model.logits(hidden.value(), &run), golden.get("logits"));
        assert!(difference < 1e-4, "held as {storage:?}: logits differ by {difference:e}");
        let loss = model.loss(&Tape::off(), &run, &rows, &targets).sum.value().item() / rows.len() as f64;
        assert!((loss - golden.get("loss").item()).abs() < 1e-4, "held as {storage:?}: loss {loss}");
    }
}
