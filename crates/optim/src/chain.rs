//! A chain of transforms over the trained tensors of a run.
use crate::transforms::{Chunk, Reach, Transform, Whole};
use luthier_tensor::{Account, DType, Float, Key, Param, Stream, Tensor, bf16, to_dtype};
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
    TransformRow { file: "clip_by_rms", name: "rms" },
    TransformRow { file: "mask_updates", name: "mask" },
    TransformRow { file: "project_gradient", name: "projected" },
    TransformRow { file: "scale_by_adam", name: "adam" },
    TransformRow { file: "scale_by_factored_rms", name: "factored" },
    TransformRow { file: "scale_by_learning_rate", name: "lr" },
    TransformRow { file: "scale_by_momentum", name: "momentum" },
    TransformRow { file: "scale_by_param_rms", name: "size" },
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
    /// Factor of the learning rate.
    pub rate: f64,
    /// State: its name within the parameter, `adam.m`, and its values. Links in order.
    pub slots: Vec<(String, Tensor)>,
    projected: bool,
}

/// Where the direction of an update comes from.
#[derive(Clone, Copy)]
pub enum Direction<'a> {
    /// A gradient, in the type of sums.
    Gradient(&'a Tensor),
    /// Numbers made where they are used: `fill(first, values)` writes those from element `first` on.
    Made(&'a (dyn Fn(usize, &mut [f64]) + Sync)),
}

/// The links in order, after clipping.
#[derive(Debug)]
pub struct Chain {
    clip: Option<f64>,
    links: Vec<Box<dyn Transform>>,
    projected: Vec<Box<dyn Transform>>,
}

impl Chain {
    /// Clips the global norm to `clip`, then runs `links`.
    pub fn new(clip: Option<f64>, links: Vec<Box<dyn Transform>>) -> Self {
        Self { clip, links, projected: Vec::new() }
    }

    /// The same with one more link at the end.
    #[must_use]
    pub fn then(mut self, link: impl Transform + 'static) -> Self {
        self.links.push(Box::new(link));
        self
    }

    /// The same with this clipping.
    #[must_use]
    pub fn clipped(mut self, clip: Option<f64>) -> Self {
        self.clip = clip;
        self
    }

    /// The same with other links for projected leaves.
    #[must_use]
    pub fn with_projected(mut self, links: Vec<Box<dyn Transform>>) -> Self {
        self.projected = links;
        self
    }

    /// The norm that gradients are clipped to.
    pub fn clip(&self) -> Option<f64> {
        self.clip
    }

    /// What a gradient of this mean norm is multiplied with.
    pub fn clipping(&self, norm: f64) -> f64 {
        // PyTorch's clip_grad_norm_: the 1e-6 keeps a zero norm from dividing.
        self.clip.map_or(1.0, |c| (c / (norm + 1e-6)).min(1.0))
    }

    fn links_of(&self, projected: bool) -> &[Box<dyn Transform>] {
        if projected { &self.projected } else { &self.links }
    }

    /// Zero state for `param`.
    pub fn leaf(&self, param: Arc<Param>) -> Leaf {
        self.leaf_of(param, 1.0, false)
    }

    /// Zero state for `param`, whose learning rate has a factor, and which may run through the projected links.
    pub fn leaf_of(&self, param: Arc<Param>, rate: f64, projected: bool) -> Leaf {
        let value = param.value();
        let dtype = value.dtype().accumulator();
        let of = |link: &dyn Transform| {
            let named = link.slots(value.shape()).into_iter();
            let zero = |shape: &[usize]| Tensor::zeros(shape, dtype, Account::Optimizer);
            named.map(|(slot, shape)| (format!("{}.{slot}", link.name()), zero(&shape))).collect::<Vec<_>>()
        };
        let slots = self.links_of(projected).iter().flat_map(|l| of(l.as_ref())).collect();
        Leaf { param, rate, slots, projected }
    }

    /// Updates every leaf by its gradient (a sum, of which `scale` times is the mean) and gives the norm of the mean
    /// gradient before clipping. Gradients are in the leaves' order.
    pub fn update(&self, leaves: &mut [Leaf], gradients: &[Tensor], scale: f64, step: &Step) -> f64 {
        let norm = gradients.iter().map(square_sum).sum::<f64>().sqrt() * scale;
        let scale = scale * self.clipping(norm);
        for (leaf, gradient) in leaves.iter_mut().zip(gradients) {
            self.update_leaf(leaf, Direction::Gradient(gradient), scale, step);
        }
        norm
    }

    /// Updates one leaf by `scale` times a direction, which is not clipped.
    pub fn update_leaf(&self, leaf: &mut Leaf, direction: Direction<'_>, scale: f64, step: &Step) {
        let step = Step { lr: step.lr * leaf.rate, ..*step };
        let links = self.links_of(leaf.projected);
        let rounding = Key::new(step.seed, Stream::Rounding).with(step.t).at(leaf.param.name());
        let run = Run { links, scale, step, rounding };
        let slots = leaf.slots.iter_mut().map(|(_, t)| t).collect::<Vec<_>>();
        if links.iter().all(|l| l.reach() == Reach::Elements) {
            leaf.param.update(|value| match value.dtype() {
                DType::F64 => run.in_chunks::<f64, f64>(value, direction, slots),
                DType::F32 => run.in_chunks::<f32, f32>(value, direction, slots),
                DType::Bf16 => run.in_chunks::<f32, bf16>(value, direction, slots),
                other => panic!("{other} does not train"),
            });
            return;
        }
        match leaf.param.value().dtype() {
            DType::F64 => run.whole::<f64, f64>(&leaf.param, direction, &mut leaf.slots),
            DType::F32 => run.whole::<f32, f32>(&leaf.param, direction, &mut leaf.slots),
            DType::Bf16 => run.whole::<f32, bf16>(&leaf.param, direction, &mut leaf.slots),
            other => panic!("{other} does not train"),
        }
    }
}

/// Sum of squares in f64, partial sums in a fixed order.
pub fn square_sum(t: &Tensor) -> f64 {
    fn sum<T: Float>(t: &Tensor) -> f64 {
        // Eight sums at a time: one would wait for each addition.
        let part = |c: &[T]| {
            let mut lanes = [0.0; 8];
            let (whole, rest) = c.as_chunks::<8>();
            for eight in whole {
                for (lane, v) in lanes.iter_mut().zip(eight) {
                    *lane += v.to_f64() * v.to_f64();
                }
            }
            lanes.iter().sum::<f64>() + rest.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>()
        };
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
    fn link(link: &dyn Transform, chunk: Chunk<'_, Self>, step: &Step);
}

impl Accumulator for f32 {
    fn link(link: &dyn Transform, chunk: Chunk<'_, f32>, step: &Step) {
        link.run_f32(chunk, step);
    }
}

impl Accumulator for f64 {
    fn link(link: &dyn Transform, chunk: Chunk<'_, f64>, step: &Step) {
        link.run_f64(chunk, step);
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

impl Direction<'_> {
    /// Writes `scale` times the elements from `first` on.
    fn fill<A: Accumulator>(&self, first: usize, scale: f64, update: &mut [A]) {
        let factor = A::of(scale);
        match self {
            Self::Gradient(gradient) => {
                let part = &gradient.slice::<A>()[first..first + update.len()];
                update.iter_mut().zip(part).for_each(|(u, g)| *u = *g * factor);
            }
            Self::Made(make) => {
                let mut values = [0f64; CHUNK];
                make(first, &mut values[..update.len()]);
                update.iter_mut().zip(values).for_each(|(u, v)| *u = A::of(v) * factor);
            }
        }
    }
}

/// One leaf's way through its links.
struct Run<'a> {
    links: &'a [Box<dyn Transform>],
    scale: f64,
    step: Step,
    rounding: Key,
}

impl Run<'_> {
    /// All links over each chunk in turn: memory is read and written once.
    fn in_chunks<A: Accumulator, P: Stored<A>>(
        &self,
        value: &mut Tensor,
        direction: Direction<'_>,
        slots: Vec<&mut Tensor>,
    ) {
        let shape = value.shape().to_vec();
        let param = value.slice_mut::<P>();
        if let Direction::Gradient(gradient) = direction {
            assert_eq!(param.len(), gradient.numel(), "gradient of the parameter's shape");
        }
        let state = chunks::<A>(slots, param.len());
        param.par_chunks_mut(CHUNK).zip(state.into_par_iter()).enumerate().for_each(
            |(i, (param, mut slots))| {
                let mut update = [A::of(0.0); CHUNK];
                let update = &mut update[..param.len()];
                direction.fill(i * CHUNK, self.scale, update);
                let before = param.iter().map(|p| A::from_f64(p.to_f64())).collect::<Vec<_>>();
                elements(self.links, &shape, update, &before, &mut slots, &self.step);
                for (j, (p, (&b, &u))) in param.iter_mut().zip(before.iter().zip(update.iter())).enumerate() {
                    *p = P::add(b + u, || self.rounding.bits(0, (i * CHUNK + j) as u64));
                }
            },
        );
    }

    /// Runs of neighbouring links that go element by element, with links between them that see the tensor.
    fn whole<A: Accumulator, P: Stored<A>>(
        &self,
        param: &Param,
        direction: Direction<'_>,
        slots: &mut [(String, Tensor)],
    ) {
        let value = param.value();
        let shape = value.shape().to_vec();
        let wide = to_dtype(&value, value.dtype().accumulator(), Account::Workspace);
        let mut update = Tensor::scratch(&shape, wide.dtype(), Account::Workspace);
        let fill = |(i, update): (usize, &mut [A])| direction.fill(i * CHUNK, self.scale, update);
        update.slice_mut::<A>().par_chunks_mut(CHUNK).enumerate().for_each(fill);
        let mut rest = slots;
        for links in self.links.chunk_by(|a, b| a.reach() == Reach::Elements && b.reach() == Reach::Elements)
        {
            let count = links.iter().map(|l| l.slots(&shape).len()).sum::<usize>();
            let (own, others) = rest.split_at_mut(count);
            rest = others;
            if links[0].reach() == Reach::Elements {
                let state = chunks::<A>(own.iter_mut().map(|(_, t)| t).collect(), update.numel());
                let parts =
                    update.slice_mut::<A>().par_chunks_mut(CHUNK).zip(wide.slice::<A>().par_chunks(CHUNK));
                parts.zip(state.into_par_iter()).for_each(|((update, before), mut slots)| {
                    elements(links, &shape, update, before, &mut slots, &self.step);
                });
                continue;
            }
            let nothing = || Tensor::scratch(&[0], wide.dtype(), Account::Workspace);
            let mut taken = own.iter_mut().map(|(_, t)| std::mem::replace(t, nothing())).collect::<Vec<_>>();
            links[0].run_whole(Whole { update: &mut update, param: &value, slots: &mut taken }, &self.step);
            own.iter_mut().zip(taken).for_each(|((_, slot), t)| *slot = t);
        }
        drop((value, wide)); // what is written must be held once
        param.update(|value| {
            let pairs =
                value.slice_mut::<P>().par_chunks_mut(CHUNK).zip(update.slice::<A>().par_chunks(CHUNK));
            pairs.enumerate().for_each(|(i, (param, update))| {
                for (j, (p, &u)) in param.iter_mut().zip(update).enumerate() {
                    *p =
                        P::add(A::from_f64(p.to_f64()) + u, || self.rounding.bits(0, (i * CHUNK + j) as u64));
                }
            });
        });
    }
}

/// State by chunk: each slot's part, slots in order.
fn chunks<A: Accumulator>(slots: Vec<&mut Tensor>, elements: usize) -> Vec<Vec<&mut [A]>> {
    let mut state = (0..elements.div_ceil(CHUNK).max(1)).map(|_| Vec::new()).collect::<Vec<_>>();
    for slot in slots {
        state.iter_mut().zip(slot.slice_mut::<A>().chunks_mut(CHUNK)).for_each(|(s, c)| s.push(c));
    }
    state
}

fn elements<A: Accumulator>(
    links: &[Box<dyn Transform>],
    shape: &[usize],
    update: &mut [A],
    param: &[A],
    slots: &mut [&mut [A]],
    step: &Step,
) {
    let mut rest = slots;
    for link in links {
        let (own, others) = rest.split_at_mut(link.slots(shape).len());
        rest = others;
        let mut own = own.iter_mut().map(|s| &mut **s).collect::<Vec<_>>();
        A::link(link.as_ref(), Chunk { update, param, slots: &mut own }, step);
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
