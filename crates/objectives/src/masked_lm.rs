//! Masked language modelling: cross-entropy of tokens that are hidden from the model (Devlin 2019, arXiv 1810.04805,
//! section 3.1).
//!
//! Of the tokens that can be hidden, each is chosen with probability `share` (0.15). A chosen one is replaced by the mask
//! token (80 %), by any token (10 %), or stays (10 %). Training draws anew at each step, by a generator that is a function
//! of seed, step and place: a resumed run and one of other micro-batches hide the same. Held-out rows hide the same tokens
//! at every measurement: there the draw is a function of the row's own tokens.
use crate::{Loss, Objective};
use luthier_contract::{Context, Mode};
use luthier_data::Batch;
use luthier_models::{Model, Run};
use luthier_tensor::{Key, Stream, Tape};
use std::sync::Arc;

/// `sum over hidden tokens of -log p(token | the others)`.
#[derive(Clone, Copy, Debug)]
pub struct MaskedLanguageModelling {
    /// The token that stands for a hidden one.
    pub mask: u32,
    /// Tokens to draw from.
    pub vocab: u32,
    /// Probability that a token is chosen.
    pub share: f64,
}

/// A batch with tokens hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hidden {
    /// What the model reads `[n]`.
    tokens: Vec<u32>,
    /// Rows of the chosen tokens, ascending.
    rows: Vec<u32>,
    /// What stood there.
    targets: Vec<u32>,
}

impl MaskedLanguageModelling {
    fn hide(&self, mode: Mode, batch: &Batch) -> Hidden {
        let mut hidden = Hidden { tokens: batch.tokens.clone(), rows: Vec::new(), targets: Vec::new() };
        let mut candidates = batch.target_rows.iter().zip(&batch.targets).peekable();
        for segment in batch.segments.windows(2) {
            let tokens = &batch.tokens[segment[0] as usize..segment[1] as usize];
            let (key, origin) = match mode {
                Mode::Train { seed, step, pass, first_row } => {
                    (Key::new(seed, Stream::Masking).with(step).with(pass), first_row + u64::from(segment[0]))
                }
                Mode::Eval => {
                    let of_row = |key: Key, token: &u32| key.with(u64::from(*token));
                    (tokens.iter().fold(Key::new(0, Stream::Masking), of_row), 0)
                }
            };
            while let Some((&row, &target)) = candidates.next_if(|(row, _)| **row < segment[1]) {
                let place = origin + u64::from(row - segment[0]);
                if key.uniform(place, 0) >= self.share {
                    continue;
                }
                hidden.rows.push(row);
                hidden.targets.push(target);
                let how = key.uniform(place, 1);
                if how < 0.8 {
                    hidden.tokens[row as usize] = self.mask;
                } else if how < 0.9 {
                    hidden.tokens[row as usize] = (key.uniform(place, 2) * f64::from(self.vocab)) as u32;
                }
            }
        }
        hidden
    }
}

impl Objective for MaskedLanguageModelling {
    fn weight(&self, run: &Run, batch: &Batch) -> f64 {
        self.hide(run.context.mode, batch).rows.len() as f64
    }

    fn loss(&self, model: &Model, tape: &Tape, run: &Run, batch: &Batch) -> Loss {
        let Hidden { tokens, rows, targets } = self.hide(run.context.mode, batch);
        let context = Context { tokens: tokens.into(), ..(*run.context).clone() };
        let run = Run { context: Arc::new(context), ..run.clone() };
        let loss = model.loss(tape, &run, &rows, &targets);
        Loss {
            sum: loss.sum,
            tokens: rows.len(),
            weight: rows.len() as f64,
            each: loss.rows,
            counts: batch.count_by_sample(&rows),
            scores: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_data::{IGNORED, Label, Sample};

    const SPECIAL: u32 = 2;
    const OBJECTIVE: MaskedLanguageModelling = MaskedLanguageModelling { mask: 4, vocab: 1000, share: 0.15 };

    fn sample(n: u32, from: u32) -> Sample {
        let tokens =
            std::iter::once(SPECIAL).chain((0..n).map(|i| 10 + (from + i) % 900)).collect::<Vec<_>>();
        let label = Label::Tokens(tokens.iter().map(|&t| if t == SPECIAL { IGNORED } else { t }).collect());
        Sample { tokens, label, ..Sample::default() }
    }

    fn train(step: u64, first_row: u64) -> Mode {
        Mode::Train { seed: 1, step, pass: 0, first_row }
    }

    #[test]
    fn shares_are_bert_s() {
        let batch = Batch::new([&sample(20_000, 0)]);
        let hidden = OBJECTIVE.hide(train(0, 0), &batch);
        let n = hidden.rows.len() as f64;
        let is_masked = hidden.rows.iter().filter(|&&r| hidden.tokens[r as usize] == 4).count() as f64;
        let stays =
            hidden.rows.iter().filter(|&&r| hidden.tokens[r as usize] == batch.tokens[r as usize]).count();
        // Five standard deviations: 20,000 draws at 0.15, 3,000 at 0.8 and at 0.1.
        assert!((n - 3000.0).abs() < 253.0, "{n}");
        assert!((is_masked / n - 0.8).abs() < 0.037 && (stays as f64 / n - 0.1).abs() < 0.028);
        assert!(hidden.tokens.iter().all(|t| *t < 1000));
        let changed = |r: &u32| hidden.tokens[*r as usize] != batch.tokens[*r as usize];
        assert!(
            (0..batch.tokens.len() as u32).filter(changed).all(|r| hidden.rows.binary_search(&r).is_ok())
        );
        assert!(hidden.rows.iter().zip(&hidden.targets).all(|(r, t)| batch.tokens[*r as usize] == *t));
        assert!(!hidden.rows.contains(&0), "special tokens are never hidden");
    }

    #[test]
    fn steps_differ_and_micro_batches_do_not_matter() {
        let (a, b) = (sample(300, 0), sample(200, 500));
        let whole = OBJECTIVE.hide(train(3, 0), &Batch::new([&a, &b]));
        assert_ne!(whole, OBJECTIVE.hide(train(4, 0), &Batch::new([&a, &b])));
        let first = OBJECTIVE.hide(train(3, 0), &Batch::new([&a]));
        let second = OBJECTIVE.hide(train(3, a.tokens.len() as u64), &Batch::new([&b]));
        assert_eq!(whole.tokens, [first.tokens, second.tokens].concat());
        assert_eq!(whole.targets, [first.targets, second.targets].concat());
    }

    #[test]
    fn a_held_out_row_hides_the_same_in_any_company() {
        let (a, b) = (sample(300, 0), sample(200, 500));
        let together = OBJECTIVE.hide(Mode::Eval, &Batch::new([&a, &b]));
        let alone = OBJECTIVE.hide(Mode::Eval, &Batch::new([&b]));
        assert_eq!(together.tokens[a.tokens.len()..], alone.tokens);
        assert!(!alone.rows.is_empty());
    }
}
