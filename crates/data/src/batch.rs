//! Flat batches without padding.
//!
//! The samples of a micro-batch lie one after the other; `segments` says where each begins, positions restart in each, and
//! attention stays within one. Row `i` predicts token `i + 1` of its own segment, so the last row of a segment predicts
//! nothing.

use crate::sample::Sample;
use crate::task::{IGNORED, Label};

/// One micro-batch, ready for the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Token ids [n].
    pub tokens: Vec<u32>,
    /// Position of each token in its segment [n].
    pub positions: Vec<u32>,
    /// Offsets of the segments in `tokens`, with the end [samples + 1].
    pub segments: Vec<u32>,
    /// Token types [n]; empty where all are 0.
    pub types: Vec<u32>,
    /// Rows that predict a target, ascending [targets].
    pub target_rows: Vec<u32>,
    /// The token, or the label, that each of those rows must predict [targets].
    pub targets: Vec<u32>,
    /// What each sample is to be answered with [samples].
    pub labels: Vec<Label>,
}

impl Batch {
    /// Lays samples one after the other.
    pub fn new<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let mut batch = Self { segments: vec![0], ..Self::default() };
        for sample in samples {
            let start = batch.tokens.len();
            if !sample.types.is_empty() {
                batch.types.resize(start, 0);
                batch.types.extend(&sample.types);
            }
            for (position, &token) in sample.tokens.iter().enumerate() {
                let row = (start + position) as u32;
                match &sample.label {
                    Label::Next if position > 0 && sample.labelled[position] => batch.target(row - 1, token),
                    Label::Tokens(all) if all[position] != IGNORED => batch.target(row, all[position]),
                    _ => {}
                }
                batch.tokens.push(token);
                batch.positions.push(position as u32);
            }
            batch.segments.push(batch.tokens.len() as u32);
            batch.labels.push(sample.label.clone());
        }
        if !batch.types.is_empty() {
            batch.types.resize(batch.tokens.len(), 0);
        }
        batch
    }

    fn target(&mut self, row: u32, target: u32) {
        self.target_rows.push(row);
        self.targets.push(target);
    }

    /// How many of `rows`, ascending, lie in each sample [samples].
    pub fn count_by_sample(&self, rows: &[u32]) -> Vec<usize> {
        let before = |end: u32| rows.partition_point(|&row| row < end);
        self.segments.windows(2).map(|s| before(s[1]) - before(s[0])).collect()
    }

    /// Samples in the batch.
    pub fn samples(&self) -> usize {
        self.segments.len() - 1
    }
}

/// How large one forward pass may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroLimit {
    /// Most samples.
    pub samples: Option<usize>,
    /// Most tokens; a longer sample goes alone.
    pub tokens: Option<usize>,
}

/// Splits a step's samples, given by index, into micro-batches in their order.
pub fn micro_batches(step: &[usize], samples: &[Sample], limit: MicroLimit) -> Vec<Vec<usize>> {
    let (most_samples, most_tokens) =
        (limit.samples.unwrap_or(usize::MAX), limit.tokens.unwrap_or(usize::MAX));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for &index in step {
        let length = samples[index].tokens.len();
        match parts.last_mut() {
            Some(part) if part.len() < most_samples && tokens + length <= most_tokens => {
                tokens += length;
                part.push(index);
            }
            _ => {
                tokens = length;
                parts.push(vec![index]);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(tokens: &[u32], targets: &[usize]) -> Sample {
        let labelled = (0..tokens.len()).map(|i| targets.contains(&i)).collect();
        Sample { tokens: tokens.to_vec(), labelled, ..Sample::default() }
    }

    #[test]
    fn rows_predict_the_next_token_of_their_own_segment() {
        let batch = Batch::new([&sample(&[5, 6, 7], &[1, 2]), &sample(&[8, 9], &[1])]);
        assert_eq!(batch.tokens, [5, 6, 7, 8, 9]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1]);
        assert_eq!(batch.segments, [0, 3, 5]);
        assert_eq!(batch.target_rows, [0, 1, 3]);
        assert_eq!(batch.targets, [6, 7, 9]);
    }

    #[test]
    fn a_labelled_first_token_is_not_predicted_from_the_sample_before() {
        let batch = Batch::new([&sample(&[5, 6], &[1]), &sample(&[7, 8], &[0, 1])]);
        assert_eq!((batch.target_rows.as_slice(), batch.targets.as_slice()), (&[0, 2][..], &[6, 8][..]));
    }

    #[test]
    fn tags_stand_on_their_own_tokens_and_types_fill_up() {
        let tagged = Sample {
            tokens: vec![1, 5, 6, 2],
            label: Label::Tokens(vec![IGNORED, 3, IGNORED, 0]),
            ..Sample::default()
        };
        let pair =
            Sample { tokens: vec![7, 8], types: vec![0, 1], label: Label::Class(4), ..Sample::default() };
        let batch = Batch::new([&tagged, &pair, &tagged]);
        assert_eq!(batch.target_rows, [1, 3, 7, 9]);
        assert_eq!(batch.targets, [3, 0, 3, 0]);
        assert_eq!(batch.types, [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(batch.labels[1], Label::Class(4));
        assert_eq!(batch.count_by_sample(&batch.target_rows), [2, 0, 2]);
    }

    #[test]
    fn micro_batches_keep_both_limits() {
        let samples: Vec<Sample> = [3, 3, 9, 2, 2].iter().map(|&n| sample(&vec![1; n], &[])).collect();
        let step = [0, 1, 2, 3, 4];
        let split =
            |samples_, tokens| micro_batches(&step, &samples, MicroLimit { samples: samples_, tokens });
        assert_eq!(split(None, None), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(split(Some(2), None), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(split(None, Some(6)), [vec![0, 1], vec![2], vec![3, 4]]);
        assert_eq!(split(Some(1), Some(6)).len(), 5);
    }

    proptest! {
        #[test]
        fn micro_batches_hold_the_targets_of_the_step(
            lengths in prop::collection::vec(1_usize..9, 0..20), most in 1_usize..6, tokens in 1_usize..20,
        ) {
            let samples: Vec<Sample> = lengths.iter().map(|&n| sample(&vec![7; n], &[n - 1])).collect();
            let step: Vec<usize> = (0..samples.len()).rev().collect();
            let parts = micro_batches(&step, &samples, MicroLimit { samples: Some(most), tokens: Some(tokens) });
            prop_assert_eq!(parts.concat(), step.clone());
            let whole = Batch::new(step.iter().map(|&i| &samples[i])).targets.len();
            let split: usize = parts.iter().map(|p| Batch::new(p.iter().map(|&i| &samples[i])).targets.len()).sum();
            prop_assert_eq!(whole, split);
        }
    }
}
