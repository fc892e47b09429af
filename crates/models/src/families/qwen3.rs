//! Qwen3: RMSNorm of each head's query and key; `head_dim` of its own; no biases by default.
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Head, HeadSpec};
use crate::spec::{ModelSpec, Positions, Wiring};

/// Qwen3's row.
pub(super) const FAMILY: Family = Family {
    model_type: "qwen3",
    gguf: Some("qwen3"),
    gguf_interleaved: false,
    encoder: false,
    architectures: Architectures {
        lm: "Qwen3ForCausalLM",
        classifier: "Qwen3ForSequenceClassification",
        token_classifier: "Qwen3ForTokenClassification",
    },
    parse,
};

fn parse(config: &Config, head: Head) -> Result<ModelSpec, Error> {
    let (layers, d_model, heads) = (
        config.count("num_hidden_layers")?,
        config.count("hidden_size")?,
        config.count("num_attention_heads")?,
    );
    let head_dim = config.count_or("head_dim", 128)?;
    let max_positions = config.count_or("max_position_embeddings", 32_768)?;
    let attention_bias = config.flag_or("attention_bias", false)?;
    let window = if config.flag_or("use_sliding_window", false)? {
        Some(config.count_or("sliding_window", 4096)?)
    } else {
        None
    };
    Ok(ModelSpec {
        family: FAMILY.model_type,
        layers,
        d_model,
        d_ff: config.count("intermediate_size")?,
        heads,
        kv_heads: config.count_or("num_key_value_heads", heads)?,
        head_dim,
        vocab: config.count("vocab_size")?,
        max_positions,
        eps: config.number_or("rms_norm_eps", 1e-6)?,
        positions: Positions::Rope(config.rope(head_dim, max_positions)?),
        activation: config.activation()?,
        tied: config.flag_or("tie_word_embeddings", false)?,
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: false,
        qk_norm: true,
        windows: config.windows(layers, window, config.count_or("max_window_layers", 28)?)?,
        wiring: Wiring::DECODER,
        head: HeadSpec::of_decoder(config, head)?,
    })
}
