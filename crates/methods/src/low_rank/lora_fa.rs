//! LoRA-FA: LoRA with A frozen at its random start.
//!
//! `y = x W^T + s x A^T B^T`, only `B [d_out, r]` trains. No gradient of A is formed, so that a layer need not keep its
//! input `x`: `x A^T [n, r]` suffices.
//!
//! - Paper: Zhang 2023, <https://arxiv.org/abs/2308.03303>, section 3.1: the first version, the survey's. PEFT's
//!   `LoraFAOptimizer` is the paper's second version, which also corrects B's gradient by `(A A^T)^-1`.
//! - The adapter is a LoRA's, A included, and PEFT reads it as one.
use crate::low_rank::lora::Lora;
use crate::parts::over_lora::as_lora;
use luthier_contract::{
    BaseParam, Card, Class, Context, Cost, Delta, Error, Hook, Method, Paper, ParamSpec, Params, Role, Scope,
    Site, Training, Unmergeable,
};
use luthier_tensor::{Tape, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[method.lora-fa]`: LoRA's settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LoraFa {
    /// LoRA's settings.
    pub lora: Lora,
}

/// LoRA-FA's card.
pub static CARD: Card = Card {
    id: "lora-fa",
    name: "LoRA-FA",
    name_zh: "冻结 A 的低秩适配",
    class: Class::Additional,
    family: "low-rank",
    principle: "LoRA with A frozen: no layer keeps its input for A's gradient",
    principle_zh: "冻结 LoRA 的 A：各层无需为 A 的梯度保存输入",
    position: "parallel to any linear layer of the block",
    position_zh: "与块内任意线性层并联",
    characteristics: "less activation memory and half the trained parameters; the change stays in the rows of a random \
                      A, so that it may need a larger rank than LoRA",
    characteristics_zh: "激活显存更少，可训练参数约减半；更新被限制在随机 A 的行空间内，可能需要比 LoRA 更大的秩",
    paper: Paper { cite: "Zhang 2023", arxiv: "2308.03303" },
    references: &[134],
    equation: "W' = W + (alpha / r) B A, A frozen",
    parameters: "r d_out",
    hooks: &[Hook::Linear],
    mergeable: true,
};

impl Method for LoraFa {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error> {
        self.lora.check_as(CARD.id, sites, base)
    }

    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let mut specs = self.lora.declare(scope);
        specs.iter_mut().filter(|s| s.name == "lora_A").for_each(|s| s.role = Role::Frozen);
        specs
    }

    fn count(&self, scope: Scope<'_>) -> usize {
        self.lora.count(scope) - self.count_frozen(scope)
    }

    fn count_frozen(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::Site(site) => self.lora.at(site).map_or(0, |(r, _)| r * site.d_in),
            Scope::Layer(_) | Scope::Model(_) => 0,
        }
    }

    /// LoRA's without the product for A's gradient.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let spared = self.lora.at(site).map_or(0, |(r, _)| 2 * (n * r * site.d_in) as u64);
        let lora = self.lora.cost(site, n);
        Cost { backward_flops: lora.backward_flops - spared, ..lora }
    }

    as_lora!(trains, linear, merge, adapter_config, keys);
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_testkit::Case;

    luthier_testkit::laws!(|| {
        let lora = Lora { rank: std::num::NonZeroUsize::new(2).unwrap(), dropout: 0.25, ..Lora::default() };
        Case::new(LoraFa { lora })
    });
}
