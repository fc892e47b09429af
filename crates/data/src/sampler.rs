//! Which samples a step takes: a new order each epoch, and a cursor from which a run resumes exactly.
//!
//! The order of epoch `e` is the Fisher-Yates shuffle driven by SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable
//! pseudorandom number generators", figure 19) seeded with (seed, e). It depends on nothing else, so a cursor of two
//! numbers restores it on any machine.

use serde::{Deserialize, Serialize};

use crate::sample::Sample;

/// How much one step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchSize {
    /// Samples a step.
    Samples(usize),
    /// Tokens a step: samples are taken while they fit; a longer one goes alone.
    Tokens(usize),
}

/// Where a run stands in its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epochs begun before this one.
    pub epoch: u64,
    /// Samples of this epoch that are used.
    pub position: u64,
}

/// Gives the steps of a run, one after the other, without end. The last step of an epoch may be smaller; no sample is
/// left out.
#[derive(Clone, Debug)]
pub struct Sampler {
    lengths: Vec<usize>,
    seed: u64,
    size: BatchSize,
    cursor: Cursor,
    order: Vec<usize>,
}

impl Sampler {
    /// Starts at the first step. A size of zero counts as one.
    pub fn new(samples: &[Sample], size: BatchSize, seed: u64) -> Self {
        Self::resume(samples, size, seed, Cursor::default())
    }

    /// Goes on where a cursor stands. The samples, size and seed must be those of the run that wrote it.
    pub fn resume(samples: &[Sample], size: BatchSize, seed: u64, cursor: Cursor) -> Self {
        let lengths: Vec<usize> = samples.iter().map(|s| s.tokens.len()).collect();
        let order = permutation(lengths.len(), seed, cursor.epoch);
        Self { lengths, seed, size, cursor, order }
    }

    /// Where the run stands: save it after a step, and `resume` gives the next one.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Indices of the next step's samples; empty only if there are no samples.
    pub fn next_step(&mut self) -> Vec<usize> {
        if self.cursor.position as usize >= self.order.len() {
            self.cursor = Cursor { epoch: self.cursor.epoch + 1, position: 0 };
            self.order = permutation(self.lengths.len(), self.seed, self.cursor.epoch);
        }
        let start = self.cursor.position as usize;
        let end = self.step_end(&self.order, start);
        self.cursor.position = end as u64;
        self.order[start.min(end)..end].to_vec()
    }

    /// Steps of one epoch, counted from 0.
    pub fn steps_in_epoch(&self, epoch: u64) -> u64 {
        if let BatchSize::Samples(n) = self.size {
            return self.lengths.len().div_ceil(n.max(1)) as u64;
        }
        let order = permutation(self.lengths.len(), self.seed, epoch);
        let (mut steps, mut at) = (0, 0);
        while at < order.len() {
            at = self.step_end(&order, at);
            steps += 1;
        }
        steps
    }

    /// Steps of the first `epochs` epochs.
    pub fn steps_in(&self, epochs: u64) -> u64 {
        (0..epochs).map(|epoch| self.steps_in_epoch(epoch)).sum()
    }

    fn step_end(&self, order: &[usize], start: usize) -> usize {
        match self.size {
            BatchSize::Samples(n) => (start + n.max(1)).min(order.len()),
            BatchSize::Tokens(most) => {
                let mut tokens = 0;
                let fitting = order[start.min(order.len())..].iter().take_while(|&&index| {
                    tokens += self.lengths[index];
                    tokens <= most
                });
                (start + fitting.count().max(1)).min(order.len())
            }
        }
    }
}

/// SplitMix64.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform below `bound` without bias: a draw from the incomplete last interval is repeated.
    fn below(&mut self, bound: u64) -> u64 {
        let incomplete = bound.wrapping_neg() % bound;
        loop {
            let wide = u128::from(self.next()) * u128::from(bound);
            if wide as u64 >= incomplete {
                return (wide >> 64) as u64;
            }
        }
    }
}

/// The finaliser of SplitMix64: a bijection of 64 bits in which every input bit moves every output bit.
pub(crate) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn permutation(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut random = SplitMix(mix(seed) ^ mix(epoch.wrapping_add(0x5851_F42D_4C95_7F2D)));
    for last in (1..n).rev() {
        order.swap(last, random.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(lengths: &[usize]) -> Vec<Sample> {
        lengths.iter().map(|&n| Sample { tokens: vec![0; n], ..Sample::default() }).collect()
    }

    #[test]
    fn the_order_is_the_same_on_every_machine() {
        assert_eq!(permutation(10, 0, 0), PINNED_ORDER);
        let mut random = SplitMix(1234567);
        // The published first outputs of SplitMix64 for this seed.
        assert_eq!([random.next(), random.next()], [6457827717110365317, 3203168211198807973]);
    }

    const PINNED_ORDER: [usize; 10] = [2, 1, 6, 4, 8, 9, 7, 5, 3, 0];

    #[test]
    fn epochs_and_seeds_differ() {
        let orders = [permutation(50, 0, 0), permutation(50, 0, 1), permutation(50, 1, 0)];
        assert!(orders[0] != orders[1] && orders[0] != orders[2] && orders[1] != orders[2]);
    }

    #[test]
    fn every_order_is_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            *counts.entry(permutation(3, 7, epoch)).or_insert(0_i32) += 1;
        }
        // 1000 expected, standard deviation 29: five of them.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&n| (n - 1000).abs() < 145), "{counts:?}");
    }

    #[test]
    fn a_step_of_tokens_takes_what_fits() {
        let data = samples(&[4, 4, 4, 100, 4]);
        let mut sampler = Sampler::new(&data, BatchSize::Tokens(8), 3);
        for _ in 0..sampler.steps_in_epoch(0) {
            let step = sampler.next_step();
            let tokens: usize = step.iter().map(|&i| data[i].tokens.len()).sum();
            assert!(tokens <= 8 || step.len() == 1);
        }
        assert_eq!(sampler.cursor(), Cursor { epoch: 0, position: 5 });
    }

    #[test]
    fn no_samples_give_empty_steps() {
        assert!(Sampler::new(&[], BatchSize::Samples(4), 0).next_step().is_empty());
        assert!(Sampler::new(&[], BatchSize::Tokens(4), 0).next_step().is_empty());
    }

    fn size() -> impl Strategy<Value = BatchSize> {
        prop_oneof![(0_usize..7).prop_map(BatchSize::Samples), (0_usize..30).prop_map(BatchSize::Tokens)]
    }

    proptest! {
        #[test]
        fn an_epoch_holds_every_sample_once(
            lengths in prop::collection::vec(1_usize..12, 1..30), size in size(), seed: u64,
        ) {
            let mut sampler = Sampler::new(&samples(&lengths), size, seed);
            for epoch in 0..3 {
                let steps = sampler.steps_in_epoch(epoch);
                let mut seen: Vec<usize> = (0..steps).flat_map(|_| sampler.next_step()).collect();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            }
        }

        #[test]
        fn resume_equals_uninterrupted(
            lengths in prop::collection::vec(1_usize..12, 1..30), size in size(), seed: u64, cut in 0_usize..40,
        ) {
            let data = samples(&lengths);
            let mut whole = Sampler::new(&data, size, seed);
            let mut first = Sampler::new(&data, size, seed);
            for _ in 0..cut {
                prop_assert_eq!(whole.next_step(), first.next_step());
            }
            let saved = serde_json::to_string(&first.cursor()).unwrap();
            let mut second = Sampler::resume(&data, size, seed, serde_json::from_str(&saved).unwrap());
            for _ in 0..40 {
                prop_assert_eq!(whole.next_step(), second.next_step());
            }
        }
    }
}
