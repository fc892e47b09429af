//! The loss curve as inline SVG. Colours and text sizes are the page's, by class.

use super::Point;
use std::fmt::Write;

/// The drawing's own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
/// Space for the axes' labels.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 36.0;
/// More points than this are averaged in groups: a line has no more columns to show them.
const MOST_POINTS: usize = 600;
/// Share of the run that the bold line averages over: short enough to follow the schedule.
const SMOOTHING: f64 = 0.05;

/// The curve of both losses; `None` where there is nothing to draw.
pub fn curve(train: &[Point], eval: &[Point]) -> Option<String> {
    let finite = |points: &[Point]| points.iter().copied().filter(|p| p.loss.is_finite()).collect::<Vec<_>>();
    let (train, eval) = (grouped(&finite(train)), finite(eval));
    let smooth = smoothed(&train);
    let scale = Scale::over(&train, &smooth, &eval)?;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
        label(&train, &eval)
    );
    scale.write_axes(&mut svg);
    line(&mut svg, "raw", &train, &scale);
    line(&mut svg, "train", &smooth, &scale);
    line(&mut svg, "eval", &eval, &scale);
    for point in &eval {
        let (x, y) = scale.at(*point);
        let _ = writeln!(
            svg,
            "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>step {}: {:.4}</title></circle>",
            point.step, point.loss
        );
    }
    let mut x = LEFT;
    for (class, name, points) in [("train-name", "training", &train), ("eval-name", "held-out", &eval)] {
        if !points.is_empty() {
            let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"16\">{name}</text>");
            x += 110.0;
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// What a reader who does not see the drawing is told.
fn label(train: &[Point], eval: &[Point]) -> String {
    let ends = |name: &str, points: &[Point]| match (points.first(), points.last()) {
        (Some(first), Some(last)) => {
            format!(
                "{name} loss from {:.3} at step {} to {:.3} at step {}",
                first.loss, first.step, last.loss, last.step
            )
        }
        _ => String::new(),
    };
    let parts = [ends("training", train), ends("held-out", eval)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn line(svg: &mut String, class: &str, points: &[Point], scale: &Scale) {
    if points.len() < 2 {
        return;
    }
    let _ = write!(svg, "<polyline class=\"{class}\" points=\"");
    for point in points {
        let (x, y) = scale.at(*point);
        let _ = write!(svg, "{x:.1},{y:.1} ");
    }
    svg.push_str("\"/>\n");
}

/// Means of equal groups of neighbours, at most [`MOST_POINTS`] of them.
fn grouped(points: &[Point]) -> Vec<Point> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    points
        .chunks(size)
        .map(|group| Point {
            step: group[group.len() / 2].step,
            loss: group.iter().map(|point| point.loss).sum::<f64>() / group.len() as f64,
        })
        .collect()
}

/// Exponential mean with the bias of its start divided out.
fn smoothed(points: &[Point]) -> Vec<Point> {
    let memory = 1.0 - 1.0 / (points.len() as f64 * SMOOTHING).max(1.0);
    let (mut mean, mut weight) = (0.0, 0.0);
    points
        .iter()
        .map(|point| {
            mean = memory * mean + (1.0 - memory) * point.loss;
            weight = memory * weight + (1.0 - memory);
            Point { step: point.step, loss: mean / weight }
        })
        .collect()
}

/// From steps and losses to the drawing.
struct Scale {
    first: f64,
    last: f64,
    low: f64,
    high: f64,
    tick: f64,
}

impl Scale {
    /// Covers all that is drawn. A training loss that shoots up is cut at the 99th percentile, so that one step does not
    /// flatten the rest.
    fn over(train: &[Point], smooth: &[Point], eval: &[Point]) -> Option<Self> {
        let mut losses: Vec<f64> = train.iter().map(|point| point.loss).collect();
        losses.sort_by(f64::total_cmp);
        losses.truncate((losses.len() * 99).div_ceil(100));
        losses.extend(smooth.iter().chain(eval).map(|point| point.loss));
        let low = losses.iter().copied().reduce(f64::min)?;
        let high = losses.iter().copied().reduce(f64::max)?;
        let tick = nice((high - low).max(high.abs() * 0.01).max(1e-6) / 4.0);
        let steps = || train.iter().chain(eval).map(|point| point.step as f64);
        let (first, last) = (steps().reduce(f64::min)?, steps().reduce(f64::max)?);
        Some(Self {
            first,
            last: last.max(first + 1.0),
            low: (low / tick).floor() * tick,
            high: ((high / tick).ceil() * tick).max((low / tick).floor() * tick + tick),
            tick,
        })
    }

    fn at(&self, point: Point) -> (f64, f64) {
        let x = (point.step as f64 - self.first) / (self.last - self.first);
        let y = (point.loss.min(self.high) - self.low) / (self.high - self.low);
        (LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM))
    }

    fn write_axes(&self, svg: &mut String) {
        let digits = (-self.tick.log10().floor()).max(0.0) as usize;
        let rows = ((self.high - self.low) / self.tick).round() as u64;
        for row in 0..=rows {
            let loss = self.low + row as f64 * self.tick;
            let y = self.at(Point { step: 0, loss }).1;
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            );
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.digits$}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let tick = nice((self.last - self.first) / 5.0).max(1.0);
        let mut step = (self.first / tick).ceil() * tick;
        while step <= self.last {
            let x = self.at(Point { step: step as u64, loss: self.low }).0;
            let y = HEIGHT - BOTTOM + 20.0;
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{step:.0}</text>");
            step += tick;
        }
    }
}

/// The next of 1, 2, 5 times a power of ten that is not below.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|tick| *tick >= value * 0.999)
        .unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(losses: &[f64]) -> Vec<Point> {
        losses.iter().enumerate().map(|(step, loss)| Point { step: step as u64, loss: *loss }).collect()
    }

    #[test]
    fn ticks_are_round() {
        for (value, expected) in
            [(0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (24.0, 50.0), (0.011, 0.02), (7.0, 10.0)]
        {
            assert!((nice(value) - expected).abs() < 1e-9 * expected, "{value}: {}", nice(value));
        }
    }

    #[test]
    fn all_that_is_drawn_lies_inside() {
        for losses in [
            vec![2.0, 1.0],
            vec![1.5],
            vec![3.0; 10],
            vec![0.0, 0.0],
            vec![1e-9, 5e3, 2.0],
            vec![f64::NAN, 2.0, 1.0],
        ] {
            let svg = curve(&points(&losses), &points(&losses)).unwrap();
            let numbers = svg
                .split("points=\"")
                .skip(1)
                .flat_map(|part| part.split('"').next().unwrap().split_whitespace());
            for pair in numbers {
                let (x, y) = pair.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!(
                    (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y),
                    "{losses:?} {pair}"
                );
            }
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nothing_finite_is_no_curve() {
        assert_eq!(curve(&[], &[]), None);
        assert_eq!(curve(&points(&[f64::NAN]), &[]), None);
    }

    #[test]
    fn long_runs_are_averaged() {
        let grouped = grouped(&points(&vec![2.0; 10_000]));
        assert!(grouped.len() <= MOST_POINTS && grouped.iter().all(|point| point.loss == 2.0));
    }

    #[test]
    fn smoothing_starts_without_bias_and_keeps_a_constant() {
        let smooth = smoothed(&points(&[3.0; 100]));
        assert!(smooth.iter().all(|point| (point.loss - 3.0).abs() < 1e-9));
    }
}
