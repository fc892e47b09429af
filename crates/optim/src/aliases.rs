//! Named optimizers: three to six lines each.
use crate::chain::Chain;
use crate::transforms::Transform;
use crate::transforms::add_decayed_weights::AddDecayedWeights;
use crate::transforms::scale_by_adam::ScaleByAdam;
use crate::transforms::scale_by_learning_rate::ScaleByLearningRate;
use crate::transforms::scale_by_momentum::ScaleByMomentum;

/// AdamW (Loshchilov 2019, algorithm 2) with clipping of the global norm.
pub fn adamw(betas: [f64; 2], eps: f64, weight_decay: f64, clip: Option<f64>) -> Chain {
    let mut links: Vec<Box<dyn Transform>> = vec![Box::new(ScaleByAdam { betas, eps })];
    if weight_decay > 0.0 {
        links.push(Box::new(AddDecayedWeights { weight_decay }));
    }
    links.push(Box::new(ScaleByLearningRate));
    Chain::new(clip, links)
}

/// SGD as PyTorch's: L2 decay into the gradient, heavy-ball momentum.
pub fn sgd(momentum: f64, weight_decay: f64, clip: Option<f64>) -> Chain {
    let mut links: Vec<Box<dyn Transform>> = Vec::new();
    if weight_decay > 0.0 {
        links.push(Box::new(AddDecayedWeights { weight_decay }));
    }
    if momentum > 0.0 {
        links.push(Box::new(ScaleByMomentum { momentum }));
    }
    links.push(Box::new(ScaleByLearningRate));
    Chain::new(clip, links)
}
