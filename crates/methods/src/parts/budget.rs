//! A budget of ranks that shrinks over the run, and which triplets it keeps.
//!
//! Zhang 2023, <https://arxiv.org/abs/2303.10512>, equation 12 and section 3.2; the details (a whole-number budget,
//! everything at or below the threshold goes) are PEFT's `RankAllocator`.

/// The budget over a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Ranks at the start, over all sites.
    pub(crate) first: usize,
    /// Ranks at the end.
    pub(crate) last: usize,
    /// Steps before it falls.
    pub(crate) start: u64,
    /// Steps after it has fallen.
    pub(crate) finish: u64,
    /// Steps of the run.
    pub(crate) steps: u64,
}

impl Budget {
    /// Ranks after step `t`, counted from 1: level, a cubic fall, level.
    pub(crate) fn at(&self, t: u64) -> usize {
        if t <= self.start {
            return self.first;
        }
        let fall = self.steps.saturating_sub(self.finish + self.start);
        if t >= self.steps.saturating_sub(self.finish) || fall == 0 {
            return self.last;
        }
        let left = 1.0 - (t - self.start) as f64 / fall as f64;
        ((self.first.saturating_sub(self.last)) as f64 * left.powi(3) + self.last as f64) as usize
    }
}

/// Which of all `scores` stay when `budget` of them may: those above the score of the last that goes.
pub(crate) fn kept(scores: &[f64], budget: usize) -> Vec<bool> {
    let drop = scores.len().saturating_sub(budget);
    if drop == 0 {
        return vec![true; scores.len()];
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let threshold = sorted[drop - 1];
    scores.iter().map(|s| *s > threshold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_has_its_ends_and_its_middle() {
        let budget = Budget { first: 120, last: 40, start: 10, finish: 20, steps: 70 };
        assert_eq!((budget.at(1), budget.at(10)), (120, 120));
        assert_eq!(budget.at(30), 50, "half way: the last and an eighth of the fall");
        assert_eq!((budget.at(50), budget.at(70)), (40, 40));
        let level = Budget { last: 120, ..budget };
        assert!((1..=70).all(|t| level.at(t) == 120));
    }

    #[test]
    fn the_largest_stay() {
        assert_eq!(kept(&[3.0, 1.0, 2.0, 5.0], 2), [true, false, false, true]);
        assert_eq!(kept(&[3.0, 1.0], 2), [true, true]);
        assert_eq!(kept(&[1.0, 1.0, 2.0], 2), [false, false, true], "a tie at the threshold goes");
    }
}
