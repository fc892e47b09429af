//! PEFT's adapter folder: `adapter_config.json`, and what its patterns mean.
//!
//! Field names, defaults and matching rules are those of PEFT 0.21 (`LoraConfig`, `get_pattern_key`).
use crate::adapter::ia3::Ia3;
use crate::low_rank::adalora::AdaLora;
use crate::low_rank::dora::Dora;
use crate::low_rank::lora::{Bias, Lora, Matched, Scaling};
use crate::low_rank::vera::Vera;
use luthier_contract::{Method, Scope, Site, Targets};
use luthier_tensor::{Account, Tensor};
use regex::Regex;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// The version whose files are written.
pub(crate) const VERSION: &str = "0.21.2";

/// Values by module: regular expressions matched at the end of a module's path, the first that matches wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Patterns<T> {
    /// The value for `module`.
    pub fn find(&self, module: &str) -> Option<&T> {
        let matches = |(pattern, _): &&(String, T)| whole(pattern).is_ok_and(|r| r.is_match(module));
        self.0.iter().find(matches).map(|(_, value)| value)
    }

    /// The first pattern that is no regular expression.
    pub(crate) fn invalid(&self) -> Option<&str> {
        self.0.iter().map(|(p, _)| p.as_str()).find(|p| whole(p).is_err())
    }
}

fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$"))
}

impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(k, v)| (k, v)))
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pairs<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for Pairs<T> {
            type Value = Patterns<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table from module patterns to values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Patterns<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Patterns(pairs))
            }
        }
        d.deserialize_map(Pairs(PhantomData))
    }
}

/// `adapter_config.json` as PEFT writes it.
pub(crate) fn lora_config(lora: &Lora, base_name: &str, sites: &[Site]) -> Value {
    let patterns = |p: Value| if p.as_object().is_some_and(|m| !m.is_empty()) { p } else { json!({}) };
    let mut layers = lora.layers.clone();
    layers.sort_unstable();
    layers.dedup();
    json!({
        "alora_invocation_tokens": null,
        "alpha_pattern": patterns(json!(lora.alpha_pattern)),
        "arrow_config": null,
        "auto_mapping": null,
        "base_model_name_or_path": base_name,
        "bias": match lora.bias { Bias::None => "none", Bias::All => "all", Bias::LoraOnly => "lora_only" },
        "corda_config": null,
        "ensure_weight_tying": false,
        "eva_config": null,
        "exclude_modules": null, // the targets are written out
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "kasa_config": null,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": if layers.is_empty() { Value::Null } else { json!(layers) },
        "loftq_config": {},
        "lora_alpha": whole_or_float(lora.alpha),
        "lora_bias": lora.update_bias,
        "lora_dropout": lora.dropout,
        "lora_ga_config": null,
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": if lora.modules_to_save.is_empty() { Value::Null } else { json!(lora.modules_to_save) },
        "monteclora_config": null,
        "peft_type": "LORA",
        "peft_version": VERSION,
        "qalora_group_size": 16,
        "r": lora.rank,
        "rank_pattern": patterns(json!(lora.rank_pattern)),
        "revision": null,
        "target_modules": target_modules(lora, sites),
        "target_parameters": null,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": null,
        "use_bdlora": null,
        "use_dora": false,
        "use_qalora": false,
        "use_rslora": lora.scaling == Scaling::SqrtRank,
        "velora_config": null,
    })
}

/// PEFT types `lora_alpha` as an integer, and takes a float.
pub(crate) fn whole_or_float(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

/// Names that mean exactly the adapted ones among `sites`: last parts of module paths if they suffice, else the paths.
fn target_modules(lora: &Lora, sites: &[Site]) -> Vec<String> {
    let in_layers = |s: &Site| lora.layers.is_empty() || s.layer.is_some_and(|i| lora.layers.contains(&i));
    names_within(sites, &in_layers, &|s| lora.count(Scope::Site(s)) > 0)
}

/// Names that mean exactly those among `sites` that are adapted.
pub(crate) fn names_of(sites: &[Site], adapts: &dyn Fn(&Site) -> bool) -> Vec<String> {
    names_within(sites, &|_| true, adapts)
}

fn names_within(
    sites: &[Site],
    reach: &dyn Fn(&Site) -> bool,
    adapts: &dyn Fn(&Site) -> bool,
) -> Vec<String> {
    let last = |s: &Site| s.module.rsplit('.').next().unwrap_or(&s.module).to_string();
    let names = sites.iter().filter(|s| adapts(s)).map(last).collect::<BTreeSet<_>>();
    if sites.iter().all(|s| (names.contains(&last(s)) && reach(s)) == adapts(s)) {
        return names.into_iter().collect();
    }
    sites.iter().filter(|s| adapts(s)).map(|s| s.module.clone()).collect()
}

/// What an `adapter_config.json` describes.
#[derive(Clone, Debug)]
pub struct AdapterFile {
    /// The method with its settings.
    pub method: Arc<dyn Method>,
    /// `base_model_name_or_path`.
    pub base_name: Option<String>,
}

/// An `adapter_config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Another method than those here.
    #[error("adapter_config.json: peft_type {got} is not supported; supported are LORA, ADALORA, IA3, VERA")]
    UnknownType {
        /// As written.
        got: String,
    },
    /// A feature of PEFT's LoRA that is not here.
    #[error("adapter_config.json: {key} = {got} is not supported")]
    Unsupported {
        /// The key.
        key: String,
        /// As written.
        got: String,
    },
    /// Settings that our own type does not take.
    #[error("adapter_config.json: settings: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
    /// A key of the wrong type.
    #[error("adapter_config.json: {key}: expected {expected}, got {got}")]
    Key {
        /// The key.
        key: String,
        /// What is needed.
        expected: &'static str,
        /// As written.
        got: String,
    },
}

impl ReadError {
    /// A stable name for machines.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownType { .. } => "adapter-type",
            Self::Unsupported { .. } => "adapter-unsupported",
            Self::Key { .. } | Self::Settings { .. } => "adapter-config",
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Unsupported { key, .. } if key == "init_lora_weights" => Some(
                "this adapter was saved over a changed base; save it from PEFT with \
                 path_initial_model_for_weight_conversion to get a plain LoRA"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// The keys of PEFT's `adapter_config.json`, read as what they should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a>(&'a Value);

impl<'a> Keys<'a> {
    /// The value of a key; none if it is absent or null.
    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn typed(self, key: &str, expected: &'static str) -> ReadError {
        let got = self.0.get(key).unwrap_or(&Value::Null).to_string();
        ReadError::Key { key: key.into(), expected, got }
    }

    /// A whole number from 1.
    pub(crate) fn rank(self, key: &str) -> Result<NonZeroUsize, ReadError> {
        let rank = self.get(key).and_then(Value::as_u64).and_then(|r| NonZeroUsize::new(r as usize));
        rank.ok_or_else(|| self.typed(key, "a whole number from 1"))
    }

    /// A finite number.
    pub(crate) fn number(self, key: &str, default: f64) -> Result<f64, ReadError> {
        let number = self.get(key).map_or(Some(default), Value::as_f64).filter(|a| a.is_finite());
        number.ok_or_else(|| self.typed(key, "a finite number"))
    }

    /// A list of names, or one.
    fn list(self, key: &str) -> Result<Vec<String>, ReadError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one.clone()]),
            Some(v) => serde_json::from_value(v.clone()).map_err(|_| self.typed(key, "a list of names")),
        }
    }

    /// `target_modules`.
    pub(crate) fn targets(self) -> Result<Targets, ReadError> {
        if self.get("target_modules").is_none() {
            return Err(self.typed("target_modules", "names or a regular expression"));
        }
        self.targets_in("target_modules")
    }

    /// Names or a regular expression under any key; nothing means no site.
    pub(crate) fn targets_in(self, key: &str) -> Result<Targets, ReadError> {
        match self.get(key) {
            Some(Value::String(s)) if s == "all-linear" => Ok(Targets::default()),
            Some(Value::String(regex)) => Ok(Targets::Regex { regex: regex.clone() }),
            _ => Ok(Targets::Many(self.list(key)?)),
        }
    }

    /// Refuses keys that would change the result and are not here.
    pub(crate) fn refuse(self, keys: &[&str]) -> Result<(), ReadError> {
        let is_nothing = |v: &Value| {
            *v == Value::Bool(false)
                || v.as_array().is_some_and(Vec::is_empty)
                || v.as_object().is_some_and(Map::is_empty)
        };
        match keys.iter().find_map(|key| Some((key, self.get(key).filter(|v| !is_nothing(v))?))) {
            None => Ok(()),
            Some((key, got)) => Err(ReadError::Unsupported { key: (*key).to_string(), got: got.to_string() }),
        }
    }
}

/// Reads an `adapter_config.json`. Unknown keys are ignored, as PEFT does; known features that change the result and
/// are not here are refused by name.
pub fn read_config(config: &Value) -> Result<AdapterFile, ReadError> {
    let keys = Keys(config);
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    if let Some(id) = text("luthier_type") {
        return crate::own_file::read(id, config);
    }
    let method: Arc<dyn Method> = match text("peft_type") {
        Some("LORA") => {
            let lora = read_lora(keys)?;
            let is_dora = keys.get("use_dora") == Some(&Value::Bool(true));
            if is_dora { Arc::new(Dora { lora }) } else { Arc::new(lora) }
        }
        Some("ADALORA") => Arc::new(AdaLora::read(keys)?),
        Some("IA3") => Arc::new(Ia3::read(keys)?),
        Some("VERA") => Arc::new(Vera::read(keys)?),
        got => return Err(ReadError::UnknownType { got: got.unwrap_or("(none)").into() }),
    };
    Ok(AdapterFile { method, base_name: text("base_model_name_or_path").map(str::to_string) })
}

fn read_lora(keys: Keys<'_>) -> Result<Lora, ReadError> {
    refuse_unsupported(keys)?;
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    let layers = match keys.get("layers_to_transform") {
        None => Vec::new(),
        Some(Value::Number(one)) => {
            let one = one.as_u64().ok_or_else(|| keys.typed("layers_to_transform", "block numbers"))?;
            vec![one as usize]
        }
        Some(v) => serde_json::from_value(v.clone())
            .map_err(|_| keys.typed("layers_to_transform", "block numbers"))?,
    };
    let exclude = match keys.get("exclude_modules") {
        Some(Value::String(regex)) => Some(Targets::Regex { regex: regex.clone() }),
        Some(_) => Some(Targets::Many(keys.list("exclude_modules")?)),
        None => None,
    };
    let patterns = |key: &str| keys.get(key).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let is_rslora = keys.get("use_rslora").and_then(Value::as_bool) == Some(true);
    Ok(Lora {
        rank: keys.rank("r")?,
        alpha: keys.number("lora_alpha", 8.0)?,
        scaling: if is_rslora { Scaling::SqrtRank } else { Scaling::Rank },
        targets: keys.targets()?,
        exclude,
        layers,
        dropout: keys.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
        rank_pattern: serde_json::from_value(patterns("rank_pattern"))
            .map_err(|_| keys.typed("rank_pattern", "a table of ranks"))?,
        alpha_pattern: serde_json::from_value(patterns("alpha_pattern"))
            .map_err(|_| keys.typed("alpha_pattern", "a table of numbers"))?,
        bias: match text("bias").unwrap_or("none") {
            "none" => Bias::None,
            "all" => Bias::All,
            "lora_only" => Bias::LoraOnly,
            _ => return Err(keys.typed("bias", "none, all or lora_only")),
        },
        update_bias: keys.get("lora_bias").and_then(Value::as_bool).unwrap_or(false),
        modules_to_save: keys.list("modules_to_save")?,
        matched: Matched::default(),
    })
}

fn refuse_unsupported(keys: Keys<'_>) -> Result<(), ReadError> {
    keys.refuse(&[
        "use_qalora",
        "fan_in_fan_out",
        "use_bdlora",
        "alora_invocation_tokens",
        "kasa_config",
        "layer_replication",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "velora_config",
        "megatron_config",
    ])?;
    match keys.get("init_lora_weights") {
        Some(Value::String(how)) if how != "gaussian" && how != "eva" && how != "orthogonal" => {
            Err(ReadError::Unsupported { key: "init_lora_weights".into(), got: json!(how).to_string() })
        }
        _ => Ok(()),
    }
}

/// `weight + scale b a`, in the weight's type.
pub(crate) fn add_product(weight: &Tensor, b: &Tensor, a: &Tensor, scale: f64) -> Tensor {
    // In f64: merging happens once, and its rounding stays in the model for ever.
    let (rows, cols, r) = (weight.dim(0), weight.dim(1), a.dim(0));
    let (b, a) = (b.to_f64_vec(), a.to_f64_vec());
    let mut out = weight.to_f64_vec();
    for i in 0..rows {
        let row = &mut out[i * cols..(i + 1) * cols];
        for k in 0..r {
            let factor = scale * b[i * r + k];
            row.iter_mut().zip(&a[k * cols..(k + 1) * cols]).for_each(|(o, a)| *o += factor * a);
        }
    }
    Tensor::from_f64(weight.shape(), &out, weight.dtype(), Account::Workspace)
}
