//! Layer freezing: the upper blocks and the head train, everything below is as it was.
//!
//! `W' = W - eta update(dL/dW)` for the blocks from the cut up; backward stops at the cut, since nothing below it
//! needs a gradient: its cost is `2 N + 4 N_k` operations a token, and only the blocks above keep activations.
//!
//! - Paper: Lee 2019, "What would Elsa do? Freezing layers during transformer fine-tuning",
//!   <https://arxiv.org/abs/1911.03090>, section 4: a quarter of the layers reaches 90 % of the quality.
//! - `layers = 0, parts = ["head"]` is the linear probe.
//! - Differs from the paper: a decoder's final norm trains by default as well, since it belongs to the head's input.
//!   A head that is the embedding becomes a tensor of its own when only one of the two trains.
use crate::full::full_ft::MasterWeights;
use luthier_contract::{
    BaseParam, Card, Class, Error, Hook, Method, Paper, Scope, Site, Training, Unmergeable,
};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// `[method.freeze-layers]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct FreezeLayers {
    /// Blocks that train: so many from the top, or `[first, last]`. A quarter of them, rounded up, where it is left
    /// out (Lee 2019, section 4).
    pub layers: Option<Blocks>,
    /// What trains outside the blocks: `embed`, `norm` (the last one), `head`, or names of modules.
    pub parts: Vec<String>,
    /// How trained weights are held.
    pub master: MasterWeights,
}

/// A choice of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Blocks {
    /// So many from the top.
    Top(usize),
    /// From the first to the last, both included, counted from 0.
    Range([usize; 2]),
}

impl Default for FreezeLayers {
    fn default() -> Self {
        let parts = ["norm", "head"].map(String::from).to_vec();
        Self { layers: None, parts, master: MasterWeights::default() }
    }
}

/// Layer freezing's card.
pub static CARD: Card = Card {
    id: "freeze-layers",
    name: "layer freezing",
    name_zh: "层冻结",
    class: Class::Partial,
    family: "subset",
    principle: "the upper blocks and the head train: lower blocks hold what all tasks share",
    principle_zh: "只训练上层块与输出头：下层保存各任务共有的知识",
    position: "whole blocks from a cut up, the last norm, the head",
    position_zh: "切分点以上的整块、末层归一化与输出头",
    characteristics: "backward stops at the cut, so that time and memory fall with the blocks that train; no new \
                      parameters; coarse: the layers that a task needs may lie below the cut; use it for linear \
                      probes and where little memory meets much data",
    characteristics_zh: "反向传播止于切分点，时间与显存随训练层数下降；不增加参数；粒度粗，任务所需的层可能在切分点之下；\
                         适合线性探针以及显存少而数据多的场合",
    paper: Paper { cite: "Lee 2019", arxiv: "1911.03090" },
    references: &[114],
    equation: "W' = W - eta update(dL/dW) for blocks from the cut up",
    parameters: "k blocks + parts",
    hooks: &[Hook::Base],
    mergeable: true,
};

impl FreezeLayers {
    /// Whether the tensor lies in a part of that name.
    fn is_part(param: &BaseParam, part: &str) -> bool {
        let module = param.module();
        let ends = module.strip_suffix(part).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        param.layer.is_none() && (param.path.split('.').next() == Some(part) || ends)
    }

    fn setting(key: &str, got: impl ToString, expected: impl Into<String>) -> Error {
        Error::Setting { method: CARD.id, key: key.into(), got: got.to_string(), expected: expected.into() }
    }
}

fn blocks(base: &[BaseParam]) -> usize {
    base.iter().filter_map(|p| p.layer).max().map_or(0, |i| i + 1)
}

impl Method for FreezeLayers {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, _: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        let all = blocks(base);
        match self.layers {
            Some(Blocks::Top(k)) if k > all => {
                return Err(Self::setting("layers", k, format!("at most {all}, the model's blocks")));
            }
            Some(Blocks::Range([first, last])) if first > last || last >= all => {
                let expected = format!("[first, last] within 0 to {}", all.saturating_sub(1));
                return Err(Self::setting("layers", format!("[{first}, {last}]"), expected));
            }
            _ => {}
        }
        if let Some(part) = self.parts.iter().find(|part| !base.iter().any(|p| Self::is_part(p, part))) {
            let mut known = base.iter().filter(|p| p.layer.is_none());
            let mut names = known.by_ref().filter_map(|p| p.path.split('.').next()).collect::<Vec<_>>();
            names.dedup();
            return Err(Self::setting("parts", part, names.join(", ")));
        }
        if self.layers == Some(Blocks::Top(0)) && self.parts.is_empty() {
            return Err(Self::setting("parts", "[] with layers = 0", "something that trains"));
        }
        Ok(())
    }

    fn fitted(&self, _: &[Site], base: &[BaseParam]) -> Option<Arc<dyn Method>> {
        let all = blocks(base);
        let range = match self.layers {
            None => [all - all.div_ceil(4), all.saturating_sub(1)],
            Some(Blocks::Top(0) | Blocks::Range(_)) => return None,
            Some(Blocks::Top(k)) => [all - k, all - 1],
        };
        Some(Arc::new(Self { layers: Some(Blocks::Range(range)), ..self.clone() }))
    }

    fn count(&self, _: Scope<'_>) -> usize {
        0 // it adds nothing: what trains is the base's own
    }

    fn trains(&self, param: &BaseParam) -> Training {
        let trains = match (param.layer, self.layers) {
            (Some(i), Some(Blocks::Range([first, last]))) => (first..=last).contains(&i),
            (Some(_), _) => false, // `Top(0)`: the others are ranges once fitted
            (None, _) => self.parts.iter().any(|part| Self::is_part(param, part)),
        };
        if trains { Training::Trained(self.master.held()) } else { Training::Frozen }
    }

    fn merge(&self, _: &Site, _: &[(&'static str, Tensor)], weight: &Tensor) -> Result<Tensor, Unmergeable> {
        Ok(weight.clone())
    }

    fn adapter_config(&self, base_name: &str, _: &[Site]) -> Value {
        json!({ "luthier_type": CARD.id, "version": 1, "base_model_name_or_path": base_name })
    }

    fn base_key(&self, param: &BaseParam) -> String {
        param.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_contract::Mode;
    use luthier_tensor::{DType, ParamId, Tape, flops};
    use luthier_testkit::{Case, batch, build, spec};
    use std::collections::BTreeMap;

    mod top_quarter {
        use super::*;
        luthier_testkit::laws!(|| Case::new(FreezeLayers::default()));
    }

    mod linear_probe {
        use super::*;
        luthier_testkit::laws!(|| Case::new(probe()));
    }

    fn probe() -> FreezeLayers {
        FreezeLayers { layers: Some(Blocks::Top(0)), parts: vec!["head".into()], ..FreezeLayers::default() }
    }

    /// Operations of a backward run, and which tensors got a gradient.
    fn backward(method: FreezeLayers) -> (u64, Vec<String>) {
        let case = Case { spec: spec(2), ..Case::new(method) };
        let built = build(&case, DType::F32);
        let mode = Mode::Train { seed: 0, step: 0, pass: 0, first_row: 0 };
        let (context, rows, targets) = batch(&case.spec, &[6, 3], 1, mode);
        let tape = Tape::new();
        let loss = built.model.loss(&tape, &built.run(&context), &rows, &targets);
        let before = flops();
        let mut gradients = BTreeMap::<ParamId, Tensor>::new();
        tape.backward(loss.sum, 1.0, &mut gradients);
        let spent = flops() - before;
        let got = built.model.trained().iter().filter(|(_, p)| gradients.contains_key(&p.id()));
        (spent, got.map(|(p, _)| p.path.clone()).collect())
    }

    #[test]
    fn backward_stops_at_the_cut() {
        let top = |k| FreezeLayers { layers: Some(Blocks::Top(k)), ..FreezeLayers::default() };
        let [none, one, two, three] = [0, 1, 2, 3].map(|k| backward(top(k)).0);
        assert!(none < one, "{none} and {one}");
        assert_eq!((one - none, one - none), (two - one, three - two), "blocks are alike");
        let (_, got) = backward(probe());
        assert_eq!(got, ["head.weight"]);
    }

    #[test]
    fn a_range_that_is_not_there_is_refused() {
        let spec = spec(2);
        let check = |layers| {
            let method = FreezeLayers { layers: Some(layers), ..FreezeLayers::default() };
            method.check(&spec.sites(), &spec.base_params()).map_err(|e| e.to_string())
        };
        assert_eq!(
            check(Blocks::Range([2, 3])).unwrap_err(),
            "freeze-layers.layers is [2, 3], expected [first, last] within 0 to 2"
        );
        assert!(check(Blocks::Top(4)).is_err());
        assert_eq!(check(Blocks::Range([0, 2])), Ok(()));
        let parts = FreezeLayers { parts: vec!["tail".into()], ..FreezeLayers::default() };
        let error = parts.check(&spec.sites(), &spec.base_params()).unwrap_err();
        assert_eq!(error.to_string(), "freeze-layers.parts is tail, expected embed, norm, head");
    }
}
