//! Blocks against the reference, the reference against central differences, and what must hold to the bit.
use super::*;
use crate::isa::{on_each_tier, supported, with_tier};
use luthier_tensor::ParamId;
use std::collections::BTreeMap;

/// Deterministic values in (-1, 1).
fn noise(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn spec(
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    causal: bool,
    window: Option<usize>,
) -> AttentionSpec {
    AttentionSpec { heads, kv_heads, head_dim, scale: (head_dim as f64).powf(-0.5), causal, window }
}

/// Queries, keys, values and the output's gradient.
struct Inputs([Tensor; 4]);

impl Inputs {
    fn new(spec: &AttentionSpec, segments: &Segments, dtype: DType, seed: u64) -> Self {
        let n = segments.total();
        let tensor = |heads: usize, size: f64, seed: u64| {
            let count = n * heads * spec.head_dim;
            let values = noise(count, seed).into_iter().map(|x| x * size).collect::<Vec<_>>();
            Tensor::from_f64(&[n, heads * spec.head_dim], &values, dtype, Account::Activation)
        };
        // Scores of a few units, so that weights differ.
        Self([
            tensor(spec.heads, 3.0, 4 * seed + 1),
            tensor(spec.kv_heads, 2.0, 4 * seed + 2),
            tensor(spec.kv_heads, 1.0, 4 * seed + 3),
            tensor(spec.heads, 1.0, 4 * seed + 4),
        ])
    }

    fn rows(&self, range: Range<usize>) -> Self {
        Self(self.0.each_ref().map(|t| t.narrow(range.clone()).copy(Account::Activation)))
    }

    /// Output and gradients of q, k, v.
    fn run(&self, spec: &AttentionSpec, segments: &Segments) -> [Tensor; 4] {
        let tape = Tape::new();
        let [q, k, v, d_out] = &self.0;
        let inputs = [q, k, v].map(|t| tape.input(t.clone()));
        let out = attention(&tape, &inputs[0].0, &inputs[1].0, &inputs[2].0, spec, segments);
        let value = out.value().clone();
        let mut gradients = BTreeMap::<ParamId, Tensor>::new();
        tape.backward_from(vec![(out, d_out.clone())], &mut gradients);
        let [dq, dk, dv] = inputs.map(|(_, id)| gradients.remove(&id).expect("every input wants one"));
        [value, dq, dk, dv]
    }

    /// The same in f64 over the same, rounded, inputs.
    fn exact(&self, spec: &AttentionSpec, segments: &Segments) -> [Tensor; 4] {
        Self(self.0.each_ref().map(|t| to_dtype(t, DType::F64, Account::Activation))).run(spec, segments)
    }
}

fn bits(t: &Tensor) -> Vec<u8> {
    t.bytes().to_vec()
}

/// Largest difference over the largest magnitude, or over 1, the size of the inputs, where all should be smaller (with a
/// window of 1, dq and dk are 0).
fn error(ours: &Tensor, exact: &Tensor) -> f64 {
    assert_eq!(ours.shape(), exact.shape());
    let (ours, exact) = (ours.to_f64_vec(), exact.to_f64_vec());
    let scale = exact.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
    ours.iter().zip(&exact).fold(0.0, |m: f64, (a, b)| {
        assert!(a.is_finite(), "{a} where {b} is expected");
        m.max((a - b).abs())
    }) / scale
}

const HEADS: [(usize, usize); 3] = [(9, 3), (4, 4), (6, 1)];
const WINDOWS: [Option<usize>; 4] = [None, Some(1), Some(3), Some(64)];

fn odd_segments() -> Segments {
    Segments::of_lengths([0, 1, 3, 63, 0, 64, 65, 130, 0])
}

/// Relative to the largest element, `k` terms in sequence, each of relative error `u`, give at most about `sqrt(k) u`
/// beyond the inputs' own rounding. f32: k = 130 keys and a head_dim of 64 at u = 2^-24 through two products, and
/// exp2 of an argument below 32 that is off by 2^-24 of itself: 32 ln 2 2^-24 + 30 2^-24, twice for the gradients.
const F32: f64 = 1e-5;
/// Weights, dS and results are rounded to bf16, u = 2^-9 each, and D is taken from the rounded output, so that dS is
/// off by 2^-9 of dO O; three such roundings add up to 6e-3, and cancellation in dS against the largest gradient
/// doubles it.
const BF16: f64 = 1.2e-2;

#[test]
fn blocks_equal_the_reference_at_odd_sizes() {
    let segments = odd_segments();
    on_each_tier(|tier| {
        let mut seed = 0;
        for causal in [true, false] {
            for (i, (heads, kv_heads)) in HEADS.into_iter().enumerate() {
                for (j, window) in WINDOWS.into_iter().enumerate() {
                    seed += 1;
                    // All widths meet all masks and all groups, without the whole product.
                    let spec = spec(heads, kv_heads, [8, 20, 64][(i + j) % 3], causal, window);
                    for (dtype, bound) in [(DType::F32, F32), (DType::Bf16, BF16)] {
                        let inputs = Inputs::new(&spec, &segments, dtype, seed);
                        let (ours, exact) = (inputs.run(&spec, &segments), inputs.exact(&spec, &segments));
                        for (name, (ours, exact)) in
                            ["out", "dq", "dk", "dv"].iter().zip(ours.iter().zip(&exact))
                        {
                            assert_eq!(ours.dtype(), dtype);
                            let error = error(ours, exact);
                            assert!(error < bound, "{tier} {dtype} {spec:?} {name}: {error}");
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn any_width_of_head() {
    let segments = Segments::of_lengths([70, 5]);
    on_each_tier(|tier| {
        for head_dim in [1, 5, 33, 80, 128, 256] {
            let spec = spec(2, 1, head_dim, true, None);
            for (dtype, bound) in [(DType::F32, F32), (DType::Bf16, BF16)] {
                let inputs = Inputs::new(&spec, &segments, dtype, head_dim as u64);
                let (ours, exact) = (inputs.run(&spec, &segments), inputs.exact(&spec, &segments));
                for (ours, exact) in ours.iter().zip(&exact) {
                    let error = error(ours, exact);
                    assert!(error < bound, "{tier} {dtype} {head_dim}: {error}");
                }
            }
        }
    });
}

/// Two queries of two keys by hand: scores 0 and ln 3 give weights 1/4 and 3/4.
#[test]
fn the_reference_is_the_definition() {
    let spec = AttentionSpec { heads: 1, kv_heads: 1, head_dim: 1, scale: 0.5, causal: false, window: None };
    let tensor = |values: &[f64]| Tensor::from_slice(&[2, 1], values, Account::Activation);
    let (q, k, v) = (tensor(&[2.0, 0.0]), tensor(&[0.0, 3f64.ln()]), tensor(&[4.0, 8.0]));
    let out = |spec: &AttentionSpec| {
        let one = Segments::one(2);
        attend(&q, &one, &k, &v, &one, spec).to_f64_vec()
    };
    let close = |a: Vec<f64>, b: [f64; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14);
    assert!(close(out(&spec), [7.0, 6.0]));
    assert!(close(out(&AttentionSpec { causal: true, ..spec.clone() }), [4.0, 6.0]));
    assert!(close(out(&AttentionSpec { causal: true, window: Some(1), ..spec.clone() }), [4.0, 8.0]));
    assert!(close(out(&AttentionSpec { window: Some(2), ..spec }), [7.0, 6.0]));
}

#[test]
fn gradients_equal_central_differences() {
    let segments = Segments::of_lengths([3, 0, 7, 1]);
    for (causal, window) in [(true, None), (false, None), (true, Some(3)), (false, Some(2))] {
        let spec = spec(4, 2, 3, causal, window);
        let inputs = Inputs::new(&spec, &segments, DType::F64, 5);
        let [_, dq, dk, dv] = inputs.run(&spec, &segments);
        let weights = inputs.0[3].to_f64_vec();
        for (i, gradient) in [dq, dk, dv].iter().enumerate() {
            for (element, expected) in gradient.to_f64_vec().into_iter().enumerate() {
                let loss = |step: f64| {
                    let mut moved = inputs.0.each_ref().map(|t| t.copy(Account::Activation));
                    moved[i].slice_mut::<f64>()[element] += step;
                    let out = attend(&moved[0], &segments, &moved[1], &moved[2], &segments, &spec);
                    out.to_f64_vec().iter().zip(&weights).map(|(o, w)| o * w).sum::<f64>()
                };
                // Error h^2 / 6 of the third derivative, and 1e-16 / h of rounding.
                let h = 1e-5;
                let found = (loss(h) - loss(-h)) / (2.0 * h);
                assert!((found - expected).abs() < 1e-8, "input {i} element {element}: {found} {expected}");
            }
        }
    }
}

#[test]
fn only_wanted_gradients_are_made() {
    let segments = Segments::of_lengths([40, 70]);
    for dtype in [DType::F64, DType::F32, DType::Bf16] {
        let spec = spec(4, 2, 16, true, None);
        let inputs = Inputs::new(&spec, &segments, dtype, 9);
        let all = with_tier(supported()[0], || inputs.run(&spec, &segments));
        for mask in 0..8u32 {
            let tape = Tape::new();
            let mut ids = Vec::new();
            let vars = [0, 1, 2].map(|i| {
                if mask >> i & 1 == 1 {
                    let (var, id) = tape.input(inputs.0[i].clone());
                    ids.push((i, id));
                    var
                } else {
                    Var::constant(inputs.0[i].clone())
                }
            });
            let mut gradients = BTreeMap::<ParamId, Tensor>::new();
            with_tier(supported()[0], || {
                let out = attention(&tape, &vars[0], &vars[1], &vars[2], &spec, &segments);
                assert_eq!(out.needs_grad(), mask != 0);
                tape.backward_from(vec![(out, inputs.0[3].clone())], &mut gradients);
            });
            assert_eq!(gradients.len(), ids.len());
            for (i, id) in ids {
                assert_eq!(bits(&gradients[&id]), bits(&all[i + 1]));
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let segments = Segments::of_lengths([300, 20, 0, 64, 130, 7, 7, 7]);
    for tier in supported() {
        for (causal, window) in [(true, None), (false, None), (true, Some(70)), (false, Some(33))] {
            let spec = spec(6, 2, 20, causal, window);
            for dtype in [DType::F32, DType::Bf16] {
                let inputs = Inputs::new(&spec, &segments, dtype, 11);
                let run = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let run = || pool.install(|| inputs.run(&spec, &segments).each_ref().map(bits));
                    with_tier(tier, run)
                };
                let one = run(1);
                for threads in [2, 3, 2, 3] {
                    assert!(run(threads) == one, "{tier} {dtype} {spec:?} {threads} threads");
                }
            }
        }
    }
}

#[test]
fn a_segment_alone_gives_the_same_bits() {
    let segments = Segments::of_lengths([65, 1, 0, 130, 63]);
    for tier in supported() {
        for causal in [true, false] {
            let spec = spec(6, 2, 20, causal, Some(90));
            for dtype in [DType::F32, DType::Bf16] {
                let inputs = Inputs::new(&spec, &segments, dtype, 12);
                let together = with_tier(tier, || inputs.run(&spec, &segments));
                for i in 0..segments.count() {
                    let range = segments.range(i);
                    let own = inputs.rows(range.clone());
                    let alone = with_tier(tier, || own.run(&spec, &Segments::one(range.len())));
                    for (together, alone) in together.iter().zip(&alone) {
                        assert_eq!(
                            bits(&together.narrow(range.clone())),
                            bits(alone),
                            "{tier} {dtype} segment {i}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn later_tokens_change_no_bit() {
    for tier in supported() {
        for window in [None, Some(20)] {
            let spec = spec(4, 2, 32, true, window);
            for dtype in [DType::F32, DType::Bf16, DType::F64] {
                let inputs = Inputs::new(&spec, &Segments::one(150), dtype, 13);
                let whole = with_tier(tier, || inputs.run(&spec, &Segments::one(150)));
                for n in [1, 2, 17, 63, 64, 65, 127, 149] {
                    let start = with_tier(tier, || inputs.rows(0..n).run(&spec, &Segments::one(n)));
                    assert_eq!(bits(&whole[0].narrow(0..n)), bits(&start[0]), "{tier} {dtype} {n}");
                }
            }
        }
    }
}

#[test]
fn decoding_equals_the_rows_of_attention() {
    let k_segments = Segments::of_lengths([150, 0, 70, 3, 64]);
    for tier in supported() {
        for (heads, kv_heads, window) in [(9, 3, None), (4, 4, Some(20)), (6, 1, Some(100))] {
            let spec = spec(heads, kv_heads, 64, true, window);
            for (dtype, bound) in [(DType::F64, 1e-15), (DType::F32, F32), (DType::Bf16, BF16)] {
                let inputs = Inputs::new(&spec, &k_segments, dtype, 14);
                let [q, k, v, _] = &inputs.0;
                let whole = with_tier(tier, || attend(q, &k_segments, k, v, &k_segments, &spec));
                for lengths in [[1, 0, 1, 1, 1], [80, 0, 70, 0, 5], [66, 0, 1, 2, 64]] {
                    let q_segments = Segments::of_lengths(lengths);
                    let rows = (0..5).flat_map(|i| {
                        let end = k_segments.range(i).end;
                        end - lengths[i]..end
                    });
                    let width = heads * 64;
                    let take = |t: &Tensor| {
                        let all = t.to_f64_vec();
                        let values = rows
                            .clone()
                            .flat_map(|r| all[r * width..(r + 1) * width].to_vec())
                            .collect::<Vec<_>>();
                        Tensor::from_f64(&[q_segments.total(), width], &values, dtype, Account::Activation)
                    };
                    let out = with_tier(tier, || attend(&take(q), &q_segments, k, v, &k_segments, &spec));
                    let expected = take(&whole);
                    let error = error(&out, &expected);
                    assert!(error < bound, "{tier} {dtype} {spec:?} {lengths:?}: {error}");
                    for i in (0..5).filter(|&i| lengths[i] > 1) {
                        let rows = q_segments.range(i);
                        assert_eq!(
                            bits(&out.narrow(rows.clone())),
                            bits(&expected.narrow(rows)),
                            "{tier} {dtype}"
                        );
                    }
                }
            }
        }
    }
}

/// Against f64, over several chunks, all numbers of heads in a group and widths in and beyond whole vectors.
#[test]
fn one_query_to_many_keys() {
    for tier in supported() {
        for (heads, kv_heads, head_dim, window) in [
            (3, 3, 16, None),
            (2, 1, 80, Some(700)),
            (6, 2, 64, None),
            (5, 1, 128, Some(513)),
            (7, 1, 24, None),
        ] {
            let spec = spec(heads, kv_heads, head_dim, true, window);
            let (keys, queries) =
                (Segments::of_lengths([1, 1300, 0, 513]), Segments::of_lengths([1, 1, 0, 1]));
            for (dtype, bound) in [(DType::F32, F32), (DType::Bf16, BF16)] {
                let many = Inputs::new(&spec, &keys, dtype, 16);
                let few = Inputs::new(&spec, &queries, dtype, 17);
                let wide = |t: &Tensor| to_dtype(t, DType::F64, Account::Activation);
                let ([q, ..], [_, k, v, _]) = (&few.0, &many.0);
                let exact = attend(&wide(q), &queries, &wide(k), &wide(v), &keys, &spec);
                let run = |threads: usize| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    with_tier(tier, || pool.install(|| attend(q, &queries, k, v, &keys, &spec)))
                };
                let out = run(1);
                let error = error(&out, &exact);
                assert!(error < bound, "{tier} {dtype} {spec:?}: {error}");
                for threads in [2, 3] {
                    assert_eq!(bits(&run(threads)), bits(&out));
                }
                // One segment alone, and beside one that goes by blocks.
                let own = keys.range(1);
                let [k, v] = [k, v].map(|t| t.narrow(own.clone()));
                let alone = with_tier(tier, || {
                    attend(&q.narrow(1..2), &Segments::one(1), &k, &v, &Segments::one(1300), &spec)
                });
                assert_eq!(bits(&alone), bits(&out.narrow(1..2)), "{tier} {dtype}");
            }
        }
    }
}

#[test]
fn counts_its_operations() {
    // Segments 3 and 2, causal: 6 + 3 pairs; window 2: 5 + 3.
    let segments = Segments::of_lengths([3, 2]);
    assert_eq!(pairs(&spec(1, 1, 1, true, None), &segments, &segments), 9);
    assert_eq!(pairs(&spec(1, 1, 1, true, Some(2)), &segments, &segments), 8);
    assert_eq!(pairs(&spec(1, 1, 1, false, None), &segments, &segments), 13);
    assert_eq!(pairs(&spec(1, 1, 1, false, Some(2)), &segments, &segments), 11);
    assert_eq!(pairs(&spec(1, 1, 1, true, None), &Segments::of_lengths([1, 0]), &segments), 3);
}

#[test]
fn large_scores_stay_finite() {
    let segments = Segments::one(70);
    on_each_tier(|tier| {
        for dtype in [DType::F32, DType::Bf16] {
            let spec = AttentionSpec { scale: 300.0, ..spec(2, 1, 8, true, None) };
            let inputs = Inputs::new(&spec, &segments, dtype, 15);
            for t in inputs.run(&spec, &segments) {
                assert!(t.to_f64_vec().iter().all(|x| x.is_finite()), "{tier} {dtype}");
            }
        }
    });
}

/// `2^x` on every tier over the range of softmax.
#[test]
fn exp2_keeps_its_error() {
    struct Check;
    impl simd::Kernel for Check {
        #[inline(always)]
        unsafe fn run<S: simd::Simd>(self) {
            let mut out = [0f32; 16];
            let mut worst = 0f64;
            for i in 0..400_000 {
                let x = -120.0 * i as f32 / 400_000.0;
                // SAFETY: `out` holds a vector of any tier.
                unsafe { S::store(out.as_mut_ptr(), S::exp2(S::splat(x))) };
                worst = worst.max((f64::from(out[0]) / f64::from(x).exp2() - 1.0).abs());
            }
            assert!(worst < 2e-7, "{worst}");
            for (x, y) in [(0.0, 1.0), (f32::NEG_INFINITY, 0.0), (f32::MIN, 0.0), (-3.0, 0.125)] {
                // SAFETY: as above.
                unsafe { S::store(out.as_mut_ptr(), S::exp2(S::splat(x))) };
                assert_eq!(out[0], y);
            }
            // SAFETY: as above.
            unsafe { S::store(out.as_mut_ptr(), S::exp2(S::splat(f32::NAN))) };
            assert!(out[0].is_nan());
        }
    }
    use simd::Simd;
    for tier in supported() {
        // SAFETY: the machine supports the tier.
        unsafe {
            match tier {
                #[cfg(target_arch = "x86_64")]
                Tier::Avx512Bf16 => x86::Avx512Bf16::call(Check),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx512 => x86::Avx512::call(Check),
                #[cfg(target_arch = "x86_64")]
                Tier::Avx2 => x86::Avx2::call(Check),
                _ => simd::Portable::call(Check),
            }
        }
    }
}
