//! Timing of short work: best and median of repetitions.

use std::time::{Duration, Instant};

/// Least repetitions, and the time after which no further one begins.
const LEAST: usize = 3;
const ENOUGH: Duration = Duration::from_millis(120);

/// Runs `body` once to warm up, then repeatedly; the best time in seconds.
pub fn best(mut body: impl FnMut()) -> f64 {
    body();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < LEAST || start.elapsed() < ENOUGH {
        let one = Instant::now();
        body();
        times.push(one.elapsed().as_secs_f64());
    }
    times.into_iter().fold(f64::INFINITY, f64::min)
}

/// The median; 0 of nothing.
pub fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Rounded to three decimals, for reports.
pub fn rounded(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn the_work_is_repeated() {
        let mut runs = 0;
        let seconds = best(|| runs += 1);
        assert!(runs > LEAST && seconds >= 0.0 && seconds.is_finite());
    }
}
