//! `u = g / sqrt(v)` with the second moment of a matrix held as its row and column means.
//!
//! ```text
//! b = 1 - t^c              c < 0, t from 1
//! R = b R + (1 - b) mean over columns of (g^2 + e)      [rows]
//! K = b K + (1 - b) mean over rows of (g^2 + e)         [columns]
//! u = g / sqrt(R K^T / mean(R))
//! ```
//! Tensors of another rank keep `v` whole. Shazeer 2018, <https://arxiv.org/abs/1804.04235>, algorithms 2 and 4; as in
//! AdaLomo (Lv 2023, <https://arxiv.org/abs/2310.10195>, algorithm 1).
use super::{Slot, Transform, Whole, whole};
use crate::chain::Step;
use luthier_tensor::{DType, Element, Float};
use rayon::prelude::*;

/// See the file's head.
#[derive(Clone, Copy, Debug)]
pub struct ScaleByFactoredRms {
    /// `c`
    pub exponent: f64,
    /// `e`, added to squares.
    pub eps: f64,
}

/// Columns that one task sums.
const BLOCK: usize = 64;

impl ScaleByFactoredRms {
    fn run(&self, whole: Whole<'_>, step: &Step) {
        if whole.update.dtype() == DType::F64 {
            self.run_in::<f64>(whole, step);
        } else {
            self.run_in::<f32>(whole, step);
        }
    }

    fn run_in<T: Float + Element>(&self, whole: Whole<'_>, step: &Step) {
        let memory = 1.0 - (step.t as f64 + 1.0).powf(self.exponent);
        let blend = |old: &mut T, new: f64| *old = T::from_f64(memory * old.to_f64() + (1.0 - memory) * new);
        let square = |g: T| g.to_f64() * g.to_f64() + self.eps;
        let Whole { update, slots, .. } = whole;
        let shape = update.shape().to_vec();
        let gradient = update.slice_mut::<T>();
        if let [v] = slots {
            let both = gradient.par_iter_mut().zip(v.slice_mut::<T>().par_iter_mut());
            return both.with_min_len(1 << 12).for_each(|(g, v)| {
                blend(v, square(*g));
                *g = T::from_f64(g.to_f64() / v.to_f64().sqrt());
            });
        }
        let [rows, columns] = slots else { unreachable!("two slots are declared for a matrix") };
        let (n, d) = (shape[0], shape[1]);
        let (rows, columns) = (rows.slice_mut::<T>(), columns.slice_mut::<T>());
        rows.par_iter_mut().zip(gradient.par_chunks(d.max(1))).for_each(|(r, g)| {
            blend(r, g.iter().map(|g| square(*g)).sum::<f64>() / d as f64);
        });
        columns.par_chunks_mut(BLOCK).enumerate().for_each(|(block, columns)| {
            let mut sums = [0f64; BLOCK];
            for row in gradient.chunks(d.max(1)) {
                let part = &row[block * BLOCK..][..columns.len()];
                sums.iter_mut().zip(part).for_each(|(s, g)| *s += square(*g));
            }
            columns.iter_mut().zip(sums).for_each(|(c, s)| blend(c, s / n as f64));
        });
        let mean = rows.iter().map(|r| r.to_f64()).sum::<f64>() / n as f64;
        let by_column = columns.iter().map(|c| 1.0 / c.to_f64().sqrt()).collect::<Vec<_>>();
        gradient.par_chunks_mut(d.max(1)).zip(rows.par_iter()).for_each(|(g, r)| {
            let by_row = 1.0 / (r.to_f64() / mean).sqrt();
            g.iter_mut().zip(&by_column).for_each(|(g, c)| *g = T::from_f64(g.to_f64() * by_row * c));
        });
    }
}

impl Transform for ScaleByFactoredRms {
    fn name(&self) -> &'static str {
        "factored"
    }
    fn slots(&self, shape: &[usize]) -> Vec<Slot> {
        match shape {
            [n, d] => vec![("rows", vec![*n]), ("columns", vec![*d])],
            _ => vec![("v", shape.to_vec())],
        }
    }
    whole!();
}
