//! GGUF headers in the words of `config.json`, and GGUF's names of our tensors.
use crate::config::Config;
use crate::error::Error;
use luthier_kernels::rope::{Rope, RopeScaling, RopeSpec};
use serde_json::{Map, Value, json};

/// Llama 3.1's rotary factors: what the plain frequencies are divided by, pair by pair.
pub const GGUF_ROPE_FACTORS: &str = "rope_freqs.weight";

/// What a GGUF header says, as the `config.json` of the same model. `get` finds a metadata value; `tensor` says whether
/// a tensor of that GGUF name exists; `factors` are the values of [`GGUF_ROPE_FACTORS`], if it is there.
pub fn gguf_config(
    get: &dyn Fn(&str) -> Option<Value>,
    tensor: &dyn Fn(&str) -> bool,
    factors: Option<&[f64]>,
) -> Result<Config, Error> {
    let architecture = get("general.architecture").and_then(|v| v.as_str().map(str::to_string));
    let missing = |key: &str, got: Option<Value>| Error::Config {
        key: key.into(),
        expected: "a value".into(),
        got: got.map_or_else(|| "nothing".into(), |v| v.to_string()),
    };
    let architecture = architecture.ok_or_else(|| missing("general.architecture", None))?;
    let family = crate::FAMILIES.iter().find(|f| f.gguf == Some(architecture.as_str())).ok_or_else(|| {
        Error::UnknownFamily {
            got: architecture.clone(),
            known: crate::FAMILIES.iter().filter_map(|f| f.gguf).collect::<Vec<_>>().join(", "),
        }
    })?;
    let mut config = Map::new();
    config.insert("model_type".into(), json!(family.model_type));
    config.insert("architectures".into(), json!([family.architectures.lm]));
    for (ours, theirs) in [
        ("num_hidden_layers", "block_count"),
        ("hidden_size", "embedding_length"),
        ("intermediate_size", "feed_forward_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("head_dim", "attention.key_length"),
        ("max_position_embeddings", "context_length"),
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        ("rope_theta", "rope.freq_base"),
        ("sliding_window", "attention.sliding_window"),
    ] {
        if let Some(value) = get(&format!("{architecture}.{theirs}")) {
            config.insert(ours.into(), shortest(value));
        }
    }
    if !config.contains_key("head_dim")
        && let (Some(d), Some(heads)) =
            (config["hidden_size"].as_u64(), config["num_attention_heads"].as_u64())
        && heads > 0
    {
        config.insert("head_dim".into(), json!(d / heads));
    }
    let vocab = get(&format!("{architecture}.vocab_size")).or_else(|| get("luthier.vocab_size"));
    let vocab = vocab.ok_or_else(|| missing(&format!("{architecture}.vocab_size"), None))?;
    config.insert("vocab_size".into(), vocab);
    config.insert("hidden_act".into(), json!("silu"));
    config.insert("tie_word_embeddings".into(), json!(!tensor("output.weight")));
    config
        .insert("attention_bias".into(), json!(family.model_type != "qwen2" && tensor("blk.0.attn_q.bias")));
    config.insert("use_sliding_window".into(), json!(false));
    match factors {
        Some(factors) => stretched(factors, &mut config)?,
        None => scaling(&architecture, get, &mut config)?,
    }
    for (ours, theirs) in [("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id")] {
        if let Some(id) = get(&format!("tokenizer.ggml.{theirs}")) {
            config.insert(ours.into(), id);
        }
    }
    Ok(Config(Value::Object(config)))
}

/// GGUF keeps floats in 32 bits: 1e-5 must not become 0.00000999999974737875 when a config is written.
fn shortest(value: Value) -> Value {
    match value.as_f64() {
        Some(x) if value.is_f64() => (x as f32).to_string().parse::<f64>().map_or(value, |x| json!(x)),
        _ => value,
    }
}

fn scaling(
    architecture: &str,
    get: &dyn Fn(&str) -> Option<Value>,
    config: &mut Map<String, Value>,
) -> Result<(), Error> {
    let key = |name: &str| format!("{architecture}.rope.scaling.{name}");
    let kind = get(&key("type")).and_then(|v| v.as_str().map(str::to_string));
    let kind = match kind.as_deref() {
        None | Some("none") => return Ok(()),
        Some(kind @ ("linear" | "yarn")) => kind.to_string(),
        Some(other) => return Err(Error::Unsupported { key: key("type"), got: other.into() }),
    };
    let mut table = Map::new();
    table.insert("rope_type".into(), json!(kind));
    if let Some(factor) = get(&key("factor")) {
        table.insert("factor".into(), shortest(factor));
    }
    if let Some(original) = get(&key("original_context_length")) {
        table.insert("original_max_position_embeddings".into(), original);
    }
    config.insert("rope_scaling".into(), Value::Object(table));
    Ok(())
}

/// The settings of `llama3` scaling that give these factors. The file has the factors alone; all published Llamas (3.1,
/// 3.2, 3.3) keep wavelengths up to a quarter of 8,192 positions, and stretch those beyond 8,192 by their own factor.
fn stretched(factors: &[f64], config: &mut Map<String, Value>) -> Result<(), Error> {
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let theta = number("rope_theta").unwrap_or(10_000.0);
    let factor = factors.iter().copied().fold(1.0, f64::max);
    let plain = RopeSpec { theta, rotary_dim: 2 * factors.len(), scaling: RopeScaling::None };
    let scaling =
        RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max: original };
    let scaled = Rope::new(&RopeSpec { scaling, ..plain.clone() });
    let plain = Rope::new(&plain);
    let expected = plain.inverse_frequencies().iter().zip(scaled.inverse_frequencies()).map(|(p, s)| p / s);
    let fits = factors.len() as u64 * 2 == config.get("head_dim").and_then(Value::as_u64).unwrap_or(0);
    // The factors are kept in f32, from frequencies computed in f32.
    if !fits || !expected.zip(factors).all(|(e, f)| (e - f).abs() <= 1e-4 * e) {
        return Err(Error::Unsupported {
            key: GGUF_ROPE_FACTORS.into(),
            got: format!(
                "{} rotary factors that are not Llama 3's; use the Hugging Face folder",
                factors.len()
            ),
        });
    }
    let table = json!({
        "rope_type": "llama3", "factor": shortest(json!(factor)), "low_freq_factor": low,
        "high_freq_factor": high, "original_max_position_embeddings": original as u64,
    });
    config.insert("rope_scaling".into(), table);
    Ok(())
}

/// GGUF's name of the tensor at our `path`: `layers.3.attn.q.weight` is `blk.3.attn_q.weight`.
pub fn gguf_name(path: &str) -> String {
    let whole = match path {
        "embed.weight" => Some("token_embd.weight"),
        "norm.weight" => Some("output_norm.weight"),
        "head.weight" => Some("output.weight"),
        _ => None,
    };
    if let Some(name) = whole {
        return name.into();
    }
    path.replacen("layers.", "blk.", 1)
        .replace(".attn.q_norm.", ".attn_q_norm.")
        .replace(".attn.k_norm.", ".attn_k_norm.")
        .replace(".attn.o.", ".attn_output.")
        .replace(".attn.", ".attn_")
        .replace(".mlp.", ".ffn_")
        .replace(".norm1.", ".attn_norm.")
        .replace(".norm2.", ".ffn_norm.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (ours, theirs) in [
            ("embed.weight", "token_embd.weight"),
            ("layers.3.attn.q.weight", "blk.3.attn_q.weight"),
            ("layers.3.attn.o.bias", "blk.3.attn_output.bias"),
            ("layers.0.attn.k_norm.weight", "blk.0.attn_k_norm.weight"),
            ("layers.0.norm1.weight", "blk.0.attn_norm.weight"),
            ("layers.0.mlp.gate.weight", "blk.0.ffn_gate.weight"),
            ("layers.11.norm2.weight", "blk.11.ffn_norm.weight"),
        ] {
            assert_eq!(gguf_name(ours), theirs);
        }
    }

    #[test]
    fn a_header_reads_as_a_config() {
        let get = |key: &str| {
            Some(match key {
                "general.architecture" => json!("llama"),
                "llama.block_count" | "llama.attention.head_count_kv" => json!(2),
                "llama.embedding_length" => json!(64),
                "llama.feed_forward_length" => json!(96),
                "llama.attention.head_count" => json!(4),
                "llama.context_length" => json!(128),
                "llama.attention.layer_norm_rms_epsilon" => json!(f64::from(1e-5f32)),
                "llama.rope.freq_base" => json!(100_000.0),
                "llama.vocab_size" => json!(99),
                _ => return None,
            })
        };
        let config = gguf_config(&get, &|_| false, None).unwrap();
        let spec = crate::parse(&config).unwrap();
        assert_eq!((spec.layers, spec.head_dim, spec.vocab, spec.tied), (2, 16, 99, true));
        assert_eq!((spec.eps, spec.rope().unwrap().theta), (1e-5, 1e5));
    }

    #[test]
    fn factors_that_are_not_llama_3_s_are_refused() {
        let get = |key: &str| {
            Some(match key {
                "general.architecture" => json!("llama"),
                "llama.block_count" | "llama.attention.head_count_kv" => json!(2),
                "llama.embedding_length" => json!(64),
                "llama.attention.head_count" => json!(4),
                "llama.vocab_size" => json!(99),
                _ => return None,
            })
        };
        let read = |factors: &[f64]| gguf_config(&get, &|_| false, Some(factors));
        // At theta 10,000 the eight pairs' wavelengths end below 8,192: pair 7 is mixed, the others are kept.
        let error = read(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0]).unwrap_err();
        assert!(error.to_string().contains("not Llama 3's"), "{error}");
        assert!(read(&[1.0; 7]).is_err(), "a head has eight pairs");
        assert!(read(&[f64::NAN; 8]).is_err());
        let config = read(&[1.0; 8]).unwrap();
        assert_eq!(config.0["rope_scaling"]["rope_type"], "llama3");
    }
}
