//! A chain of transforms over the trained tensors of a run.
use crate::transforms::{Chunk, Transform};
use luthier_tensor::{Account, DType, Float, Key, Param, Stream, Tensor, bf16};
use rayon::prelude::*;
use std::sync::Arc;

/// Elements of a chunk: update, parameter and two moments in f32 fit a core's first-level cache twice over.
const CHUNK: usize = 2048;

/// A link's row: its prefix in checkpoints.
#[derive(Clone, Copy, Debug)]
pub struct TransformRow {
    /// The file in `transforms/`.
    pub file: &'static str,
    /// [`Transform::name`]
    pub name: &'static str,
}

/// Every transform, in alphabetic order of files.
pub static TRANSFORMS: &[TransformRow] = &[
    TransformRow { file: "add_decayed_weights", name: "decay" },
    TransformRow { file: "scale_by_adam", name: "adam" },
    TransformRow { file: "scale_by_learning_rate", name: "lr" },
    TransformRow { file: "scale_by_momentum", name: "momentum" },
];

/// Where a step stands.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps done before this one.
    pub t: u64,
    /// Learning rate.
    pub lr: f64,
    /// The run's seed: stochastic rounding draws from it.
    pub seed: u64,
}

/// A trained tensor with its optimizer state.
#[derive(Debug)]
pub struct Leaf {
    /// The tensor.
    pub param: Arc<Param>,
    /// One tensor a slot of each link, links in order.
    pub slots: Vec<Tensor>,
}

/// The links in order, after clipping.
#[derive(Debug)]
pub struct Chain {
    clip: Option<f64>,
    links: Vec<Box<dyn Transform>>,
}

impl Chain {
    /// Clips the global norm to `clip`, then runs `links`.
    pub fn new(clip: Option<f64>, links: Vec<Box<dyn Transform>>) -> Self {
        Self { clip, links }
    }

    /// Names of the state tensors of one parameter, `adam.m`, in the order of [`Leaf::slots`].
    pub fn slot_names(&self) -> Vec<String> {
        let of =
            |l: &dyn Transform| l.slots().iter().map(|s| format!("{}.{s}", l.name())).collect::<Vec<_>>();
        self.links.iter().flat_map(|l| of(l.as_ref())).collect()
    }

    /// Bytes of state for a parameter of `numel` elements of `dtype`.
    pub fn state_bytes(&self, numel: usize, dtype: DType) -> usize {
        self.slot_names().len() * numel * dtype.accumulator().size()
    }

    /// Zero state for `param`.
    pub fn leaf(&self, param: Arc<Param>) -> Leaf {
        let value = param.value();
        let (shape, dtype) = (value.shape().to_vec(), value.dtype().accumulator());
        let slots =
            self.slot_names().iter().map(|_| Tensor::zeros(&shape, dtype, Account::Optimizer)).collect();
        Leaf { param, slots }
    }

    /// Updates every leaf by its gradient (a sum, of which `scale` times is the mean) and gives the norm of the mean
    /// gradient before clipping. Gradients are in the leaves' order and are changed.
    pub fn update(&self, leaves: &mut [Leaf], gradients: &mut [Tensor], scale: f64, step: &Step) -> f64 {
        let norm = gradients.iter().map(square_sum).sum::<f64>().sqrt() * scale;
        // PyTorch's clip_grad_norm_: the 1e-6 keeps a zero norm from dividing.
        let clipped = self.clip.map_or(1.0, |c| (c / (norm + 1e-6)).min(1.0));
        for (leaf, gradient) in leaves.iter_mut().zip(gradients) {
            self.update_leaf(leaf, gradient, scale * clipped, step);
        }
        norm
    }

    fn update_leaf(&self, leaf: &mut Leaf, gradient: &mut Tensor, scale: f64, step: &Step) {
        let slots = leaf.slots.as_mut_slice();
        let rounding = Key::new(step.seed, Stream::Rounding).with(step.t).at(leaf.param.name());
        leaf.param.update(|value| match value.dtype() {
            DType::F64 => run::<f64, f64>(self, value, gradient, slots, scale, step, rounding),
            DType::F32 => run::<f32, f32>(self, value, gradient, slots, scale, step, rounding),
            DType::Bf16 => run::<f32, bf16>(self, value, gradient, slots, scale, step, rounding),
            other => panic!("{other} does not train"),
        });
    }

    fn links_f32(&self, update: &mut [f32], param: &[f32], slots: &mut [&mut [f32]], step: &Step) {
        let mut rest = slots;
        for link in &self.links {
            let (own, others) = rest.split_at_mut(link.slots().len());
            rest = others;
            let mut own = own.iter_mut().map(|s| &mut **s).collect::<Vec<_>>();
            link.run_f32(Chunk { update, param, slots: &mut own }, step);
        }
    }

    fn links_f64(&self, update: &mut [f64], param: &[f64], slots: &mut [&mut [f64]], step: &Step) {
        let mut rest = slots;
        for link in &self.links {
            let (own, others) = rest.split_at_mut(link.slots().len());
            rest = others;
            let mut own = own.iter_mut().map(|s| &mut **s).collect::<Vec<_>>();
            link.run_f64(Chunk { update, param, slots: &mut own }, step);
        }
    }
}

/// Sum of squares in f64, partial sums in a fixed order.
fn square_sum(t: &Tensor) -> f64 {
    fn sum<T: Float>(t: &Tensor) -> f64 {
        let part = |c: &[T]| c.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>();
        t.slice::<T>().par_chunks(1 << 14).map(part).collect::<Vec<_>>().iter().sum()
    }
    match t.dtype() {
        DType::F64 => sum::<f64>(t),
        DType::F32 => sum::<f32>(t),
        DType::Bf16 => sum::<bf16>(t),
        other => panic!("norm of {other}"),
    }
}

/// The number type of sums for a parameter type.
trait Accumulator: Float + crate::transforms::Real {
    fn links(chain: &Chain, update: &mut [Self], param: &[Self], slots: &mut [&mut [Self]], step: &Step);
}

impl Accumulator for f32 {
    fn links(chain: &Chain, update: &mut [f32], param: &[f32], slots: &mut [&mut [f32]], step: &Step) {
        chain.links_f32(update, param, slots, step);
    }
}

impl Accumulator for f64 {
    fn links(chain: &Chain, update: &mut [f64], param: &[f64], slots: &mut [&mut [f64]], step: &Step) {
        chain.links_f64(update, param, slots, step);
    }
}

/// How a parameter type takes `value + update`.
trait Stored<A>: Float {
    fn add(sum: A, bits: impl FnOnce() -> u32) -> Self;
}

impl Stored<f64> for f64 {
    fn add(sum: f64, _: impl FnOnce() -> u32) -> Self {
        sum
    }
}

impl Stored<f32> for f32 {
    fn add(sum: f32, _: impl FnOnce() -> u32) -> Self {
        sum
    }
}

impl Stored<f32> for bf16 {
    /// Stochastic rounding: up with the probability that is the distance from below, so that the mean is exact
    /// (Zamirai 2020, section 4.1).
    fn add(sum: f32, bits: impl FnOnce() -> u32) -> Self {
        if !sum.is_finite() {
            return <bf16 as Float>::from_f32(sum);
        }
        let carried = sum.to_bits().wrapping_add(bits() >> 16);
        let rounded = bf16::from_bits((carried >> 16) as u16);
        if rounded.is_finite() { rounded } else { bf16::from_bits((sum.to_bits() >> 16) as u16) }
    }
}

fn run<A: Accumulator, P: Stored<A>>(
    chain: &Chain,
    value: &mut Tensor,
    gradient: &mut Tensor,
    slots: &mut [Tensor],
    scale: f64,
    step: &Step,
    rounding: Key,
) {
    let (param, gradient) = (value.slice_mut::<P>(), gradient.slice_mut::<A>());
    assert_eq!(param.len(), gradient.len(), "gradient of the parameter's shape");
    let chunks = param.len().div_ceil(CHUNK).max(1);
    let mut state = (0..chunks).map(|_| Vec::with_capacity(slots.len())).collect::<Vec<_>>();
    for slot in slots {
        state.iter_mut().zip(slot.slice_mut::<A>().chunks_mut(CHUNK)).for_each(|(s, c)| s.push(c));
    }
    let work = param.par_chunks_mut(CHUNK).zip(gradient.par_chunks_mut(CHUNK)).zip(state.into_par_iter());
    work.enumerate().for_each(|(i, ((param, update), mut slots))| {
        let factor = A::of(scale);
        update.iter_mut().for_each(|u| *u *= factor);
        let before = param.iter().map(|p| A::from_f64(p.to_f64())).collect::<Vec<_>>();
        A::links(chain, update, &before, &mut slots, step);
        for (j, (p, (&b, &u))) in param.iter_mut().zip(before.iter().zip(update.iter())).enumerate() {
            *p = P::add(b + u, || rounding.bits(0, (i * CHUNK + j) as u64));
        }
    });
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
