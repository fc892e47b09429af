//! Mistral: Llama's shape with a sliding window on every block.
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Head, HeadSpec};
use crate::spec::{ModelSpec, Positions, Wiring};

/// Mistral's row.
pub(super) const FAMILY: Family = Family {
    model_type: "mistral",
    gguf: Some("llama"), // written as Llama by the converters; read as Llama
    gguf_interleaved: true,
    encoder: false,
    architectures: Architectures {
        lm: "MistralForCausalLM",
        classifier: "MistralForSequenceClassification",
        token_classifier: "MistralForTokenClassification",
    },
    parse,
};

fn parse(config: &Config, head: Head) -> Result<ModelSpec, Error> {
    let (layers, d_model, heads) = (
        config.count("num_hidden_layers")?,
        config.count("hidden_size")?,
        config.count("num_attention_heads")?,
    );
    let head_dim = config.count_or("head_dim", (d_model / heads).max(1))?;
    let max_positions = config.count_or("max_position_embeddings", 131_072)?;
    // MistralConfig: an absent key means 4096, `null` means none.
    let window = match (config.has("sliding_window"), config.0["sliding_window"].is_null()) {
        (false, _) => Some(4096),
        (true, true) => None,
        (true, false) => Some(config.count("sliding_window")?),
    };
    Ok(ModelSpec {
        family: FAMILY.model_type,
        layers,
        d_model,
        d_ff: config.count("intermediate_size")?,
        heads,
        kv_heads: config.count_or("num_key_value_heads", 8)?,
        head_dim,
        vocab: config.count("vocab_size")?,
        max_positions,
        eps: config.number_or("rms_norm_eps", 1e-6)?,
        positions: Positions::Rope(config.rope(head_dim, max_positions)?),
        activation: config.activation()?,
        tied: config.flag_or("tie_word_embeddings", false)?,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        windows: config.windows(layers, window, 0)?,
        wiring: Wiring::DECODER,
        head: HeadSpec::of_decoder(config, head)?,
    })
}
