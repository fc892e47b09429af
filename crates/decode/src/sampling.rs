//! From scores to a token.
//!
//! The filters are transformers' and come in its order: repetition penalty, temperature, top-k, top-p, min-p; what is
//! left is drawn from by its probability. The draw depends on (seed, sequence, position) alone, so that neither the
//! other sequences of a batch nor what was drawn before changes it.
use crate::error::Error;
use luthier_tensor::{Key, Stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How a token is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Scores are divided by it; 0 takes the highest score (of equal ones the lowest id).
    pub temperature: f64,
    /// Keeps the `k` highest scores, and those equal to the `k`-th; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most probable tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f64,
    /// Keeps tokens at least this times as probable as the most probable one; 0 keeps all.
    pub min_p: f64,
    /// Divides positive and multiplies negative scores of tokens that stand in the prompt or the answer; 1 does nothing
    /// (Keskar 2019, arXiv 1909.05858, section 4.1).
    pub repetition_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// The highest score, always.
    pub fn greedy() -> Self {
        Self::default()
    }

    /// Refuses values outside of their range.
    pub fn check(&self) -> Result<(), Error> {
        let setting = |key, expected, got: f64| Err(Error::Setting { key, expected, got: got.to_string() });
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return setting("temperature", "a number from 0", self.temperature);
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return setting("top_p", "a number above 0, at most 1", self.top_p);
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return setting("min_p", "a number from 0 to 1", self.min_p);
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return setting("repetition_penalty", "a number above 0", self.repetition_penalty);
        }
        Ok(())
    }

    /// The next token of `sequence` after `before` (prompt and answer), by its `scores [vocab]`. None if a score is no
    /// number.
    pub(crate) fn choose(&self, scores: &mut [f64], before: &[u32], sequence: u64) -> Option<u32> {
        if scores.iter().any(|s| s.is_nan() || *s == f64::INFINITY) {
            return None;
        }
        self.penalise(scores, before);
        if self.temperature == 0.0 {
            return highest(scores);
        }
        let mut left = self.candidates(scores);
        let total = left.iter().map(|c| c.1).sum::<f64>();
        let key = Key::new(self.seed, Stream::Sampling).with(sequence);
        let mut draw = key.uniform(before.len() as u64, 0) * total;
        let (last, _) = left.pop()?;
        for (id, weight) in left {
            if draw < weight {
                return Some(id);
            }
            draw -= weight;
        }
        Some(last)
    }

    fn penalise(&self, scores: &mut [f64], before: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        for id in before.iter().collect::<BTreeSet<_>>() {
            let Some(score) = scores.get_mut(*id as usize) else { continue };
            if *score > 0.0 {
                *score /= self.repetition_penalty;
            } else {
                *score *= self.repetition_penalty;
            }
        }
    }

    /// The tokens that may be drawn, with weights relative to the most probable one's.
    fn candidates(&self, scores: &[f64]) -> Vec<(u32, f64)> {
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weight = |s: f64| ((s - most) / self.temperature).exp();
        let mut left = scores.iter().enumerate().map(|(id, &s)| (id as u32, weight(s))).collect::<Vec<_>>();
        if (1..left.len()).contains(&self.top_k) {
            // Ties are decided on scores: weights of different scores can round to one.
            let mut sorted = scores.to_vec();
            let (_, kth, _) = sorted.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            let kth = *kth;
            left.retain(|&(id, _)| scores[id as usize] >= kth);
        }
        if self.top_p < 1.0 {
            keep_mass(&mut left, self.top_p);
        }
        left.retain(|c| c.1 > 0.0 && c.1 >= self.min_p);
        left
    }
}

fn highest(scores: &[f64]) -> Option<u32> {
    let mut best: Option<(usize, f64)> = None;
    for (id, &score) in scores.iter().enumerate() {
        if best.is_none_or(|b| score > b.1) {
            best = Some((id, score));
        }
    }
    best.map(|b| b.0 as u32)
}

/// Keeps a candidate if those before it, by weight and then by id, sum to less than `share` of the whole.
fn keep_mass(left: &mut Vec<(u32, f64)>, share: f64) {
    let needed = share * left.iter().map(|c| c.1).sum::<f64>();
    let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    // Most of a vocabulary weighs next to nothing: sorting the head of it is enough, nearly always.
    let mut head = 256;
    loop {
        if head < left.len() {
            left.select_nth_unstable_by(head - 1, order);
        }
        let end = head.min(left.len());
        left[..end].sort_unstable_by(order);
        let mut sum = 0.0;
        let crosses = |c: &(u32, f64)| {
            sum += c.1;
            sum >= needed
        };
        let kept = left[..end].iter().position(crosses).map_or(end, |at| at + 1);
        let is_found = sum >= needed;
        if is_found || end == left.len() {
            left.truncate(kept);
            return;
        }
        head *= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores whose softmax is 0.5, 0.25, 0.15, 0.1 at temperature 1.
    fn scores() -> Vec<f64> {
        [0.15f64, 0.5, 0.1, 0.25].map(f64::ln).to_vec()
    }

    fn left(sampling: &Sampling) -> Vec<u32> {
        let mut ids = sampling.candidates(&scores()).iter().map(|c| c.0).collect::<Vec<_>>();
        ids.sort_unstable();
        ids
    }

    fn warm() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::default() }
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        assert_eq!(left(&warm()), [0, 1, 2, 3]);
        for (k, kept) in [(1, vec![1]), (2, vec![1, 3]), (3, vec![0, 1, 3]), (9, vec![0, 1, 2, 3])] {
            assert_eq!(left(&Sampling { top_k: k, ..warm() }), kept, "top_k {k}");
        }
        // The token that crosses the share is kept.
        for (p, kept) in [(0.4, vec![1]), (0.6, vec![1, 3]), (0.8, vec![0, 1, 3]), (0.95, vec![0, 1, 2, 3])] {
            assert_eq!(left(&Sampling { top_p: p, ..warm() }), kept, "top_p {p}");
        }
        for (p, kept) in [(0.6, vec![1]), (0.45, vec![1, 3]), (0.25, vec![0, 1, 3]), (0.1, vec![0, 1, 2, 3])]
        {
            assert_eq!(left(&Sampling { min_p: p, ..warm() }), kept, "min_p {p}");
        }
    }

    #[test]
    fn temperature_comes_before_top_p() {
        // At temperature 2 the most probable token has 0.37 of the mass, at 1 it has 0.5.
        let hot = Sampling { temperature: 2.0, top_p: 0.45, ..Sampling::default() };
        assert_eq!(left(&hot), [1, 3]);
        assert_eq!(left(&Sampling { temperature: 1.0, ..hot }), [1]);
    }

    #[test]
    fn top_k_keeps_ties_and_top_p_sees_only_what_top_k_left() {
        let ties = [2.0, 1.0, 1.0, 0.0];
        assert_eq!(Sampling { top_k: 2, ..warm() }.candidates(&ties).len(), 3);
        // Of 0.5 and 0.25 alone, the first has two thirds.
        assert_eq!(left(&Sampling { top_k: 2, top_p: 0.6, ..warm() }), [1]);
    }

    #[test]
    fn a_long_flat_tail_is_cut_where_a_full_sort_would_cut_it() {
        let scores = (0..5000).map(|i| f64::from(i * 7919 % 5000) / 5000.0).collect::<Vec<_>>();
        let sampling = Sampling { top_p: 0.5, ..warm() };
        let kept = sampling.candidates(&scores);
        let mut all = scores.iter().map(|s| s.exp()).collect::<Vec<_>>();
        all.sort_by(|a, b| b.total_cmp(a));
        let needed = 0.5 * all.iter().sum::<f64>();
        let (mut sum, mut expected) = (0.0, 0);
        while sum < needed {
            sum += all[expected];
            expected += 1;
        }
        assert_eq!(kept.len(), expected);
    }

    #[test]
    fn zero_temperature_takes_the_highest_and_the_lowest_id_of_equals() {
        assert_eq!(Sampling::greedy().choose(&mut [1.0, 3.0, 3.0], &[], 0), Some(1));
        assert_eq!(Sampling::greedy().choose(&mut [1.0, f64::NAN], &[], 0), None);
    }

    #[test]
    fn the_penalty_lowers_scores_of_either_sign_once() {
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut scores = vec![3.0, -1.0, 2.0, -1.5];
        assert_eq!(penalty.choose(&mut scores, &[0, 0, 1], 0), Some(2));
        assert_eq!(scores, [1.5, -2.0, 2.0, -1.5]);
    }

    #[test]
    fn draws_follow_the_probabilities_and_depend_on_the_place_alone() {
        let n = 20_000u32;
        let mut counts = [0u32; 4];
        for sequence in 0..n {
            let token = warm().choose(&mut scores(), &[7, 7], sequence.into()).unwrap();
            assert_eq!(warm().choose(&mut scores(), &[7, 7], sequence.into()), Some(token));
            counts[token as usize] += 1;
        }
        for (count, p) in counts.iter().zip([0.15, 0.5, 0.1, 0.25f64]) {
            let error = 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt();
            assert!((f64::from(*count) / f64::from(n) - p).abs() < error, "{counts:?}");
        }
        let at = |length: usize| warm().choose(&mut scores(), &vec![0; length], 0);
        assert!((1..40).any(|length| at(length) != at(0)));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        for (sampling, name) in [
            (Sampling { temperature: -1.0, ..warm() }, "temperature"),
            (Sampling { temperature: f64::NAN, ..warm() }, "temperature"),
            (Sampling { top_p: 0.0, ..warm() }, "top_p"),
            (Sampling { min_p: 1.5, ..warm() }, "min_p"),
            (Sampling { repetition_penalty: 0.0, ..warm() }, "repetition_penalty"),
        ] {
            assert!(matches!(sampling.check(), Err(Error::Setting { key, .. }) if key == name), "{name}");
        }
    }
}
