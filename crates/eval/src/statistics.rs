//! Intervals over rows.
use luthier_tensor::{Key, Stream};
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap.
const RESAMPLES: u64 = 2000;
/// The normal distribution's 97.5 % quantile.
const Z: f64 = 1.959_963_984_540_054;

/// A 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// The interval of a growing function of the value.
    #[must_use]
    pub fn map(self, f: impl Fn(f64) -> f64) -> Self {
        Self { low: f(self.low), high: f(self.high) }
    }
}

/// The interval of `sum of .0 / sum of .1` over rows, which are drawn again with replacement: percentiles 2.5 and 97.5
/// of 2,000 resamples (Efron 1979). Rows, not tokens, are drawn: tokens of one row are not independent.
pub fn bootstrap(rows: &[(f64, f64)], seed: u64) -> Interval {
    assert!(!rows.is_empty(), "an interval over no rows");
    let key = Key::new(seed, Stream::Sampling).at("bootstrap");
    let n = rows.len() as u64;
    let resample = |r: u64| {
        let draw = |i| rows[(key.uniform(r, i) * n as f64) as usize];
        let (a, b) = (0..n).map(draw).fold((0.0, 0.0), |s, row| (s.0 + row.0, s.1 + row.1));
        a / b
    };
    let mut values = (0..RESAMPLES).map(resample).collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (RESAMPLES - 1) as f64).round() as usize];
    Interval { low: at(0.025), high: at(0.975) }
}

/// The interval of a share of `n` rows (Wilson 1927): unlike a bootstrap, it has a width where all rows agree.
pub fn wilson(hits: usize, n: usize) -> Interval {
    assert!(n > 0 && hits <= n, "a share of rows");
    let (p, n) = (hits as f64 / n as f64, n as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / (1.0 + Z * Z / n);
    Interval { low: (middle - half).max(0.0), high: (middle + half).min(1.0) }
}

/// Rows drawn again with replacement, 2,000 times: the same draws for the same number of rows and seed, so that what is
/// measured on them is paired.
pub fn resamples(rows: usize, seed: u64) -> impl Iterator<Item = Vec<usize>> {
    let key = Key::new(seed, Stream::Sampling).at("bootstrap");
    (0..RESAMPLES)
        .map(move |r| (0..rows as u64).map(|i| (key.uniform(r, i) * rows as f64) as usize).collect())
}

/// Percentiles 2.5 and 97.5. Values that are no number (a correlation where a draw is constant) are left out; without any
/// other, there is no interval.
pub fn percentiles(values: impl Iterator<Item = f64>) -> Option<Interval> {
    let mut values = values.filter(|v| !v.is_nan()).collect::<Vec<_>>();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
    (!values.is_empty()).then(|| Interval { low: at(0.025), high: at(0.975) })
}

/// McNemar's test (1947) of two answerers on the same rows, exact: the two-sided probability of so uneven a share of the
/// rows that only one of them answers rightly, were both alike. `a`, `b`: rows that only the first, only the second has
/// right.
pub fn mcnemar(a: u64, b: u64) -> f64 {
    let (n, k) = (a + b, a.min(b));
    let (mut log, mut tail) = (-(n as f64) * std::f64::consts::LN_2, 0.0);
    for i in 0..=k {
        tail += log.exp();
        log += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_of_many_rows_has_the_normal_width() {
        let key = Key::new(1, Stream::Test);
        let rows = (0..400).map(|i| (2.0 + key.normal(0, i), 1.0)).collect::<Vec<_>>();
        let mean = rows.iter().map(|r| r.0).sum::<f64>() / 400.0;
        let interval = bootstrap(&rows, 7);
        // Two standard errors of the mean are 0.1; the quantiles of 2,000 resamples are known to some 5 %.
        assert!((interval.high - mean - 0.098).abs() < 0.015, "{interval:?}");
        assert!((mean - interval.low - 0.098).abs() < 0.015, "{interval:?}");
        assert_eq!(bootstrap(&rows, 7), interval);
        assert_ne!(bootstrap(&rows, 8), interval);
    }

    #[test]
    fn rows_weigh_by_their_tokens() {
        let interval = bootstrap(&[(10.0, 10.0), (30.0, 10.0), (1.0, 1.0)], 0);
        assert!(interval.low >= 1.0 && interval.high <= 3.0 && interval.high > 2.0, "{interval:?}");
    }

    #[test]
    fn wilson_by_hand() {
        // 9 of 10: (0.5958, 0.9821), as the formula gives by hand.
        let interval = wilson(9, 10);
        assert!(
            (interval.low - 0.5958).abs() < 1e-3 && (interval.high - 0.9821).abs() < 1e-3,
            "{interval:?}"
        );
        assert!(wilson(10, 10).low < 0.73 && wilson(10, 10).high > 0.9999);
    }
}
