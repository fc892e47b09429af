//! DoRA: LoRA changes the direction of a weight's rows, a trained vector their length.
//!
//! ```text
//! W' = m o (W + s B A) / |W + s B A|      norms of rows [d_out], m starts at |W|
//! ```
//! The norm is held constant in the backward pass.
//!
//! - Paper: Liu 2024, <https://arxiv.org/abs/2402.09353>, equation 5; section 4.3 for the constant norm. Its columns are
//!   rows here, since weights are `[d_out, d_in]`.
//! - Names and layout are PEFT's (`use_dora`, 0.21).
//! - Differs from PEFT under dropout: PEFT drops elements of the base's input too in the scaled part; here dropout acts on
//!   the update's input alone, as in LoRA.
use crate::low_rank::lora::Lora;
use crate::parts::over_lora::as_lora;
use crate::peft;
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Init, Magnitude, Method, Paper, ParamSpec,
    Params, Role, Scope, Site, SiteKind, Training, Unmergeable,
};
use luthier_tensor::{Account, Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// `[method.dora]`: LoRA's settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dora {
    /// LoRA's settings.
    pub lora: Lora,
}

const MAGNITUDE: &str = "lora_magnitude_vector";
/// Squared lengths of the base's rows: read from the base, never saved.
const SQUARES: &str = "squares";

/// DoRA's card.
pub static CARD: Card = Card {
    id: "dora",
    name: "DoRA",
    name_zh: "权重分解低秩适配",
    class: Class::Additional,
    family: "low-rank",
    principle: "a weight is split into lengths and directions: LoRA changes the directions, a vector the lengths",
    principle_zh: "把权重分解为幅值与方向：LoRA 更新方向，一个向量更新幅值",
    position: "any linear layer of the block",
    position_zh: "块内任意线性层",
    characteristics: "closer to full fine-tuning than LoRA at the same rank, most at small ranks, no latency once \
                      merged; each layer's unscaled output is kept, and a step takes longer than LoRA's",
    characteristics_zh: "同秩下比 LoRA 更接近全参数微调，小秩时尤其明显，合并后无延迟；需保存每层缩放前的输出，单步比 LoRA 慢",
    paper: Paper { cite: "Liu 2024", arxiv: "2402.09353" },
    references: &[76],
    equation: "W' = m (W + s B A) / |W + s B A|",
    parameters: "r (d_in + d_out) + d_out",
    hooks: &[Hook::Linear],
    mergeable: true,
};

fn row_squares(weight: &Tensor) -> Vec<f64> {
    let values = weight.to_f64_vec();
    values.chunks(weight.cols().max(1)).map(|row| row.iter().map(|w| w * w).sum()).collect()
}

impl Method for Dora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        self.lora.check_as(CARD.id, sites, base)?;
        let refuse = |key: &str, got: String, expected: &str| {
            Err(Error::Setting { method: CARD.id, key: key.into(), got, expected: expected.into() })
        };
        if let Some(site) = sites.iter().find(|s| s.kind == SiteKind::Head && self.lora.adapts(s)) {
            return refuse("targets", site.path.clone(), "linear sites of the blocks");
        }
        if self.lora.update_bias {
            return refuse("update_bias", "true".into(), "false: a length has no place for a bias");
        }
        Ok(())
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let mut specs = self.lora.declare(scope);
        if let (Scope::Site(site), false) = (scope, specs.is_empty()) {
            let vector = |name, role, root: bool| {
                let of = move |weight: &Tensor| {
                    let squares = row_squares(weight).into_iter();
                    let values = squares.map(|s| if root { s.sqrt() } else { s }).collect::<Vec<_>>();
                    Tensor::from_f64(&[weight.rows()], &values, weight.dtype(), Account::Workspace)
                };
                ParamSpec { name, shape: vec![site.d_out], init: Init::FromBase(Arc::new(of)), role }
            };
            specs.push(vector(MAGNITUDE, Role::Trainable, true));
            specs.push(vector(SQUARES, Role::Derived { seed: 0 }, false));
        }
        specs
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        self.lora.count(scope) + self.count_frozen(scope)
    }

    fn count_frozen(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) if self.lora.adapts(site) => site.d_out,
            _ => 0,
        }
    }

    /// LoRA's, and the norm by products with A: `A W^T`, `A A^T` and `B (A A^T)`.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let Some((r, _)) = self.lora.at(site) else { return Cost::default() };
        let norm = 2 * (r * site.d_in * site.d_out + r * r * (site.d_in + site.d_out)) as u64;
        let lora = self.lora.cost(site, n);
        Cost {
            forward_flops: lora.forward_flops + norm,
            saved_elements: lora.saved_elements + (n * site.d_out) as u64,
            ..lora
        }
    }

    fn linear(&self, tape: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        let squares = params.get(SQUARES).value().clone();
        let magnitude = Magnitude { m: params.get(MAGNITUDE).clone(), squares };
        Delta { magnitude: Some(magnitude), ..self.lora.linear(tape, site, params, context) }
    }

    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        let moved = self.lora.merge(site, tensors, weight)?;
        let find = |name| &tensors.iter().find(|(n, _)| *n == name).expect("declared above").1;
        let lengths = find(MAGNITUDE).to_f64_vec();
        let factors = row_squares(&moved).into_iter().zip(lengths).map(|(s, m)| m / s.sqrt());
        let mut values = moved.to_f64_vec();
        for (row, factor) in values.chunks_mut(moved.cols().max(1)).zip(factors) {
            row.iter_mut().for_each(|w| *w *= factor);
        }
        Ok(Tensor::from_f64(moved.shape(), &values, moved.dtype(), Account::Workspace))
    }

    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        let mut config = peft::lora_config(&self.lora, base_name, sites);
        config["use_dora"] = json!(true);
        config
    }

    fn tensor_key(&self, site: &Site, name: &str) -> String {
        match name {
            MAGNITUDE => format!("base_model.model.{}.{MAGNITUDE}", site.module),
            _ => self.lora.tensor_key(site, name),
        }
    }

    fn base_key(&self, param: &BaseParam) -> String {
        self.lora.base_key(param)
    }

    as_lora!(trains);
}

// Not `gradient`: section 4.3 holds the norm constant in the backward pass, so that plain differences disagree by design.
// The golden holds gradients to PEFT's, and the linear op's test to differences with the norm held in both.
#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::Case;

    luthier_testkit::laws!(|| {
        let lora = Lora { rank: std::num::NonZeroUsize::new(2).unwrap(), dropout: 0.25, ..Lora::default() };
        Case::new(Dora { lora })
    }; init_equals_base, moves_when_trained, merge_equals_unmerged, formula_equals_counted,
        disabling_restores_the_base, only_declared_tensors_change, micro_batches_do_not_matter,
        causal_and_isolated, cache_equals_forward, fast_equals_reference, bytes_equal_formula, flops_equal_formula,
        recompute_changes_nothing, adapters_do_not_mix);
}
