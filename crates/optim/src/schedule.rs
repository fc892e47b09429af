//! Learning rate over the steps of a run.
//!
//! The values are those of transformers' `get_*_schedule_with_warmup`: a linear rise from 0 over the warm-up, whose
//! first step therefore has rate 0, then the shape.

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The peak.
    Constant,
    /// A straight fall to the floor.
    Linear,
    /// Half a cosine to the floor.
    Cosine,
}

/// A peak rate, a warm-up and a shape.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Rate at the end of the warm-up.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: usize,
    /// Steps of the run.
    pub steps: usize,
    /// What follows the warm-up.
    pub shape: Shape,
    /// Share of the peak to which the shape falls; transformers' schedules fall to 0.
    pub floor: f64,
}

impl Schedule {
    /// The rate of step `t`, counted from 0.
    pub fn rate(&self, t: usize) -> f64 {
        if t < self.warmup {
            return self.peak * t as f64 / self.warmup.max(1) as f64;
        }
        let rest = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let done = ((t - self.warmup) as f64 / rest).min(1.0);
        let fall = match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => 1.0 - done,
            Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * fall)
    }
}
