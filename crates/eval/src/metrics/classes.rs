//! Classes: what was answered where what was right.
use super::{f1, share};
use serde::{Deserialize, Serialize};

/// Bins of the expected calibration error: Guo 2017 (arXiv 1706.04599), section 4.
const BINS: usize = 15;

/// Rows by their right class and their answered one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// `[right][answered]`
    pub counts: Vec<Vec<u64>>,
}

/// How one class is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Its name.
    pub label: String,
    /// Share of the rows answered so that are so; 0 where none is.
    pub precision: f64,
    /// Share of the rows that are so which are answered so; 0 where none is.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// Rows that are so.
    pub support: u64,
}

impl ClassScore {
    /// From counts: right answers, rows that are so, rows answered so.
    pub fn of(label: &str, hits: u64, gold: u64, predicted: u64) -> Self {
        let [h, g, p] = [hits, gold, predicted].map(|n| n as f64);
        Self {
            label: label.to_owned(),
            precision: share(h, p),
            recall: share(h, g),
            f1: f1(h, g, p),
            support: gold,
        }
    }
}

impl Confusion {
    /// Counts pairs of right and answered class.
    pub fn of(labels: usize, pairs: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut counts = vec![vec![0; labels]; labels];
        for (right, answered) in pairs {
            counts[right as usize][answered as usize] += 1;
        }
        Self { counts }
    }

    fn hits(&self) -> f64 {
        (0..self.counts.len()).map(|k| self.counts[k][k] as f64).sum()
    }

    fn rows(&self) -> f64 {
        self.counts.iter().flatten().map(|n| *n as f64).sum()
    }

    fn gold(&self, k: usize) -> u64 {
        self.counts[k].iter().sum()
    }

    fn answered(&self, k: usize) -> u64 {
        self.counts.iter().map(|row| row[k]).sum()
    }

    /// Share of right answers. Over all classes it is micro F1 too.
    pub fn accuracy(&self) -> f64 {
        share(self.hits(), self.rows())
    }

    /// F1 of class `k` against the rest.
    pub fn f1(&self, k: usize) -> f64 {
        f1(self.counts[k][k] as f64, self.gold(k) as f64, self.answered(k) as f64)
    }

    /// Mean of the classes' F1, whatever their size.
    pub fn macro_f1(&self) -> f64 {
        let n = self.counts.len();
        share((0..n).map(|k| self.f1(k)).sum(), n as f64)
    }

    /// Matthews' correlation coefficient, of several classes as Gorodkin 2004 defines it ("R_K"); 0 where all answers, or
    /// all right ones, are one class.
    pub fn matthews(&self) -> f64 {
        let n = self.counts.len();
        let (rows, hits) = (self.rows(), self.hits());
        let (gold, answered) = (|k| self.gold(k) as f64, |k| self.answered(k) as f64);
        let sum = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();
        let together = hits * rows - sum(&|k| gold(k) * answered(k));
        let spread = |f: &dyn Fn(usize) -> f64| rows * rows - sum(&|k| f(k) * f(k));
        let product = spread(&gold) * spread(&answered);
        if product == 0.0 { 0.0 } else { together / product.sqrt() }
    }

    /// Each class's scores.
    pub fn each(&self, names: &[String]) -> Vec<ClassScore> {
        let class = |(k, name): (usize, &String)| {
            ClassScore::of(name, self.counts[k][k], self.gold(k), self.answered(k))
        };
        names.iter().enumerate().map(class).collect()
    }
}

/// Probabilities of a row's scores.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all = scores.iter().map(|z| (z - most).exp()).collect::<Vec<_>>();
    let total = all.iter().sum::<f64>();
    all.into_iter().map(|e| e / total).collect()
}

/// Expected calibration error of (confidence, right or wrong): `sum over bins of share |accuracy - mean confidence|`, fifteen
/// bins `(low, high]` of one width (Guo 2017, equation 3).
pub fn calibration_error(answers: impl Iterator<Item = (f64, bool)>) -> f64 {
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    let mut rows = 0.0;
    for (confidence, right) in answers {
        let bin = (confidence * BINS as f64).ceil().clamp(1.0, BINS as f64) as usize - 1;
        bins[bin].0 += 1.0;
        bins[bin].1 += f64::from(u8::from(right));
        bins[bin].2 += confidence;
        rows += 1.0;
    }
    share(bins.iter().map(|(_, right, confidence)| (right - confidence).abs()).sum(), rows)
}
