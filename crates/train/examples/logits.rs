//! Logits of sequences of token ids, in f32: what `bench/peft_interop.py compare` holds against PEFT's.
//!
//! `cargo run --release --package luthier-train --example logits -- BASE TOKENS.json OUT.safetensors [ADAPTER]`
//!
//! TOKENS.json is a list of lists of ids; OUT holds `logits.<i> [n, vocab]`.
use luthier_contract::{Context, Segments};
use luthier_models::Run;
use luthier_storage::{Declared, Encoding, pt_metadata, write_safetensors};
use luthier_tensor::{DType, Tape, Tensor};
use luthier_train::{Base, open_adapted};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let (base, tokens, out, adapter) = match arguments.as_slice() {
        [base, tokens, out] => (base, tokens, out, None),
        [base, tokens, out, adapter] => (base, tokens, out, Some(Path::new(adapter))),
        _ => return Err("usage: logits BASE TOKENS.json OUT.safetensors [ADAPTER]".into()),
    };
    let rows: Vec<Vec<u32>> = serde_json::from_slice(&std::fs::read(tokens)?)?;
    let base = Base::open(Path::new(base))?;
    let (model, adapters) = open_adapted(&base, adapter, DType::F32, Some(DType::F32))?;
    let logits = |row: &Vec<u32>| {
        let context = Arc::new(Context::eval(row.clone(), Segments::one(row.len())));
        let run = Run { context, adapters: adapters.clone(), recompute: false };
        model.logits(model.hidden(&Tape::off(), &run).value(), &run)
    };
    let all: Vec<Tensor> = rows.iter().map(logits).collect();
    let declare = |(i, t): (usize, &Tensor)| Declared::new(format!("logits.{i}"), Encoding::F32, t.shape());
    let declared: Vec<Declared> = all.iter().enumerate().map(declare).collect();
    let find = |name: &str| declared.iter().position(|d| d.name == name).expect("one of the above");
    write_safetensors::<luthier_storage::Error>(Path::new(out), &pt_metadata(), &declared, |d, sink| {
        sink.write_tensor(&all[find(&d.name)])
    })?;
    Ok(())
}
