//! One block: attention and MLP, each with its residual and its norm before or behind.
use super::Run;
use crate::model::{Layer, Linear, Model, NormSlots};
use crate::spec::{NormPlace, Relative};
use luthier_kernels::activation::{Activation, activate};
use luthier_kernels::attention::{AttentionSpec, attention};
use luthier_kernels::disentangled::{DisentangledSpec, disentangled};
use luthier_kernels::dropout::{Dropout, dropout};
use luthier_kernels::elementwise::add;
use luthier_kernels::gated_mlp::gated;
use luthier_kernels::layer_norm::{add_layer_norm, layer_norm};
use luthier_kernels::rms_norm::{add_rms_norm, rms_norm};
use luthier_kernels::rope::{Rope, rope};
use luthier_tensor::{Tape, Var};
use std::sync::Arc;

/// What blocks need of the model, shared with their replays.
#[derive(Clone)]
pub(super) struct Wires {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    eps: f64,
    causal: bool,
    post: bool,
    rope: Option<Arc<Rope>>,
    activation: Activation,
    attention_dropout: f64,
    mlp_dropout: f64,
    relative: Option<Relative>,
}

/// The norm of rows.
pub(super) fn norm(tape: &Tape, x: &Var, slots: &NormSlots, eps: f64) -> Var {
    let weight = slots.weight.on(tape);
    match &slots.bias {
        Some(bias) => layer_norm(tape, x, &weight, &bias.on(tape), eps),
        None => rms_norm(tape, x, &weight, eps),
    }
}

/// `x + delta` and its norm.
fn add_norm(tape: &Tape, x: Var, delta: Var, slots: &NormSlots, eps: f64) -> (Var, Var) {
    let weight = slots.weight.on(tape);
    match &slots.bias {
        Some(bias) => add_layer_norm(tape, x, delta, &weight, &bias.on(tape), eps),
        None => add_rms_norm(tape, x, delta, &weight, eps),
    }
}

impl Wires {
    pub(super) fn new(model: &Model) -> Self {
        let spec = &model.spec;
        Self {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            eps: spec.eps,
            causal: spec.wiring.causal,
            post: spec.wiring.place == NormPlace::Post,
            rope: model.rope.clone(),
            activation: spec.activation,
            attention_dropout: spec.wiring.dropout.attention,
            mlp_dropout: spec.wiring.dropout.mlp,
            relative: spec.wiring.relative,
        }
    }

    pub(super) fn attention(&self, window: Option<usize>) -> AttentionSpec {
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        AttentionSpec {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale,
            causal: self.causal,
            window,
        }
    }

    /// Attention of the block's input, before its projection: `[n, heads head_dim]`. `relative` is the table of relative
    /// positions, where scores use one.
    pub(super) fn attended(
        &self,
        tape: &Tape,
        layer: &Layer,
        run: &Run,
        x: &Var,
        relative: Option<&Var>,
    ) -> Var {
        let [q, k, v] = self.qkv(tape, layer, run, x);
        match (relative, self.relative) {
            (Some(table), Some(spec)) => self.with_relative(tape, layer, run, [&q, &k, &v], table, spec),
            _ => attention(tape, &q, &k, &v, &self.attention(layer.window), &run.context.segments),
        }
    }

    /// DeBERTa's attention. An adapter of the projections that positions share acts on positions too, as in PEFT.
    fn with_relative(
        &self,
        tape: &Tape,
        layer: &Layer,
        run: &Run,
        [q, k, v]: [&Var; 3],
        table: &Var,
        spec: Relative,
    ) -> Var {
        let place = format!("layers.{}.attn.relative", layer.index);
        // The table is of no segment: its rows draw alike in every micro-batch.
        let dropped = run.context.dropout(spec.dropout, &place);
        let table = match dropped.map(|d| Dropout { first_row: 0, ..d }) {
            Some(dropped) => dropout(tape, table, &dropped),
            None => table.clone(),
        };
        let project = |wanted: bool, own: &Option<Linear>, shared: &Linear| {
            wanted.then(|| run.linear(tape, own.as_ref().unwrap_or(shared), &table))
        };
        let pk = project(spec.keys, &layer.pos_k, &layer.k);
        let pq = project(spec.queries, &layer.pos_q, &layer.q);
        let terms = 1 + usize::from(spec.keys) + usize::from(spec.queries);
        let shape = DisentangledSpec {
            heads: self.heads,
            head_dim: self.head_dim,
            scale: 1.0 / ((self.head_dim * terms) as f64).sqrt(),
            distance: spec.distance,
        };
        disentangled(tape, [q, k, v], pk.as_ref(), pq.as_ref(), &shape, &run.context.segments)
    }

    /// Queries, keys, values; the first two rotated where positions are rotary.
    pub(super) fn qkv(&self, tape: &Tape, layer: &Layer, run: &Run, x: &Var) -> [Var; 3] {
        let normed = (!self.post).then(|| norm(tape, x, &layer.norm1, self.eps));
        let h = normed.as_ref().unwrap_or(x);
        let mut q = run.linear(tape, &layer.q, h);
        let mut k = run.linear(tape, &layer.k, h);
        let v = run.linear(tape, &layer.v, h);
        if let (Some(q_norm), Some(k_norm)) = (&layer.q_norm, &layer.k_norm) {
            q = rms_norm(tape, &q, &q_norm.on(tape), self.eps);
            k = rms_norm(tape, &k, &k_norm.on(tape), self.eps);
        }
        if let Some(angles) = &self.rope {
            q = rope(tape, q, &run.context.positions, self.heads, angles);
            k = rope(tape, k, &run.context.positions, self.kv_heads, angles);
        }
        [q, k, v]
    }

    /// From attention's output to the block's: projection, residual, MLP, residual, with a norm between or behind.
    pub(super) fn rest(&self, tape: &Tape, layer: &Layer, run: &Run, x: Var, attended: &Var) -> Var {
        let place = |sublayer: &str| format!("layers.{}.{sublayer}.residual", layer.index);
        let projected = run.linear(tape, &layer.o, attended);
        let projected = run.dropout(tape, projected, self.attention_dropout, &place("attn"));
        let slots = if self.post { &layer.norm1 } else { &layer.norm2 };
        let (sum, h) = add_norm(tape, x, projected, slots, self.eps);
        let residual = if self.post { h.clone() } else { sum };
        let down = self.mlp(tape, layer, run, h);
        let down = run.dropout(tape, down, self.mlp_dropout, &place("mlp"));
        if self.post {
            add_norm(tape, residual, down, &layer.norm2, self.eps).1
        } else {
            add(tape, &residual, &down)
        }
    }

    /// The feed-forward sublayer of its (normed) input.
    fn mlp(&self, tape: &Tape, layer: &Layer, run: &Run, h: Var) -> Var {
        let hidden = if let Some(gate) = &layer.gate {
            let gate = run.linear(tape, gate, &h);
            let up = run.linear(tape, &layer.up, &h);
            gated(tape, &gate, &up, self.activation)
        } else {
            let up = run.linear_before_bias(tape, &layer.up, &h);
            let bias = layer.up.bias.as_ref().map(|b| b.on(tape));
            activate(tape, &up, bias.as_ref(), self.activation)
        };
        drop(h);
        run.linear(tape, &layer.down, &hidden)
    }
}
