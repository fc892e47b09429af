//! Attention within segments: `softmax(scale Q K' + mask) V`, a head at a time, in O(n) memory.
//!
//! Tokens of all segments lie one after another without padding; a query sees keys
//! of its own segment only, those that causality and the window leave. Heads share
//! keys and values in groups (Ainslie 2023, "GQA"). Forward keeps the output and
//! one log-sum-exp a row; backward makes the weights again (Dao 2022).
//!
//! A row's bits depend on its own segment only, forward on nothing behind it if
//! causal, and on no count of threads.
mod backward;
mod cpu;
mod decode;
mod pack;
mod product;
mod reference;
mod simd;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::isa::{Tier, tier};
use luthier_tensor::{Account, DType, Tape, Tensor, Var, add_flops, to_dtype};
use std::ops::Range;
use std::sync::Arc;

/// Where the samples of a flat batch begin and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments(Arc<[u32]>);

impl Segments {
    /// From offsets: first 0, non-decreasing, last the number of tokens. Segment `i` is rows
    /// `offsets[i]..offsets[i + 1]`, which may be none.
    pub fn new(offsets: Vec<u32>) -> Self {
        assert_eq!(offsets.first(), Some(&0), "offsets of segments start at 0");
        assert!(offsets.is_sorted(), "offsets of segments do not decrease: {offsets:?}");
        Self(offsets.into())
    }

    /// One segment of `n` tokens.
    pub fn one(n: usize) -> Self {
        Self::of_lengths([n])
    }

    /// Segments of these lengths.
    pub fn of_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut end = 0;
        let mut offsets = vec![0];
        for length in lengths {
            end += length;
            offsets.push(u32::try_from(end).expect("a batch has fewer than 2^32 tokens"));
        }
        Self(offsets.into())
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        self.0.len() - 1
    }

    /// Rows of segment `i`.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.0[i] as usize..self.0[i + 1] as usize
    }

    /// Tokens of all segments.
    pub fn total(&self) -> usize {
        self.0[self.count()] as usize
    }

    /// Tokens of the longest segment.
    pub fn longest(&self) -> usize {
        (0..self.count()).map(|i| self.range(i).len()).max().unwrap_or(0)
    }

    /// The offsets.
    pub fn offsets(&self) -> &[u32] {
        &self.0
    }
}

/// An attention's shape and mask.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// What scores are multiplied by; positive, usually `head_dim^-1/2`.
    pub scale: f64,
    /// Whether a query sees no later key.
    pub causal: bool,
    /// A query sees itself and the `window - 1` keys before it, as Mistral in transformers; without causality also as
    /// many after it.
    pub window: Option<usize>,
}

/// Keys, of `keys`, that the query at `position` sees.
fn visible(spec: &AttentionSpec, position: usize, keys: usize) -> Range<usize> {
    let reach = spec.window.unwrap_or(keys.max(1));
    let end = if spec.causal { position + 1 } else { keys.min(position + reach) };
    (position + 1).saturating_sub(reach)..end
}

/// Pairs of a query and a key that it sees, of one head.
fn pairs(spec: &AttentionSpec, q_segments: &Segments, k_segments: &Segments) -> u64 {
    let count = |segment: usize| {
        let (queries, keys) = (q_segments.range(segment).len(), k_segments.range(segment).len());
        (keys - queries..keys).map(|position| visible(spec, position, keys).len() as u64).sum::<u64>()
    };
    (0..q_segments.count()).map(count).sum()
}

fn check(spec: &AttentionSpec, tensors: [(&Tensor, usize, &Segments); 3]) {
    assert!(spec.scale > 0.0, "the scale of attention is positive, not {}", spec.scale);
    assert!(
        spec.kv_heads > 0 && spec.heads.is_multiple_of(spec.kv_heads) && spec.head_dim > 0,
        "heads in whole groups, of some width: {spec:?}"
    );
    assert!(spec.window != Some(0), "a window holds at least the query's own key");
    for (t, heads, segments) in tensors {
        assert_eq!(t.shape(), [segments.total(), heads * spec.head_dim], "rows and heads of {spec:?}");
        assert_eq!(t.dtype(), tensors[0].0.dtype(), "queries, keys and values of one type");
    }
}

/// Calls a function of the tier's vectors.
macro_rules! on_tier {
    ($tier:expr, $dtype:expr, $module:ident::$function:ident, $($argument:expr),*) => {
        // SAFETY: the tier is one that the machine has, and the vectors' element is the tensors'.
        unsafe {
            match ($tier, $dtype) {
                #[cfg(target_arch = "x86_64")]
                (Tier::Avx512Bf16, DType::Bf16) => $module::$function::<x86::Avx512Bf16>($($argument),*),
                #[cfg(target_arch = "x86_64")]
                (Tier::Avx512Bf16 | Tier::Avx512, _) => $module::$function::<x86::Avx512>($($argument),*),
                #[cfg(target_arch = "x86_64")]
                (Tier::Avx2, _) => $module::$function::<x86::Avx2>($($argument),*),
                _ => $module::$function::<simd::Portable>($($argument),*),
            }
        }
    };
}

/// `q [n, heads head_dim]`, `k`, `v` `[n, kv_heads head_dim]` -> `[n, heads head_dim]`.
///
/// f64, f32 or bf16; statistics and sums in f32 (f64 for f64). Saves q, k, v, the output and the log-sum-exp
/// `[heads, n]`. Counts `4 head_dim` operations per head and visible pair forward, `10 head_dim` backward: the scores
/// made again, `dP`, `dV`, `dK`, `dQ`.
pub fn attention(tape: &Tape, q: &Var, k: &Var, v: &Var, spec: &AttentionSpec, segments: &Segments) -> Var {
    begin(q.value(), segments, k.value(), v.value(), segments, spec);
    let (out, lse) = forward(q.value(), segments, k.value(), v.value(), segments, spec, &|_| true);
    if !tape.wants(&[q, k, v]) {
        return tape.record_one(&[q, k, v], out, |_| {});
    }
    let (saved, kept) = ([q.save(), k.save(), v.save()], out.clone());
    let (spec, segments) = (spec.clone(), segments.clone());
    tape.record_one(&[q, k, v], out, move |b| {
        let Some(d_out) = b.output(0) else { return };
        let [q, k, v] = saved.map(luthier_tensor::Saved::take);
        let saved = Saved { q, k, v, out: kept, lse };
        let wanted = [b.needs(0), b.needs(1), b.needs(2)];
        let gradients = backward(saved, d_out, &spec, &segments, wanted);
        for (i, gradient) in [gradients.q, gradients.k, gradients.v].into_iter().enumerate() {
            if let Some(gradient) = gradient {
                b.push(i, gradient);
            }
        }
    })
}

/// Attention without a tape, for decoding: the queries of segment `i` are the last rows of key segment `i`, so that
/// the last query sees all its keys. Shapes as in [`attention`], with rows by `q_segments` and `k_segments`.
pub fn attend(
    q: &Tensor,
    q_segments: &Segments,
    k: &Tensor,
    v: &Tensor,
    k_segments: &Segments,
    spec: &AttentionSpec,
) -> Tensor {
    begin(q, q_segments, k, v, k_segments, spec);
    let streamed = |i: usize| q.dtype() != DType::F64 && decode::takes(q_segments.range(i).len(), spec);
    let (streams, blocks): (Vec<_>, Vec<_>) = (0..q_segments.count()).partition(|&i| streamed(i));
    let mut out = if blocks.iter().all(|&i| q_segments.range(i).is_empty()) {
        Tensor::scratch(q.shape(), q.dtype(), Account::Activation)
    } else {
        forward(q, q_segments, k, v, k_segments, spec, &|i| !streamed(i)).0
    };
    if !streams.is_empty() {
        on_tier!(tier(), DType::F32, decode::decode, q, q_segments, k, v, k_segments, spec, &mut out);
    }
    out
}

/// What backward needs of forward.
struct Saved {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    /// Base 2 on the fast paths, natural for f64.
    lse: Tensor,
}

/// Gradients of the inputs that want one.
struct Gradients {
    q: Option<Tensor>,
    k: Option<Tensor>,
    v: Option<Tensor>,
}

/// Whether the tensors are multiplied as they are; else in f32.
fn is_native(dtype: DType, spec: &AttentionSpec, tier: Tier) -> bool {
    dtype == DType::F32 || (tier == Tier::Avx512Bf16 && spec.head_dim.is_multiple_of(2))
}

/// Checks the inputs and counts the operations.
fn begin(
    q: &Tensor,
    q_segments: &Segments,
    k: &Tensor,
    v: &Tensor,
    k_segments: &Segments,
    spec: &AttentionSpec,
) {
    check(
        spec,
        [(q, spec.heads, q_segments), (k, spec.kv_heads, k_segments), (v, spec.kv_heads, k_segments)],
    );
    assert_eq!(q_segments.count(), k_segments.count(), "a segment of keys for each of queries");
    for i in 0..q_segments.count() {
        let (queries, keys) = (q_segments.range(i).len(), k_segments.range(i).len());
        assert!(queries <= keys, "segment {i} has {queries} queries and {keys} keys");
    }
    add_flops(4 * (spec.head_dim * spec.heads) as u64 * pairs(spec, q_segments, k_segments));
}

/// Output and log-sum-exp of the segments `wanted`.
fn forward(
    q: &Tensor,
    q_segments: &Segments,
    k: &Tensor,
    v: &Tensor,
    k_segments: &Segments,
    spec: &AttentionSpec,
    wanted: &dyn Fn(usize) -> bool,
) -> (Tensor, Tensor) {
    match (q.dtype(), tier()) {
        (DType::F64, _) => {
            let (out, lse) =
                reference::forward(q.slice(), q_segments, k.slice(), v.slice(), k_segments, spec);
            let lse = Tensor::from_slice(&[spec.heads, q_segments.total()], &lse, Account::Activation);
            (Tensor::from_slice(q.shape(), &out, Account::Activation), lse)
        }
        (dtype @ (DType::F32 | DType::Bf16), tier) if is_native(dtype, spec, tier) => {
            on_tier!(tier, dtype, cpu::forward, q, q_segments, k, v, k_segments, spec, wanted)
        }
        (dtype @ DType::Bf16, tier) => {
            let [q, k, v] = [q, k, v].map(|t| to_dtype(t, DType::F32, Account::Workspace));
            let (out, lse) =
                on_tier!(tier, DType::F32, cpu::forward, &q, q_segments, &k, &v, k_segments, spec, wanted);
            (to_dtype(&out, dtype, Account::Activation), lse)
        }
        (dtype, _) => panic!("attention on {dtype}"),
    }
}

fn backward(
    saved: Saved,
    d_out: Tensor,
    spec: &AttentionSpec,
    segments: &Segments,
    wanted: [bool; 3],
) -> Gradients {
    add_flops(10 * (spec.head_dim * spec.heads) as u64 * pairs(spec, segments, segments));
    let dtype = saved.q.dtype();
    let d_out = to_dtype(&d_out, dtype, Account::Workspace);
    match (dtype, tier()) {
        (DType::F64, _) => {
            let Saved { q, k, v, out, lse } = &saved;
            let inputs = [q, k, v, out, &d_out].map(Tensor::slice::<f64>);
            let [dq, dk, dv] = reference::backward(inputs, lse.slice(), segments, spec);
            let tensor = |i: usize, like: &Tensor, values: &[f64]| {
                wanted[i].then(|| Tensor::from_slice(like.shape(), values, Account::Activation))
            };
            Gradients { q: tensor(0, q, &dq), k: tensor(1, k, &dk), v: tensor(2, v, &dv) }
        }
        (_, tier) if is_native(dtype, spec, tier) => {
            on_tier!(tier, dtype, backward::backward, &saved, &d_out, spec, segments, wanted)
        }
        (_, tier) => {
            let wide = |t: &Tensor| to_dtype(t, DType::F32, Account::Workspace);
            let Saved { q, k, v, out, lse } = saved;
            let saved = Saved { q: wide(&q), k: wide(&k), v: wide(&v), out: wide(&out), lse };
            let d_out = wide(&d_out);
            let gradients =
                on_tier!(tier, DType::F32, backward::backward, &saved, &d_out, spec, segments, wanted);
            let narrow = |t: Option<Tensor>| t.map(|t| to_dtype(&t, dtype, Account::Activation));
            Gradients { q: narrow(gradients.q), k: narrow(gradients.k), v: narrow(gradients.v) }
        }
    }
}
