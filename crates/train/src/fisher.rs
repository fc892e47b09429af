//! The mask of sparse training: which elements matter most, by the diagonal of the empirical Fisher information.
//!
//! `F = sum over samples of (d log p(y | x) / d theta)^2`, one sample at a time, with the labels of the data; the share
//! `keep` of all elements with the largest values trains. Sung 2021, <https://arxiv.org/abs/2111.09839>, section 3.
use crate::session::Session;
use luthier_data::{BatchSize, Sampler};
use luthier_tensor::Tensor;
use rayon::prelude::*;

/// Name of the mask among a leaf's state.
const SLOT: &str = "mask.keep";
const CHUNK: usize = 1 << 14;

/// Fills every leaf's mask from the first `samples` samples of an epoch. Gives the elements that train.
pub fn fill(session: &mut Session, keep: f64, samples: usize) -> usize {
    let mut order = Sampler::new(&session.samples, BatchSize::Samples(1), session.seed);
    for _ in 0..samples.min(session.samples.len()) {
        let row = order.next_step();
        let mut gradients = session.gradients(&row).gradients;
        for leaf in &mut session.leaves {
            let Some(gradient) = gradients.take(leaf.param.id()) else { continue };
            each(mask(leaf), &gradient, |f, g| *f += g * g);
        }
    }
    let total = session.leaves.iter().map(|l| l.param.value().numel()).sum::<usize>();
    let wanted = ((total as f64 * keep) as usize).clamp(1, total);
    choose(session, wanted);
    wanted
}

fn mask(leaf: &mut luthier_optim::Leaf) -> &mut Tensor {
    let slot = leaf.slots.iter_mut().find(|(name, _)| name == SLOT);
    &mut slot.expect("a masked chain declares its mask").1
}

fn each(mask: &mut Tensor, gradient: &Tensor, change: impl Fn(&mut f32, f32) + Sync) {
    let pairs = mask.slice_mut::<f32>().par_chunks_mut(CHUNK).zip(gradient.slice::<f32>().par_chunks(CHUNK));
    pairs.for_each(|(m, g)| m.iter_mut().zip(g).for_each(|(m, g)| change(m, *g)));
}

/// Turns values into ones and zeros: exactly `wanted` ones, at the largest; of equal ones the first.
fn choose(session: &mut Session, wanted: usize) {
    // Numbers that are not negative are ordered as their bits are: the cut is found bit by bit.
    let count = |session: &mut Session, at_least: u32| {
        let of = |leaf: &mut luthier_optim::Leaf| {
            let values = mask(leaf).slice::<f32>().par_chunks(CHUNK);
            values.map(|c| c.iter().filter(|v| v.to_bits() >= at_least).count()).sum::<usize>()
        };
        session.leaves.iter_mut().map(of).sum::<usize>()
    };
    let mut cut = 0u32;
    for bit in (0..31).rev() {
        if count(session, cut | 1 << bit) >= wanted {
            cut |= 1 << bit;
        }
    }
    let mut ties = wanted - if cut == u32::MAX { 0 } else { count(session, cut + 1) };
    for leaf in &mut session.leaves {
        for value in mask(leaf).slice_mut::<f32>() {
            let bits = value.to_bits();
            let keeps = bits > cut || (bits == cut && ties > 0);
            ties -= usize::from(bits == cut && keeps);
            *value = f32::from(u8::from(keeps));
        }
    }
}
