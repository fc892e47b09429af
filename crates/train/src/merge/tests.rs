//! Merged models, opened again from disk, against adapted ones.
use super::{MergeError, MergeFormat, Source, merge, write_folder};
use crate::base::Base;
use luthier_contract::{Adapter, Context, Method, Segments};
use luthier_data::Tokenizer;
use luthier_models::{Applied, Config, LoadOptions, Model, RandomSource, Run, parse};
use luthier_storage::{Declared, Encoding, pt_metadata, write_safetensors};
use luthier_tensor::{DType, Key, Stream, Tape, Tensor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TOKENIZER: &[u8] = include_bytes!("../../../data/golden/bytes.tokenizer.json");

/// A base with random weights and a real tokenizer; 64 columns are two whole blocks.
fn base(folder: &Path, family: &str, tied: bool) -> Base {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
    let names = json!({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": "{{ messages[0].content }}"});
    std::fs::write(folder.join("tokenizer_config.json"), names.to_string()).unwrap();
    let vocab = Tokenizer::from_folder(folder).unwrap().vocab() + 2;
    let config = json!({
        "model_type": family, "vocab_size": vocab, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "rope_theta": 10000.0, "tie_word_embeddings": tied,
        "torch_dtype": "float32", "auto_map": {"AutoModel": "code.py"},
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let source = RandomSource { seed: 5, std: 0.15, dtype: DType::F32 };
    let spec = parse(&Config(config)).unwrap();
    let model = Model::load(spec, &source, &LoadOptions::frozen(DType::F32)).unwrap();
    let mut tensors = Vec::new();
    let mut keep = |p: &luthier_contract::BaseParam, t: &Tensor| -> Result<(), ()> {
        tensors.push((Declared::new(p.name.clone(), Encoding::F32, p.shape.clone()), t.clone()));
        Ok(())
    };
    model.each_tensor(DType::F32, &mut keep).unwrap();
    let declared = tensors.iter().map(|t| t.0.clone()).collect::<Vec<_>>();
    let path = folder.join("model.safetensors");
    write_safetensors::<luthier_storage::Error>(&path, &pt_metadata(), &declared, |d, sink| {
        sink.write_tensor(&tensors.iter().find(|t| t.0.name == d.name).unwrap().1)
    })
    .unwrap();
    Base::open(folder).unwrap()
}

fn lora(settings: Value) -> Arc<dyn Method> {
    (luthier_methods::find("lora").unwrap().configure)(settings).unwrap()
}

/// The base's model, and an adapter in which nothing is zero.
fn adapted(base: &Base, method: &Arc<dyn Method>) -> (Model, Vec<Applied>) {
    let model = base.load(DType::F32, None, &|p| method.trains(p)).unwrap();
    let weight = |site: &luthier_contract::Site| model.weight(site, DType::F32);
    let adapter = Adapter::init(method.clone(), &base.spec.sites(), 3, DType::F32, &weight);
    let key = Key::new(9, Stream::Test);
    let trained = model.trained().iter().map(|(_, p)| p.clone());
    for param in adapter.trainable().into_iter().chain(trained) {
        let (old, key) = (param.value(), key.at(param.name()));
        let moved = old.to_f64_vec().into_iter().enumerate();
        let moved = moved.map(|(i, v)| v + 0.05 * key.normal(0, i as u64)).collect::<Vec<_>>();
        param.set(Tensor::from_f64(old.shape(), &moved, old.dtype(), old.account()));
    }
    (model, vec![Applied::to_all(Arc::new(adapter))])
}

fn logits(model: &Model, adapters: &[Applied]) -> Vec<f64> {
    let tokens = (0..20).map(|i| i * 37 % 200).collect::<Vec<u32>>();
    let context = Arc::new(Context::eval(tokens, Segments::new(vec![0, 13, 20])));
    let run = Run { context, adapters: adapters.to_vec(), recompute: false };
    let hidden = model.hidden(&Tape::off(), &run);
    model.logits(hidden.value(), &run).to_f64_vec()
}

/// Logits of what is on disk.
fn reopened(path: &Path) -> Vec<f64> {
    logits(
        &Base::open(path).unwrap().load(DType::F32, None, &|_| luthier_contract::Training::Frozen).unwrap(),
        &[],
    )
}

/// The largest difference, relative to the largest value.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
        / largest
}

fn near(what: &str, path: &Path, expected: &[f64], tolerance: f64) {
    let distance = distance(expected, &reopened(path));
    assert!(distance < tolerance, "{what}: {distance:e}");
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

#[test]
fn merged_models_give_the_adapted_logits() {
    let dir = tempfile::tempdir().unwrap();
    let all = json!({"rank": 4, "alpha": 8.0, "targets": "all-linear"});
    let head = json!({"rank": 2, "alpha": 4.0, "targets": ["q", "lm_head"]});
    let saved = json!({"rank": 2, "alpha": 4.0, "targets": ["v"], "modules_to_save": ["lm_head"]});
    for (i, (family, tied, settings, untied)) in [
        ("llama", false, &all, false),
        ("llama", true, &all, false),
        ("llama", true, &head, true),
        ("llama", true, &saved, true),
        ("qwen2", false, &all, false),
    ]
    .into_iter()
    .enumerate()
    {
        let what = format!("{family}, tied {tied}, {settings}");
        let base = base(&dir.path().join(format!("base{i}")), family, tied);
        let (model, adapters) = adapted(&base, &lora(settings.clone()));
        let expected = logits(&model, &adapters);
        let plain = reopened(&base.path);
        assert!(distance(&expected, &plain) > 0.05, "{what}: the adapter does something");
        let out = |name: &str| dir.path().join(format!("{name}{i}"));

        let folder = out("hf");
        let merged = merge(&base, &model, &adapters, &folder, MergeFormat::HuggingFace, false).unwrap();
        assert_eq!((merged.untied, merged.dequantised, merged.encoding.as_str()), (untied, false, "F32"));
        near(&what, &folder, &expected, 1e-5);
        assert_eq!(config(&folder)["tie_word_embeddings"], tied && !untied, "{what}");
        assert!(config(&folder).get("auto_map").is_none());

        for (name, format, tolerance) in
            [("f16", MergeFormat::GgufF16, 3e-3), ("q8", MergeFormat::GgufQ8, 0.06)]
        {
            let file = out(name).with_extension("gguf");
            merge(&base, &model, &adapters, &file, format, false).unwrap();
            near(&format!("{what}, {name}"), &file, &expected, tolerance);
        }
    }
}

#[test]
fn a_gguf_holds_tokenizer_and_template_and_goes_back_to_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), "llama", true);
    let (model, adapters) = adapted(&base, &lora(json!({"rank": 4, "alpha": 8.0, "targets": "all-linear"})));
    let text = "größe 12 <|im_start|>user";
    for (name, format, encoding) in [("a", MergeFormat::GgufF16, "F16"), ("b", MergeFormat::GgufQ8, "BF16")] {
        let (file, folder) = (dir.path().join(name).with_extension("gguf"), dir.path().join(name));
        merge(&base, &model, &adapters, &file, format, false).unwrap();
        let again = Base::open(&file).unwrap();
        assert_eq!(again.tokenizer.encode(text).unwrap(), base.tokenizer.encode(text).unwrap());
        assert_eq!(again.tokenizer.stops(), base.tokenizer.stops());
        assert_eq!(again.tokenizer.template(), base.tokenizer.template());
        assert_eq!(again.spec.positions, base.spec.positions);

        let model = again.load(DType::F32, None, &|_| luthier_contract::Training::Frozen).unwrap();
        let merged = merge(&again, &model, &[], &folder, MergeFormat::HuggingFace, false).unwrap();
        assert_eq!((merged.encoding.as_str(), merged.dequantised), (encoding, name == "b"));
        near(name, &folder, &logits(&model, &[]), if name == "b" { 0.03 } else { 1e-5 });
        let settings = std::fs::read(folder.join("generation_config.json")).unwrap();
        let settings = serde_json::from_slice::<Value>(&settings).unwrap();
        assert_eq!(settings["eos_token_id"], json!(base.tokenizer.special().eos));
        let folder = Base::open(&folder).unwrap();
        assert_eq!(folder.tokenizer.encode(text).unwrap(), base.tokenizer.encode(text).unwrap());

        // A GGUF from a GGUF keeps what the first one says, but for its type.
        let second = dir.path().join(format!("{name}2.gguf"));
        merge(&again, &model, &[], &second, MergeFormat::GgufF16, false).unwrap();
        near(name, &second, &logits(&model, &[]), 3e-3);
        let kept = Base::open(&second).unwrap();
        let (old, new) = (again.files.gguf().unwrap(), kept.files.gguf().unwrap());
        assert_eq!(new.get("general.file_type").and_then(luthier_storage::gguf::Value::as_u64), Some(1));
        for (key, value) in new.iter().filter(|(k, _)| !k.starts_with("general.file")) {
            assert_eq!(old.get(key), Some(value), "{key}");
        }
    }
}

#[test]
fn llama_3_s_rotary_factors_come_back_from_a_gguf() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("base");
    base(&folder, "llama", true);
    let mut settings = config(&folder);
    settings["rope_theta"] = json!(500_000.0);
    settings["rope_scaling"] = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    std::fs::write(folder.join("config.json"), settings.to_string()).unwrap();
    let base = Base::open(&folder).unwrap();
    let model = base.load(DType::F32, None, &|_| luthier_contract::Training::Frozen).unwrap();
    let file = dir.path().join("a.gguf");
    merge(&base, &model, &[], &file, MergeFormat::GgufF16, false).unwrap();
    let again = Base::open(&file).unwrap();
    assert!(again.files.contains("rope_freqs.weight"));
    assert_eq!(again.spec.rope(), base.spec.rope());
    near("factors", &file, &logits(&model, &[]), 3e-3);
}

#[test]
fn large_models_are_cut_into_files_with_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), "llama", false);
    let (model, adapters) = adapted(&base, &lora(json!({"rank": 2, "alpha": 4.0, "targets": ["q", "v"]})));
    let out = dir.path().join("out");
    write_folder(&Source::new(&base, &model, &adapters).unwrap(), &out, 60_000).unwrap();
    let files = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let shards = files.filter(|n| n.starts_with("model-")).count();
    assert!(shards > 3, "{shards}");
    assert!(!out.join("model.safetensors").exists());
    near("sharded", &out, &logits(&model, &adapters), 1e-5);
}

#[test]
fn what_exists_stays_and_what_cannot_merge_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(&dir.path().join("base"), "llama", false);
    let (model, adapters) = adapted(&base, &lora(json!({"rank": 2, "alpha": 4.0, "targets": ["q"]})));
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("notes.txt"), "mine").unwrap();
    let go =
        |out: &PathBuf, overwrite| merge(&base, &model, &adapters, out, MergeFormat::HuggingFace, overwrite);
    assert!(matches!(go(&taken, false), Err(MergeError::Exists { .. })));
    assert!(taken.join("notes.txt").exists());
    go(&taken, true).unwrap();
    assert!(!taken.join("notes.txt").exists() && taken.join("model.safetensors").exists());

    let settings = json!({"rank": 2, "alpha": 4.0, "targets": ["q"], "update_bias": true});
    let (model, adapters) = adapted(&base, &lora(settings));
    let out = dir.path().join("none");
    let refused = merge(&base, &model, &adapters, &out, MergeFormat::HuggingFace, false).unwrap_err();
    assert!(matches!(refused, MergeError::Unmergeable(_)));
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2, "nothing but the base and the first output");
}
