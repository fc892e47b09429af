//! A model as a command line names it: a base, an adapter, or the output of a run.

use crate::args::ComputeArg;
use crate::error::CliError;
use luthier_config::Compute;
use luthier_data::Tokenizer;
use luthier_decode::{Generated, Generator, Sampling, Settings, Stop};
use luthier_models::{Applied, Model};
use luthier_tensor::DType;
use luthier_train::{Base, open_adapted, open_for_adapter, read_adapter};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A model, ready to run.
pub struct Opened {
    /// The base's files.
    pub base: Base,
    /// The model.
    pub model: Model,
    /// The adapter, if there is one.
    pub adapters: Vec<Applied>,
    /// The adapter's folder.
    pub adapter: Option<PathBuf>,
}

/// What a name on the command line means: the base's path, and an adapter's folder.
pub fn find(name: &str, adapter: Option<&Path>) -> Result<(PathBuf, Option<PathBuf>), CliError> {
    let path = Path::new(name);
    let inside = [path.to_owned(), path.join("adapter")].into_iter().find(|folder| is_adapter(folder));
    match (inside, adapter) {
        (Some(folder), None) => Ok((base_of(&folder)?, Some(folder))),
        (_, given) => {
            let model = path.join("model");
            let base = if model.join("config.json").is_file() { model } else { luthier_hub::resolve(name)? };
            Ok((base, given.map(Path::to_owned)))
        }
    }
}

/// Whether a folder holds an adapter.
pub fn is_adapter(folder: &Path) -> bool {
    folder.join("adapter_config.json").is_file()
}

/// The base of an adapter: what the run that made it was given, else what the adapter itself records.
pub fn base_of(adapter: &Path) -> Result<PathBuf, CliError> {
    let beside = adapter
        .parent()
        .map(|run| run.join("resolved.toml"))
        .and_then(|path| std::fs::read_to_string(path).ok());
    let table = beside.and_then(|text| text.parse::<toml::Table>().ok());
    let given = table.and_then(|table| table.get("base")?.as_str().map(str::to_owned));
    if let Some(path) = given.as_deref().and_then(|base| luthier_hub::resolve(base).ok()) {
        return Ok(path);
    }
    let recorded = read_adapter(adapter)?.base_name.ok_or_else(|| {
        CliError::input("adapter-base", format!("the adapter in {} records no base", adapter.display()))
            .help("name the base, and give the adapter by --adapter")
    })?;
    Ok(luthier_hub::resolve(&recorded)?)
}

impl Opened {
    /// Opens what the command line names.
    pub fn new(name: &str, adapter: Option<&Path>, compute: ComputeArg) -> Result<Self, CliError> {
        let (base, adapter) = find(name, adapter)?;
        Self::of(open_for_adapter(&base, adapter.as_deref())?, adapter, dtype(compute))
    }

    /// Loads a base and an adapter. Weights stay as the files hold them.
    pub fn of(base: Base, adapter: Option<PathBuf>, compute: DType) -> Result<Self, CliError> {
        let (model, adapters) = open_adapted(&base, adapter.as_deref(), compute, None)?;
        Ok(Self { base, model, adapters, adapter })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.base.tokenizer
    }

    /// What generates with it.
    pub fn generator(&self) -> Generator<'_> {
        Generator { model: &self.model, adapters: &self.adapters, tokenizer: Some(self.tokenizer()) }
    }

    /// The likeliest answers to some prompts.
    pub fn answers(&self, prompts: Vec<Vec<u32>>, max_tokens: usize) -> Result<Vec<Generated>, CliError> {
        let settings = Settings {
            sampling: Sampling::greedy(),
            stop: Stop { max_tokens, ..Stop::default() },
            ..Settings::default()
        };
        Ok(self.generator().generate(prompts, &settings, &mut |_, _| ControlFlow::Continue(()))?)
    }
}

/// The type of activations that a flag names.
pub fn dtype(compute: ComputeArg) -> DType {
    compute_dtype(match compute {
        ComputeArg::Auto => Compute::Auto,
        ComputeArg::Bf16 => Compute::Bf16,
        ComputeArg::F32 => Compute::F32,
    })
}

/// The type of activations that a setting names: bf16 by itself only where the processor multiplies it.
pub fn compute_dtype(compute: Compute) -> DType {
    use luthier_kernels::isa::{Tier, tier};
    match compute {
        Compute::Bf16 => DType::Bf16,
        Compute::Auto if tier() == Tier::Avx512Bf16 => DType::Bf16,
        Compute::F32 | Compute::Auto => DType::F32,
    }
}
