//! An adapter folded into its base: a Hugging Face folder or a GGUF file, written tensor by tensor.
//!
//! The base stays mapped and one merged tensor at a time is in memory. Both outputs appear whole or not at all.
mod gguf;

use crate::base::Base;
use crate::error::Error;
use crate::model_folder::describe_head;
use luthier_contract::{BaseParam, Site, Unmergeable};
use luthier_models::{Applied, Model};
use luthier_platform::fs::{atomic_write, replace_dir, sync_dir};
use luthier_storage::{Declared, Encoding, pt_metadata, write_safetensors};
use luthier_tensor::{DType, Tensor};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of tensors in one file of a folder, as transformers cuts them.
const SHARD: usize = 5_000_000_000;
/// Files beside the tokenizer's that belong to a model.
const KEPT: &[&str] =
    &["tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", "LICENSE", "LICENSE.txt", "NOTICE"];

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeFormat {
    /// A folder for transformers.
    HuggingFace,
    /// A GGUF file with matrices in F16.
    GgufF16,
    /// A GGUF file with matrices in Q8_0, where their rows are whole blocks.
    GgufQ8,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// The folder or file.
    pub path: PathBuf,
    /// Tensors in it.
    pub tensors: usize,
    /// How its matrices are stored.
    pub encoding: String,
    /// Whether the base was quantised, so that its decoded weights were merged into.
    pub dequantised: bool,
    /// Whether a head that was the embedding is now a tensor of its own.
    pub untied: bool,
}

/// Nothing is written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The adapter is no weight.
    #[error(transparent)]
    Unmergeable(#[from] Unmergeable),
    /// Something is there already.
    #[error("{path} exists", path = path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The output has no name of its own.
    #[error("`{path}` cannot be written: expected the name of a new {expected}", path = path.display())]
    NoName {
        /// The output.
        path: PathBuf,
        /// `folder` or `file`.
        expected: &'static str,
    },
    /// Something that a GGUF file cannot say.
    #[error("{what} cannot be stated in a GGUF file")]
    NotInGguf {
        /// What.
        what: String,
    },
    /// From base or files.
    #[error(transparent)]
    Train(#[from] Error),
}

impl MergeError {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unmergeable(_) => "unmergeable",
            Self::Exists { .. } => "output-exists",
            Self::NoName { .. } => "output-name",
            Self::NotInGguf { .. } => "not-in-gguf",
            Self::Train(e) => e.code(),
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unmergeable(_) => Some("use the adapter beside its base: `--adapter`".into()),
            Self::Exists { .. } => Some("choose another output, or pass --overwrite".into()),
            Self::NotInGguf { .. } => Some("write a Hugging Face folder instead".into()),
            Self::NoName { .. } => None,
            Self::Train(e) => e.help(),
        }
    }
}

impl From<luthier_storage::Error> for MergeError {
    fn from(e: luthier_storage::Error) -> Self {
        Self::Train(e.into())
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MergeError {
    let path = path.to_owned();
    move |source| MergeError::Train(Error::Io { action, path, source })
}

/// Writes `model`, which is `base` with its trained tensors, and `adapters` folded in. `model` should hold its frozen
/// matrices as they are stored: what it has rounded stays rounded.
pub fn merge(
    base: &Base,
    model: &Model,
    adapters: &[Applied],
    out: &Path,
    format: MergeFormat,
    overwrite: bool,
) -> Result<Merged, MergeError> {
    if out.symlink_metadata().is_ok() && !overwrite {
        return Err(MergeError::Exists { path: out.into() });
    }
    let expected = if format == MergeFormat::HuggingFace { "folder" } else { "file" };
    if out.file_name().is_none() || (out.exists() && out.is_dir() != (format == MergeFormat::HuggingFace)) {
        return Err(MergeError::NoName { path: out.into(), expected });
    }
    let source = Source::new(base, model, adapters)?;
    if let Some(parent) = out.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(io("make", parent))?;
    }
    match format {
        MergeFormat::HuggingFace => write_folder(&source, out, SHARD),
        MergeFormat::GgufF16 => gguf::write(&source, out, Encoding::F16),
        MergeFormat::GgufQ8 => gguf::write(&source, out, Encoding::Q8_0),
    }
}

/// The merged tensors, one at a time.
struct Source<'a> {
    base: &'a Base,
    model: &'a Model,
    adapters: &'a [Applied],
    sites: BTreeMap<String, Site>,
    /// What the output holds, in the order of the forward run.
    params: Vec<BaseParam>,
    untied: bool,
}

impl<'a> Source<'a> {
    fn new(base: &'a Base, model: &'a Model, adapters: &'a [Applied]) -> Result<Self, MergeError> {
        let sites = model.spec().sites().into_iter().map(|s| (format!("{}.weight", s.path), s)).collect();
        let adapts_head = adapters.iter().any(|a| a.adapter.values("head").is_some());
        let is_tied = model.head_is_tied() && !adapts_head;
        let params = model.spec().base_params().into_iter().filter(|p| p.tied_to.is_none() || !is_tied);
        let untied = model.spec().tied && !is_tied;
        let source = Self { base, model, adapters, sites, params: params.collect(), untied };
        // A method that cannot merge says so at its first site, before anything is written.
        for applied in adapters {
            if let Some((site, _)) = applied.adapter.sites().next() {
                let path = format!("{}.weight", site.path);
                let param = source.params.iter().find(|p| p.path == path);
                source.value(param.expect("an adapted site has a weight"))?;
            }
        }
        Ok(source)
    }

    /// The merged tensor, in f32.
    fn value(&self, param: &BaseParam) -> Result<Tensor, MergeError> {
        let mut value = self.model.values(param, DType::F32);
        let weight = param.path.strip_suffix(".bias").map(|path| format!("{path}.weight"));
        let Some(site) = self.sites.get(weight.as_ref().unwrap_or(&param.path)) else { return Ok(value) };
        for Applied { adapter, .. } in self.adapters {
            if let Some(tensors) = adapter.values(&site.path) {
                value = match weight {
                    Some(_) => adapter.method.merge_bias(site, &tensors, &value)?,
                    None => adapter.method.merge(site, &tensors, &value)?,
                };
            }
        }
        Ok(value)
    }

    /// How the base stores the tensor.
    fn stored(&self, param: &BaseParam) -> Encoding {
        let of = |param: &BaseParam| {
            self.base.files.info(&self.base.name_in_files(param)).map(|(encoding, _)| encoding)
        };
        // A head that was the embedding is stored as that was.
        of(param).or_else(|| of(&self.params[0])).unwrap_or(Encoding::F32)
    }

    fn is_quantised(&self) -> bool {
        self.params.iter().any(|p| self.stored(p).is_blocked())
    }
}

/// Lets `fill` write a folder that takes the place of `out` once it is whole.
fn in_place_of(
    out: &Path,
    fill: impl FnOnce(&Path) -> Result<Merged, MergeError>,
) -> Result<Merged, MergeError> {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let partial = out.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(io("remove", &partial))?;
    }
    std::fs::create_dir(&partial).map_err(io("make", &partial))?;
    let filled = fill(&partial).and_then(|merged| {
        sync_dir(&partial).map_err(io("sync", &partial))?;
        replace_dir(&partial, out).map_err(io("replace", out))?;
        Ok(merged)
    });
    if filled.is_err() {
        // The first failure is the one to report.
        let _ = std::fs::remove_dir_all(&partial);
    }
    filled
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), MergeError> {
    atomic_write(path, |file| file.write_all(bytes)).map_err(io("write", path))
}

fn write_json(path: &Path, value: &Value) -> Result<(), MergeError> {
    let mut text = serde_json::to_string_pretty(value).expect("JSON values have text keys");
    text.push('\n');
    write_file(path, text.as_bytes())
}

fn write_folder(source: &Source<'_>, out: &Path, shard: usize) -> Result<Merged, MergeError> {
    let dequantised = source.is_quantised();
    let encoding = |param: &BaseParam| match source.stored(param) {
        _ if dequantised => Encoding::Bf16,
        e @ (Encoding::F16 | Encoding::Bf16) => e,
        _ => Encoding::F32,
    };
    let declared = source.params.iter().map(|p| Declared::new(p.name.clone(), encoding(p), p.shape.clone()));
    let declared = declared.collect::<Vec<_>>();
    let matrices = encoding(&source.params[0]);
    in_place_of(out, |folder| {
        write_shards(source, folder, declared, shard)?;
        write_json(&folder.join("config.json"), &config(source, matrices))?;
        write_companions(source, folder)?;
        Ok(Merged {
            path: out.into(),
            tensors: source.params.len(),
            encoding: matrices.to_string(),
            dequantised,
            untied: source.untied,
        })
    })
}

fn bytes_of(declared: &Declared) -> usize {
    let size = if declared.encoding == Encoding::F32 { 4 } else { 2 };
    declared.shape.iter().product::<usize>() * size
}

fn write_shards(
    source: &Source<'_>,
    folder: &Path,
    declared: Vec<Declared>,
    shard: usize,
) -> Result<(), MergeError> {
    let by_name = source.params.iter().map(|p| (p.name.as_str(), p)).collect::<BTreeMap<_, _>>();
    let total = declared.iter().map(bytes_of).sum::<usize>();
    let mut shards: Vec<(usize, Vec<Declared>)> = Vec::new();
    for tensor in declared {
        let bytes = bytes_of(&tensor);
        match shards.last_mut().filter(|(held, _)| held + bytes <= shard) {
            Some((held, tensors)) => {
                *held += bytes;
                tensors.push(tensor);
            }
            None => shards.push((bytes, vec![tensor])),
        }
    }
    let count = shards.len();
    let mut map = BTreeMap::new();
    for (i, (_, tensors)) in shards.iter().enumerate() {
        let name = if count == 1 {
            "model.safetensors".to_owned()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", i + 1)
        };
        write_safetensors::<MergeError>(&folder.join(&name), &pt_metadata(), tensors, |tensor, sink| {
            Ok(sink.write_tensor(&source.value(by_name[tensor.name.as_str()])?)?)
        })?;
        map.extend(tensors.iter().map(|t| (t.name.clone(), name.clone())));
    }
    if count > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": map});
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

/// The base's own config, changed where the output differs from the base.
fn config(source: &Source<'_>, matrices: Encoding) -> Value {
    let mut config = source.base.config.0.clone();
    let dtype = match matrices {
        Encoding::Bf16 => "bfloat16",
        Encoding::F16 => "float16",
        _ => "float32",
    };
    if let Some(table) = config.as_object_mut() {
        // Code of the base's folder is neither run nor copied.
        table.remove("auto_map");
        // transformers 5 writes `dtype`, before it was `torch_dtype`; both read the older one.
        let key = if table.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        table.insert(key.into(), json!(dtype));
        if source.untied {
            table.insert("tie_word_embeddings".into(), json!(false));
        }
        describe_head(table, source.base);
    }
    config
}

/// Tokenizer, generation settings with the ids that end an answer, licence.
fn write_companions(source: &Source<'_>, folder: &Path) -> Result<(), MergeError> {
    let tokenizer = &source.base.tokenizer;
    for (name, bytes) in tokenizer.files() {
        write_file(&folder.join(name), bytes)?;
    }
    for name in KEPT.iter().filter(|_| source.base.path.is_dir()) {
        let (from, to) = (source.base.path.join(name), folder.join(name));
        if from.is_file() {
            write_file(&to, &std::fs::read(&from).map_err(io("read", &from))?)?;
        }
    }
    let generation = folder.join("generation_config.json");
    if !generation.is_file() {
        let mut settings = json!({});
        match tokenizer.stops() {
            [] => {}
            [one] => settings["eos_token_id"] = json!(one),
            all => settings["eos_token_id"] = json!(all),
        }
        if let Some(bos) = tokenizer.special().bos {
            settings["bos_token_id"] = json!(bos);
        }
        write_json(&generation, &settings)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
