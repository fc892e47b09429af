//! The forward run: blocks over a flat batch, for training, evaluation and decoding.
mod block;
mod decode;
mod heads;

use crate::model::{Linear, Matrix, Model};
use block::{Wires, norm};
use luthier_contract::{Adapter, Context};
use luthier_kernels::dropout::dropout;
use luthier_kernels::elementwise::add;
use luthier_kernels::embedding::embedding;
use luthier_kernels::linear::{Delta, linear};
use luthier_tensor::{Block, DType, Tape, Var};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// An adapter, and the segments that it applies to.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// Segments of the batch (sequences, in decoding); all if none.
    pub segments: Option<Range<usize>>,
}

impl Applied {
    /// The adapter on every segment.
    pub fn to_all(adapter: Arc<Adapter>) -> Self {
        Self { adapter, segments: None }
    }
}

/// One run of the model: on what, under which adapters.
#[derive(Clone, Debug)]
pub struct Run {
    /// The micro-batch.
    pub context: Arc<Context>,
    /// Adapters, applied together.
    pub adapters: Vec<Applied>,
    /// Whether blocks keep only their inputs and run again in backward.
    pub recompute: bool,
}

impl Run {
    fn deltas(&self, tape: &Tape, linear: &Linear) -> Vec<Delta> {
        let delta = |applied: &Applied| {
            let adapter = &applied.adapter;
            let params = adapter.params(&linear.site.path, tape)?;
            let mut delta = adapter.method.linear(tape, &linear.site, &params, &self.context);
            delta.rows = applied.segments.as_ref().map(|s| self.rows(s));
            Some(delta)
        };
        self.adapters.iter().filter_map(delta).collect()
    }

    /// Rows of the batch that belong to `segments`.
    fn rows(&self, segments: &Range<usize>) -> Range<usize> {
        let of = &self.context.segments;
        if segments.is_empty() {
            0..0
        } else {
            of.range(segments.start).start..of.range(segments.end - 1).end
        }
    }

    fn linear(&self, tape: &Tape, site: &Linear, x: &Var) -> Var {
        let bias = site.bias.as_ref().map(|b| b.on(tape));
        linear(tape, x, &site.weight.on(tape), bias.as_ref(), &self.deltas(tape, site))
    }

    /// [`linear`](Self::linear) without the layer's own bias, which what follows adds.
    fn linear_before_bias(&self, tape: &Tape, site: &Linear, x: &Var) -> Var {
        linear(tape, x, &site.weight.on(tape), None, &self.deltas(tape, site))
    }

    /// Dropout of the model itself, in training; `place` keys it.
    fn dropout(&self, tape: &Tape, x: Var, p: f64, place: &str) -> Var {
        match self.context.dropout(p, place) {
            Some(spec) => dropout(tape, &x, &spec),
            None => x,
        }
    }
}

impl Model {
    /// The embedding's sum `[n, d_model]`: of tokens, and where the model has them of positions and token types.
    fn embed(&self, tape: &Tape, context: &Context) -> Var {
        let look_up =
            |table: &Matrix, rows: &Arc<[u32]>| embedding(tape, &table.on(tape), rows, self.compute);
        let mut x = look_up(&self.embed.weight, &context.tokens);
        if let Some(table) = &self.tables.positions {
            let offset = self.spec.position_offset() as u32;
            let rows = context.positions.iter().map(|p| p + offset).collect();
            x = add(tape, &x, &look_up(table, &rows));
        }
        if let Some(table) = &self.tables.token_types {
            let first = || vec![0; context.tokens.len()].into();
            let rows = context.token_types.clone().unwrap_or_else(first);
            x = add(tape, &x, &look_up(table, &rows));
        }
        if let Some(slots) = &self.tables.norm {
            x = norm(tape, &x, slots, self.spec.eps);
        }
        x
    }

    /// The table of relative positions `[2 span, d_model]`, normed, where attention reads one.
    fn relative(&self, tape: &Tape) -> Option<Var> {
        let (table, spec) = (self.tables.relative.as_ref()?, self.spec.wiring.relative?);
        let rows = (0..2 * spec.distance.span as u32).collect();
        let x = embedding(tape, &table.on(tape), &rows, self.compute);
        Some(match &self.tables.relative_norm {
            Some(slots) => norm(tape, &x, slots, self.spec.eps),
            None => x,
        })
    }

    /// Final hidden states `[n, d_model]`, normed, not logits: the loss takes the head too.
    pub fn hidden(&self, tape: &Tape, run: &Run) -> Var {
        let wires = Wires::new(self);
        let mut x =
            run.dropout(tape, self.embed(tape, &run.context), self.spec.wiring.dropout.embed, "embed.sum");
        let relative = self.relative(tape);
        for layer in &self.layers {
            let (layer, wires, inner) = (layer.clone(), wires.clone(), run.clone());
            let block: Block = Rc::new(move |tape: &Tape, input: &[Var]| {
                let attended = wires.attended(tape, &layer, &inner, &input[0], input.get(1));
                vec![wires.rest(tape, &layer, &inner, input[0].clone(), &attended)]
            });
            let input = std::iter::once(x).chain(relative.clone()).collect::<Vec<_>>();
            let outputs = if run.recompute { tape.checkpoint(&input, block) } else { block(tape, &input) };
            x = outputs.into_iter().next().expect("a block has one output");
        }
        match &self.norm {
            Some(slots) => norm(tape, &x, slots, self.spec.eps),
            None => x,
        }
    }

    /// Type of logits and losses.
    pub fn accumulator(&self) -> DType {
        self.compute.accumulator()
    }
}
