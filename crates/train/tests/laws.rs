//! Laws of training: resume, repetition, micro-batches, and what is saved.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]
mod tiny;

use luthier_contract::Method;
use luthier_tensor::DType;
use luthier_train::{Outcome, Plan, Session, train};
use std::collections::BTreeMap;
use std::sync::Arc;
use tiny::{checkpoints, configured, full, lora, session, state};

const PLAN: Plan = Plan { steps: 6, eval_every: Some(2), save_every: None, patience: None };

/// State, held-out losses bit for bit, and progress after all steps.
type End = (BTreeMap<String, Vec<u8>>, Vec<u64>, Outcome);

fn end(session: &Session, outcome: Outcome) -> End {
    let losses = session.losses(&session.held_out).concat();
    (state(session), losses.into_iter().map(f64::to_bits).collect(), outcome)
}

fn whole(method: &Arc<dyn Method>, compute: DType) -> End {
    let folder = tempfile::tempdir().unwrap();
    let mut session = session(method, compute, None);
    let mut saver = checkpoints(folder.path(), 1);
    let outcome = train(&mut session, &PLAN, Outcome::default(), &mut saver, &mut []).unwrap();
    end(&session, outcome)
}

/// Stopped after step `k`, saved, and gone on with in a session made anew.
fn interrupted(method: &Arc<dyn Method>, compute: DType, k: u64) -> End {
    let folder = tempfile::tempdir().unwrap();
    let mut saver = checkpoints(folder.path(), 1);
    let mut watch = tiny::Watch { stop_after: Some(k), ..tiny::Watch::default() };
    let mut first = session(method, compute, None);
    train(&mut first, &PLAN, Outcome::default(), &mut saver, &mut [&mut watch]).unwrap();
    assert_eq!(first.t, k);
    drop(first);
    let mut second = session(method, compute, None);
    let found = saver.newest().unwrap().unwrap();
    let restored = saver.restore(&found.folder, &mut second).unwrap();
    assert_eq!(second.t, k);
    let outcome = train(&mut second, &PLAN, restored.outcome, &mut saver, &mut []).unwrap();
    end(&second, outcome)
}

fn cases() -> Vec<(Arc<dyn Method>, DType)> {
    let defaults = |id| configured(id, serde_json::json!({}));
    let adalora = serde_json::json!({ "rank": 3, "target_rank": 1, "start": 1, "finish": 2 });
    vec![
        (lora(), DType::F32),
        (full("f32"), DType::F32),
        (full("bf16-stochastic"), DType::Bf16),
        (configured("adalora", adalora), DType::F32),
        (defaults("lomo"), DType::F32),
        (defaults("mezo"), DType::F32),
        (defaults("vera"), DType::F32),
        (defaults("dora"), DType::F32),
    ]
}

#[test]
fn a_resumed_run_is_the_uninterrupted_one_from_every_step() {
    for (method, compute) in cases() {
        let want = whole(&method, compute);
        for k in 1..=6 {
            let got = interrupted(&method, compute, k);
            assert!(want == got, "{} in {compute}, step {k}", method.card().id);
        }
    }
}

#[test]
fn two_equal_runs_are_equal_and_another_seed_is_not() {
    for (method, compute) in cases() {
        assert!(whole(&method, compute) == whole(&method, compute));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut other = session(&lora(), DType::F32, None);
    other.seed = 4; // of the dropout
    let outcome =
        train(&mut other, &PLAN, Outcome::default(), &mut checkpoints(folder.path(), 1), &mut []).unwrap();
    assert!(end(&other, outcome) != whole(&lora(), DType::F32));
}

#[test]
fn micro_batches_do_not_matter() {
    for method in [lora(), full("f32")] {
        // In f64 nothing but the order of sums differs.
        let grads = |micro| {
            let session = session(&method, DType::F64, micro);
            let luthier_train::Summed { loss, tokens, all_tokens: all, .. } =
                session.gradients(&[0, 3, 4, 7, 9]);
            (loss, tokens, all)
        };
        let run = |micro| {
            let folder = tempfile::tempdir().unwrap();
            let mut session = session(&method, DType::F64, micro);
            train(&mut session, &PLAN, Outcome::default(), &mut checkpoints(folder.path(), 1), &mut [])
                .unwrap();
            session.leaves.iter().flat_map(|l| l.param.value().to_f64_vec()).collect::<Vec<_>>()
        };
        let (whole, split) = (grads(None), grads(Some(1)));
        assert_eq!((whole.1, whole.2), (split.1, split.2));
        assert!((whole.0 - split.0).abs() < 1e-9);
        for (a, b) in run(None).iter().zip(run(Some(2))) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

#[test]
fn a_checkpoint_of_another_shape_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let saver = checkpoints(folder.path(), 1);
    let path = saver.write(&session(&lora(), DType::F32, None), &Outcome::default()).unwrap();
    let error = saver.restore(&path, &mut session(&full("f32"), DType::F32, None)).unwrap_err();
    assert_eq!(error.code(), "checkpoint-mismatch");
}
