//! `luthier bench decode`: tokens a second of one sequence, against the rate at which the weights can be read.

use super::stopwatch::{median, rounded};
use super::{DecodeArgs, shape};
use crate::error::CliError;
use crate::output::{Output, bytes};
use luthier_contract::{Context, Segments, Training};
use luthier_models::{Cache, LoadOptions, Model, Run};
use luthier_tensor::Tensor;
use luthier_train::{Base, PeakBytes};
use rayon::prelude::*;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that one measurement of the reading rate goes through at least: far more than any cache.
const READ: usize = 512 << 20;
/// Measurements of the reading rate before the tokens, and as many after them.
const READINGS: usize = 4;
/// Elements that a task reads.
const PIECE: usize = 1 << 17;

/// Runs the command.
pub fn run(args: &DecodeArgs, output: &Output) -> Result<(), CliError> {
    args.tier.force()?;
    let model = model(args)?;
    let vocab = model.spec().vocab as u32;
    let memory = vec![1u64; READ / 8];
    let mut rates = (0..READINGS).map(|_| read_rate(&memory)).collect::<Vec<_>>();

    let mut cache = Cache::new(model.spec(), model.compute());
    let prompt = (0..args.prompt.get() as u32).map(|i| i * 7919 % vocab).collect::<Vec<_>>();
    let mut next = likeliest(&model, &mut cache, &prompt);
    let mut ms = Vec::with_capacity(args.tokens.get());
    for i in 0..=args.tokens.get() {
        let start = Instant::now();
        next = likeliest(&model, &mut cache, &[next]);
        if i > 0 {
            ms.push(rounded(start.elapsed().as_secs_f64() * 1e3));
        }
    }
    rates.extend((0..READINGS).map(|_| read_rate(&memory)));
    let rate = rates.iter().copied().fold(0.0, f64::max);
    // Of a tied pair one is read whole; a lookup reads a row.
    let weights = luthier_tensor::usage().base;
    let roofline = rate / weights as f64;
    let got = 1e3 * ms.len() as f64 / ms.iter().sum::<f64>();
    let middle = 1e3 / median(&ms);
    output.result(
        || {
            json!({
                "dtype": args.dtype.dtype().to_string(), "tier": luthier_kernels::isa::tier().name(),
                "threads": rayon::current_num_threads(), "tokens_per_s": rounded(got),
                "median_tokens_per_s": rounded(middle), "weight_bytes": weights,
                "read_gb_per_s": rounded(rate / 1e9), "roofline_tokens_per_s": rounded(roofline),
                "roofline_share": rounded(middle / roofline), "ms": ms, "last_token": next,
                "peak_bytes": PeakBytes::now(),
            })
        },
        || {
            format!(
                "{middle:.1} tokens/s, {:.2} of {roofline:.1}: {} a token at {} a second",
                middle / roofline,
                bytes(weights as u64),
                bytes(rate as u64)
            )
        },
    );
    Ok(())
}

fn model(args: &DecodeArgs) -> Result<Model, CliError> {
    let (dtype, storage) = (args.dtype.dtype(), args.storage.dtype());
    if let Some(name) = &args.base {
        let base = Base::open(&luthier_hub::resolve(name)?)?;
        return Ok(base.load(dtype, storage, &|_| Training::Frozen)?);
    }
    let source = shape::Noise { dtype };
    let options = LoadOptions { compute: dtype, storage, trains: &|_| Training::Frozen };
    Ok(Model::load(shape::spec(&args.shape)?, &source, &options)?)
}

/// Bytes a second that all threads of the pool read together.
fn read_rate(memory: &[u64]) -> f64 {
    let start = Instant::now();
    let sum = memory.par_chunks(PIECE).map(sum).reduce(|| 0, u64::wrapping_add);
    assert_eq!(sum, memory.len() as u64, "memory that was read");
    size_of_val(memory) as f64 / start.elapsed().as_secs_f64()
}

/// The sum in eight lanes, so that reading and not adding takes the time.
fn sum(piece: &[u64]) -> u64 {
    let mut lanes = [0u64; 8];
    let (whole, rest) = piece.as_chunks::<8>();
    for eight in whole {
        for (lane, x) in lanes.iter_mut().zip(eight) {
            *lane = lane.wrapping_add(*x);
        }
    }
    lanes.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

/// Feeds `tokens` and gives the likeliest next one.
fn likeliest(model: &Model, cache: &mut Cache, tokens: &[u32]) -> u32 {
    let hidden = model.decode(&mut [(cache, tokens)], &[]);
    let logits: Tensor = {
        let context = Context::eval(vec![0], Segments::one(1));
        model.logits(&hidden, &Run { context: Arc::new(context), adapters: Vec::new(), recompute: false })
    };
    let mut best = (0, f64::NEG_INFINITY);
    for (i, x) in logits.to_f64_vec().into_iter().enumerate() {
        if x > best.1 {
            best = (i, x);
        }
    }
    best.0 as u32
}
