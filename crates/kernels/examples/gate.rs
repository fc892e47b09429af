//! The engine's gate: four SmolLM2-135M-shaped layers, LoRA of rank 8 on q and v, frozen base, forward and backward of
//! B4 x T256, no head. Usage: `gate f32|bf16`. Prints JSON: median and best milliseconds, processor milliseconds a step,
//! resident-set growth over the built model in MB. Its other side is the same model in plain PyTorch.

#![allow(clippy::print_stdout)]

use luthier_kernels::attention::{AttentionSpec, Segments, attention};
use luthier_kernels::gated_mlp::{Activation, gated};
use luthier_kernels::linear::{Delta, DenseBase, LowRank, Weight, linear};
use luthier_kernels::rms_norm::{add_rms_norm, rms_norm};
use luthier_kernels::rope::{Rope, RopeScaling, RopeSpec, rope};
use luthier_tensor::{Account, DType, Key, Param, ParamId, Stream, Tape, Tensor, Var, scale_assign};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

const BATCH: usize = 4;
const TOKENS: usize = 256;
const D_MODEL: usize = 576;
const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const HEAD_DIM: usize = 64;
const D_FF: usize = 1536;
const LAYERS: usize = 4;
const RANK: usize = 8;

struct Layer {
    norm1: Var,
    norm2: Var,
    base: BTreeMap<&'static str, Weight>,
    lora: BTreeMap<&'static str, [Arc<Param>; 2]>,
}

struct Model {
    layers: Vec<Layer>,
    input: Arc<Param>,
    rope: Arc<Rope>,
    positions: Arc<[u32]>,
    segments: Segments,
    spec: AttentionSpec,
}

/// Normal numbers of standard deviation 0.02 (or 1).
fn normal(shape: &[usize], dtype: DType, scale: f64, seed: u64, account: Account) -> Tensor {
    let key = Key::new(seed, Stream::Init);
    let values: Vec<f64> =
        (0..shape.iter().product::<usize>()).map(|i| scale * key.normal(0, i as u64)).collect();
    Tensor::from_f64(shape, &values, dtype, account)
}

fn build(dtype: DType) -> Model {
    let (q, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let shapes = [
        ("q", q, D_MODEL),
        ("k", kv, D_MODEL),
        ("v", kv, D_MODEL),
        ("o", D_MODEL, q),
        ("gate", D_FF, D_MODEL),
        ("up", D_FF, D_MODEL),
        ("down", D_MODEL, D_FF),
    ];
    let mut seed = 0;
    let mut draw = |shape: &[usize], dtype, account| {
        seed += 1;
        normal(shape, dtype, 0.02, seed, account)
    };
    let ones = |dtype| Var::constant(Tensor::from_f64(&[D_MODEL], &[1.0; D_MODEL], dtype, Account::Base));
    let layers = (0..LAYERS)
        .map(|_| Layer {
            norm1: ones(dtype),
            norm2: ones(dtype),
            base: shapes
                .iter()
                .map(|(name, d_out, d_in)| {
                    let base = DenseBase::new(draw(&[*d_out, *d_in], dtype, Account::Base));
                    (*name, Weight::Frozen(Arc::new(base)))
                })
                .collect(),
            lora: [("q", q), ("v", kv)]
                .iter()
                .map(|(name, d_out)| {
                    let a =
                        Param::new(format!("{name}.A"), draw(&[RANK, D_MODEL], DType::F32, Account::Adapter));
                    let b =
                        Param::new(format!("{name}.B"), draw(&[*d_out, RANK], DType::F32, Account::Adapter));
                    (*name, [a, b])
                })
                .collect(),
        })
        .collect();
    let spec = RopeSpec { theta: 10000.0, rotary_dim: HEAD_DIM, scaling: RopeScaling::None };
    Model {
        layers,
        input: Param::new("x", normal(&[BATCH * TOKENS, D_MODEL], dtype, 1.0, 99, Account::Activation)),
        rope: Arc::new(Rope::new(&spec)),
        positions: (0..BATCH * TOKENS).map(|i| (i % TOKENS) as u32).collect(),
        segments: Segments::of_lengths([TOKENS; BATCH]),
        spec: AttentionSpec {
            heads: HEADS,
            kv_heads: KV_HEADS,
            head_dim: HEAD_DIM,
            scale: (HEAD_DIM as f64).powf(-0.5),
            causal: true,
            window: None,
        },
    }
}

impl Layer {
    fn linear(&self, tape: &Tape, name: &str, x: &Var) -> Var {
        let deltas: Vec<Delta> = self
            .lora
            .get(name)
            .map(|[a, b]| {
                let low_rank = LowRank::new(tape.leaf(a), tape.leaf(b), 2.0);
                Delta { low_rank: Some(low_rank), ..Delta::default() }
            })
            .into_iter()
            .collect();
        linear(tape, x, &self.base[name], None, &deltas)
    }
}

/// The last residual stream and its last update.
fn forward(model: &Model, tape: &Tape) -> Var {
    let mut x = tape.leaf(&model.input);
    let mut update: Option<Var> = None;
    for layer in &model.layers {
        let (residual, h) = match update.take() {
            None => {
                let h = rms_norm(tape, &x, &layer.norm1, 1e-5);
                (x, h)
            }
            Some(update) => add_rms_norm(tape, x, update, &layer.norm1, 1e-5),
        };
        let q = layer.linear(tape, "q", &h);
        let k = layer.linear(tape, "k", &h);
        let v = layer.linear(tape, "v", &h);
        drop(h);
        let q = rope(tape, q, &model.positions, HEADS, &model.rope);
        let k = rope(tape, k, &model.positions, KV_HEADS, &model.rope);
        let a = attention(tape, &q, &k, &v, &model.spec, &model.segments);
        drop((q, k, v));
        let o = layer.linear(tape, "o", &a);
        drop(a);
        let (residual, h) = add_rms_norm(tape, residual, o, &layer.norm2, 1e-5);
        let (gate, up) = (layer.linear(tape, "gate", &h), layer.linear(tape, "up", &h));
        drop(h);
        let h = gated(tape, &gate, &up, Activation::Silu);
        drop((gate, up));
        update = Some(layer.linear(tape, "down", &h));
        x = residual;
    }
    luthier_kernels::elementwise::add(tape, &x, &update.expect("there are layers"))
}

/// One step with loss `mean(y^2)`, whose gradient is `2 y / numel`.
fn step(model: &Model, gradients: &mut BTreeMap<ParamId, Tensor>) {
    let tape = Tape::new();
    let y = forward(model, &tape);
    let mut dy = y.value().copy(Account::Activation);
    scale_assign(&mut dy, 2.0 / y.value().numel() as f64);
    tape.backward_from(vec![(y, dy)], gradients);
}

/// A field of this process's status, in KB.
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Processor time of all threads so far, in milliseconds; the kernel counts in hundredths of a second.
fn processor_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = text.rsplit(") ").next().unwrap_or_default();
    after.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() * 10.0
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "bf16".into());
    let dtype = if name == "f32" { DType::F32 } else { DType::Bf16 };
    // Inside the pool: a product called from another thread sleeps until the pool has woken and finished.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("two threads");
    pool.install(|| measure(&name, dtype));
}

fn measure(name: &str, dtype: DType) {
    let model = build(dtype);
    let mut gradients = BTreeMap::new();
    luthier_tensor::trim();
    let before = status("VmHWM");
    step(&model, &mut gradients);
    let (mut ms, start, processor) = (Vec::new(), Instant::now(), processor_ms());
    while ms.len() < 5 || start.elapsed().as_secs_f64() < 3.0 {
        let t = Instant::now();
        step(&model, &mut gradients);
        ms.push(t.elapsed().as_secs_f64() * 1e3);
    }
    let processor = (processor_ms() - processor) / ms.len() as f64;
    ms.sort_by(f64::total_cmp);
    let growth = (status("VmHWM") - before) / 1024;
    println!(
        r#"{{"dtype": "{name}", "median_ms": {:.1}, "best_ms": {:.1}, "rss_growth_mb": {growth}, "processor_ms": {processor:.1}}}"#,
        ms[ms.len() / 2],
        ms[0]
    );
}
