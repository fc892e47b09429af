//! The adapter folder: PEFT's `adapter_config.json` and `adapter_model.safetensors`, and a model card.
use crate::base::Base;
use crate::error::Error;
use crate::output::in_place_of;
use luthier_contract::{Adapter, BaseParam, Master, Method, Training};
use luthier_models::{Applied, Head, Model};
use luthier_platform::fs::atomic_write;
use luthier_storage::{Checkpoint, Declared, Encoding, pt_metadata, write_safetensors};
use luthier_tensor::{Account, DType, Param, to_dtype};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Tensors named in an error.
const NAMED: usize = 20;

/// An adapter on disk, opened.
#[derive(Debug)]
pub struct AdapterFile {
    /// Its folder.
    pub folder: PathBuf,
    /// The method with its settings.
    pub method: Arc<dyn Method>,
    /// The base that it names.
    pub base_name: Option<String>,
    /// Modules of the base that it holds whole: a task's head.
    pub saved_modules: Vec<String>,
    /// Its tensors.
    pub tensors: Checkpoint,
}

/// What an adapter's config calls its base: an id that PEFT can load where one is known, else a path.
pub fn base_name(base: &Base) -> String {
    luthier_hub::id_of(&base.path).unwrap_or_else(|| base.name.clone())
}

/// Every tensor that an adapter's file holds: (key, tensor). Tensors of the base that train are among them.
fn contents(method: &dyn Method, adapter: Option<&Adapter>, model: &Model) -> Vec<(String, Arc<Param>)> {
    let mut all = adapter.map(Adapter::saved).unwrap_or_default();
    all.extend(model.trained().iter().map(|(param, leaf)| (method.base_key(param), leaf.clone())));
    all
}

/// Puts an adapter at `dir`, which holds the old one or the new one at any time. Tensors are f32.
pub fn save_adapter(dir: &Path, adapter: &Adapter, model: &Model, base_name: &str) -> Result<(), Error> {
    let method = adapter.method.as_ref();
    let contents = contents(method, Some(adapter), model);
    let tensors = contents
        .iter()
        .map(|(key, p)| Declared::new(key.clone(), Encoding::F32, p.value().shape()))
        .collect::<Vec<_>>();
    let by_key = contents.iter().map(|(key, p)| (key.as_str(), p)).collect::<BTreeMap<_, _>>();
    let config = for_task(method.adapter_config(base_name, &model.spec().sites()), model);
    in_place_of(dir, |folder| {
        write_text(&folder.join(CONFIG), &pretty(&config))?;
        write_safetensors::<Error>(&folder.join(WEIGHTS), &pt_metadata(), &tensors, |declared, sink| {
            Ok(sink.write_tensor(&by_key[declared.name.as_str()].value())?)
        })?;
        write_text(&folder.join("README.md"), &card(method, base_name, &contents))
    })
}

/// The adapter's config with the task of the model's head, and the head's trained modules among those that are saved.
fn for_task(mut config: Value, model: &Model) -> Value {
    let kind = model.spec().head.kind;
    let Some(table) = config.as_object_mut().filter(|_| kind != Head::Lm) else { return config };
    if table.contains_key("task_type") {
        let task = match kind {
            Head::Classifier { .. } => json!("SEQ_CLS"),
            Head::TokenClassifier { .. } => json!("TOKEN_CLS"),
            Head::Lm | Head::MaskedLm => Value::Null, // PEFT has no task for masked language models
        };
        table.insert("task_type".into(), task);
    }
    let prefix = model.spec().wiring.names.prefix;
    let mut modules =
        serde_json::from_value::<Vec<String>>(table.get("modules_to_save").cloned().unwrap_or_default())
            .unwrap_or_default();
    for (param, _) in model.trained().iter().filter(|(p, _)| p.head) {
        let own = param.name.strip_prefix(prefix).unwrap_or(&param.name);
        let module = own.split('.').next().unwrap_or(own).to_string();
        if !modules.iter().any(|m| param.is_in(m)) {
            modules.push(module);
        }
    }
    if !modules.is_empty() {
        table.insert("modules_to_save".into(), json!(modules));
    }
    config
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("JSON values have text keys");
    text.push('\n');
    text
}

pub(crate) fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    atomic_write(path, |file| file.write_all(text.as_bytes())).map_err(Error::io("write", path))
}

fn card(method: &dyn Method, base_name: &str, contents: &[(String, Arc<Param>)]) -> String {
    let card = method.card();
    let count = contents.iter().map(|(_, p)| p.value().numel()).sum::<usize>();
    // Only an id of the hub is a `base_model` there.
    let is_id = base_name.split('/').count() == 2 && !base_name.starts_with(['.', '/']);
    let base = if is_id { format!("base_model: {base_name}\n") } else { String::new() };
    format!(
        "---\n{base}library_name: peft\npipeline_tag: text-generation\ntags:\n- {id}\n- luthier\n---\n\n\
         # {name} adapter\n\n{name} ({cite}) on `{base_name}`: {count} parameters, trained by luthier {version}.\n\n\
         - `luthier generate --base BASE --adapter .` answers with it, `luthier merge` folds it into the base.\n\
         - `peft.PeftModel.from_pretrained(base, folder)` loads it in Python.\n",
        id = card.id,
        name = card.name,
        cite = card.paper.cite,
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// Opens an adapter's folder.
pub fn read_adapter(dir: &Path) -> Result<AdapterFile, Error> {
    let path = dir.join(CONFIG);
    let missing = |missing| Error::NoAdapter { path: dir.into(), missing };
    if !path.is_file() {
        return Err(missing(CONFIG));
    }
    let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let config = serde_json::from_slice::<Value>(&text);
    let config = config.map_err(|e| Error::ConfigJson { path, reason: e.to_string() })?;
    let read = luthier_methods::read_config(&config)?;
    let weights = [WEIGHTS, "adapter_model.bin"].map(|name| dir.join(name)).into_iter().find(|p| p.is_file());
    let tensors = Checkpoint::open(&weights.ok_or_else(|| missing(WEIGHTS))?)?;
    let saved = config.get("modules_to_save").cloned().unwrap_or_default();
    let saved_modules = serde_json::from_value(saved).unwrap_or_default();
    Ok(AdapterFile {
        folder: dir.into(),
        method: read.method,
        base_name: read.base_name,
        saved_modules,
        tensors,
    })
}

impl AdapterFile {
    /// What training does with a tensor of the base under this adapter.
    pub fn trains(&self, param: &BaseParam) -> Training {
        match self.method.trains(param) {
            Training::Frozen if self.saved_modules.iter().any(|m| param.is_in(m)) => {
                Training::Trained(Master::F32)
            }
            other => other,
        }
    }

    /// The adapter over `model`, which must have been loaded with [`trains`](Self::trains): the file's tensors go into
    /// the adapter and into the model's trained tensors. All that does not fit is named at once.
    pub fn apply(&self, model: &Model) -> Result<Arc<Adapter>, Error> {
        let sites = model.spec().sites();
        self.method.check(&sites, &model.spec().base_params())?;
        let dtype = model.compute().accumulator();
        let weight = |site: &luthier_contract::Site| model.weight(site, dtype);
        let adapter = Arc::new(Adapter::init(self.method.clone(), &sites, 0, dtype, &weight));
        let wanted = contents(self.method.as_ref(), Some(&adapter), model);
        self.check(&wanted, model)?;
        for (key, param) in &wanted {
            let (stored, old) = (self.tensors.stored(key)?, param.value());
            let value = to_dtype(&stored.to_tensor(Account::Workspace)?, old.dtype(), old.account());
            // A mapped file must not be what later training writes to, nor what vanishes when it is replaced.
            param.set(value.copy(old.account()));
        }
        Ok(adapter)
    }

    fn check(&self, wanted: &[(String, Arc<Param>)], model: &Model) -> Result<(), Error> {
        let mut wrong = Vec::new();
        for (key, param) in wanted {
            let expected = param.value().shape().to_vec();
            match self.tensors.info(key) {
                None => wrong.push(format!("{key} is missing")),
                Some((_, shape)) if shape != expected => {
                    wrong.push(format!("{key} is {shape:?}, expected {expected:?}"));
                }
                Some(_) => {}
            }
        }
        let known = wanted.iter().map(|(key, _)| key.as_str()).collect::<std::collections::BTreeSet<_>>();
        for key in self.tensors.names().filter(|n| !known.contains(n)) {
            if !self.is_copy_of_base(key, model)? {
                wrong.push(format!("{key} is unexpected"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let rest = wrong.len().saturating_sub(NAMED);
        wrong.truncate(NAMED);
        if rest > 0 {
            wrong.push(format!("and {rest} more"));
        }
        let summary = wrong.join("; ");
        Err(Error::AdapterTensors { path: self.folder.clone(), summary })
    }

    /// PEFT writes embedding and head along when one of them is adapted (`save_embedding_layers`). The base's own values
    /// say nothing new; other values would be a change that is not ours to drop.
    fn is_copy_of_base(&self, key: &str, model: &Model) -> Result<bool, Error> {
        let name = key.strip_prefix("base_model.model.").unwrap_or(key).replace(".base_layer.", ".");
        let Some(param) = model.spec().base_params().into_iter().find(|p| p.name == name) else {
            return Ok(false);
        };
        let theirs = self.tensors.stored(key)?.to_dtype(DType::F32, Account::Workspace)?;
        let ours = model.values(&param, DType::F32);
        // bf16 keeps eight bits: storage may have rounded either.
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.008 * a.abs().max(b.abs()) + 1e-6;
        Ok(theirs.shape() == ours.shape() && theirs.slice::<f32>().iter().zip(ours.slice()).all(near))
    }
}

/// A base's model with an adapter from disk, or without one: for evaluating, generating, merging.
pub fn open_adapted(
    base: &Base,
    adapter: Option<&Path>,
    compute: DType,
    storage: Option<DType>,
) -> Result<(Model, Vec<Applied>), Error> {
    let Some(dir) = adapter else {
        return Ok((base.load(compute, storage, &|_| Training::Frozen)?, Vec::new()));
    };
    let file = read_adapter(dir)?;
    file.method.check(&base.spec.sites(), &base.spec.base_params())?;
    let model = base.load(compute, storage, &|p| file.trains(p))?;
    let adapter = file.apply(&model)?;
    Ok((model, vec![Applied::to_all(adapter)]))
}
