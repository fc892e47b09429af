//! `luthier merge`: an adapter, folded into its base.

use crate::args::{GgufType, MergeArgs};
use crate::error::CliError;
use crate::opened::{Opened, base_of};
use crate::output::Output;
use luthier_contract::{Adapter, BaseParam, Site, SiteKind};
use luthier_models::gguf_name;
use luthier_storage::gguf::{Metadata, Value};
use luthier_storage::{Declared, Encoding, write_gguf};
use luthier_tensor::{Account, DType, Tensor};
use luthier_train::{Base, write_model};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

/// `general.file_type` of ggml: mostly F16, mostly Q8_0.
const FILE_TYPES: [(GgufType, u32); 2] = [(GgufType::F16, 1), (GgufType::Q8_0, 7)];

/// Runs the command.
pub fn run(args: &MergeArgs, output: &Output) -> Result<(), CliError> {
    let is_gguf = args.output.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"));
    if args.output.exists() && !args.overwrite {
        let message = format!("{} is there already", args.output.display());
        return Err(CliError::input("output-exists", message)
            .help("replace it by --overwrite, or name another output"));
    }
    let inner = args.adapter.join("adapter");
    let folder = if crate::opened::is_adapter(&args.adapter) { args.adapter.clone() } else { inner };
    let base = match &args.base {
        Some(base) => luthier_hub::resolve(base)?,
        None => base_of(&folder)?,
    };
    // In f32, so that the only rounding is the one of writing.
    let opened = Opened::of(Base::open(&base)?, Some(folder), DType::F32)?;
    let merged = Merged::new(&opened)?;
    output.progress(|| "merging".to_owned());
    if is_gguf {
        to_gguf(args, &opened.base, &merged)?
    } else {
        to_folder(&args.output, &opened.base, &merged)?
    }
    output.result(
        || json!({"output": args.output, "base": base, "adapter": opened.adapter}),
        || format!("{}\n\nTalk to it: luthier chat {}", args.output.display(), args.output.display()),
    );
    Ok(())
}

/// The base's tensors with an adapter's effect.
struct Merged<'a> {
    opened: &'a Opened,
    adapter: &'a Adapter,
    sites: BTreeMap<String, Site>,
}

impl<'a> Merged<'a> {
    fn new(opened: &'a Opened) -> Result<Self, CliError> {
        let adapter = opened.adapters.first().map(|applied| &*applied.adapter);
        let adapter = adapter.ok_or_else(|| CliError::input("no-adapter", "there is no adapter to merge"))?;
        let sites = opened.model.spec().sites().into_iter().map(|site| (site.path.clone(), site)).collect();
        Ok(Self { opened, adapter, sites })
    }

    /// Whether the head still is the embedding: an adapter on one of them parts the two.
    fn is_tied(&self) -> bool {
        let is_adapted = |path| self.adapter.values(path).is_some();
        self.opened.model.head_is_tied() && !is_adapted("head") && !is_adapted("embed")
    }

    /// A tensor's merged values, f32.
    fn tensor(&self, param: &BaseParam) -> Result<Tensor, luthier_contract::Unmergeable> {
        let weight = self.opened.model.values(param, DType::F32);
        let site = param.path.strip_suffix(".weight").and_then(|path| self.sites.get(path));
        match site.and_then(|site| Some((site, self.adapter.values(&site.path)?))) {
            Some((site, tensors)) => self.adapter.method.merge(site, &tensors, &weight),
            None => Ok(weight),
        }
    }

    /// Fails before anything is written if the method cannot be merged.
    fn check(&self) -> Result<(), CliError> {
        let adapted = |param: &BaseParam| {
            param.path.strip_suffix(".weight").is_some_and(|path| self.adapter.values(path).is_some())
        };
        let params = self.opened.model.spec().base_params();
        match params.iter().find(|param| adapted(param)).map(|param| self.tensor(param)) {
            Some(Err(error)) => Err(unmergeable(&error)),
            _ => Ok(()),
        }
    }
}

fn unmergeable(error: &luthier_contract::Unmergeable) -> CliError {
    CliError::input("unmergeable", format!("{} cannot be merged: {}", error.method, error.reason))
        .help("use the adapter beside its base, by --adapter")
}

/// The type in which a folder is written: the base's own; bf16 where it is quantised.
fn dtype(base: &Base) -> DType {
    let matrices =
        base.files.names().filter_map(|name| base.files.info(name)).filter(|(_, shape)| shape.len() == 2);
    match matrices.map(|(encoding, _)| encoding).next() {
        Some(Encoding::F32) => DType::F32,
        Some(Encoding::F16) => DType::F16,
        _ => DType::Bf16,
    }
}

fn to_folder(folder: &Path, base: &Base, merged: &Merged<'_>) -> Result<(), CliError> {
    merged.check()?;
    let tensor = &mut |param: &BaseParam| {
        Ok(merged.tensor(param).expect("every site of one method merges alike, and one did"))
    };
    Ok(write_model(folder, base, dtype(base), merged.is_tied(), tensor)?)
}

fn to_gguf(args: &MergeArgs, base: &Base, merged: &Merged<'_>) -> Result<(), CliError> {
    merged.check()?;
    let Some(header) = base.files.gguf() else {
        return Err(CliError::input("gguf-base", "a GGUF is made from a base that is a GGUF itself")
            .help("merge into a folder, and convert that with llama.cpp's convert_hf_to_gguf.py"));
    };
    let is_tied = merged.is_tied();
    let params: Vec<BaseParam> =
        base.spec.base_params().into_iter().filter(|param| !(is_tied && param.tied_to.is_some())).collect();
    let by_name: BTreeMap<String, &BaseParam> =
        params.iter().map(|param| (gguf_name(&param.path), param)).collect();
    let declared: Vec<Declared> = params
        .iter()
        .map(|param| Declared::new(gguf_name(&param.path), encoding(param, args.dtype), param.shape.clone()))
        .collect();
    write_gguf::<CliError>(&args.output, &metadata(header, args.dtype), &declared, |tensor, sink| {
        let param = by_name[&tensor.name];
        let value = merged.tensor(param).map_err(|error| unmergeable(&error))?;
        Ok(sink.write_f32(in_file_order(base, param, value).slice::<f32>())?)
    })
}

/// Norms and biases stay f32, as llama.cpp has them; a row that is no whole number of blocks stays F16.
fn encoding(param: &BaseParam, dtype: GgufType) -> Encoding {
    match (param.shape.as_slice(), dtype) {
        ([_, d_in], GgufType::Q8_0) if d_in.is_multiple_of(32) => Encoding::Q8_0,
        ([_, _], _) => Encoding::F16,
        _ => Encoding::F32,
    }
}

/// The base's header, tokenizer and template included, with the new type.
fn metadata(header: &Metadata, dtype: GgufType) -> Metadata {
    let mut metadata = header.clone();
    if let Some((_, file_type)) = FILE_TYPES.iter().find(|(of, _)| *of == dtype) {
        metadata.set("general.file_type", Value::U32(*file_type));
    }
    metadata
}

/// Rows of llama's q and k in the pair order of GGUF: row `2 i + j` of a head is our row `j head_dim / 2 + i`.
fn in_file_order(base: &Base, param: &BaseParam, value: Tensor) -> Tensor {
    if !base.family.gguf_interleaved || !matches!(param.site, Some(SiteKind::Q | SiteKind::K)) {
        return value;
    }
    let (rows, half) = (value.dim(0), base.spec.head_dim / 2);
    let width = value.numel() / rows;
    let from = value.slice::<f32>();
    let mut ordered = Tensor::zeros(value.shape(), DType::F32, Account::Workspace);
    for (row, to) in ordered.slice_mut::<f32>().chunks_mut(width).enumerate() {
        let (head, inner) = (row / base.spec.head_dim, row % base.spec.head_dim);
        let source = head * base.spec.head_dim + inner % 2 * half + inner / 2;
        to.copy_from_slice(&from[source * width..(source + 1) * width]);
    }
    ordered
}
