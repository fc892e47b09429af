use super::*;
use crate::gradient_check::{against_f64, check, normal};

fn spec(heads: usize, head_dim: usize, span: usize, log_to: Option<usize>) -> DisentangledSpec {
    let scale = 1.0 / (3.0 * head_dim as f64).sqrt();
    DisentangledSpec { heads, head_dim, scale, distance: Distance { span, log_to } }
}

fn inputs(n: usize, s: &DisentangledSpec) -> Vec<Tensor> {
    let width = s.heads * s.head_dim;
    let rows = [n, n, n, 2 * s.distance.span, 2 * s.distance.span];
    rows.iter().zip(1..).map(|(rows, seed)| normal(&[*rows, width], DType::F64, seed)).collect()
}

fn run(tape: &Tape, x: &[Var], s: &DisentangledSpec, segments: &Segments, terms: [bool; 2]) -> Vec<Var> {
    let part = |i: usize| terms[i].then(|| &x[3 + i]);
    vec![disentangled(tape, [&x[0], &x[1], &x[2]], part(0), part(1), s, segments)]
}

#[test]
fn gradients() {
    let segments = Segments::of_lengths([3, 0, 5]);
    for terms in [[true, true], [true, false], [false, true], [false, false]] {
        // A span below the longest segment clamps; four and twelve make buckets beyond distance 2.
        for (span, log_to) in [(3, None), (4, Some(12))] {
            let s = spec(2, 3, span, log_to);
            check(&inputs(8, &s), |tape, x| run(tape, x, &s, &segments, terms));
        }
    }
}

#[test]
fn equals_f64_on_every_tier() {
    for (lengths, heads, head_dim, span) in
        [(vec![1], 1, 1, 2), (vec![3, 1, 17], 3, 5, 8), (vec![65, 0, 30], 2, 16, 40), (vec![], 2, 4, 4)]
    {
        let (s, segments) = (spec(heads, head_dim, span, Some(4 * span)), Segments::of_lengths(lengths));
        // bf16: its inputs are exact, results are rounded once, gradients too and the seed once more; sums of up to 95 terms
        // of normal numbers stay below eight units in `1 + |x|`. f32: as many roundings as terms at worst.
        against_f64(&inputs(segments.total(), &s), 150.0, |tape, x| {
            run(tape, x, &s, &segments, [true, true])
        });
    }
}

#[test]
fn without_relative_terms_it_is_attention() {
    let (s, segments) = (spec(2, 4, 4, None), Segments::of_lengths([5, 3]));
    let x = inputs(8, &s).into_iter().map(Var::constant).collect::<Vec<_>>();
    let plain = crate::attention::AttentionSpec {
        heads: 2,
        kv_heads: 2,
        head_dim: 4,
        scale: s.scale,
        causal: false,
        window: None,
    };
    let tape = Tape::off();
    let ours = &run(&tape, &x, &s, &segments, [false, false])[0];
    let theirs = crate::attention::attention(&tape, &x[0], &x[1], &x[2], &plain, &segments);
    assert!(crate::gradient_check::distance(ours.value(), theirs.value()) < 1e-12);
}

/// DeBERTa-v3: 256 buckets, of which the nearest 128 distances have their own; 512 is the furthest.
#[test]
fn buckets_are_exact_near_by_shared_far_away_and_odd() {
    let at = Distance { span: 256, log_to: Some(512) };
    for (d, row) in [(0, 256), (1, 257), (-1, 255), (128, 384), (-128, 128), (511, 511), (-511, 1)] {
        assert_eq!(at.row(d), row, "{d}");
    }
    assert_eq!((at.row(5000), at.row(-5000)), (511, 0));
    for d in 129..511 {
        assert!(at.row(d) <= at.row(d + 1) && at.row(d) + at.row(-d) == 512, "{d}");
    }
    let plain = Distance { span: 4, log_to: None };
    assert_eq!([-9, -4, -1, 3, 4].map(|d| plain.row(d)), [0, 0, 3, 7, 7]);
}
