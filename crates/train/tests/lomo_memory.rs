//! LOMO's gradients, by account. Alone in its process: accounts are the process's.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]
mod tiny;

use luthier_optim::sgd;
use luthier_tensor::{DType, peak, reset_peak, usage};
use luthier_train::estimators::{Backward, Fused};
use std::sync::Arc;
use tiny::{full, session};

#[test]
fn at_most_two_gradients_live_beside_the_tied_embedding_s() {
    for recompute in [false, true] {
        let measure = |fused: bool| {
            let method = full("f32");
            let mut session = session(&method, DType::F32, None);
            session.chain = sgd(0.0, 0.0, None);
            session.leaves = luthier_train::leaves(&session.chain, method.as_ref(), None, &session.model);
            session.estimator = if fused { Arc::new(Fused) } else { Arc::new(Backward) };
            session.limits.recompute = recompute;
            session.step();
            let held = usage().gradient;
            reset_peak();
            session.step();
            let sizes = session.leaves.iter().map(|l| (l.param.name().to_string(), l.param.value().size()));
            (peak().gradient - held, sizes.collect::<Vec<_>>())
        };
        let (fused, mut sizes) = measure(true);
        let all = sizes.iter().map(|(_, s)| s).sum::<usize>();
        let at = sizes.iter().position(|(name, _)| name.contains("embed")).unwrap();
        let embedding = sizes.remove(at).1;
        sizes.sort_by_key(|(_, s)| std::cmp::Reverse(*s));
        let bound = embedding + sizes[0].1 + sizes[1].1;
        assert!(
            fused <= bound && fused >= embedding,
            "{fused} bytes, at most {bound}; recompute {recompute}"
        );
        assert!(measure(false).0 >= all, "ordinary training holds them all");
    }
}
