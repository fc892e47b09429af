//! `luthier bench gemm`: matrix products in the shapes of a step.

use super::peak::{self, Shape};
use super::stopwatch::{best, rounded};
use super::{DTypeArg, GemmArgs, shape};
use crate::error::CliError;
use crate::output::Output;
use luthier_kernels::attention::{AttentionSpec, Segments, attend, attention};
use luthier_kernels::isa::{self, Tier};
use luthier_models::ModelSpec;
use luthier_tensor::{Account, DType, Tape, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Runs the command.
pub fn run(args: &GemmArgs, output: &Output) -> Result<(), CliError> {
    args.tier.force()?;
    let spec = shape::spec(&args.size.shape)?;
    let n = args.size.batch.get() * args.size.seq.get();
    let tiers = if args.all_tiers { isa::supported() } else { vec![isa::tier()] };
    let dtypes = args.dtype.map_or(vec![DTypeArg::Bf16, DTypeArg::F32], |d| vec![d]);
    let (mut rows, mut peaks) = (Vec::new(), BTreeMap::new());
    for &tier in &tiers {
        isa::force(Some(tier)).map_err(|error| CliError::input("tier", error.to_string()))?;
        for dtype in dtypes.iter().map(|d| d.dtype()) {
            output.progress(|| format!("{dtype} on {tier}"));
            let whole = peak::products(&spec, n, true);
            let times = timed(&whole, dtype, tier, &mut rows);
            timed(&peak::low_rank(&spec, n, args.size.rank), dtype, tier, &mut rows);
            attention_rows(&spec, args, dtype, tier, &mut rows);
            let mut times = times.into_iter();
            let pairs: Vec<(Shape, f64)> =
                whole.into_iter().map(|s| (s, times.next().expect("one time a shape"))).collect();
            for (name, full) in [("lora", false), ("full-ft", true)] {
                let own: Vec<&(Shape, f64)> =
                    pairs.iter().filter(|(s, _)| full || s.layout != peak::Layout::Tn).collect();
                let shapes: Vec<Shape> = own.iter().map(|(s, _)| s.clone()).collect();
                let mut seconds = own.iter().map(|(_, t)| *t);
                let rate = peak::rate(&shapes, |_| seconds.next().expect("one time a shape"));
                peaks.insert(format!("{tier}/{dtype}/{name}"), rounded(rate));
            }
        }
    }
    let (table, all) = (text(&rows, &peaks), json!(rows));
    output.result(
        || json!({"shape": args.size.shape, "tokens": n, "gemm_peak_gflops": peaks, "products": all}),
        || table,
    );
    Ok(())
}

/// Adds a row for each shape; the times.
fn timed(shapes: &[Shape], dtype: DType, tier: Tier, rows: &mut Vec<Value>) -> Vec<f64> {
    let mut times = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let seconds = peak::seconds(shape, dtype);
        let [m, n, k] = shape.mnk;
        rows.push(row(&shape.name, shape.layout.name(), [m, n, k], dtype, tier, seconds, shape.flops()));
        times.push(seconds);
    }
    times
}

fn row(
    name: &str,
    layout: &str,
    mnk: [usize; 3],
    dtype: DType,
    tier: Tier,
    seconds: f64,
    flops: f64,
) -> Value {
    json!({
        "name": name, "layout": layout, "m": mnk[0], "n": mnk[1], "k": mnk[2], "dtype": dtype.to_string(),
        "tier": tier.name(), "us": rounded(seconds * 1e6), "gflops": rounded(flops / seconds / 1e9),
    })
}

/// Attention, whose products are those of small blocks: by its own count of FLOPs.
fn attention_rows(spec: &ModelSpec, args: &GemmArgs, dtype: DType, tier: Tier, rows: &mut Vec<Value>) {
    let (batch, t) = (args.size.batch.get(), args.size.seq.get());
    let segments = Segments::of_lengths(std::iter::repeat_n(t, batch));
    let shape = AttentionSpec {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        head_dim: spec.head_dim,
        scale: 1.0 / (spec.head_dim as f64).sqrt(),
        causal: true,
        window: None,
    };
    let make = |heads: usize| {
        let cols = heads * spec.head_dim;
        peak::noise(&[batch * t, cols], dtype, Account::Activation)
    };
    let (q, k, v) = (make(spec.heads), make(spec.kv_heads), make(spec.kv_heads));
    let pairs = (batch * t * (t + 1) / 2) as f64;
    let flops = 4.0 * pairs * (spec.heads * spec.head_dim) as f64;
    let mnk = [batch * t, t, spec.head_dim];
    let forward = best(|| drop(attend(&q, &segments, &k, &v, &segments, &shape)));
    rows.push(row("attention forward", "flash", mnk, dtype, tier, forward, flops));
    let seed = q.clone();
    let both = best(|| {
        let tape = Tape::new();
        let on = |x: &Tensor| tape.input(x.clone()).0;
        let out = attention(&tape, &on(&q), &on(&k), &on(&v), &shape, &segments);
        tape.backward_from(vec![(out, seed.clone())], &mut BTreeMap::new());
    });
    let backward = (both - forward).max(1e-9);
    rows.push(row("attention backward", "flash", mnk, dtype, tier, backward, 2.5 * flops));
}

fn text(rows: &[Value], peaks: &BTreeMap<String, f64>) -> String {
    let mut lines = Vec::new();
    for r in rows {
        let get = |key: &str| r[key].as_str().map_or_else(|| r[key].to_string(), str::to_owned);
        lines.push(format!(
            "{:<22} {:>5} x {:>5} x {:>5}  {:<5} {:<11} {:>10} us {:>8} GFLOP/s",
            get("name"),
            get("m"),
            get("n"),
            get("k"),
            get("dtype"),
            get("tier"),
            get("us"),
            get("gflops")
        ));
    }
    lines.extend(peaks.iter().map(|(what, rate)| format!("step's products, {what}: {rate} GFLOP/s")));
    lines.join("\n")
}
