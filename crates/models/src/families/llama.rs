//! Llama 1, 2, 3, and what shares its shape: SmolLM2, TinyLlama, Code LLaMA, Vicuna, Alpaca.
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Head, HeadSpec};
use crate::spec::{ModelSpec, Positions, Wiring};

/// Llama's row.
pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    gguf: Some("llama"),
    gguf_interleaved: true,
    encoder: false,
    architectures: Architectures {
        lm: "LlamaForCausalLM",
        classifier: "LlamaForSequenceClassification",
        token_classifier: "LlamaForTokenClassification",
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
    let max_positions = config.count_or("max_position_embeddings", 2048)?;
    let attention_bias = config.flag_or("attention_bias", false)?;
    Ok(ModelSpec {
        family: FAMILY.model_type,
        layers,
        d_model,
        d_ff: config.count("intermediate_size")?,
        heads,
        kv_heads: config.count_or("num_key_value_heads", heads)?, // absent before Llama 2 70B
        head_dim,
        vocab: config.count("vocab_size")?,
        max_positions,
        eps: config.number_or("rms_norm_eps", 1e-6)?,
        positions: Positions::Rope(config.rope(head_dim, max_positions)?),
        activation: config.activation()?,
        tied: config.flag_or("tie_word_embeddings", false)?,
        qkv_bias: attention_bias,
        o_bias: attention_bias,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        qk_norm: false,
        windows: vec![None; layers],
        wiring: Wiring::DECODER,
        head: HeadSpec::of_decoder(config, head)?,
    })
}
