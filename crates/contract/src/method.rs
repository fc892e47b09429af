//! A fine-tuning method, configured: one file, one type, one implementation.
use crate::adapter::{Adapter, Params};
use crate::card::Card;
use crate::context::Context;
use crate::error::Error;
use crate::param::{ParamSpec, Scope};
use crate::site::{BaseParam, Site};
use crate::update::{Done, Group, Trained, Update};
use luthier_kernels::linear::Delta;
use luthier_tensor::{Tape, Tensor, Var};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// What training does with a tensor of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Training {
    /// Nothing.
    Frozen,
    /// It trains.
    Trained(Master),
}

/// How a trained base weight is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Master {
    /// In f32 (f64 on the reference path).
    F32,
    /// In bf16, updated with stochastic rounding: no second copy.
    Bf16,
}

/// What `n` tokens cost at a site over the frozen layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Operations of the forward run.
    pub forward_flops: u64,
    /// Operations of the backward run, the gradient of the site's input included.
    pub backward_flops: u64,
    /// Elements kept for backward that the plain layer would not keep.
    pub saved_elements: u64,
}

/// Why an adapter cannot become a weight.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{method} cannot be merged: {reason}")]
pub struct Unmergeable {
    /// The method's id.
    pub method: &'static str,
    /// In plain words.
    pub reason: &'static str,
}

/// A fine-tuning method.
///
/// Required: what every method has. The hooks default to "do nothing", so that a method states only where it steps
/// in. Everything here is pure: tensors live in an [`Adapter`](crate::Adapter).
pub trait Method: fmt::Debug + Send + Sync {
    /// The method's card.
    fn card(&self) -> &'static Card;

    /// Whether the settings fit these sites and base tensors. Called before anything loads.
    fn check(&self, sites: &[Site], base: &[BaseParam]) -> Result<(), Error>;

    /// The same method with what depends on the model filled in (a share of its blocks); none if nothing does. Called
    /// after [`check`](Self::check), and before anything else.
    fn fitted(&self, sites: &[Site], base: &[BaseParam]) -> Option<Arc<dyn Method>> {
        let _ = (sites, base);
        None
    }

    /// Whether the settings fit a run of so many steps.
    fn check_steps(&self, steps: u64) -> Result<(), Error> {
        let _ = steps;
        Ok(())
    }

    /// The tensors added at `scope`. Reads no weight.
    fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
        let _ = scope;
        Vec::new()
    }

    /// Trainable parameters at `scope` by the paper's formula, written out by hand: a second opinion on
    /// [`declare`](Self::declare), held to it by a law.
    fn count(&self, scope: Scope<'_>) -> usize;

    /// Elements at `scope` that are held and do not train, by hand as well.
    fn count_frozen(&self, scope: Scope<'_>) -> usize {
        let _ = scope;
        0
    }

    /// What `n` tokens cost at `site`, over the frozen layer.
    fn cost(&self, site: &Site, n: usize) -> Cost {
        let _ = (site, n);
        Cost::default()
    }

    /// [`Hook::Base`](crate::Hook::Base): what training does with a tensor of the base.
    fn trains(&self, param: &BaseParam) -> Training {
        let _ = param;
        Training::Frozen
    }

    /// [`Hook::Linear`](crate::Hook::Linear): what is added at `site`, described so that the engine can fuse it.
    fn linear(&self, tape: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
        let _ = (tape, site, params, context);
        Delta::default()
    }

    /// [`Hook::Update`](crate::Hook::Update), [`Hook::Estimator`](crate::Hook::Estimator): how training moves what
    /// trains.
    fn update(&self) -> Update {
        Update::default()
    }

    /// What is particular to the update of one tensor.
    fn group(&self, tensor: Trained<'_>) -> Group {
        let _ = tensor;
        Group::default()
    }

    /// [`Hook::Penalty`](crate::Hook::Penalty): a term `[1]` that is added to the mean loss of a step.
    fn penalty(&self, tape: &Tape, adapter: &Adapter) -> Option<Var> {
        let _ = (tape, adapter);
        None
    }

    /// [`Hook::Schedule`](crate::Hook::Schedule): after a step's update. What it remembers is declared as
    /// [`Role::State`](crate::Role::State).
    fn after_step(&self, adapter: &Adapter, done: &Done<'_>) {
        let _ = (adapter, done);
    }

    /// The weight `W' [d_out, d_in]` that makes the adapted layer a plain one: `weight` (f32 or f64) plus the
    /// method's effect. Only called for sites at which the method declares tensors.
    fn merge(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        weight: &Tensor,
    ) -> Result<Tensor, Unmergeable>;

    /// The bias that goes with [`merge`](Self::merge)'s weight, where the layer has one.
    fn merge_bias(
        &self,
        site: &Site,
        tensors: &[(&'static str, Tensor)],
        bias: &Tensor,
    ) -> Result<Tensor, Unmergeable> {
        let _ = (site, tensors);
        Ok(bias.clone())
    }

    /// `adapter_config.json`: PEFT's where PEFT has the method, else our own type. `sites` are all of
    /// the model's.
    fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value;

    /// Name of a declared tensor in `adapter_model.safetensors`. PEFT's rule by default.
    fn tensor_key(&self, site: &Site, name: &str) -> String {
        format!("base_model.model.{}.{name}.weight", site.module)
    }

    /// Name of a tensor that the model shares in `adapter_model.safetensors`. PEFT's rule by default.
    fn shared_key(&self, name: &str) -> String {
        format!("base_model.{name}")
    }

    /// Name of a trained tensor of the base in `adapter_model.safetensors`. PEFT's rule by default.
    fn base_key(&self, param: &BaseParam) -> String {
        format!("base_model.model.{}", param.name)
    }
}
