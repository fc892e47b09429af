//! MeZO's way: a step from two forward runs, without a gradient.
//!
//! ```text
//! z ~ N(0, I), made again from its key wherever it is needed
//! g = (loss(theta + eps z) - loss(theta - eps z)) / (2 eps)
//! the direction of the step is g z
//! ```
//! Malladi 2023, <https://arxiv.org/abs/2305.17333>, algorithm 1 (SPSA: Spall 1992). Dropout is off, as in the authors'
//! code. Parameters are moved in place, there and back: `+1 -2 +1` times `eps z` leaves errors of rounding, in f32 some
//! units of the last place. `z` is keyed by (seed, step, tensor, element), so that a run can be replayed from its
//! slopes.
use super::{Estimator, Stepped};
use crate::session::Session;
use luthier_contract::Mode;
use luthier_data::{Batch, micro_batches};
use luthier_optim::{Direction, Leaf};
use luthier_tensor::{DType, Key, Stream, Tape};
use rayon::prelude::*;

/// Elements that one task moves.
const CHUNK: usize = 1 << 14;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct Spsa {
    /// `eps`
    pub eps: f64,
}

impl Estimator for Spsa {
    fn step(&self, session: &mut Session, rows: &[usize]) -> Stepped {
        let key = Key::new(session.seed, Stream::Direction).with(session.t);
        let (above, _) = Self::loss_at(session, rows, key, self.eps);
        let (below, (weight, tokens, all_tokens)) = Self::loss_at(session, rows, key, -2.0 * self.eps);
        session.leaves.iter().for_each(|l| move_along(l, key, self.eps));
        let mean = if weight > 0.0 { 1.0 / weight } else { 1.0 };
        let slope = (above - below) * mean / (2.0 * self.eps);
        let step = session.this_step();
        let mut leaves = std::mem::take(&mut session.leaves);
        for leaf in &mut leaves {
            let key = key.at(leaf.param.name());
            let fill = |first: usize, values: &mut [f64]| normals(key, first, values);
            session.chain.update_leaf(leaf, Direction::Made(&fill), slope, &step);
        }
        session.leaves = leaves;
        let loss = 0.5 * (above + below) * mean;
        Stepped { loss, tokens, all_tokens, grad_norm: slope.abs(), lr: step.lr }
    }
}

impl Spsa {
    /// Moves the parameters by `by z` and runs forward: the loss's sum, and what divides it, its tokens, all
    /// tokens.
    fn loss_at(session: &Session, rows: &[usize], key: Key, by: f64) -> (f64, (f64, usize, usize)) {
        session.leaves.iter().for_each(|l| move_along(l, key, by));
        let (mut loss, mut weight, mut tokens, mut all) = (0.0, 0.0, 0, 0);
        for micro in micro_batches(rows, &session.samples, session.limits.micro) {
            let batch = Batch::new(micro.iter().map(|&i| &session.samples[i]));
            let run = session.run(&batch, Mode::Eval);
            let part = session.objective.loss(&session.model, &Tape::off(), &run, &batch);
            loss += part.sum.value().item();
            weight += part.weight;
            tokens += part.tokens;
            all += batch.tokens.len();
        }
        (loss, (weight, tokens, all))
    }
}

/// `theta += by z`, in place.
fn move_along(leaf: &Leaf, key: Key, by: f64) {
    let key = key.at(leaf.param.name());
    leaf.param.update(|value| match value.dtype() {
        DType::F64 => add::<f64>(value.slice_mut(), key, |v, z| v + by * z),
        DType::F32 => add::<f32>(value.slice_mut(), key, |v, z| v + (by * z) as f32),
        other => panic!("{other} is too coarse to be moved by a small step"),
    });
}

fn add<T: Copy + Send + Sync>(values: &mut [T], key: Key, sum: impl Fn(T, f64) -> T + Sync) {
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(i, values)| {
        let mut z = vec![0.0; values.len()];
        normals(key, i * CHUNK, &mut z);
        values.iter_mut().zip(z).for_each(|(v, z)| *v = sum(*v, z));
    });
}

/// Standard normal numbers of the elements from `first` on, four from each block of random words: two pairs by Box and
/// Muller 1958, each from two uniforms of 32 bits.
fn normals(key: Key, first: usize, values: &mut [f64]) {
    const UNIT: f64 = 1.0 / 4_294_967_296.0;
    let mut made = [0.0; 4];
    let mut held = None;
    for (i, value) in values.iter_mut().enumerate() {
        let element = (first + i) as u64;
        if held != Some(element / 4) {
            held = Some(element / 4);
            let words = key.block(0, element / 4);
            for (pair, words) in made.chunks_mut(2).zip(words.chunks(2)) {
                // Half a step from the ends: the logarithm of zero is never taken.
                let (u, v) = ((f64::from(words[0]) + 0.5) * UNIT, (f64::from(words[1]) + 0.5) * UNIT);
                let radius = (-2.0 * u.ln()).sqrt();
                let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
                (pair[0], pair[1]) = (radius * cos, radius * sin);
            }
        }
        *value = made[(element % 4) as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_numbers_is_a_part_of_the_whole() {
        let key = Key::new(1, Stream::Direction);
        let (mut whole, mut part) = (vec![0.0; 41], vec![0.0; 17]);
        normals(key, 3, &mut whole);
        normals(key, 10, &mut part);
        assert_eq!(part, whole[7..24]);
    }

    #[test]
    fn numbers_are_standard_normal() {
        let mut z = vec![0.0; 40_000];
        normals(Key::new(2, Stream::Direction), 0, &mut z);
        let n = z.len() as f64;
        let moment = |p: i32| z.iter().map(|v| v.powi(p)).sum::<f64>() / n;
        // Five standard errors: variances of the moments are 1, 2, 15 and 96.
        for (p, want, variance) in [(1, 0.0, 1.0f64), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            assert!((moment(p) - want).abs() < 5.0 * (variance / n).sqrt(), "moment {p}: {}", moment(p));
        }
        // Neighbours come from one pair, which must be independent.
        let product = z.chunks(2).map(|p| p[0] * p[1]).sum::<f64>() / (n / 2.0);
        assert!(product.abs() < 5.0 / (n / 2.0).sqrt());
    }
}
