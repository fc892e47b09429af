//! Frequencies of the pairs, and how they are stretched for contexts longer than the base saw.
//!
//! `f_i = theta^(-2 i / rotary_dim)`, then by [`RopeScaling`]. Sources: Chen 2023,
//! "Extending Context Window of Large Language Models via Position Interpolation"
//! (linear); the llama 3.1 reference code's `apply_scaling` (llama3); Peng 2023,
//! "YaRN: Efficient Context Window Extension of Large Language Models", section 3.
//! Formulas and defaults are those of transformers' `modeling_rope_utils`.
use std::f64::consts::TAU;

/// How frequencies are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Long wavelengths divided by `factor`, short ones kept, those between mixed.
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Wavelengths above `original_max / low_freq_factor` are stretched whole.
        low_freq_factor: f64,
        /// Wavelengths below `original_max / high_freq_factor` stay.
        high_freq_factor: f64,
        /// Positions of the original training.
        original_max: f64,
    },
    /// A linear ramp over the pairs between stretched and kept, and a factor on cosines and sines.
    Yarn {
        /// How many times longer the context is.
        factor: f64,
        /// Positions of the original training.
        original_max: f64,
        /// Pairs that turn more often than this within `original_max` stay; the paper's 32.
        beta_fast: f64,
        /// Pairs that turn less often than this are stretched whole; the paper's 1.
        beta_slow: f64,
        /// Multiplies cosines and sines; computed from `factor` and the `mscale`s if absent.
        attention_factor: Option<f64>,
        /// Numerator's coefficient of the computed attention factor.
        mscale: Option<f64>,
        /// Denominator's coefficient of the computed attention factor.
        mscale_all_dim: Option<f64>,
        /// Whether the ends of the ramp are rounded to whole pairs.
        truncate: bool,
    },
}

/// What a model's file says of its rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// Channels of a head that turn; even.
    pub rotary_dim: usize,
    /// For longer contexts.
    pub scaling: RopeScaling,
}

impl RopeSpec {
    /// Radians a position for each pair, and the attention factor. `round` is applied after each operation: transformers
    /// computes in f32, and far positions show the difference.
    pub(super) fn frequencies(&self, round: impl Fn(f64) -> f64) -> (Vec<f64>, f64) {
        assert!(self.rotary_dim.is_multiple_of(2), "rotary_dim {} is odd", self.rotary_dim);
        let half = self.rotary_dim / 2;
        let powers = (0..half)
            .map(|i| round(self.theta.powf(round((2 * i) as f64 / self.rotary_dim as f64))))
            .collect::<Vec<_>>();
        let plain = powers.iter().map(|p| round(1.0 / p));
        match self.scaling {
            RopeScaling::None => (plain.collect(), 1.0),
            RopeScaling::Linear { factor } => (plain.map(|f| round(f / factor)).collect(), 1.0),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
                let mix = |f: f64| {
                    let wavelength = round(TAU / f);
                    let (long, short) = (original_max / low_freq_factor, original_max / high_freq_factor);
                    if wavelength > long {
                        return round(f / factor);
                    }
                    if wavelength < short {
                        return f;
                    }
                    let turns = round(original_max / wavelength);
                    let kept = round(round(turns - low_freq_factor) / (high_freq_factor - low_freq_factor));
                    let stretched = round(round(round(1.0 - kept) * f) / factor);
                    round(stretched + round(kept * f))
                };
                (plain.map(mix).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, attention_factor, mscale, mscale_all_dim, .. } => {
                let (low, high) = self.ramp();
                let mix = |(i, p): (usize, &f64)| {
                    let stretch = round(round(round(i as f64 - low) / round(high - low)).clamp(0.0, 1.0));
                    let kept = round(1.0 - stretch);
                    let stretched = round(1.0 / round(factor * p));
                    round(round(stretched * round(1.0 - kept)) + round(round(1.0 / p) * kept))
                };
                let grown = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
                let computed = match (mscale, mscale_all_dim) {
                    (Some(over), Some(under)) if over != 0.0 && under != 0.0 => grown(over) / grown(under),
                    _ => grown(1.0),
                };
                (powers.iter().enumerate().map(mix).collect(), attention_factor.unwrap_or(computed))
            }
        }
    }

    /// First and last pair of yarn's ramp: where a pair turns `beta_fast` and `beta_slow` times in `original_max`.
    fn ramp(&self) -> (f64, f64) {
        let RopeScaling::Yarn { original_max, beta_fast, beta_slow, truncate, .. } = self.scaling else {
            return (0.0, 1.0);
        };
        let dim = self.rotary_dim as f64;
        let pair = |turns: f64| dim * (original_max / (turns * TAU)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // transformers' guard against a ramp of no width.
        if low == high { (low, high + 0.001) } else { (low, high) }
    }
}
