//! Times attention: `attention_time [bf16|f32] [segments] [tokens] [heads] [kv_heads] [head_dim]`, or
//! `attention_time decode [bf16|f32] [keys] ..`. Prints medians and bests in milliseconds.
#![allow(clippy::print_stdout)]
use luthier_kernels::attention::{AttentionSpec, Segments, attend, attention};
use luthier_tensor::{Account, DType, ParamId, Tape, Tensor};
use std::collections::BTreeMap;
use std::time::Instant;

fn values(shape: &[usize], dtype: DType, seed: u32) -> Tensor {
    let mut state = seed;
    let values = (0..shape.iter().product::<usize>()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1u32 << 23) - 1.0
    });
    Tensor::from_f64(shape, &values.collect::<Vec<_>>(), dtype, Account::Activation)
}

fn report(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    println!("{name}: median {:.3} ms, best {:.3} ms", times[times.len() / 2], times[0]);
}

fn main() {
    let mut words = std::env::args().skip(1).collect::<Vec<_>>();
    let decode = words.first().is_some_and(|w| w == "decode");
    if decode {
        words.remove(0);
    }
    let dtype = if words.first().is_some_and(|w| w == "f32") { DType::F32 } else { DType::Bf16 };
    let number = |i: usize, default: usize| words.get(i).and_then(|w| w.parse().ok()).unwrap_or(default);
    let (segments, tokens) = if decode { (1, number(1, 4096)) } else { (number(1, 4), number(2, 256)) };
    let shift = usize::from(!decode);
    let (heads, kv_heads, head_dim) = (number(2 + shift, 9), number(3 + shift, 3), number(4 + shift, 64));
    let spec = AttentionSpec {
        heads,
        kv_heads,
        head_dim,
        scale: (head_dim as f64).powf(-0.5),
        causal: true,
        window: None,
    };
    let keys = Segments::of_lengths(vec![tokens; segments]);
    let queries = if decode { Segments::one(1) } else { keys.clone() };
    let q = values(&[queries.total(), heads * head_dim], dtype, 1);
    let [k, v] = [2, 3].map(|seed| values(&[keys.total(), kv_heads * head_dim], dtype, seed));
    let d_out = values(&[queries.total(), heads * head_dim], dtype, 4);
    let (mut forward, mut both) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while forward.len() < 20 || start.elapsed().as_secs_f64() < 2.0 {
        let begin = Instant::now();
        if decode {
            attend(&q, &queries, &k, &v, &keys, &spec);
            forward.push(begin.elapsed().as_secs_f64() * 1e3);
        } else {
            let tape = Tape::new();
            let inputs = [&q, &k, &v].map(|t| tape.input(t.clone()).0);
            let out = attention(&tape, &inputs[0], &inputs[1], &inputs[2], &spec, &keys);
            forward.push(begin.elapsed().as_secs_f64() * 1e3);
            let mut gradients = BTreeMap::<ParamId, Tensor>::new();
            tape.backward_from(vec![(out, d_out.clone())], &mut gradients);
            both.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    report("forward", forward);
    if !decode {
        report("forward and backward", both);
    }
}
