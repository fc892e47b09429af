//! The GGUF side: names, order of rows, metadata.
use super::{MergeError, Merged, Source};
use crate::error::Error;
use luthier_contract::{BaseParam, SiteKind};
use luthier_kernels::rope::{Rope, RopeScaling, RopeSpec};
use luthier_models::{GGUF_ROPE_FACTORS, ModelSpec, gguf_name};
use luthier_storage::gguf::{Array, Metadata, Value};
use luthier_storage::{BLOCK, Declared, Encoding, write_gguf};
use luthier_tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn write(source: &Source<'_>, out: &Path, matrices: Encoding) -> Result<Merged, MergeError> {
    let metadata = match source.base.files.gguf() {
        Some(header) => copied(header, matrices),
        None => built(source, matrices)?,
    };
    // Vectors stay in F32, as ggml's own converter leaves them: they are small.
    let encoding = |param: &BaseParam| match param.shape.as_slice() {
        [_, cols] if matrices == Encoding::Q8_0 && cols % BLOCK == 0 => Encoding::Q8_0,
        [_, _] => Encoding::F16,
        _ => Encoding::F32,
    };
    let params = source.params.iter().map(|p| (gguf_name(&p.path), p)).collect::<BTreeMap<_, _>>();
    let declare = |p: &BaseParam| Declared::new(gguf_name(&p.path), encoding(p), p.shape.clone());
    let mut declared = source.params.iter().map(declare).collect::<Vec<_>>();
    let factors = source.base.spec.rope().and_then(factors);
    if let Some(factors) = &factors {
        declared.push(Declared::new(GGUF_ROPE_FACTORS, Encoding::F32, vec![factors.len()]));
    }
    write_gguf::<MergeError>(out, &metadata, &declared, |tensor, sink| {
        let Some(param) = params.get(&tensor.name) else {
            return Ok(sink.write_f32(factors.as_deref().unwrap_or_default())?);
        };
        Ok(sink.write_tensor(&to_pairs(source, param, source.value(param)?))?)
    })?;
    Ok(Merged {
        path: out.into(),
        tensors: declared.len(),
        encoding: matrices.to_string(),
        dequantised: source.is_quantised(),
        untied: source.untied,
    })
}

/// Rows of a query's or key's heads from half order to pair order, for families that keep them so.
fn to_pairs(source: &Source<'_>, param: &BaseParam, value: Tensor) -> Tensor {
    let spec = &source.base.spec;
    let is_projection = param.path.ends_with(".attn.q.weight")
        || param.path.ends_with(".attn.q.bias")
        || param.path.ends_with(".attn.k.weight")
        || param.path.ends_with(".attn.k.bias");
    if !source.base.family.gguf_interleaved || !is_projection {
        return value;
    }
    debug_assert!(matches!(param.site, Some(SiteKind::Q | SiteKind::K)));
    let (half, width) = (spec.head_dim / 2, value.numel() / param.shape[0]);
    let mut moved = Tensor::scratch(value.shape(), value.dtype(), value.account());
    let from = value.slice::<f32>();
    for (row, to) in moved.slice_mut::<f32>().chunks_mut(width).enumerate() {
        let (head, within) = (row / spec.head_dim, row % spec.head_dim);
        let old = head * spec.head_dim + within % 2 * half + within / 2;
        to.copy_from_slice(&from[old * width..(old + 1) * width]);
    }
    moved
}

/// llama.cpp divides the plain frequencies by these.
fn factors(rope: &RopeSpec) -> Option<Vec<f32>> {
    if !matches!(rope.scaling, RopeScaling::Llama3 { .. }) {
        return None;
    }
    let plain = Rope::new(&RopeSpec { scaling: RopeScaling::None, ..rope.clone() });
    let scaled = Rope::new(rope);
    let pairs = plain.inverse_frequencies().iter().zip(scaled.inverse_frequencies());
    Some(pairs.map(|(plain, scaled)| (plain / scaled) as f32).collect())
}

fn u32_of(value: usize) -> Value {
    Value::U32(value as u32)
}

/// `general.file_type`, by llama.cpp's list, and the version of the blocks' layout.
fn set_type(metadata: &mut Metadata, matrices: Encoding) {
    let is_blocked = matrices == Encoding::Q8_0;
    metadata.set("general.file_type", Value::U32(if is_blocked { 7 } else { 1 }));
    if is_blocked {
        metadata.set("general.quantization_version", Value::U32(2));
    }
}

/// The base's metadata without what it says about its own quantisation.
fn copied(header: &Metadata, matrices: Encoding) -> Metadata {
    let stays = |key: &str| {
        !key.starts_with("quantize.")
            && !["general.file_type", "general.quantization_version", "general.quantized_by"].contains(&key)
    };
    let mut metadata =
        header.iter().filter(|(k, _)| stays(k)).map(|(k, v)| (k, v.clone())).collect::<Metadata>();
    set_type(&mut metadata, matrices);
    metadata
}

fn built(source: &Source<'_>, matrices: Encoding) -> Result<Metadata, MergeError> {
    let base = source.base;
    let mut metadata = Metadata::new();
    let cannot = |what: String| MergeError::NotInGguf { what };
    let architecture =
        base.family.gguf.ok_or_else(|| cannot(format!("the family {}", base.family.model_type)))?;
    if let Some(labels) = base.spec.head.kind.labels() {
        return Err(cannot(format!("a classifier of {labels} labels")));
    }
    metadata.set("general.architecture", Value::Text(architecture.into()));
    let name = base.path.file_name().map_or_else(|| base.name.clone(), |n| n.to_string_lossy().into_owned());
    metadata.set("general.name", Value::Text(name));
    // The id by which PEFT finds the base again.
    if base.name.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..").count() == 2
        && !base.name.starts_with(['.', '/'])
        && !Path::new(&base.name).exists()
    {
        metadata.set("general.source.huggingface.repository", Value::Text(base.name.clone()));
    }
    set_type(&mut metadata, matrices);
    describe(&mut metadata, architecture, &base.spec)?;
    tokenizer(&mut metadata, source)?;
    Ok(metadata)
}

fn describe(metadata: &mut Metadata, architecture: &str, spec: &ModelSpec) -> Result<(), MergeError> {
    let rope = spec
        .rope()
        .ok_or_else(|| MergeError::NotInGguf { what: "a model without rotary positions".into() })?;
    let mut set = |key: &str, value: Value| metadata.set(format!("{architecture}.{key}"), value);
    set("block_count", u32_of(spec.layers));
    set("context_length", u32_of(spec.max_positions));
    set("embedding_length", u32_of(spec.d_model));
    set("feed_forward_length", u32_of(spec.d_ff));
    set("attention.head_count", u32_of(spec.heads));
    set("attention.head_count_kv", u32_of(spec.kv_heads));
    set("attention.key_length", u32_of(spec.head_dim));
    set("attention.value_length", u32_of(spec.head_dim));
    set("attention.layer_norm_rms_epsilon", Value::F32(spec.eps as f32));
    set("rope.freq_base", Value::F32(rope.theta as f32));
    set("rope.dimension_count", u32_of(rope.rotary_dim));
    set("vocab_size", u32_of(spec.vocab));
    if spec.activation != luthier_kernels::gated_mlp::Activation::Silu {
        return Err(MergeError::NotInGguf { what: format!("the activation {:?}", spec.activation) });
    }
    match spec.windows.first().copied().flatten() {
        _ if spec.windows.iter().all(Option::is_none) => {}
        Some(window) if spec.windows.iter().all(|w| *w == Some(window)) => {
            set("attention.sliding_window", u32_of(window));
        }
        _ => return Err(MergeError::NotInGguf { what: "a sliding window on some blocks only".into() }),
    }
    match rope.scaling {
        // Llama 3's factors are a tensor.
        RopeScaling::None | RopeScaling::Llama3 { .. } => {}
        RopeScaling::Linear { factor } => {
            set("rope.scaling.type", Value::Text("linear".into()));
            set("rope.scaling.factor", Value::F32(factor as f32));
        }
        RopeScaling::Yarn {
            factor,
            original_max,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        } => {
            set("rope.scaling.type", Value::Text("yarn".into()));
            set("rope.scaling.factor", Value::F32(factor as f32));
            set("rope.scaling.original_context_length", Value::U32(original_max as u32));
        }
        RopeScaling::Yarn { .. } => {
            return Err(MergeError::NotInGguf { what: "these settings of the rotary positions".into() });
        }
    }
    Ok(())
}

fn tokenizer(metadata: &mut Metadata, source: &Source<'_>) -> Result<(), MergeError> {
    let gguf = source.base.tokenizer.to_gguf(source.base.spec.vocab).map_err(Error::from)?;
    let mut set = |key: &str, value: Value| metadata.set(format!("tokenizer.{key}"), value);
    let texts = |list: &[String]| Value::Array(Array::Texts(list.iter().collect()));
    set("ggml.model", Value::Text(gguf.model));
    if let Some(pre) = gguf.pre {
        set("ggml.pre", Value::Text(pre));
    }
    set("ggml.tokens", texts(&gguf.tokens));
    if !gguf.scores.is_empty() {
        set("ggml.scores", Value::Array(Array::F32(gguf.scores)));
    }
    set("ggml.token_type", Value::Array(Array::I32(gguf.token_types)));
    if !gguf.merges.is_empty() {
        set("ggml.merges", texts(&gguf.merges));
    }
    let ids = [
        ("bos_token_id", gguf.bos),
        ("eos_token_id", gguf.eos),
        ("eot_token_id", gguf.more_stops.first().copied()),
        ("eom_token_id", gguf.more_stops.get(1).copied()),
        ("unknown_token_id", gguf.unk),
        ("padding_token_id", gguf.pad),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            set(&format!("ggml.{key}"), Value::U32(id));
        }
    }
    for (key, flag) in [("add_bos_token", gguf.add_bos), ("add_space_prefix", gguf.add_space_prefix)] {
        if let Some(flag) = flag {
            set(&format!("ggml.{key}"), Value::Bool(flag));
        }
    }
    if let Some(template) = gguf.chat_template {
        set("chat_template", Value::Text(template));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3_s_factors_leave_high_frequencies_and_stretch_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max: 8192.0,
        };
        let factors = factors(&RopeSpec { theta: 500_000.0, rotary_dim: 128, scaling }).unwrap();
        assert_eq!((factors.len(), factors[0], factors[63]), (64, 1.0, 8.0));
        assert!(factors.windows(2).all(|w| w[0] <= w[1]));
        // Pair 32: wavelength 2 pi sqrt(500000) = 4443; smooth = (8192 / 4443 - 1) / 3 = 0.2813.
        assert!((f64::from(factors[32]) - 1.0 / ((1.0 - 0.2813) / 8.0 + 0.2813)).abs() < 1e-3);
    }
}
