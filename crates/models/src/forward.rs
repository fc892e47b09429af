//! The forward run: blocks over a flat batch, for training, evaluation and decoding.
use crate::cache::Cache;
use crate::model::{Layer, Linear, Model};
use luthier_contract::{Adapter, Context, Mode, Segments, Weight};
use luthier_kernels::attention::{AttentionSpec, attend, attention};
use luthier_kernels::elementwise::add;
use luthier_kernels::embedding::embedding;
use luthier_kernels::gated_mlp::gated;
use luthier_kernels::head_loss::{HeadLoss, head_loss};
use luthier_kernels::linear::{Delta, linear};
use luthier_kernels::rms_norm::{add_rms_norm, rms_norm};
use luthier_kernels::rope::rope;
use luthier_tensor::{Block, DType, Tape, Tensor, Var};
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
}

/// What blocks need of the model, shared with their replays.
#[derive(Clone)]
struct Wiring {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    eps: f64,
    rope: Arc<luthier_kernels::rope::Rope>,
    activation: luthier_kernels::gated_mlp::Activation,
}

impl Wiring {
    fn attention(&self, window: Option<usize>) -> AttentionSpec {
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        AttentionSpec {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale,
            causal: true,
            window,
        }
    }

    /// Rotated queries, rotated keys, values.
    fn qkv(&self, tape: &Tape, layer: &Layer, run: &Run, x: &Var) -> [Var; 3] {
        let h = rms_norm(tape, x, &layer.norm1.on(tape), self.eps);
        let mut q = run.linear(tape, &layer.q, &h);
        let mut k = run.linear(tape, &layer.k, &h);
        let v = run.linear(tape, &layer.v, &h);
        if let (Some(q_norm), Some(k_norm)) = (&layer.q_norm, &layer.k_norm) {
            q = rms_norm(tape, &q, &q_norm.on(tape), self.eps);
            k = rms_norm(tape, &k, &k_norm.on(tape), self.eps);
        }
        let positions = &run.context.positions;
        let q = rope(tape, q, positions, self.heads, &self.rope);
        let k = rope(tape, k, positions, self.kv_heads, &self.rope);
        [q, k, v]
    }

    /// From attention's output to the block's: projection, residual, MLP, residual.
    fn rest(&self, tape: &Tape, layer: &Layer, run: &Run, x: Var, attended: &Var) -> Var {
        let projected = run.linear(tape, &layer.o, attended);
        let (x, h) = add_rms_norm(tape, x, projected, &layer.norm2.on(tape), self.eps);
        let gate = run.linear(tape, &layer.gate, &h);
        let up = run.linear(tape, &layer.up, &h);
        let hidden = gated(tape, &gate, &up, self.activation);
        drop((gate, up, h));
        let down = run.linear(tape, &layer.down, &hidden);
        add(tape, &x, &down)
    }
}

impl Model {
    fn wiring(&self) -> Wiring {
        Wiring {
            heads: self.spec.heads,
            kv_heads: self.spec.kv_heads,
            head_dim: self.spec.head_dim,
            eps: self.spec.eps,
            rope: self.rope.clone(),
            activation: self.spec.activation,
        }
    }

    fn embed(&self, tape: &Tape, tokens: &Arc<[u32]>) -> Var {
        embedding(tape, &self.embed.weight.on(tape), tokens, self.compute)
    }

    /// Final hidden states `[n, d_model]`, normed, not logits: the loss takes the head too.
    pub fn hidden(&self, tape: &Tape, run: &Run) -> Var {
        let wiring = self.wiring();
        let mut x = self.embed(tape, &run.context.tokens);
        for layer in &self.layers {
            let (layer, wiring, inner) = (layer.clone(), wiring.clone(), run.clone());
            let block: Block = Rc::new(move |tape: &Tape, input: &[Var]| {
                let [q, k, v] = wiring.qkv(tape, &layer, &inner, &input[0]);
                let spec = wiring.attention(layer.window);
                let attended = attention(tape, &q, &k, &v, &spec, &inner.context.segments);
                drop((q, k, v));
                vec![wiring.rest(tape, &layer, &inner, input[0].clone(), &attended)]
            });
            let input = [x];
            let outputs = if run.recompute { tape.checkpoint(&input, block) } else { block(tape, &input) };
            x = outputs.into_iter().next().expect("a block has one output");
        }
        rms_norm(tape, &x, &self.norm.on(tape), self.spec.eps)
    }

    /// Summed next-token loss on the labelled `rows`, whose next tokens are `targets`.
    pub fn loss(&self, tape: &Tape, run: &Run, rows: &[u32], targets: &[u32]) -> HeadLoss {
        let hidden = self.hidden(tape, run);
        head_loss(tape, &hidden, &self.head_weight(tape), &run.deltas(tape, &self.head), rows, targets, None)
    }

    fn head_weight(&self, tape: &Tape) -> Weight {
        self.head.weight.on(tape)
    }

    /// Logits `[rows, vocab]` of hidden states, in the type of sums.
    pub fn logits(&self, hidden: &Tensor, run: &Run) -> Tensor {
        let tape = Tape::off();
        let h = Var::constant(hidden.clone());
        run.linear(&tape, &self.head, &h).into_value()
    }

    /// Feeds new tokens of several sequences (each with its cache) and gives the hidden state of each sequence's last
    /// token, `[sequences, d_model]`.
    pub fn decode(&self, sequences: &mut [(&mut Cache, &[u32])], adapters: &[Applied]) -> Tensor {
        let tape = Tape::off();
        let wiring = self.wiring();
        let tokens = sequences.iter().flat_map(|(_, t)| t.iter().copied()).collect::<Arc<[u32]>>();
        let positions =
            sequences.iter().flat_map(|(c, t)| c.len() as u32..(c.len() + t.len()) as u32).collect();
        let mut offsets = vec![0];
        for (_, t) in sequences.iter() {
            offsets.push(offsets[offsets.len() - 1] + t.len() as u32);
        }
        let segments = Segments::new(offsets);
        let context =
            Context { tokens: tokens.clone(), positions, segments: segments.clone(), mode: Mode::Eval };
        let run = Run { context: Arc::new(context), adapters: adapters.to_vec(), recompute: false };
        let mut x = self.embed(&tape, &tokens);
        for (i, layer) in self.layers.iter().enumerate() {
            let [q, k, v] = wiring.qkv(&tape, layer, &run, &x).map(Var::into_value);
            let spec = wiring.attention(layer.window);
            let mut attended = Tensor::scratch(q.shape(), q.dtype(), q.account());
            for (s, (cache, new)) in sequences.iter_mut().enumerate() {
                let rows = segments.range(s);
                let (keys, values) = cache.append(i, &k.narrow(rows.clone()), &v.narrow(rows.clone()));
                let (new, held) = (Segments::one(new.len()), Segments::one(keys.dim(0)));
                let out = attend(&q.narrow(rows.clone()), &new, &keys, &values, &held, &spec);
                let width = q.cols() * q.dtype().size();
                attended.bytes_mut()[rows.start * width..rows.end * width].copy_from_slice(out.bytes());
            }
            x = wiring.rest(&tape, layer, &run, x, &Var::constant(attended));
        }
        for (cache, new) in sequences.iter_mut() {
            cache.advance(new.len());
        }
        let last = (0..segments.count()).map(|s| segments.range(s).end - 1).collect::<Vec<_>>();
        let x = gather_rows(x.value(), &last);
        rms_norm(&tape, &Var::constant(x), &self.norm.on(&tape), self.spec.eps).into_value()
    }

    /// Type of logits and losses.
    pub fn accumulator(&self) -> DType {
        self.compute.accumulator()
    }
}

fn gather_rows(x: &Tensor, rows: &[usize]) -> Tensor {
    let mut out = Tensor::scratch(&[rows.len(), x.cols()], x.dtype(), x.account());
    let width = x.cols() * x.dtype().size();
    for (to, &from) in rows.iter().enumerate() {
        out.bytes_mut()[to * width..(to + 1) * width]
            .copy_from_slice(&x.bytes()[from * width..(from + 1) * width]);
    }
    out
}
