//! From a method's [`Update`] and `[optimizer]` to the chain, the estimator and the leaves of a run. What does not fit
//! together is refused here, before anything loads.
use crate::error::Error;
use crate::estimators::{Backward, Estimator as Makes, Fused, Spsa};
use luthier_config::{NonNegative, Optimizer, Positive, Run, Share};
use luthier_contract::{Adapter, Direction, Estimator, Method, Trained, Update};
use luthier_models::Model;
use luthier_optim::transforms::mask_updates::MaskUpdates;
use luthier_optim::{Chain, Leaf, Projection, adalomo, adamw, galore, sgd};
use std::sync::Arc;

/// Refuses an optimizer or a batch that the method's update cannot work with.
pub(crate) fn check(run: &Run, update: Update) -> Result<(), Error> {
    let refuse = |key: &str, message: &str| Err(run.refuse(key, message.to_string(), None).into());
    let sgd = matches!(&run.optimizer, Optimizer::Sgd(s) if s.momentum.get() == 0.0);
    match update.direction {
        Direction::Factored { .. } if !sgd => {
            let message = "the method brings a direction of its own: expected [optimizer.sgd] without momentum, which \
                           gives rate, decay and clipping";
            return refuse("optimizer", message);
        }
        Direction::Projected { .. } if !matches!(run.optimizer, Optimizer::Adamw(_)) => {
            return refuse("optimizer", "moments are what is projected: expected [optimizer.adamw]");
        }
        _ => {}
    }
    match update.estimator {
        Estimator::Fused if run.train.micro_batch.is_some() => {
            let message =
                "updates inside the backward run leave no gradient to be summed: a step is one micro-batch";
            refuse("train.micro_batch", message)
        }
        Estimator::Spsa { .. } if clip(&run.optimizer).is_some() => {
            let key = format!("optimizer.{}.clip", name(&run.optimizer));
            refuse(&key, "a direction of random numbers is as long as the model is large: expected \"none\"")
        }
        _ => Ok(()),
    }
}

/// The estimator that the method asks for.
pub fn estimator(update: Update) -> Arc<dyn Makes> {
    match update.estimator {
        Estimator::Fused => Arc::new(Fused),
        Estimator::Spsa { eps } => Arc::new(Spsa { eps }),
        _ => Arc::new(Backward),
    }
}

fn name(optimizer: &Optimizer) -> &'static str {
    match optimizer {
        Optimizer::Adamw(_) => "adamw",
        Optimizer::Sgd(_) => "sgd",
    }
}

fn clip(optimizer: &Optimizer) -> Option<f64> {
    let clip = match optimizer {
        Optimizer::Adamw(a) => a.clip,
        Optimizer::Sgd(s) => s.clip,
    };
    clip.0.map(Positive::get)
}

/// The chain and its peak learning rate.
pub(crate) fn chain(optimizer: &Optimizer, update: Update) -> (Chain, f64) {
    let (decay, lr) = match optimizer {
        Optimizer::Adamw(a) => (NonNegative::get(a.weight_decay), a.lr.get()),
        Optimizer::Sgd(s) => (NonNegative::get(s.weight_decay), s.lr.get()),
    };
    let clip = clip(optimizer);
    let plain = || match optimizer {
        Optimizer::Adamw(a) => adamw(a.betas.map(Share::get), a.eps.get(), decay, clip),
        Optimizer::Sgd(s) => sgd(s.momentum.get(), decay, clip),
    };
    let chain = match (update.direction, optimizer) {
        (Direction::Factored { exponent, eps, smallest, clip: threshold }, _) => {
            adalomo(exponent, eps, threshold, smallest, decay).clipped(clip)
        }
        (Direction::Projected { rank, every, scale }, Optimizer::Adamw(a)) => {
            galore(Projection { rank, every, scale }, a.betas.map(Share::get), a.eps.get(), decay, clip)
        }
        (Direction::Masked { .. }, _) => plain().then(MaskUpdates),
        _ => plain(),
    };
    (chain, lr)
}

/// Everything that trains, with its state: the adapter's tensors, then the base's, each as the method groups it.
pub fn leaves(chain: &Chain, method: &dyn Method, adapter: Option<&Adapter>, model: &Model) -> Vec<Leaf> {
    let added = adapter.into_iter().flat_map(Adapter::tensors);
    let added = added.filter(|(_, spec, _)| spec.role == luthier_contract::Role::Trainable);
    let added = added.map(|(site, spec, param)| (method.group(Trained::Added(site, spec)), param));
    let base = model.trained().iter().map(|(p, param)| (method.group(Trained::Base(p)), param));
    added
        .chain(base)
        .map(|(group, param)| chain.leaf_of(param.clone(), group.rate, group.projected))
        .collect()
}
