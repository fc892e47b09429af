//! Rotary position embedding: pairs of a head's channels turn by an angle that grows with the position.
//!
//! Channels `i` and `i + rotary_dim / 2` form a pair (the layout of Hugging Face
//! files, "rotate half"); at position `p` it turns by `p f_i`:
//! `y_i = x_i cos - x_j sin`, `y_j = x_j cos + x_i sin`. Channels from
//! `rotary_dim` on stay. The backward turns by minus the angle.
//! Su 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding", section 3.4.2.
//!
//! Differs from transformers: on bf16 the cosine and sine stay f32 and the result is rounded once.
mod cpu;
mod frequencies;
mod reference;
#[cfg(test)]
mod tests;

pub use frequencies::{RopeScaling, RopeSpec};

use luthier_tensor::{Account, DType, Float, Tape, Tensor, Var};
use rayon::prelude::*;
use std::sync::{Arc, PoisonError, RwLock};

/// Positions of the first table; a longer one is the next power of two.
const FIRST_POSITIONS: usize = 256;

/// Frequencies of one kind of head, with cosines and sines of the positions met so far. Shared by all layers and threads.
#[derive(Debug)]
pub struct Rope {
    inverse: Vec<f64>,
    inverse_f32: Vec<f64>,
    attention_factor: f64,
    /// `[positions, rotary_dim]`: cosines, then sines, of each position.
    table: RwLock<Option<Tensor>>,
    table_f64: RwLock<Option<Tensor>>,
}

impl Rope {
    /// Frequencies of `spec`; cosines and sines are computed when positions ask for them.
    pub fn new(spec: &RopeSpec) -> Self {
        let (inverse, attention_factor) = spec.frequencies(|x| x);
        let (inverse_f32, _) = spec.frequencies(|x| f64::from(x as f32));
        Self {
            inverse,
            inverse_f32,
            attention_factor,
            table: RwLock::new(None),
            table_f64: RwLock::new(None),
        }
    }

    /// Radians a position for each pair, `[rotary_dim / 2]`, in f64.
    pub fn inverse_frequencies(&self) -> &[f64] {
        &self.inverse
    }

    /// What yarn multiplies cosines and sines by; 1 for the others.
    pub fn attention_factor(&self) -> f64 {
        self.attention_factor
    }

    /// Channels of a head that turn.
    pub fn rotary_dim(&self) -> usize {
        2 * self.inverse.len()
    }

    /// The table up to position `last`, in f32 or f64.
    fn table(&self, last: usize, dtype: DType) -> Tensor {
        let slot = if dtype == DType::F64 { &self.table_f64 } else { &self.table };
        let fits = |table: &Option<Tensor>| table.as_ref().filter(|t| t.dim(0) > last).cloned();
        if let Some(table) = fits(&slot.read().unwrap_or_else(PoisonError::into_inner)) {
            return table;
        }
        let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = fits(&slot) {
            return table;
        }
        let positions = (last + 1).next_power_of_two().max(FIRST_POSITIONS);
        let table = match dtype {
            DType::F64 => self.compute::<f64>(positions, &self.inverse),
            _ => self.compute::<f32>(positions, &self.inverse_f32),
        };
        *slot = Some(table.clone());
        table
    }

    /// The angle is a product in `T`, as transformers forms it; cosine and sine are of that angle, rounded.
    fn compute<T: Float>(&self, positions: usize, inverse: &[f64]) -> Tensor {
        let half = inverse.len();
        let mut table = Tensor::scratch(&[positions, 2 * half], T::DTYPE, Account::Workspace);
        if half > 0 {
            table.slice_mut::<T>().par_chunks_mut(2 * half).enumerate().for_each(|(position, row)| {
                for (i, f) in inverse.iter().enumerate() {
                    let angle = T::from_f64(position as f64 * f).to_f64();
                    let scaled = |x: f64| T::from_f64(T::from_f64(x).to_f64() * self.attention_factor);
                    (row[i], row[half + i]) = (scaled(angle.cos()), scaled(angle.sin()));
                }
            });
        }
        table
    }
}

/// Which way to turn.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Forward,
    Back,
}

fn turn(x: Tensor, positions: &[u32], heads: usize, rope: &Rope, way: Turn) -> Tensor {
    let (n, width) = (positions.len(), x.numel() / positions.len().max(1));
    assert!(x.numel() == n * width && width.is_multiple_of(heads), "{heads} heads of {:?}", x.shape());
    assert!(
        n == 0 || rope.rotary_dim() <= width / heads,
        "rotary_dim {} of {:?}",
        rope.rotary_dim(),
        x.shape()
    );
    let last = positions.iter().copied().max().unwrap_or(0) as usize;
    let table = rope.table(last, x.dtype());
    let (source, mut y) = if x.is_unique() {
        (None, x)
    } else {
        let y = Tensor::scratch(x.shape(), x.dtype(), Account::Activation);
        (Some(x), y)
    };
    match y.dtype() {
        DType::F64 => {
            if let Some(source) = source {
                y.slice_mut::<f64>().copy_from_slice(source.slice());
            }
            reference::turn::<f64>(y.slice_mut(), positions, heads, table.slice(), rope.inverse.len(), way);
        }
        _ => cpu::turn(source.as_ref(), &mut y, positions, heads, table.slice(), rope.inverse.len(), way),
    }
    y
}

/// Turns the heads of `x [n, heads * head_dim]` to `positions [n]`, in place if x is unique. Saves no activation.
pub fn rope(tape: &Tape, x: Var, positions: &Arc<[u32]>, heads: usize, rope: &Arc<Rope>) -> Var {
    let (value, place) = x.into_parts();
    let y = turn(value, positions, heads, rope, Turn::Forward);
    let (positions, rope) = (positions.clone(), rope.clone());
    tape.record_one(&[&place], y, move |bw| {
        let Some(dy) = bw.output(0) else { return };
        bw.push(0, turn(dy, &positions, heads, &rope, Turn::Back));
    })
}
