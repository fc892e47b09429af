//! Named optimizers: three to six lines each.
use crate::chain::Chain;
use crate::transforms::Transform;
use crate::transforms::add_decayed_weights::AddDecayedWeights;
use crate::transforms::clip_by_rms::ClipByRms;
use crate::transforms::project_gradient::ProjectGradient;
use crate::transforms::scale_by_adam::ScaleByAdam;
use crate::transforms::scale_by_factored_rms::ScaleByFactoredRms;
use crate::transforms::scale_by_learning_rate::ScaleByLearningRate;
use crate::transforms::scale_by_momentum::ScaleByMomentum;
use crate::transforms::scale_by_param_rms::ScaleByParamRms;

/// AdamW (Loshchilov 2019, algorithm 2) with clipping of the global norm.
pub fn adamw(betas: [f64; 2], eps: f64, weight_decay: f64, clip: Option<f64>) -> Chain {
    let mut links: Vec<Box<dyn Transform>> = vec![Box::new(ScaleByAdam { betas, eps })];
    links.extend(decay(weight_decay));
    links.push(Box::new(ScaleByLearningRate));
    Chain::new(clip, links)
}

/// SGD as PyTorch's: L2 decay into the gradient, heavy-ball momentum.
pub fn sgd(momentum: f64, weight_decay: f64, clip: Option<f64>) -> Chain {
    let mut links = decay(weight_decay);
    if momentum > 0.0 {
        links.push(Box::new(ScaleByMomentum { momentum }));
    }
    links.push(Box::new(ScaleByLearningRate));
    Chain::new(clip, links)
}

/// AdaLomo (Lv 2023, algorithm 1): factored second moment, update clipped by tensor, rate scaled to the tensor.
pub fn adalomo(exponent: f64, eps: f64, threshold: f64, smallest: f64, weight_decay: f64) -> Chain {
    let mut links: Vec<Box<dyn Transform>> = vec![Box::new(ScaleByFactoredRms { exponent, eps })];
    links.push(Box::new(ClipByRms { threshold }));
    links.extend(decay(weight_decay));
    links.push(Box::new(ScaleByParamRms { smallest }));
    links.push(Box::new(ScaleByLearningRate));
    Chain::new(None, links)
}

/// How GaLore projects.
#[derive(Clone, Copy, Debug)]
pub struct Projection {
    /// Singular vectors that are kept.
    pub rank: usize,
    /// Steps between two bases.
    pub every: u64,
    /// Factor of what is projected back.
    pub scale: f64,
}

/// GaLore with AdamW (Zhao 2024, algorithm 2): projected leaves keep their moments in the projected space.
pub fn galore(
    projection: Projection,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    clip: Option<f64>,
) -> Chain {
    let Projection { rank, every, scale } = projection;
    let inner: Vec<Box<dyn Transform>> = vec![Box::new(ScaleByAdam { betas, eps })];
    let mut links: Vec<Box<dyn Transform>> =
        vec![Box::new(ProjectGradient { rank, every, scale, links: inner })];
    links.extend(decay(weight_decay));
    links.push(Box::new(ScaleByLearningRate));
    adamw(betas, eps, weight_decay, clip).with_projected(links)
}

fn decay(weight_decay: f64) -> Vec<Box<dyn Transform>> {
    if weight_decay > 0.0 { vec![Box::new(AddDecayedWeights { weight_decay })] } else { Vec::new() }
}
