//! AdaLoRA: updates in the form of a singular value decomposition, whose budget of ranks goes where it matters.
//!
//! ```text
//! y = x W^T + s x (diag(E) A)^T B^T      A [r, d_in], E [r, 1], B [d_out, r], s = alpha / (r + 1e-5)
//! penalty: gamma / M  sum over the M matrices A and B of |A A^T - I|_F, |B^T B - I|_F
//! I = |w dL/dw|,  S = b1 S + (1 - b1) I,  U = b2 U + (1 - b2) |I - S|,  element score S U
//! score of triplet k: that of E_k + mean over A_k + mean over B_k
//! ```
//! After `start` steps the budget falls in a cubic curve to `target_rank` a site; every `every` steps the `E` of all
//! triplets beyond the budget, over the whole model, become zero (and may grow again); for the last `finish` steps the
//! choice is fixed. `E` starts at zero, so that step 0 is the base model.
//!
//! - Paper: Zhang 2023, <https://arxiv.org/abs/2303.10512>, equations 3, 8 to 12, algorithm 1.
//! - Details are PEFT's (`AdaLoraConfig`, 0.21): unsquared norms, the scale by the first rank, importance from weights after
//!   the step. Its start, finish and rate of pruning are counts of steps; ours are shares of the run by default
//!   (0.1 and 0.3 are the paper's appendix for GLUE, roughly). Defaults otherwise PEFT's: ranks 12 to 8, memories 0.85,
//!   `gamma` 0.5 (the authors': 0.1); alpha as LoRA here.
//! - Importance is held in the checkpoint; PEFT forgets it at a restart.
//! - A pruned triplet stays in the file with `E = 0`, which PEFT reads as any other.
use crate::parts::budget::{Budget, kept};
use crate::parts::orthogonality::{Side, penalty};
use crate::peft;
use luthier_contract::{
    Adapter, BaseParam, Card, Class, Context, Cost, Delta, Done, Error, Hook, Init, LowRank, Method, Paper,
    ParamSpec, Params, Role, Scope, Site, SiteKind, Targets, Unmergeable, replace,
};
use luthier_tensor::{Account, Param, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;

/// `[method.adalora]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaLora {
    /// Rank of every site at the start; half more than the target is the paper's.
    pub rank: NonZeroUsize,
    /// Mean rank of the sites at the end.
    pub target_rank: NonZeroUsize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Steps before the budget falls; a tenth of the run where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Last steps, under a fixed choice; three tenths of the run where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<u64>,
    /// Steps between two choices.
    pub every: NonZeroU64,
    /// Memories `b1` of the sensitivity and `b2` of its uncertainty.
    pub memory: [f64; 2],
    /// Weight `gamma` of the penalty.
    pub orthogonality: f64,
    /// Probability of dropping an element of the update's input.
    pub dropout: f64,
    /// Sites: `"all-linear"`, names, patterns.
    pub targets: Targets,
    /// Triplets left of a site in a file that PEFT has cut, by module.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<String, usize>,
}

impl Default for AdaLora {
    fn default() -> Self {
        let rank = |r| NonZeroUsize::new(r).expect("a rank is not 0");
        Self {
            rank: rank(12),
            target_rank: rank(8),
            alpha: 16.0,
            start: None,
            finish: None,
            every: NonZeroU64::MIN,
            memory: [0.85; 2],
            orthogonality: 0.5,
            dropout: 0.0,
            targets: Targets::default(),
            ranks: BTreeMap::new(),
        }
    }
}

const NAMES: [&str; 3] = ["lora_A", "lora_B", "lora_E"];
const SENSITIVITY: [&str; 3] = ["lora_A.sensitivity", "lora_B.sensitivity", "lora_E.sensitivity"];
const UNCERTAINTY: [&str; 3] = ["lora_A.uncertainty", "lora_B.uncertainty", "lora_E.uncertainty"];
/// 1 for a triplet that was chosen, 0 for one that was not.
const CHOSEN: &str = "chosen";

/// AdaLoRA's card.
pub static CARD: Card = Card {
    id: "adalora",
    name: "AdaLoRA",
    name_zh: "自适应预算低秩适配",
    class: Class::Additional,
    family: "low-rank",
    principle: "updates as singular triplets under a budget that falls: layers that matter keep more ranks",
    principle_zh: "以奇异三元组表示增量，预算逐步收缩：重要的层保留更多秩",
    position: "parallel to any linear layer of the block",
    position_zh: "与块内任意线性层并联",
    characteristics: "spends a budget of ranks better than equal ranks do; needs the number of steps beforehand, holds \
                      two averages of each weight, and its schedule must leave time to finish",
    characteristics_zh: "比均匀分配更好地使用秩预算；需预先知道训练步数，每个权重多存两个滑动平均，且日程须留出收尾时间",
    paper: Paper { cite: "Zhang 2023", arxiv: "2303.10512" },
    references: &[91, 115, 119],
    equation: "W' = W + s B diag(E) A, A and B near orthogonal, budget of ranks b(t)",
    parameters: "r (d_in + d_out + 1)",
    hooks: &[Hook::Linear, Hook::Penalty, Hook::Schedule],
    mergeable: true,
};

impl AdaLora {
    fn at(&self, site: &Site) -> Option<usize> {
        let cut = || self.ranks.get(&site.module).copied().unwrap_or(self.rank.get());
        self.targets.matches(site).then(cut)
    }

    fn scale(&self) -> f64 {
        self.alpha / (self.rank.get() as f64 + 1e-5)
    }

    /// Steps before the budget falls, and after.
    fn ends(&self, steps: u64) -> [u64; 2] {
        let share = |set: Option<u64>, tenths: u64| set.unwrap_or(steps * tenths / 10);
        [share(self.start, 1), share(self.finish, 3)]
    }

    fn setting(key: &str, got: impl ToString, expected: &str) -> Error {
        Error::Setting { method: CARD.id, key: key.into(), got: got.to_string(), expected: expected.into() }
    }

    /// From PEFT's config.
    pub(crate) fn read(file: peft::Keys<'_>) -> Result<Self, peft::ReadError> {
        file.refuse(&["layers_to_transform", "modules_to_save", "use_dora", "fan_in_fan_out"])?;
        let cut = |(key, kept): (&String, &Value)| {
            let module = key.split(".lora_E").next().unwrap_or(key).to_string();
            let module = module.strip_prefix("base_model.model.").map_or(module.clone(), str::to_string);
            let left = kept.as_array().map_or(0, |k| k.iter().filter(|v| v.as_bool() == Some(true)).count());
            (module, left)
        };
        let ranks = file.get("rank_pattern").and_then(Value::as_object);
        Ok(Self {
            rank: file.rank("init_r")?,
            target_rank: file.rank("target_r")?,
            alpha: file.number("lora_alpha", 8.0)?,
            memory: [file.number("beta1", 0.85)?, file.number("beta2", 0.85)?],
            orthogonality: file.number("orth_reg_weight", 0.5)?,
            dropout: file.number("lora_dropout", 0.0)?,
            targets: file.targets()?,
            ranks: ranks.map(|all| all.iter().map(cut).collect()).unwrap_or_default(),
            ..Self::default()
        })
    }
}

type Tensors<'a> = &'a [(ParamSpec, Arc<Param>)];

fn find<'a>(tensors: Tensors<'a>, name: &str) -> &'a Arc<Param> {
    &tensors.iter().find(|(spec, _)| spec.name == name).expect("declared above").1
}

impl AdaLora {
    fn remember(&self, tensors: Tensors<'_>, done: &Done<'_>) {
        let [b1, b2] = self.memory;
        for ((name, sensitivity), uncertainty) in NAMES.iter().zip(SENSITIVITY).zip(UNCERTAINTY) {
            let param = find(tensors, name);
            let Some(gradient) = (done.gradient)(param) else { continue };
            let (s_of, u_of) = (find(tensors, sensitivity), find(tensors, uncertainty));
            let (mut s, mut u) = (s_of.value().to_f64_vec(), u_of.value().to_f64_vec());
            let values = param.value().to_f64_vec().into_iter().zip(gradient);
            for ((s, u), (w, g)) in s.iter_mut().zip(&mut u).zip(values) {
                let now = (w * g).abs();
                *s = b1 * *s + (1.0 - b1) * now;
                *u = b2 * *u + (1.0 - b2) * (now - *s).abs();
            }
            replace(s_of, &s);
            replace(u_of, &u);
        }
    }

    /// Scores of a site's triplets.
    fn scores(tensors: Tensors<'_>) -> Vec<f64> {
        let score = |i: usize| {
            let value = |name| find(tensors, name).value();
            let (s, u) = (value(SENSITIVITY[i]), value(UNCERTAINTY[i]));
            (
                s.dim(0),
                s.dim(1),
                s.to_f64_vec().iter().zip(u.to_f64_vec()).map(|(s, u)| s * u).collect::<Vec<_>>(),
            )
        };
        let ((r, d_in, a), (d_out, _, b), (.., e)) = (score(0), score(1), score(2));
        let of = |k: usize| {
            let mean_a = a[k * d_in..(k + 1) * d_in].iter().sum::<f64>() / d_in as f64;
            let mean_b = (0..d_out).map(|i| b[i * r + k]).sum::<f64>() / d_out as f64;
            e[k] + mean_a + mean_b
        };
        (0..r).map(of).collect()
    }

    /// Zeroes the values of triplets that are not chosen.
    fn silence(tensors: Tensors<'_>) {
        let (chosen, e) = (find(tensors, CHOSEN).value().to_f64_vec(), find(tensors, "lora_E"));
        let values = e.value().to_f64_vec().into_iter().zip(chosen);
        replace(e, &values.map(|(e, c)| if c > 0.0 { e } else { 0.0 }).collect::<Vec<_>>());
    }
}

impl Method for AdaLora {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        self.targets.check(CARD.id, sites)?;
        let outside = |s: &&Site| matches!(s.kind, SiteKind::Head | SiteKind::Embed) && self.at(s).is_some();
        if let Some(site) = sites.iter().find(outside) {
            return Err(Self::setting("targets", &site.path, "linear sites of the blocks"));
        }
        if self.target_rank > self.rank {
            return Err(Self::setting("target_rank", self.target_rank, "at most the first rank"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Self::setting("dropout", self.dropout, "a probability below 1"));
        }
        if self.memory.iter().any(|m| !(*m > 0.0 && *m < 1.0)) {
            return Err(Self::setting("memory", format!("{:?}", self.memory), "numbers between 0 and 1"));
        }
        if !(self.orthogonality >= 0.0 && self.alpha.is_finite()) {
            return Err(Self::setting("orthogonality", self.orthogonality, "a number from 0"));
        }
        Ok(())
    }

    fn check_steps(&self, steps: u64) -> Result<(), Error> {
        let [start, finish] = self.ends(steps);
        if start + finish < steps {
            return Ok(());
        }
        let expected = format!("start and finish to leave steps between them in a run of {steps}");
        Err(Self::setting("start", format!("{start} with finish {finish}"), &expected))
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let Scope::Site(site) = scope else { return Vec::new() };
        let Some(r) = self.at(site) else { return Vec::new() };
        let shapes = [vec![r, site.d_in], vec![site.d_out, r], vec![r, 1]];
        let inits = [Init::Normal { std: 0.02 }, Init::Normal { std: 0.02 }, Init::Zeros];
        let mut specs = Vec::new();
        for (i, (shape, init)) in shapes.into_iter().zip(inits).enumerate() {
            for name in [SENSITIVITY[i], UNCERTAINTY[i]] {
                specs.push(ParamSpec { name, shape: shape.clone(), init: Init::Zeros, role: Role::State });
            }
            specs.push(ParamSpec { name: NAMES[i], shape, init, role: Role::Trainable });
        }
        specs.push(ParamSpec { name: CHOSEN, shape: vec![r], init: Init::Ones, role: Role::State });
        specs
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) => self.at(site).map_or(0, |r| r * (site.d_in + site.d_out + 1)),
            _ => 0,
        }
    }

    fn count_frozen(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) => self.at(site).map_or(0, |r| 2 * r * (site.d_in + site.d_out + 1) + r),
            _ => 0,
        }
    }

    /// As LoRA; the values between the factors cost no product.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let Some(r) = self.at(site) else { return Cost::default() };
        let once = 2 * (n * r * (site.d_in + site.d_out)) as u64;
        Cost { forward_flops: once, backward_flops: 2 * once, saved_elements: (n * r) as u64 }
    }

    fn linear(&self, _: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        let low_rank = LowRank {
            dropout: context.dropout(self.dropout, &site.path),
            middle: Some(params.get("lora_E").clone()),
            ..LowRank::new(params.get("lora_A").clone(), params.get("lora_B").clone(), self.scale())
        };
        Delta { low_rank: Some(low_rank), ..Delta::default() }
    }

    fn penalty(&self, tape: &Tape, adapter: &Adapter) -> Option<Var> {
        let sided = adapter.tensors().filter_map(|(_, spec, param)| match spec.name {
            "lora_A" => Some((tape.leaf(param), Side::Rows)),
            "lora_B" => Some((tape.leaf(param), Side::Columns)),
            _ => None,
        });
        let sided = sided.collect::<Vec<_>>();
        if self.orthogonality > 0.0 { penalty(tape, &sided, self.orthogonality) } else { None }
    }

    fn after_step(&self, adapter: &Adapter, done: &Done<'_>) {
        let [start, finish] = self.ends(done.steps);
        let last_choice = done.steps.saturating_sub(finish);
        if done.t > last_choice {
            return adapter.sites().for_each(|(_, tensors)| Self::silence(tensors));
        }
        if done.t < last_choice {
            adapter.sites().for_each(|(_, tensors)| self.remember(tensors, done));
        }
        let due = done.t > start && done.t.is_multiple_of(self.every.get());
        if !due && done.t != last_choice {
            return;
        }
        let scores = adapter.sites().map(|(_, tensors)| Self::scores(tensors)).collect::<Vec<_>>();
        let last = self.target_rank.get() * scores.len();
        let first = scores.iter().map(Vec::len).sum();
        let budget = Budget { first, last, start, finish, steps: done.steps };
        let mut keeps = kept(&scores.concat(), budget.at(done.t)).into_iter();
        for (_, tensors) in adapter.sites() {
            let chosen = find(tensors, CHOSEN);
            let own = keeps.by_ref().take(chosen.value().numel()).map(|k| f64::from(u8::from(k)));
            replace(chosen, &own.collect::<Vec<_>>());
            Self::silence(tensors);
        }
    }

    fn merge(
        &self,
        _: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        let find = |name| &tensors.iter().find(|(n, _)| *n == name).expect("declared above").1;
        let (a, e) = (find("lora_A"), find("lora_E").to_f64_vec());
        let mut values = a.to_f64_vec();
        for (row, e) in values.chunks_mut(a.cols().max(1)).zip(e) {
            row.iter_mut().for_each(|v| *v *= e);
        }
        let scaled = Tensor::from_f64(a.shape(), &values, luthier_tensor::DType::F64, Account::Workspace);
        Ok(peft::add_product(weight, find("lora_B"), &scaled, self.scale()))
    }

    /// The schedule is over when a file is written; PEFT wants one all the same.
    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        let pattern =
            |(module, left): (&String, &usize)| (format!("{module}.lora_E"), json!(vec![true; *left]));
        let ranks = self.ranks.iter().map(pattern).collect::<serde_json::Map<_, _>>();
        json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": base_name,
            "beta1": self.memory[0],
            "beta2": self.memory[1],
            "bias": "none",
            "deltaT": self.every,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "init_r": self.rank,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": peft::whole_or_float(self.alpha),
            "lora_dropout": self.dropout,
            "modules_to_save": null,
            "orth_reg_weight": self.orthogonality,
            "peft_type": "ADALORA",
            "peft_version": peft::VERSION,
            "r": 8,
            "rank_pattern": if ranks.is_empty() { Value::Null } else { Value::Object(ranks) },
            "revision": null,
            "target_modules": peft::names_of(sites, &|s| self.at(s).is_some()),
            "target_r": self.target_rank,
            "task_type": "CAUSAL_LM",
            "tfinal": self.finish.unwrap_or(0),
            "tinit": self.start.unwrap_or(0),
            "total_step": self.start.unwrap_or(0) + self.finish.unwrap_or(0) + 1,
            "use_dora": false,
            "use_rslora": false,
        })
    }

    fn tensor_key(&self, site: &Site, name: &str) -> String {
        format!("base_model.model.{}.{name}", site.module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::Case;

    luthier_testkit::laws!(|| {
        let rank = |r| NonZeroUsize::new(r).unwrap();
        Case::new(AdaLora { rank: rank(3), target_rank: rank(2), dropout: 0.25, ..AdaLora::default() })
    });

    #[test]
    fn a_run_too_short_for_its_schedule_is_refused() {
        let method = AdaLora { start: Some(5), finish: Some(5), ..AdaLora::default() };
        let error = method.check_steps(10).unwrap_err().to_string();
        let expected = "adalora.start is 5 with finish 5, expected start and finish to leave steps between them in a \
                        run of 10";
        assert_eq!(error, expected);
        assert!(method.check_steps(11).is_ok());
    }
}
