//! A model as a Hugging Face folder: config, weights in shards, tokenizer.
use crate::adapter_file::write_text;
use crate::base::Base;
use crate::error::Error;
use crate::output::in_place_of;
use luthier_contract::BaseParam;
use luthier_models::Model;
use luthier_platform::fs::atomic_write;
use luthier_storage::{Declared, Encoding, pt_metadata, write_safetensors};
use luthier_tensor::{DType, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Largest shard, bytes: transformers' own bound for a long time, and below the 4 GiB of no file system in use.
const SHARD: usize = 5_000_000_000;

/// Puts a trained model at `dir`, in bf16.
pub fn save_model(dir: &Path, base: &Base, model: &Model) -> Result<(), Error> {
    write_model(dir, base, DType::Bf16, model.head_is_tied(), &mut |p| Ok(model.values(p, DType::F32)))
}

/// Puts a model at `dir`, whole or not at all: the base's config and tokenizer, and the tensors that `tensor` gives one
/// at a time, held as `dtype`. With `tied` the head is the embedding and is not written.
pub fn write_model(
    dir: &Path,
    base: &Base,
    dtype: DType,
    tied: bool,
    tensor: &mut dyn FnMut(&BaseParam) -> Result<Tensor, Error>,
) -> Result<(), Error> {
    write_model_in_shards(dir, base, dtype, tied, SHARD, tensor)
}

pub(crate) fn write_model_in_shards(
    dir: &Path,
    base: &Base,
    dtype: DType,
    tied: bool,
    limit: usize,
    tensor: &mut dyn FnMut(&BaseParam) -> Result<Tensor, Error>,
) -> Result<(), Error> {
    let all = base.spec.base_params();
    let params = all.iter().filter(|p| !(tied && p.tied_to.is_some())).collect::<Vec<_>>();
    let shards = shards(&params, dtype, limit);
    in_place_of(dir, |folder| {
        let mut index = Map::new();
        for (i, shard) in shards.iter().enumerate() {
            let file = match shards.len() {
                1 => "model.safetensors".to_string(),
                n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
            };
            let by_name = shard.iter().map(|p| (p.name.as_str(), *p)).collect::<BTreeMap<_, _>>();
            let declared = shard
                .iter()
                .map(|p| Declared::new(p.name.clone(), Encoding::from(dtype), p.shape.clone()))
                .collect::<Vec<_>>();
            write_safetensors::<Error>(&folder.join(&file), &pt_metadata(), &declared, |d, sink| {
                Ok(sink.write_tensor(&tensor(by_name[d.name.as_str()])?)?)
            })?;
            index.extend(shard.iter().map(|p| (p.name.clone(), json!(file))));
        }
        if shards.len() > 1 {
            let bytes = params.iter().map(|p| p.numel() * dtype.size()).sum::<usize>();
            let index = json!({ "metadata": { "total_size": bytes }, "weight_map": index });
            write_json(&folder.join("model.safetensors.index.json"), &index)?;
        }
        write_json(&folder.join("config.json"), &config(base, dtype, tied))?;
        for (name, content) in companions(base)? {
            let path = folder.join(name);
            atomic_write(&path, |file| file.write_all(&content)).map_err(Error::io("write", &path))?;
        }
        Ok(())
    })
}

fn write_json(path: &Path, value: &Value) -> Result<(), Error> {
    write_text(path, &format!("{value:#}\n"))
}

/// Parameters in order, a new shard wherever one would be larger than `limit` bytes.
fn shards<'a>(params: &[&'a BaseParam], dtype: DType, limit: usize) -> Vec<Vec<&'a BaseParam>> {
    let (mut shards, mut bytes) = (vec![Vec::new()], 0);
    for &param in params {
        let own = param.numel() * dtype.size();
        if bytes > 0 && bytes + own > limit {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += own;
        shards.last_mut().expect("there is always one").push(param);
    }
    shards
}

fn config(base: &Base, dtype: DType, tied: bool) -> Value {
    let mut config = base.config.0.clone();
    let name = match dtype {
        DType::Bf16 => "bfloat16",
        DType::F16 => "float16",
        _ => "float32",
    };
    if let Value::Object(map) = &mut config {
        // transformers 5 reads `dtype`, 4 reads `torch_dtype`; each takes the other's.
        for key in ["dtype", "torch_dtype"] {
            if key == "torch_dtype" || map.contains_key(key) {
                map.insert(key.into(), json!(name));
            }
        }
        if base.spec.head.kind.labels().is_none() {
            map.insert("tie_word_embeddings".into(), json!(tied));
        }
        map.remove("auto_map"); // the code that it names is not carried along
        map.remove("_name_or_path");
        describe_head(map, base);
    }
    config
}

/// Says in a config what class of transformers the folder holds, and how many labels it has.
pub(crate) fn describe_head(config: &mut Map<String, Value>, base: &Base) {
    let head = base.spec.head.kind;
    if head == base.family.own_head() && config.contains_key("architectures") && !base.family.encoder {
        return;
    }
    config.insert("architectures".into(), json!([base.family.architecture(head)]));
    let Some(labels) = head.labels() else { return };
    let named = config.get("id2label").and_then(Value::as_object).is_some_and(|names| names.len() == labels);
    if !named {
        // As transformers names labels that have no names.
        let name = |i: usize| format!("LABEL_{i}");
        let by_id = (0..labels).map(|i| (i.to_string(), json!(name(i)))).collect::<Map<_, _>>();
        let by_label = (0..labels).map(|i| (name(i), json!(i))).collect::<Map<_, _>>();
        config.insert("id2label".into(), Value::Object(by_id));
        config.insert("label2id".into(), Value::Object(by_label));
    }
}

/// Everything beside config and weights that a folder of this base needs.
fn companions(base: &Base) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut files = base.tokenizer.files().iter().cloned().collect::<BTreeMap<_, _>>();
    if base.path.is_dir() {
        for name in [
            "generation_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "tokenizer.model",
            "vocab.json",
            "vocab.txt",
            "sentencepiece.bpe.model",
            "spm.model",
            "merges.txt",
        ] {
            let path = base.path.join(name);
            if path.is_file() && !files.contains_key(name) {
                files.insert(name.into(), std::fs::read(&path).map_err(Error::io("read", &path))?);
            }
        }
    } else if !files.contains_key("generation_config.json") {
        let special = base.tokenizer.special();
        let mut generation = Map::new();
        if let Some(bos) = special.bos {
            generation.insert("bos_token_id".into(), json!(bos));
        }
        generation.insert("eos_token_id".into(), json!(base.tokenizer.stops()));
        if let Some(pad) = special.pad {
            generation.insert("pad_token_id".into(), json!(pad));
        }
        files.insert(
            "generation_config.json".into(),
            format!("{:#}\n", Value::Object(generation)).into_bytes(),
        );
    }
    Ok(files.into_iter().collect())
}
