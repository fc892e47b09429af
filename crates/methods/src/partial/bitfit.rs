//! BitFit: only biases train.
//!
//! `y = W x + b` with `W` frozen and `b` trained. Where the base has no bias, one is inserted at zero: `y = W x + 0`,
//! so that step 0 is the base model.
//!
//! - Paper: Ben Zaken 2021, <https://arxiv.org/abs/2106.10199>, section 3: all biases, or those of the query and of
//!   the first layer of the MLP (`targets = ["q", "up"]`).
//! - Differs from the paper: bases of today (Llama's family) have no biases, so that ours are inserted at each target
//!   that lacks one. A base that has them all comes out as a model of its own; inserted ones are an adapter, which
//!   cannot be merged where the family's files have no place for them.
use crate::own_file;
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Init, Master, Method, Paper, ParamSpec,
    Params, Role, Scope, Site, SiteKind, Targets, Training, Unmergeable,
};
use luthier_tensor::{Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[method.bitfit]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bitfit {
    /// Sites whose biases train: `"all-linear"` (every bias of the base with them, norms' too), names, patterns.
    pub targets: Targets,
}

/// BitFit's card.
pub static CARD: Card = Card {
    id: "bitfit",
    name: "BitFit",
    name_zh: "偏置微调",
    class: Class::Partial,
    family: "subset",
    principle: "only biases train: fine-tuning exposes what the base knows more than it teaches",
    principle_zh: "只训练偏置：微调更多是激发底座已有的知识，而非学习新知识",
    position: "biases of linear layers and norms; zero biases are inserted where the base has none",
    position_zh: "线性层与归一化的偏置；底座没有偏置处插入零偏置",
    characteristics: "fewer than 0.1 % of the parameters, no multiplication added, strong on little data; too small \
                      for tasks far from the base, and inserted biases need a runtime that takes them",
    characteristics_zh: "参数不足 0.1%，不增加乘法，小数据上表现好；离底座较远的任务容量不足，插入的偏置需要运行时支持",
    paper: Paper { cite: "Ben Zaken 2021", arxiv: "2106.10199" },
    references: &[55],
    equation: "y = W x + b, b trained",
    parameters: "d_out",
    hooks: &[Hook::Base, Hook::Linear],
    mergeable: false,
};

impl Bitfit {
    /// Whether a zero bias is added at `site`.
    fn inserts(&self, site: &Site) -> bool {
        !site.has_bias && site.kind != SiteKind::Embed && self.targets.matches(site)
    }

    /// The site that a bias of the base belongs to.
    fn site_of(param: &BaseParam, kind: SiteKind) -> Site {
        Site {
            path: param.path.trim_end_matches(".bias").into(),
            module: param.module().into(),
            kind,
            layer: param.layer,
            d_in: 1,
            d_out: param.shape[0],
            has_bias: true,
        }
    }
}

impl Method for Bitfit {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        self.targets.check(CARD.id, sites)
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        match scope {
            Scope::Site(site) if self.inserts(site) => vec![ParamSpec {
                name: "bias",
                shape: vec![site.d_out],
                init: Init::Zeros,
                role: Role::Trainable,
            }],
            _ => Vec::new(),
        }
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) if self.inserts(site) => site.d_out,
            _ => 0,
        }
    }

    /// A column of ones times the bias, forward; its transpose times `dy`, backward.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let once = if self.inserts(site) { 2 * (n * site.d_out) as u64 } else { 0 };
        Cost { forward_flops: once, backward_flops: once, saved_elements: 0 }
    }

    fn trains(&self, param: &BaseParam) -> Training {
        let trains = param.is_bias
            && match param.site {
                Some(kind) => self.targets.matches(&Self::site_of(param, kind)),
                None => self.targets == Targets::default(),
            };
        if trains { Training::Trained(Master::F32) } else { Training::Frozen }
    }

    fn linear(&self, _: &Tape, site: &Site, params: &Params, _: &Context) -> Delta {
        let bias = self.inserts(site).then(|| params.get("bias").clone());
        Delta { bias, ..Delta::default() }
    }

    fn merge(&self, _: &Site, _: &[(&'static str, Tensor)], _: &Tensor) -> Result<Tensor, Unmergeable> {
        let reason = "a bias that was inserted has no place in a base without one";
        Err(Unmergeable { method: CARD.id, reason })
    }

    fn adapter_config(&self, base_name: &str, _: &[Site]) -> Value {
        own_file::config(CARD.id, base_name, self)
    }

    fn tensor_key(&self, site: &Site, name: &str) -> String {
        format!("base_model.model.{}.{name}", site.module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::{Case, spec};

    luthier_testkit::laws!(|| Case::new(Bitfit::default()));

    mod queries_and_up {
        use super::*;
        luthier_testkit::laws!(|| Case::new(Bitfit {
            targets: Targets::Many(vec!["q".into(), "up".into()])
        }));
    }

    /// The formula for a Llama block of width d, MLP f, keys and values of width k: 2 d + 2 k + 2 f + d.
    #[test]
    fn every_linear_of_a_block_gets_one() {
        for shape in (0..3).map(spec) {
            let method = Bitfit::default();
            let added = shape.sites().iter().map(|s| method.count(Scope::Site(s))).sum::<usize>();
            let trained = shape.base_params().into_iter();
            let trained = trained.filter(|p| method.trains(p) != Training::Frozen).map(|p| p.numel());
            let (q, k) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
            let block = q + 2 * k + shape.d_model + 2 * shape.d_ff + shape.d_model;
            assert_eq!(added + trained.sum::<usize>(), shape.layers * block);
        }
    }

    #[test]
    fn its_file_is_read_again() {
        let method = Bitfit { targets: Targets::Many(vec!["q".into()]) };
        let file = crate::read_config(&method.adapter_config("base", &[])).unwrap();
        assert_eq!(file.base_name.as_deref(), Some("base"));
        for site in spec(0).sites() {
            assert_eq!(file.method.count(Scope::Site(&site)), method.count(Scope::Site(&site)));
        }
    }
}
