//! Shapes of models that are timed with random weights.

use super::peak::noise;
use crate::error::CliError;
use luthier_contract::{Base, BaseParam};
use luthier_kernels::linear::DenseBase;
use luthier_models::{Config, ModelSpec, Source, parse};
use luthier_tensor::{Account, DType, Tensor, scale_assign, to_dtype};
use serde_json::{Value, json};
use std::sync::Arc;

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

/// Weights that need no file: uniform, of the standard deviation that models start from; norms are one.
pub struct Noise {
    /// Type in which they are made.
    pub dtype: DType,
}

impl Source for Noise {
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>> {
        Some(param.shape.clone())
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, luthier_models::Error> {
        if param.site.is_none() {
            let ones = vec![1.0; param.numel()];
            return Ok(Tensor::from_f64(&param.shape, &ones, self.dtype, account));
        }
        let mut values = noise(&param.shape, DType::F32, Account::Workspace);
        scale_assign(&mut values, 0.02 * 3f64.sqrt());
        Ok(if self.dtype == DType::F32 {
            values.copy(account)
        } else {
            to_dtype(&values, self.dtype, account)
        })
    }

    fn base(
        &self,
        param: &BaseParam,
        storage: Option<DType>,
    ) -> Result<Arc<dyn Base>, luthier_models::Error> {
        let made = self.tensor(param, Account::Base)?;
        Ok(Arc::new(DenseBase::new(to_dtype(&made, storage.unwrap_or(self.dtype), Account::Base))))
    }
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
