//! The families: one file each turns a `config.json` into a [`ModelSpec`]. No mathematics.
use crate::config::Config;
use crate::error::Error;
use crate::head::Head;
use crate::spec::ModelSpec;

mod bert;
mod deberta_v2;
mod distilbert;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod roberta;

/// A family's row.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `general.architecture` of its GGUF files; none where they are not read.
    pub gguf: Option<&'static str>,
    /// Whether its GGUF files keep the rows of q and k in interleaved rotary order.
    pub gguf_interleaved: bool,
    /// Whether it is an encoder: its language models fill masks.
    pub encoder: bool,
    /// `architectures` of a folder that we write.
    pub architectures: Architectures,
    /// From config to spec, with the head.
    pub parse: fn(&Config, Head) -> Result<ModelSpec, Error>,
}

/// transformers' classes of a family, by head.
#[derive(Clone, Copy, Debug)]
pub struct Architectures {
    /// A language model: the next token, or masked ones.
    pub lm: &'static str,
    /// A classifier of segments.
    pub classifier: &'static str,
    /// A classifier of tokens.
    pub token_classifier: &'static str,
}

impl Family {
    /// The head that a base has by itself.
    pub const fn own_head(&self) -> Head {
        if self.encoder { Head::MaskedLm } else { Head::Lm }
    }

    /// transformers' class of the family with that head.
    pub const fn architecture(&self, head: Head) -> &'static str {
        match head {
            Head::Lm | Head::MaskedLm => self.architectures.lm,
            Head::Classifier { .. } => self.architectures.classifier,
            Head::TokenClassifier { .. } => self.architectures.token_classifier,
        }
    }
}

/// Every family, in alphabetic order.
pub static FAMILIES: &[Family] = &[
    bert::FAMILY,
    deberta_v2::FAMILY,
    distilbert::FAMILY,
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    roberta::FAMILY,
    roberta::XLM,
];

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

/// From `config.json` to a checked spec with the family's own head: next tokens, or masked ones.
pub fn parse(config: &Config) -> Result<ModelSpec, Error> {
    parse_for(config, family(config)?.own_head())
}

/// [`parse`] with another head.
pub fn parse_for(config: &Config, head: Head) -> Result<ModelSpec, Error> {
    let mut spec = (family(config)?.parse)(config, head)?;
    spec.tied &= head.labels().is_none();
    if head.labels() == Some(0) {
        return Err(Error::Config {
            key: "num_labels".into(),
            expected: "at least one label".into(),
            got: "0".into(),
        });
    }
    if spec.heads % spec.kv_heads != 0 {
        return Err(Error::Config {
            key: "num_key_value_heads".into(),
            expected: format!("a divisor of the {} heads", spec.heads),
            got: spec.kv_heads.to_string(),
        });
    }
    if spec.rope().is_some() && spec.head_dim % 2 != 0 {
        return Err(Error::Config {
            key: "head_dim".into(),
            expected: "an even number".into(),
            got: spec.head_dim.to_string(),
        });
    }
    Ok(spec)
}
