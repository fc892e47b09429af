//! GaLore: links run in the space of a gradient's leading singular vectors.
//!
//! ```text
//! every T steps: P = leading r left singular vectors of G [n, d] if n < d, else right ones
//! R = P^T G [r, d]  (G P [n, r]),   N = links(R),   u = scale P N  (scale N P^T)
//! ```
//! Zhao 2024, <https://arxiv.org/abs/2403.03507>, algorithms 1 and 2. State of the links is neither reset nor turned
//! when the basis changes, as in the authors' code.
//!
//! Differs from the authors: singular vectors come from orthogonal iteration on the smaller Gram matrix with
//! Rayleigh-Ritz at the end (Halko 2011, arXiv 0909.4061, algorithm 4.4), which is exact where the block spans the
//! whole space, and signs are fixed (each vector's largest element is positive), so that a refresh that finds the same
//! space keeps the moments' meaning.
use super::{Chunk, Slot, Transform, Whole, whole};
use crate::chain::Step;
use crate::eigen::leading;
use luthier_kernels::matmul::{MatMut, MatRef, Options, gemm};
use luthier_tensor::{Account, Tensor, scale_assign};

/// See the file's head.
#[derive(Debug)]
pub struct ProjectGradient {
    /// `r`
    pub rank: usize,
    /// `T`
    pub every: u64,
    /// Factor of what is projected back.
    pub scale: f64,
    /// What runs in the projected space; links that read the parameter have no place there.
    pub links: Vec<Box<dyn Transform>>,
}

impl ProjectGradient {
    fn rank(&self, [n, d]: [usize; 2]) -> usize {
        self.rank.min(n).min(d)
    }

    /// Shape of the projected gradient.
    fn projected(&self, [n, d]: [usize; 2]) -> [usize; 2] {
        let r = self.rank([n, d]);
        if n < d { [r, d] } else { [n, r] }
    }

    fn run(&self, whole: Whole<'_>, step: &Step) {
        let Whole { update, slots, .. } = whole;
        let shape = [update.dim(0), update.dim(1)];
        let left = shape[0] < shape[1];
        let [basis, slots @ ..] = slots else { unreachable!("the basis is declared") };
        if step.t.is_multiple_of(self.every) {
            *basis = leading(update, self.rank(shape));
        }
        let mut low = Tensor::scratch(&self.projected(shape), update.dtype(), Account::Workspace);
        let (g, p) = (MatRef::of(update), MatRef::of(basis));
        let (a, b) = if left { (p.t(), g) } else { (g, p) };
        gemm(MatMut::of(&mut low), a, b, Options::default());
        self.run_links(&mut low, slots, step);
        let (n, p) = (MatRef::of(&low), MatRef::of(basis));
        let (a, b) = if left { (p, n) } else { (n, p.t()) };
        gemm(MatMut::of(update), a, b, Options::default());
        scale_assign(update, self.scale);
    }

    fn run_links(&self, low: &mut Tensor, slots: &mut [Tensor], step: &Step) {
        let shape = low.shape().to_vec();
        let nowhere = Tensor::zeros(&shape, low.dtype(), Account::Workspace);
        let mut rest = slots;
        for link in &self.links {
            let (own, others) = rest.split_at_mut(link.slots(&shape).len());
            rest = others;
            if low.dtype() == luthier_tensor::DType::F64 {
                let mut own = own.iter_mut().map(Tensor::slice_mut::<f64>).collect::<Vec<_>>();
                let (update, param) = (low.slice_mut::<f64>(), nowhere.slice::<f64>());
                link.run_f64(Chunk { update, param, slots: &mut own }, step);
            } else {
                let mut own = own.iter_mut().map(Tensor::slice_mut::<f32>).collect::<Vec<_>>();
                let (update, param) = (low.slice_mut::<f32>(), nowhere.slice::<f32>());
                link.run_f32(Chunk { update, param, slots: &mut own }, step);
            }
        }
    }
}

impl Transform for ProjectGradient {
    fn name(&self) -> &'static str {
        "projected"
    }

    fn slots(&self, shape: &[usize]) -> Vec<Slot> {
        let [n, d] = shape else { unreachable!("only matrices are projected") };
        let low = self.projected([*n, *d]);
        let mut all = vec![("basis", vec![(*n).min(*d), self.rank([*n, *d])])];
        all.extend(self.links.iter().flat_map(|l| l.slots(&low)));
        all
    }
    whole!();
}
