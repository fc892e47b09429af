//! The families: one file each turns a `config.json` into a [`ModelSpec`]. No mathematics.
use crate::config::Config;
use crate::error::Error;
use crate::spec::ModelSpec;

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

/// A family's row.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `general.architecture` of its GGUF files.
    pub gguf: &'static str,
    /// Whether its GGUF files keep the rows of q and k in interleaved rotary order.
    pub gguf_interleaved: bool,
    /// `architectures` of a folder that we write.
    pub architecture: &'static str,
    /// From config to spec.
    pub parse: fn(&Config) -> Result<ModelSpec, Error>,
}

/// Every family, in alphabetic order.
pub static FAMILIES: &[Family] = &[llama::FAMILY, mistral::FAMILY, qwen2::FAMILY, qwen3::FAMILY];

/// The family of a `config.json`, checked for what no family supports.
pub fn family(config: &Config) -> Result<&'static Family, Error> {
    let model_type = config.text("model_type")?;
    if config.has("quantization_config") && !config.0["quantization_config"].is_null() {
        return Err(Error::Unsupported {
            key: "quantization_config".into(),
            got: config.0["quantization_config"]["quant_method"].to_string(),
        });
    }
    FAMILIES.iter().find(|f| f.model_type == model_type).ok_or_else(|| Error::UnknownFamily {
        got: model_type.into(),
        known: FAMILIES.iter().map(|f| f.model_type).collect::<Vec<_>>().join(", "),
    })
}

/// From `config.json` to a checked spec.
pub fn parse(config: &Config) -> Result<ModelSpec, Error> {
    let spec = (family(config)?.parse)(config)?;
    if spec.heads % spec.kv_heads != 0 {
        return Err(Error::Config {
            key: "num_key_value_heads".into(),
            expected: format!("a divisor of the {} heads", spec.heads),
            got: spec.kv_heads.to_string(),
        });
    }
    if spec.head_dim % 2 != 0 {
        return Err(Error::Config {
            key: "head_dim".into(),
            expected: "an even number".into(),
            got: spec.head_dim.to_string(),
        });
    }
    Ok(spec)
}
