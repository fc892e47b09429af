//! Shapes of models that are timed with random weights.

use crate::error::CliError;
use luthier_models::{Config, ModelSpec, parse};
use serde_json::{Value, json};

/// Names of the shapes.
const NAMES: [&str; 2] = ["smollm2-135m", "tiny"];

fn config(name: &str) -> Option<Value> {
    let [layers, d_model, d_ff, heads, kv_heads, vocab] = match name {
        "smollm2-135m" => [30, 576, 1536, 9, 3, 49152],
        "tiny" => [2, 64, 96, 4, 2, 256],
        _ => return None,
    };
    Some(json!({
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": d_model, "intermediate_size": d_ff,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab, "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0, "max_position_embeddings": 8192, "tie_word_embeddings": true,
    }))
}

/// The description of a shape.
pub fn spec(name: &str) -> Result<ModelSpec, CliError> {
    let config = config(name).ok_or_else(|| {
        CliError::input("shape", format!("unknown shape `{name}`, expected one of {}", NAMES.join(", ")))
            .help("name a model of your own by --base")
    })?;
    Ok(parse(&Config(config))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_shape() {
        for name in NAMES {
            assert!(spec(name).is_ok_and(|s| s.layers > 0), "{name}");
        }
        assert_eq!(spec("smollm2-135m").map(|s| s.parameters()).ok(), Some(134_515_008));
        assert!(spec("gpt-5").is_err_and(|e| e.message.contains("smollm2-135m")));
    }
}
