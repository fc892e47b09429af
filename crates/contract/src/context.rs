//! What every hook is told about the run that it is called in.
use luthier_kernels::attention::Segments;
use luthier_kernels::dropout::Dropout;
use luthier_tensor::{Key, Stream};
use std::sync::Arc;

/// A flat, padding-free micro-batch and where it stands in training.
#[derive(Clone, Debug)]
pub struct Context {
    /// Token ids `[n]`, segment after segment.
    pub tokens: Arc<[u32]>,
    /// Position of each token within its segment `[n]`.
    pub positions: Arc<[u32]>,
    /// Where segments begin and end.
    pub segments: Segments,
    /// Which of a pair of texts each token belongs to `[n]`, for encoders that embed it; all 0 if none.
    pub token_types: Option<Arc<[u32]>>,
    /// Training, evaluation or decoding.
    pub mode: Mode,
}

/// What the forward run is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// A forward run of a training step: dropout is on.
    Train {
        /// The run's seed.
        seed: u64,
        /// The optimizer step, from 0.
        step: u64,
        /// The pass within the step: estimators make several.
        pass: u64,
        /// Row of the whole step at which this micro-batch starts.
        first_row: u64,
    },
    /// No dropout, no gradients needed.
    Eval,
}

impl Context {
    /// A context for evaluation over whole segments, positions counted from 0 in each.
    pub fn eval(tokens: Vec<u32>, segments: Segments) -> Self {
        let positions = (0..segments.count()).flat_map(|i| 0..segments.range(i).len() as u32).collect();
        Self { tokens: tokens.into(), positions, segments, token_types: None, mode: Mode::Eval }
    }

    /// Dropout with probability `p` at the named site: none outside training or at `p = 0`.
    pub fn dropout(&self, p: f64, site: &str) -> Option<Dropout> {
        match self.mode {
            Mode::Train { seed, step, pass, first_row } if p > 0.0 => {
                let key = Key::new(seed, Stream::Dropout).with(step).with(pass).at(site);
                Some(Dropout { p, key, first_row })
            }
            Mode::Train { .. } | Mode::Eval => None,
        }
    }
}
