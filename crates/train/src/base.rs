//! A base model on disk: a Hugging Face folder or a GGUF file, with its description and tokenizer.
use crate::error::Error;
use luthier_contract::{Base as FrozenBase, BaseParam, SiteKind, Training};
use luthier_data::{GgufTokenizer, Tokenizer};
use luthier_kernels::linear::DenseBase;
use luthier_models::{
    Config, Family, GGUF_ROPE_FACTORS, Head, LoadOptions, Model, ModelSpec, Names, Source, family,
    gguf_config, gguf_name, parse, parse_for,
};
use luthier_storage::gguf::{Metadata, Value};
use luthier_storage::{Checkpoint, StoreAs, Stored};
use luthier_tensor::{Account, DType, Tensor};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest `config.json` that is read: real ones have some kilobytes.
const CONFIG_LIMIT: u64 = 1 << 20;

/// A base model, opened: nothing is decoded yet.
#[derive(Debug)]
pub struct Base {
    /// The folder or file.
    pub path: PathBuf,
    /// An id that PEFT can load where one is known, else the path as given.
    pub name: String,
    /// `config.json`, or what the GGUF header says in its words.
    pub config: Config,
    /// The description.
    pub spec: ModelSpec,
    /// The family's row.
    pub family: &'static Family,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The weights.
    pub files: Checkpoint,
}

impl Base {
    /// Opens a folder with `config.json`, or a `.gguf` file, with the family's own head: next tokens, or masked ones of
    /// an encoder. Code that a folder carries (`auto_map`) is never run.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, None)
    }

    /// [`open`](Self::open) with another head. What the files lack of it starts at random values, whose seed is
    /// `spec.head.seed`.
    pub fn open_for(path: &Path, head: Head) -> Result<Self, Error> {
        Self::open_with(path, Some(head))
    }

    fn open_with(path: &Path, head: Option<Head>) -> Result<Self, Error> {
        let files = if path.is_dir() {
            if !path.join("config.json").is_file() {
                return Err(Error::NoModel { path: path.into() });
            }
            Checkpoint::open(path)?
        } else if path.is_file() {
            Checkpoint::open(path)?
        } else {
            return Err(Error::NoModel { path: path.into() });
        };
        let (config, tokenizer, name) = match files.gguf() {
            Some(header) => (header_config(header, &files)?, header_tokenizer(header)?, header_name(header)),
            None => (read_config(&path.join("config.json"))?, Tokenizer::from_folder(path)?, None),
        };
        let family = family(&config)?;
        let mut spec = parse_for(&config, head.unwrap_or(family.own_head()))?;
        if spec.head.may_start_fresh() {
            let head = spec.base_params().into_iter().filter(|p| p.path.starts_with("head."));
            let held = |p: &BaseParam| shape_in(&files, spec.wiring.names, p).is_some_and(|s| s == p.shape);
            spec.head.missing = head.filter(|p| p.tied_to.is_none() && !held(p)).map(|p| p.name).collect();
        }
        let name = name.unwrap_or_else(|| path.display().to_string());
        Ok(Self { path: path.into(), name, config, spec, family, tokenizer, files })
    }

    /// Whether the folder brings code of its own, which is ignored.
    pub fn brings_code(&self) -> bool {
        self.config.has("auto_map")
    }

    /// The name under which the files hold the tensor: its own or one of a GGUF file, or of a folder without a head's
    /// prefix.
    pub fn name_in_files(&self, param: &BaseParam) -> String {
        name_in(&self.files, self.spec.wiring.names, param)
    }

    /// Builds the model: activations in `compute`, frozen matrices in `storage` (none: as they are in the file).
    pub fn load(
        &self,
        compute: DType,
        storage: Option<DType>,
        trains: &dyn Fn(&BaseParam) -> Training,
    ) -> Result<Model, Error> {
        load(&self.files(), compute, storage, trains)
    }

    fn files(&self) -> FileSource<'_> {
        FileSource { files: &self.files, spec: &self.spec, family: self.family }
    }

    /// SHA-256 over the config and every file's bytes: what a resumed run must find again.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.config.0.to_string());
        for file in self.files.files() {
            hash.update((file.bytes().len() as u64).to_le_bytes());
            hash.update(file.bytes());
        }
        hex(&hash.finalize())
    }

    /// The tensor as stored, in the row order of Hugging Face folders.
    pub fn stored(&self, param: &BaseParam) -> Result<Stored, Error> {
        Ok(self.files().stored(param)?)
    }
}

/// The model in a folder that holds `config.json` and weights only, as benchmarks of other programs leave it.
pub fn load_weights(
    folder: &Path,
    compute: DType,
    storage: Option<DType>,
    trains: &dyn Fn(&BaseParam) -> Training,
) -> Result<Model, Error> {
    let (files, config) = (Checkpoint::open(folder)?, read_config(&folder.join("config.json"))?);
    let (spec, family) = (parse(&config)?, family(&config)?);
    load(&FileSource { files: &files, spec: &spec, family }, compute, storage, trains)
}

fn load(
    source: &FileSource<'_>,
    compute: DType,
    storage: Option<DType>,
    trains: &dyn Fn(&BaseParam) -> Training,
) -> Result<Model, Error> {
    let options = LoadOptions { compute, storage, trains };
    Ok(Model::load(source.spec.clone(), source, &options)?)
}

/// The name under which the files hold the tensor, or its own where they do not.
fn name_in(files: &Checkpoint, names: &Names, param: &BaseParam) -> String {
    if files.gguf().is_some() {
        return gguf_name(&param.path);
    }
    let held = names.in_files(&param.name).into_iter().find(|n| files.contains(n));
    held.unwrap_or_else(|| param.name.clone())
}

/// Shape of the tensor in the files.
fn shape_in(files: &Checkpoint, names: &Names, param: &BaseParam) -> Option<Vec<usize>> {
    files.info(&name_in(files, names, param)).map(|(_, shape)| shape.to_vec())
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |v: u8| char::from_digit(u32::from(v), 16).expect("four bits");
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

fn read_config(path: &Path) -> Result<Config, Error> {
    let io = |source| Error::Io { action: "read", path: path.into(), source };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > CONFIG_LIMIT {
        return Err(Error::ConfigJson {
            path: path.into(),
            reason: format!("{length} bytes, limit {CONFIG_LIMIT}"),
        });
    }
    let text = std::fs::read(path).map_err(io)?;
    let value = serde_json::from_slice(&text);
    value.map(Config).map_err(|e| Error::ConfigJson { path: path.into(), reason: e.to_string() })
}

fn header_config(header: &Metadata, files: &Checkpoint) -> Result<Config, Error> {
    let get = |key: &str| {
        if key == "luthier.vocab_size" {
            let tokens = header.get("tokenizer.ggml.tokens")?.as_texts()?;
            return Some(json!(tokens.len()));
        }
        let value = header.get(key)?;
        match value {
            Value::Text(text) => Some(json!(text)),
            Value::Bool(flag) => Some(json!(flag)),
            Value::F32(_) | Value::F64(_) => value.as_f64().map(|v| json!(v)),
            Value::Array(_) => None,
            _ => value.as_u64().map(|v| json!(v)),
        }
    };
    let factors = files.contains(GGUF_ROPE_FACTORS).then(|| files.read(GGUF_ROPE_FACTORS)).transpose()?;
    let factors = factors.map(|tensor| tensor.to_f64_vec());
    Ok(gguf_config(&get, &|name| files.contains(name), factors.as_deref())?)
}

/// An id that PEFT can load: the repository that the header names, as `ORG/NAME`.
fn header_name(header: &Metadata) -> Option<String> {
    let text = |key: &str| header.get(key).and_then(Value::as_str);
    let url = text("general.repo_url").or_else(|| text("general.source.huggingface.repository"));
    let parts = url?.trim_end_matches('/').rsplit('/').take(2).collect::<Vec<_>>();
    match parts.as_slice() {
        [name, org] if !name.is_empty() && !org.is_empty() => Some(format!("{org}/{name}")),
        _ => None,
    }
}

fn header_tokenizer(header: &Metadata) -> Result<Tokenizer, Error> {
    let get = |key: &str| header.get(&format!("tokenizer.ggml.{key}"));
    let text = |key: &str| get(key).and_then(Value::as_str).map(str::to_string);
    let id = |key: &str| get(key).and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
    let flag = |key: &str| get(key).and_then(Value::as_bool);
    let texts = |key: &str| {
        let list = get(key).and_then(Value::as_texts);
        list.map(|l| l.iter().map(str::to_string).collect()).unwrap_or_default()
    };
    let gguf = GgufTokenizer {
        model: text("model").unwrap_or_default(),
        pre: text("pre"),
        tokens: texts("tokens"),
        scores: get("scores").and_then(Value::as_f32s).map(<[f32]>::to_vec).unwrap_or_default(),
        token_types: get("token_type")
            .and_then(Value::as_i64s)
            .map(|v| v.into_iter().map(|t| t as i32).collect())
            .unwrap_or_default(),
        merges: texts("merges"),
        bos: id("bos_token_id"),
        eos: id("eos_token_id"),
        more_stops: [id("eot_token_id"), id("eom_token_id")].into_iter().flatten().collect(),
        unk: id("unknown_token_id"),
        pad: id("padding_token_id"),
        add_bos: flag("add_bos_token"),
        add_space_prefix: flag("add_space_prefix"),
        chat_template: header.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_string),
    };
    Ok(Tokenizer::from_gguf(&gguf)?)
}

/// The files as the model's builder reads them.
struct FileSource<'a> {
    files: &'a Checkpoint,
    spec: &'a ModelSpec,
    family: &'static Family,
}

impl FileSource<'_> {
    fn stored(&self, param: &BaseParam) -> Result<Stored, luthier_storage::Error> {
        if self.files.gguf().is_none() {
            return self.files.stored(&name_in(self.files, self.spec.wiring.names, param));
        }
        let stored = self.files.stored(&gguf_name(&param.path))?;
        let heads = match param.site {
            Some(SiteKind::Q) => self.spec.heads,
            Some(SiteKind::K) => self.spec.kv_heads,
            _ => return Ok(stored),
        };
        if self.family.gguf_interleaved { stored.unpermute_rope(heads) } else { Ok(stored) }
    }
}

impl Source for FileSource<'_> {
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>> {
        shape_in(self.files, self.spec.wiring.names, param)
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, luthier_models::Error> {
        Ok(self.stored(param)?.to_tensor(account)?)
    }

    fn base(
        &self,
        param: &BaseParam,
        storage: Option<DType>,
    ) -> Result<Arc<dyn FrozenBase>, luthier_models::Error> {
        let stored = self.stored(param)?;
        let how = match storage {
            None => StoreAs::AsIs,
            Some(DType::Bf16) => StoreAs::Bf16,
            Some(DType::F32) => StoreAs::F32,
            Some(other) => return Ok(Arc::new(DenseBase::new(stored.to_dtype(other, Account::Base)?))),
        };
        Ok(stored.to_base(how)?)
    }
}
