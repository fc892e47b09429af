//! `luthier bench op`: every operation of a step by itself.

use super::stopwatch::{best, rounded};
use super::{OpArgs, peak, shape};
use crate::error::CliError;
use crate::output::Output;
use luthier_kernels::attention::{AttentionSpec, Segments, attention};
use luthier_kernels::elementwise::add;
use luthier_kernels::embedding::embedding;
use luthier_kernels::gated_mlp::gated;
use luthier_kernels::head_loss::head_loss;
use luthier_kernels::linear::{Delta, DenseBase, LowRank, Weight, linear};
use luthier_kernels::rms_norm::{add_rms_norm, rms_norm};
use luthier_kernels::rope::{Rope, rope};
use luthier_models::ModelSpec;
use luthier_optim::{Step, adamw};
use luthier_tensor::{Account, DType, Param, Tape, Tensor, Var, flops};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs the command.
pub fn run(args: &OpArgs, output: &Output) -> Result<(), CliError> {
    args.tier.force()?;
    let spec = shape::spec(&args.size.shape)?;
    let (batch, seq) = (args.size.batch.get(), args.size.seq.get());
    let place = Place { spec: spec.clone(), batch, seq, rank: args.size.rank, dtype: args.dtype.dtype() };
    let mut rows = Vec::new();
    for (name, count, make) in OPS {
        output.progress(|| (*name).to_owned());
        rows.push(place.timed(name, count(&spec), *make));
    }
    rows.push(place.optimizer());
    let table = rows.iter().map(line).collect::<Vec<_>>().join("\n");
    output.result(|| json!({"shape": args.size.shape, "tokens": batch * seq, "ops": rows}), || table);
    Ok(())
}

fn line(r: &Value) -> String {
    let number = |key: &str| r[key].as_f64().unwrap_or(0.0);
    format!(
        "{:<16} x{:<3} forward {:>9.1} us  backward {:>9.1} us  {:>7.1} GFLOP/s {:>6.1} GB/s",
        r["name"].as_str().unwrap_or_default(),
        r["count"],
        number("forward_us"),
        number("backward_us"),
        number("gflops"),
        number("gb_per_s")
    )
}

/// Where operations are timed.
struct Place {
    spec: ModelSpec,
    batch: usize,
    seq: usize,
    rank: usize,
    dtype: DType,
}

/// An operation on a tape, ready to run: its inputs, and what it makes of them.
struct Op {
    inputs: Vec<Tensor>,
    /// Bytes of frozen or trained tensors that it reads besides.
    weights: usize,
    run: Box<dyn Fn(&Tape, Vec<Var>) -> Var>,
}

type Make = fn(&Place) -> Op;
type Count = fn(&ModelSpec) -> usize;

/// Name, times in a step, and how it is made.
const OPS: &[(&str, Count, Make)] = &[
    ("embedding", |_| 1, Place::embedding),
    ("rms-norm", |s| s.layers + 1, Place::norm),
    ("add-rms-norm", |s| s.layers, Place::add_norm),
    ("linear q", |s| s.layers, |p| p.linear(p.spec.d_model, p.spec.heads * p.spec.head_dim)),
    ("linear k", |s| 2 * s.layers, |p| p.linear(p.spec.d_model, p.spec.kv_heads * p.spec.head_dim)),
    ("linear o", |s| s.layers, |p| p.linear(p.spec.heads * p.spec.head_dim, p.spec.d_model)),
    ("linear gate", |s| 2 * s.layers, |p| p.linear(p.spec.d_model, p.spec.d_ff)),
    ("linear down", |s| s.layers, |p| p.linear(p.spec.d_ff, p.spec.d_model)),
    ("rope q", |s| s.layers, |p| p.rope(p.spec.heads)),
    ("rope k", |s| s.layers, |p| p.rope(p.spec.kv_heads)),
    ("attention", |s| s.layers, Place::attention),
    ("gated-mlp", |s| s.layers, Place::gated),
    ("add", |s| s.layers, Place::add),
    ("head-loss", |_| 1, Place::head),
];

impl Place {
    fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    fn values(&self, cols: usize) -> Tensor {
        peak::noise(&[self.tokens(), cols], self.dtype, Account::Activation)
    }

    fn positions(&self) -> Arc<[u32]> {
        (0..self.batch).flat_map(|_| 0..self.seq as u32).collect()
    }

    fn ids(&self) -> Arc<[u32]> {
        (0..self.tokens()).map(|i| (i * 7919 % self.spec.vocab) as u32).collect()
    }

    fn timed(&self, name: &str, count: usize, make: Make) -> Value {
        let op = make(self);
        let forward = best(|| {
            let inputs = op.inputs.iter().map(|t| Var::constant(t.copy(t.account()))).collect();
            drop((op.run)(&Tape::off(), inputs));
        });
        let copies = best(|| op.inputs.iter().for_each(|t| drop(t.copy(t.account()))));
        let (mut flops_done, mut out_bytes) = (0, 0);
        let both = best(|| {
            let tape = Tape::new();
            let inputs = op.inputs.iter().map(|t| tape.input(t.copy(t.account())).0).collect();
            let before = flops();
            let out = (op.run)(&tape, inputs);
            let seed = out.value().copy(Account::Activation);
            out_bytes = out.value().size();
            tape.backward_from(vec![(out, seed)], &mut BTreeMap::new());
            flops_done = flops() - before;
        });
        let (forward, both) = ((forward - copies).max(1e-9), (both - copies).max(1e-9));
        let read = op.inputs.iter().map(Tensor::size).sum::<usize>() + op.weights;
        // Forward reads inputs and writes the output; backward reads them and the output's gradient, and writes inputs'.
        let bytes = 3 * read + 2 * out_bytes - op.weights;
        json!({
            "name": name, "count": count, "forward_us": rounded(forward * 1e6),
            "backward_us": rounded((both - forward).max(0.0) * 1e6), "flops": flops_done, "bytes": bytes,
            "gflops": rounded(flops_done as f64 / both / 1e9), "gb_per_s": rounded(bytes as f64 / both / 1e9),
        })
    }

    fn base(&self, d_in: usize, d_out: usize) -> (Weight, usize) {
        let w = peak::noise(&[d_out, d_in], self.dtype, Account::Base);
        let bytes = w.size();
        (Weight::Frozen(Arc::new(DenseBase::new(w))), bytes)
    }

    fn embedding(&self) -> Op {
        let (table, _) = self.base(self.spec.d_model, self.spec.vocab);
        let (ids, dtype) = (self.ids(), self.dtype);
        let weights = self.tokens() * self.spec.d_model * dtype.size();
        Op { inputs: Vec::new(), weights, run: Box::new(move |tape, _| embedding(tape, &table, &ids, dtype)) }
    }

    fn norm(&self) -> Op {
        let w = peak::noise(&[self.spec.d_model], DType::F32, Account::Base);
        let eps = self.spec.eps;
        let run = move |tape: &Tape, x: Vec<Var>| rms_norm(tape, &x[0], &Var::constant(w.clone()), eps);
        Op { inputs: vec![self.values(self.spec.d_model)], weights: 0, run: Box::new(run) }
    }

    fn add_norm(&self) -> Op {
        let w = peak::noise(&[self.spec.d_model], DType::F32, Account::Base);
        let eps = self.spec.eps;
        let run = move |tape: &Tape, x: Vec<Var>| {
            let [a, b] = <[Var; 2]>::try_from(x).expect("two inputs");
            add_rms_norm(tape, a, b, &Var::constant(w.clone()), eps).1
        };
        let x = self.values(self.spec.d_model);
        Op { inputs: vec![x.clone(), x], weights: 0, run: Box::new(run) }
    }

    fn linear(&self, d_in: usize, d_out: usize) -> Op {
        let (weight, weights) = self.base(d_in, d_out);
        let leaf = |rows, cols| peak::noise(&[rows, cols], DType::F32, Account::Adapter);
        let a = Param::new("a", leaf(self.rank, d_in));
        let b = Param::new("b", leaf(d_out, self.rank));
        let run = move |tape: &Tape, x: Vec<Var>| {
            let low_rank = LowRank::new(tape.leaf(&a), tape.leaf(&b), 2.0);
            let delta = Delta { low_rank: Some(low_rank), ..Delta::default() };
            linear(tape, &x[0], &weight, None, &[delta])
        };
        Op { inputs: vec![self.values(d_in)], weights, run: Box::new(run) }
    }

    fn rope(&self, heads: usize) -> Op {
        let angles = self.spec.rope().expect("the shapes that are timed have rotary positions");
        let (table, positions) = (Arc::new(Rope::new(angles)), self.positions());
        let run = move |tape: &Tape, x: Vec<Var>| {
            let [x] = <[Var; 1]>::try_from(x).expect("one input");
            rope(tape, x, &positions, heads, &table)
        };
        Op { inputs: vec![self.values(heads * self.spec.head_dim)], weights: 0, run: Box::new(run) }
    }

    fn attention(&self) -> Op {
        let segments = Segments::of_lengths(std::iter::repeat_n(self.seq, self.batch));
        let s = &self.spec;
        let shape = AttentionSpec {
            heads: s.heads,
            kv_heads: s.kv_heads,
            head_dim: s.head_dim,
            scale: 1.0 / (s.head_dim as f64).sqrt(),
            causal: true,
            window: None,
        };
        let inputs = [s.heads, s.kv_heads, s.kv_heads].map(|h| self.values(h * s.head_dim)).into();
        let run = move |tape: &Tape, x: Vec<Var>| attention(tape, &x[0], &x[1], &x[2], &shape, &segments);
        Op { inputs, weights: 0, run: Box::new(run) }
    }

    fn gated(&self) -> Op {
        let (x, activation) = (self.values(self.spec.d_ff), self.spec.activation);
        let run = move |tape: &Tape, x: Vec<Var>| gated(tape, &x[0], &x[1], activation);
        Op { inputs: vec![x.clone(), x], weights: 0, run: Box::new(run) }
    }

    fn add(&self) -> Op {
        let x = self.values(self.spec.d_model);
        Op {
            inputs: vec![x.clone(), x],
            weights: 0,
            run: Box::new(|tape, x: Vec<Var>| add(tape, &x[0], &x[1])),
        }
    }

    fn head(&self) -> Op {
        let (weight, weights) = self.base(self.spec.d_model, self.spec.vocab);
        let (targets, rows) = (self.ids(), (0..self.tokens() as u32).collect::<Vec<_>>());
        let run =
            move |tape: &Tape, x: Vec<Var>| head_loss(tape, &x[0], &weight, &[], &rows, &targets, None).sum;
        Op { inputs: vec![self.values(self.spec.d_model)], weights, run: Box::new(run) }
    }

    /// AdamW on a LoRA of every linear layer.
    fn optimizer(&self) -> Value {
        let chain = adamw([0.9, 0.999], 1e-8, 0.01, Some(1.0));
        let sites = self.spec.sites();
        let low_rank = |s: &luthier_contract::Site| [[self.rank, s.d_in], [s.d_out, self.rank]];
        let shapes = sites.iter().filter(|s| s.layer.is_some()).flat_map(low_rank).collect::<Vec<_>>();
        let leaf = |(i, shape): (usize, &[usize; 2])| {
            chain.leaf(Param::new(format!("p{i}"), peak::noise(shape, DType::F32, Account::Adapter)))
        };
        let mut leaves = shapes.iter().enumerate().map(leaf).collect::<Vec<_>>();
        let noise = |shape: &[usize; 2]| peak::noise(shape, DType::F32, Account::Gradient);
        let gradients = shapes.iter().map(noise).collect::<Vec<_>>();
        let step = Step { t: 1, lr: 1e-4, seed: 0 };
        let seconds = best(|| {
            chain.update(&mut leaves, &gradients, 1e-3, &step);
        });
        let elements = shapes.iter().map(|s| s[0] * s[1]).sum::<usize>();
        // Norm reads the gradient; the update reads and writes gradient, parameter and two moments.
        let bytes = elements * 4 * 9;
        json!({
            "name": "adamw", "count": 1, "forward_us": rounded(seconds * 1e6), "backward_us": 0.0, "flops": 0,
            "bytes": bytes, "gflops": 0.0, "gb_per_s": rounded(bytes as f64 / seconds / 1e9),
        })
    }
}
