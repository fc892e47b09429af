//! Broken methods: each shows that one law can fail.
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Init, Method, Paper, ParamSpec, Params, Scope,
    Site, Training, Unmergeable,
};
use luthier_tensor::{Tape, Tensor};
use serde_json::Value;
use std::sync::Arc;

static CARD: Card = Card {
    id: "mutant",
    name: "mutant",
    name_zh: "变异体",
    class: Class::Additional,
    family: "test",
    principle: "a method with one fault",
    principle_zh: "带有一处错误的方法",
    position: "any",
    position_zh: "任意",
    characteristics: "only in tests",
    characteristics_zh: "仅用于测试",
    paper: Paper { cite: "none", arxiv: "none" },
    references: &[],
    equation: "none",
    parameters: "none",
    hooks: &[Hook::Linear],
    mergeable: true,
};

/// Does nothing: the base as it is.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Method for Nothing {
    fn card(&self) -> &'static Card {
        &CARD
    }
    fn check(&self, _: &[Site], _: &[BaseParam]) -> Result<(), Error> {
        Ok(())
    }
    fn count(&self, _: Scope<'_>) -> usize {
        0
    }
    fn merge(&self, _: &Site, _: &[(&'static str, Tensor)], weight: &Tensor) -> Result<Tensor, Unmergeable> {
        Ok(weight.clone())
    }
    fn adapter_config(&self, _: &str, _: &[Site]) -> Value {
        Value::Null
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// First values are ones where the method says zeros.
    StartsElsewhere,
    /// The update is dropped, in `linear` and in `merge` alike.
    DoesNothing,
    /// `merge` gives the base.
    MergeForgets,
    /// The formula is one off.
    CountsOneMore,
    /// A trained tensor is read detached from the tape.
    ReadsDetached,
    /// Dropout draws do not follow the row within the step.
    DrawsByMicroBatch,
    /// The bytes of a declared tensor are not those of its formula: a frozen tensor hides beside it.
    HidesATensor,
    /// The cost formula counts three products where there are two.
    CostsMore,
    /// A block's first run and its replay differ.
    ChangesWhenReplayed,
}

/// A method with a [`Fault`].
#[derive(Debug)]
pub struct Mutant {
    inner: Arc<dyn Method>,
    fault: Fault,
}

impl Mutant {
    /// `inner`, broken.
    pub fn new(inner: impl Method + 'static, fault: Fault) -> Self {
        Self { inner: Arc::new(inner), fault }
    }
}

impl Method for Mutant {
    fn card(&self) -> &'static Card {
        self.inner.card()
    }

    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        self.inner.check(sites, base)
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let mut specs = self.inner.declare(scope);
        match self.fault {
            Fault::StartsElsewhere => {
                specs.iter_mut().filter(|s| matches!(s.init, Init::Zeros)).for_each(|s| s.init = Init::Ones);
            }
            Fault::HidesATensor if !specs.is_empty() => {
                let role = luthier_contract::Role::Frozen;
                specs.push(ParamSpec { name: "hidden", shape: vec![3], init: Init::Zeros, role });
            }
            _ => {}
        }
        specs
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        let extra = matches!((self.fault, scope), (Fault::CountsOneMore, Scope::Model(_)));
        self.inner.count(scope) + usize::from(extra)
    }

    fn cost(&self, site: &Site, n: usize) -> Cost {
        let cost = self.inner.cost(site, n);
        if self.fault == Fault::CostsMore {
            return Cost { forward_flops: cost.forward_flops * 3 / 2, ..cost };
        }
        cost
    }

    fn trains(&self, param: &BaseParam) -> Training {
        self.inner.trains(param)
    }

    fn linear(&self, tape: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        let mut delta = self.inner.linear(tape, site, params, context);
        match (self.fault, &mut delta.low_rank) {
            (Fault::DoesNothing, low_rank) => *low_rank = None,
            (Fault::ReadsDetached, Some(low_rank)) => low_rank.a = low_rank.a.detach(),
            (Fault::DrawsByMicroBatch, Some(low_rank)) => {
                low_rank.dropout.iter_mut().for_each(|d| d.first_row = 0);
            }
            // The first run of a recomputed block is on a tape that notes leaves and keeps no nodes.
            (Fault::ChangesWhenReplayed, Some(low_rank))
                if tape.is_recording() && !tape.wants(&[&low_rank.a]) =>
            {
                low_rank.scale *= 1.001;
            }
            _ => {}
        }
        delta
    }

    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        match self.fault {
            Fault::MergeForgets | Fault::DoesNothing => Ok(weight.clone()),
            _ => self.inner.merge(site, tensors, weight),
        }
    }

    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
        self.inner.adapter_config(base_name, sites)
    }
}
