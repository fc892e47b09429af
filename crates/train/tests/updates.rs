//! What methods do to the update: fused, estimated, masked, grouped.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]
mod tiny;

use luthier_data::{BatchSize, Sampler};
use luthier_optim::transforms::mask_updates::MaskUpdates;
use luthier_optim::{Chain, adamw, sgd};
use luthier_tensor::DType;
use luthier_train::Session;
use luthier_train::estimators::{Backward, Fused, Spsa};
use std::sync::Arc;
use tiny::{configured, full, session, state};

/// The tiny session under another chain.
fn under(mut session: Session, chain: Chain) -> Session {
    let adapter = session.adapter.clone();
    let method = adapter.as_ref().map_or_else(|| full("f32"), |a| a.method.clone());
    session.leaves = luthier_train::leaves(&chain, method.as_ref(), adapter.as_deref(), &session.model);
    session.chain = chain;
    session
}

fn descended(fused: bool, recompute: bool, chain: Chain) -> (Session, Vec<f64>) {
    let mut session = under(session(&full("f32"), DType::F32, None), chain);
    session.estimator = if fused { Arc::new(Fused) } else { Arc::new(Backward) };
    session.limits.recompute = recompute;
    let norms = (0..4).map(|_| session.step().grad_norm).collect();
    (session, norms)
}

/// The embedding is tied: it must be updated once, when both of its gradients have come.
#[test]
fn lomo_without_clipping_is_sgd_bit_for_bit() {
    let (plain, _) = descended(false, false, sgd(0.0, 0.0, None));
    for recompute in [false, true] {
        let (fused, _) = descended(true, recompute, sgd(0.0, 0.0, None));
        assert!(state(&plain) == state(&fused), "recompute {recompute}");
    }
    let (start, _) = descended(false, false, sgd(0.0, 0.0, Some(1e-12)));
    assert!(state(&plain) != state(&start), "the runs move");
}

#[test]
fn lomo_clips_by_the_norm_over_all_tensors() {
    let (plain, norms) = descended(false, false, sgd(0.0, 0.0, Some(0.05)));
    let (fused, measured) = descended(true, false, sgd(0.0, 0.0, Some(0.05)));
    for (a, b) in norms.iter().zip(&measured) {
        assert!(*a > 0.05 && (a - b).abs() < 1e-5 * a, "{a} {b}");
    }
    for (a, b) in plain.leaves.iter().zip(&fused.leaves) {
        for (a, b) in a.param.value().to_f64_vec().iter().zip(b.param.value().to_f64_vec()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

fn values(session: &Session) -> Vec<f64> {
    session.leaves.iter().flat_map(|l| l.param.value().to_f64_vec()).collect()
}

#[test]
fn mezo_steps_along_its_direction_by_the_slope() {
    let mut session = under(session(&full("f32"), DType::F64, None), sgd(0.0, 0.0, None));
    session.estimator = Arc::new(Spsa { eps: 1e-5 });
    session.schedule.warmup = 0;
    let rows = [0, 3, 4];
    let luthier_train::Summed { tokens, mut gradients, .. } = session.gradients(&rows);
    let ids = session.leaves.iter().map(|l| l.param.id()).collect::<Vec<_>>();
    let gradient = ids.iter().flat_map(|id| gradients.take(*id).unwrap().to_f64_vec()).collect::<Vec<_>>();
    let before = values(&session);
    let stepped = session.step_on(&rows);
    let moved = values(&session).iter().zip(&before).map(|(a, b)| a - b).collect::<Vec<_>>();
    // theta moves by -lr g z with g = dL . z up to eps^2, so that dL . moved = -lr g^2.
    let along = gradient.iter().zip(&moved).map(|(g, m)| g * m).sum::<f64>() / tokens as f64;
    let want = -stepped.lr * stepped.grad_norm.powi(2);
    assert!((along - want).abs() < 1e-5 * want.abs(), "{along} {want}");
    // And z is standard normal: its squared length is the number of elements within five standard errors.
    let n = moved.len() as f64;
    let length = moved.iter().map(|m| (m / (stepped.lr * stepped.grad_norm)).powi(2)).sum::<f64>();
    assert!((length - n).abs() < 5.0 * (2.0 * n).sqrt(), "{length} of {n}");
}

#[test]
fn mezo_comes_back_to_where_it_was() {
    let mut session = under(session(&full("f32"), DType::F32, None), sgd(0.0, 0.0, None));
    session.estimator = Arc::new(Spsa { eps: 1e-3 });
    session.schedule.peak = 0.0;
    let before = values(&session);
    session.step();
    for (a, b) in values(&session).iter().zip(before) {
        // Three roundings of a sum of order one.
        assert!((a - b).abs() <= 4.0 * f64::from(f32::EPSILON) * b.abs().max(0.01), "{a} {b}");
    }
}

#[test]
fn the_mask_keeps_the_largest_and_the_rest_keeps_its_bits() {
    let chain = adamw([0.9, 0.999], 1e-8, 0.1, Some(1.0)).then(MaskUpdates);
    let mut session = under(session(&full("f32"), DType::F32, None), chain);
    let mut order = Sampler::new(&session.samples, BatchSize::Samples(1), session.seed);
    let mut information = vec![0f64; session.trainable_parameters()];
    for _ in 0..5 {
        let mut gradients = session.gradients(&order.next_step()).gradients;
        let each = session.leaves.iter().map(|l| gradients.take(l.param.id()).unwrap().to_f64_vec());
        information.iter_mut().zip(each.flatten()).for_each(|(f, g)| *f += g * g);
    }
    let kept = luthier_train::fill_mask(&mut session, 0.1, 5);
    assert_eq!(kept, session.trainable_parameters() / 10);
    let of = |l: &luthier_optim::Leaf| l.slots.iter().find(|(n, _)| n == "mask.keep").unwrap().1.to_f64_vec();
    let mask = session.leaves.iter().flat_map(of).collect::<Vec<_>>();
    assert_eq!(mask.iter().filter(|m| **m == 1.0).count(), kept);
    let end = |m: f64, worst: fn(f64, f64) -> f64, start: f64| {
        let own = information.iter().zip(&mask).filter(|(_, k)| **k == m).map(|(f, _)| *f);
        own.fold(start, worst)
    };
    // Squares are summed in f32 there.
    assert!(end(1.0, f64::min, f64::MAX) >= 0.99999 * end(0.0, f64::max, 0.0));
    let before = values(&session);
    for _ in 0..3 {
        session.step();
    }
    for ((a, b), m) in values(&session).iter().zip(&before).zip(&mask) {
        assert!(*m == 1.0 || a.to_bits() == b.to_bits());
    }
    assert_ne!(values(&session), before);
}

#[test]
fn lora_plus_with_ratio_one_is_lora() {
    let table = |ratio: Option<f64>| {
        let mut table = serde_json::json!({ "rank": 2, "alpha": 3.0 });
        ratio.into_iter().for_each(|r| table["ratio"] = serde_json::json!(r));
        table
    };
    let run = |id: &str, ratio| {
        let mut session = session(&configured(id, table(ratio)), DType::F32, None);
        for _ in 0..3 {
            session.step();
        }
        state(&session)
    };
    let lora = run("lora", None);
    assert!(lora == run("lora-plus", Some(1.0)));
    assert!(lora != run("lora-plus", Some(4.0)));
}
