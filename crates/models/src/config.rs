//! Typed reading of `config.json`.
use crate::error::Error;
use luthier_kernels::gated_mlp::Activation;
use luthier_kernels::rope::{RopeScaling, RopeSpec};
use serde_json::Value;

/// A `config.json`, or what a GGUF header says in its words.
#[derive(Clone, Debug)]
pub struct Config(pub Value);

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".into(), Value::to_string);
    if text.chars().count() > 60 { text.chars().take(60).chain("..".chars()).collect() } else { text }
}

impl Config {
    fn find(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.0, |v, k| v.get(k)).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        Error::Config { key: key.into(), expected: expected.into(), got: shown(self.find(key)) }
    }

    /// Whether the key is written, `null` included.
    pub fn has(&self, key: &str) -> bool {
        key.split('.').try_fold(&self.0, |v, k| v.get(k)).is_some()
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<&str, Error> {
        self.find(key).and_then(Value::as_str).ok_or_else(|| self.wrong(key, "a string"))
    }

    /// A count of at least 1.
    pub fn count(&self, key: &str) -> Result<usize, Error> {
        // 2^31 bounds every product of two counts within 64 bits.
        let n = self.find(key).and_then(Value::as_u64).filter(|n| (1..1 << 31).contains(n));
        n.map(|n| n as usize).ok_or_else(|| self.wrong(key, "a whole number from 1"))
    }

    /// A count, or `default` where the key is absent or null.
    pub fn count_or(&self, key: &str, default: usize) -> Result<usize, Error> {
        if self.find(key).is_some() { self.count(key) } else { Ok(default) }
    }

    /// A whole number from 0, where one is written.
    pub fn whole(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let n = value.as_u64().filter(|n| *n < 1 << 31);
        n.map(|n| Some(n as usize)).ok_or_else(|| self.wrong(key, "a whole number from 0"))
    }

    /// Whether the key has a number above zero.
    pub fn is_above_zero(&self, key: &str) -> bool {
        self.find(key).and_then(Value::as_f64).is_some_and(|v| v > 0.0)
    }

    /// Names: a list, or one text with `|` between; none if absent or `none`.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        let wrong = || self.wrong(key, "names");
        let all = match self.find(key) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split('|').map(|t| t.trim().to_lowercase()).collect(),
            Some(list) => {
                let list = list.as_array().ok_or_else(wrong)?;
                list.iter()
                    .map(|v| v.as_str().map(str::to_string).ok_or_else(wrong))
                    .collect::<Result<_, _>>()?
            }
        };
        Ok(all.into_iter().filter(|t| t != "none" && !t.is_empty()).collect())
    }

    /// A positive number, or `default`.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        match self.find(key) {
            None => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|v| v.is_finite() && *v > 0.0)
                .ok_or_else(|| self.wrong(key, "a positive number")),
        }
    }

    /// A positive number.
    pub fn number(&self, key: &str) -> Result<f64, Error> {
        if self.find(key).is_none() {
            Err(self.wrong(key, "a positive number"))
        } else {
            self.number_or(key, 1.0)
        }
    }

    /// A truth value, or `default`.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.find(key) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A probability below 1, or `default`.
    pub fn share_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        match self.find(key) {
            None => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|v| (0.0..1.0).contains(v))
                .ok_or_else(|| self.wrong(key, "a probability below 1")),
        }
    }

    /// The MLP's activation from `hidden_act`.
    pub fn activation(&self) -> Result<Activation, Error> {
        self.activation_or("hidden_act", "silu")
    }

    /// An activation, or the one named `default`.
    pub fn activation_or(&self, key: &str, default: &str) -> Result<Activation, Error> {
        match self.find(key).map_or(Ok(default), |_| self.text(key))? {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "tanh" => Ok(Activation::Tanh),
            other => Err(Error::Unsupported { key: key.into(), got: other.into() }),
        }
    }

    /// Sliding windows by block: `layer_types` if written, else `from_layer` on.
    pub fn windows(
        &self,
        layers: usize,
        window: Option<usize>,
        from_layer: usize,
    ) -> Result<Vec<Option<usize>>, Error> {
        let Some(types) = self.find("layer_types") else {
            return Ok((0..layers).map(|i| window.filter(|_| i >= from_layer)).collect());
        };
        let wrong = || self.wrong("layer_types", &format!("{layers} of full_attention or sliding_attention"));
        let types = types.as_array().filter(|t| t.len() == layers).ok_or_else(wrong)?;
        types
            .iter()
            .map(|t| match t.as_str() {
                Some("full_attention") => Ok(None),
                Some("sliding_attention") => {
                    window.map(Some).ok_or_else(|| self.wrong("sliding_window", "a whole number"))
                }
                _ => Err(wrong()),
            })
            .collect()
    }

    /// Rotary settings in either spelling: `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling`.
    pub fn rope(&self, head_dim: usize, max_positions: usize) -> Result<RopeSpec, Error> {
        let table = if self.find("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let within = |key: &str| format!("{table}.{key}");
        let theta = match self.find(&within("rope_theta")) {
            Some(_) => self.number(&within("rope_theta"))?,
            None => self.number_or("rope_theta", 10_000.0)?,
        };
        let kind = ["rope_type", "type"].iter().find_map(|k| self.find(&within(k))).and_then(Value::as_str);
        // A fine-tune of a longer context keeps the original's length; the model's own is the fallback.
        let original_max =
            || self.number_or(&within("original_max_position_embeddings"), max_positions as f64);
        let factor = || self.number(&within("factor"));
        let optional = |key: &str| {
            if self.find(&within(key)).is_some() { self.number(&within(key)).map(Some) } else { Ok(None) }
        };
        let scaling = match kind.unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "llama3" => RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: self.number(&within("low_freq_factor"))?,
                high_freq_factor: self.number(&within("high_freq_factor"))?,
                original_max: original_max()?,
            },
            "yarn" => RopeScaling::Yarn {
                factor: factor()?,
                original_max: original_max()?,
                beta_fast: self.number_or(&within("beta_fast"), 32.0)?,
                beta_slow: self.number_or(&within("beta_slow"), 1.0)?,
                attention_factor: optional("attention_factor")?,
                mscale: optional("mscale")?,
                mscale_all_dim: optional("mscale_all_dim")?,
                truncate: self.flag_or(&within("truncate"), true)?,
            },
            other => return Err(Error::Unsupported { key: within("rope_type"), got: other.into() }),
        };
        Ok(RopeSpec { theta, rotary_dim: head_dim, scaling })
    }
}
