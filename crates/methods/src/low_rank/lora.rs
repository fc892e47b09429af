//! LoRA: a trainable low-rank update beside a frozen weight.
//!
//! `y = x W^T + s dropout(x) A^T B^T`, with `A [r, d_in]`, `B [d_out, r]`, `s = alpha / r`.
//! `B` starts at zero, so that step 0 is the base model.
//!
//! - Paper: Hu 2021, <https://arxiv.org/abs/2106.09685>, section 4.1.
//! - `s = alpha / sqrt(r)`: Kalajdzievski 2023, <https://arxiv.org/abs/2312.03732>, theorem 3.2.
//! - Names, layout, first values and the meaning of every option are PEFT's (`LoraConfig`, 0.21).
//! - Differs from PEFT: `rank` starts at 8 and `alpha` at 16 (PEFT: 8 and 8), since twice the rank is what
//!   published recipes use; targets start at every linear of the blocks (PEFT: a list by family), after
//!   Dettmers 2023 (arXiv 2305.14314), section 4: adapting all linears is what matches full fine-tuning.
use crate::peft::{self, Patterns};
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Init, LowRank, Master, Method, Paper,
    ParamSpec, Params, Role, Scope, Site, SiteKind, Targets, Training, Unmergeable, is_in,
};
use luthier_kernels::elementwise;
use luthier_tensor::{Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{PoisonError, RwLock};

/// `[method.lora]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank `r` of the update. More is more capacity and more memory.
    pub rank: NonZeroUsize,
    /// Numerator of the scale `s`.
    pub alpha: f64,
    /// What divides `alpha`.
    pub scaling: Scaling,
    /// Sites: `"all-linear"`, names, patterns.
    pub targets: Targets,
    /// Sites left out again, named as in `targets`.
    pub exclude: Option<Targets>,
    /// Blocks that are adapted; all if empty. PEFT's `layers_to_transform`.
    pub layers: Vec<usize>,
    /// Probability of dropping an element of the update's input.
    pub dropout: f64,
    /// Rank by module: PEFT's regular expressions, matched at the end of the path.
    pub rank_pattern: Patterns<NonZeroUsize>,
    /// Alpha by module, likewise.
    pub alpha_pattern: Patterns<f64>,
    /// Which biases of the base train.
    pub bias: Bias,
    /// Whether the update has a bias of its own (PEFT's `lora_bias`).
    pub update_bias: bool,
    /// Modules of the base that train in full beside the update: `["lm_head"]`.
    pub modules_to_save: Vec<String>,
    /// Rank and scale by module, once matched: a forward run asks for each.
    #[serde(skip)]
    pub matched: Matched,
}

/// What [`Lora::at`] has found so far; no setting. A copy starts empty, since its settings may be changed.
#[derive(Debug, Default)]
pub struct Matched(RwLock<BTreeMap<String, Option<(usize, f64)>>>);

impl Clone for Matched {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: NonZeroUsize::new(8).expect("8 is not 0"),
            alpha: 16.0,
            scaling: Scaling::Rank,
            targets: Targets::default(),
            exclude: None,
            layers: Vec::new(),
            dropout: 0.0,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            bias: Bias::None,
            update_bias: false,
            modules_to_save: Vec::new(),
            matched: Matched::default(),
        }
    }
}

/// How the update is scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// `alpha / r` (Hu 2021).
    Rank,
    /// `alpha / sqrt(r)`: stable at high rank (rsLoRA, Kalajdzievski 2023).
    SqrtRank,
}

/// Which biases of the base train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None.
    None,
    /// All of the model's.
    All,
    /// Those of adapted sites.
    LoraOnly,
}

/// LoRA's card.
pub static CARD: Card = Card {
    id: "lora",
    name: "LoRA",
    name_zh: "低秩适配",
    class: Class::Additional,
    family: "low-rank",
    principle: "a low-rank update beside a frozen weight: the change that a task needs has low intrinsic rank",
    principle_zh: "冻结原权重，旁路训练低秩增量 BA：任务所需的改变量内在秩很低",
    position: "parallel to any linear layer of the block",
    position_zh: "与块内任意线性层并联",
    characteristics: "no added latency once merged, small files, works on quantised bases; rank and targets must be \
                      chosen, and tasks far from the base's training may need full fine-tuning",
    characteristics_zh: "合并后无额外延迟，文件小，可用于量化底座；需选择秩与目标层，离预训练很远的任务可能仍需全参数微调",
    paper: Paper { cite: "Hu 2021", arxiv: "2106.09685" },
    references: &[53],
    equation: "W' = W + (alpha / r) B A",
    parameters: "r (d_in + d_out)",
    hooks: &[Hook::Linear],
    mergeable: true,
};

impl Lora {
    /// Rank and scale at `site`; none where it is not adapted.
    pub(crate) fn at(&self, site: &Site) -> Option<(usize, f64)> {
        if let Some(found) = self.matched.0.read().unwrap_or_else(PoisonError::into_inner).get(&site.module) {
            return *found;
        }
        let found = self.resolve(site);
        self.matched.0.write().unwrap_or_else(PoisonError::into_inner).insert(site.module.clone(), found);
        found
    }

    fn resolve(&self, site: &Site) -> Option<(usize, f64)> {
        let excluded = self.exclude.as_ref().is_some_and(|t| t.matches(site));
        let in_layers = self.layers.is_empty() || site.layer.is_some_and(|i| self.layers.contains(&i));
        if !in_layers || !self.targets.matches(site) || excluded || self.saves_module(&site.module) {
            return None;
        }
        let rank = self.rank_pattern.find(&site.module).copied().unwrap_or(self.rank).get();
        let alpha = self.alpha_pattern.find(&site.module).copied().unwrap_or(self.alpha);
        let divisor = match self.scaling {
            Scaling::Rank => rank as f64,
            Scaling::SqrtRank => (rank as f64).sqrt(),
        };
        Some((rank, alpha / divisor))
    }

    fn saves_module(&self, module: &str) -> bool {
        self.modules_to_save.iter().any(|name| is_in(module, name))
    }

    /// The check under the name of a method that is LoRA with something more.
    pub(crate) fn check_as(&self, id: &'static str, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        self.targets.check(id, sites)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Self::setting(id, "dropout", self.dropout, "a probability below 1"));
        }
        if !self.alpha.is_finite() || self.alpha_pattern.0.iter().any(|(_, a)| !a.is_finite()) {
            return Err(Self::setting(id, "alpha", self.alpha, "a finite number"));
        }
        if let Some(pattern) = self.rank_pattern.invalid() {
            return Err(Self::setting(id, "rank_pattern", pattern, "regular expressions"));
        }
        if let Some(pattern) = self.alpha_pattern.invalid() {
            return Err(Self::setting(id, "alpha_pattern", pattern, "regular expressions"));
        }
        let layers = sites.iter().filter_map(|s| s.layer).max().map_or(0, |i| i + 1);
        if let Some(layer) = self.layers.iter().find(|&&i| i >= layers) {
            return Err(Self::setting(
                id,
                "layers",
                layer,
                format!("blocks from 0 to {}", layers.saturating_sub(1)),
            ));
        }
        // PEFT names both for a classifier, of which every model has one.
        let pair = ["classifier", "score"];
        let found = |name: &str| base.iter().any(|p| p.is_in(name));
        let named = |name: &str| found(name) || (pair.contains(&name) && pair.into_iter().any(found));
        if let Some(name) = self.modules_to_save.iter().find(|name| !named(name)) {
            return Err(Self::setting(id, "modules_to_save", name, "a module of the base, such as lm_head"));
        }
        let adapted = sites.iter().filter_map(|s| self.at(s).map(|(rank, _)| (s, rank))).collect::<Vec<_>>();
        if adapted.is_empty() {
            return Err(Self::setting(id, "targets", "no site in the chosen layers", "at least one site"));
        }
        for (site, rank) in adapted {
            if site.kind == SiteKind::Embed {
                let expected = "linear sites; the embedding trains with modules_to_save = [\"embed_tokens\"]";
                return Err(Self::setting(id, "targets", &site.path, expected));
            }
            if rank > site.d_in.min(site.d_out) {
                let most = site.d_in.min(site.d_out);
                return Err(Self::setting(
                    id,
                    "rank",
                    rank,
                    format!("at most {most}, the smaller side of {site}"),
                ));
            }
        }
        Ok(())
    }

    /// Whether the method adapts `site`.
    pub(crate) fn adapts(&self, site: &Site) -> bool {
        self.at(site).is_some()
    }

    fn setting(id: &'static str, key: &str, got: impl ToString, expected: impl Into<String>) -> Error {
        Error::Setting { method: id, key: key.into(), got: got.to_string(), expected: expected.into() }
    }
}

impl Method for Lora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        self.check_as(CARD.id, sites, base)
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let Scope::Site(site) = scope else { return Vec::new() };
        let Some((r, _)) = self.at(site) else { return Vec::new() };
        let spec = |name, shape: &[usize], init| ParamSpec {
            name,
            shape: shape.to_vec(),
            init,
            role: Role::Trainable,
        };
        let mut specs = vec![
            spec("lora_A", &[r, site.d_in], Init::KaimingUniform { fan_in: site.d_in }),
            spec("lora_B", &[site.d_out, r], Init::Zeros),
        ];
        if self.update_bias {
            specs.push(spec("lora_B.bias", &[site.d_out], Init::Zeros));
        }
        specs
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) => self.at(site).map_or(0, |(r, _)| {
                r * (site.d_in + site.d_out) + if self.update_bias { site.d_out } else { 0 }
            }),
            Scope::Layer(_) | Scope::Model(_) => 0,
        }
    }

    /// Forward `x A^T` and `u B^T`; backward the same two for `dx`, and two more for `dA`, `dB`.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let Some((r, _)) = self.at(site) else { return Cost::default() };
        let once = 2 * (n * r * (site.d_in + site.d_out)) as u64;
        Cost { forward_flops: once, backward_flops: 2 * once, saved_elements: (n * r) as u64 }
    }

    fn trains(&self, param: &BaseParam) -> Training {
        let bias = param.is_bias
            && match self.bias {
                Bias::None => false,
                Bias::All => true,
                Bias::LoraOnly => self.adapts_module_of(param),
            };
        if bias || self.saves_module(param.module()) {
            Training::Trained(Master::F32)
        } else {
            Training::Frozen
        }
    }

    fn linear(&self, tape: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        let Some((_, scale)) = self.at(site) else { return Delta::default() };
        let low_rank = LowRank {
            dropout: context.dropout(self.dropout, &site.path),
            ..LowRank::new(params.get("lora_A").clone(), params.get("lora_B").clone(), scale)
        };
        // PEFT's `lora_bias` is lora_B's own, so that the scale takes it along.
        let bias =
            params.has("lora_B.bias").then(|| elementwise::scale(tape, params.get("lora_B.bias"), scale));
        Delta { low_rank: Some(low_rank), bias, ..Delta::default() }
    }

    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        if self.update_bias {
            let reason = "an update with a bias of its own has no place in a base without one";
            return Err(Unmergeable { method: CARD.id, reason });
        }
        let (_, scale) = self.at(site).expect("called for adapted sites only");
        let find = |name| &tensors.iter().find(|(n, _)| *n == name).expect("declared above").1;
        Ok(peft::add_product(weight, find("lora_B"), find("lora_A"), scale))
    }

    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        peft::lora_config(self, base_name, sites)
    }

    fn tensor_key(&self, site: &Site, name: &str) -> String {
        match name {
            "lora_B.bias" => format!("base_model.model.{}.lora_B.bias", site.module),
            _ => format!("base_model.model.{}.{name}.weight", site.module),
        }
    }

    fn base_key(&self, param: &BaseParam) -> String {
        // PEFT keeps the original layer of an adapted module under `base_layer`; its bias is found there.
        let inside = param.is_bias && !self.saves_module(param.module()) && self.adapts_module_of(param);
        match (inside, param.name.rsplit_once('.')) {
            (true, Some((module, leaf))) => format!("base_model.model.{module}.base_layer.{leaf}"),
            _ => format!("base_model.model.{}", param.name),
        }
    }
}

impl Lora {
    /// Whether the linear that `param` belongs to is adapted.
    fn adapts_module_of(&self, param: &BaseParam) -> bool {
        let Some(kind) = param.site else { return false };
        let site = Site {
            path: param.path.trim_end_matches(".bias").into(),
            module: param.module().into(),
            kind,
            layer: param.layer,
            d_in: 1,
            d_out: param.shape[0],
            has_bias: true,
        };
        self.at(&site).is_some()
    }
}

#[cfg(test)]
#[path = "lora_tests.rs"]
mod tests;
