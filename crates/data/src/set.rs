//! Tokenised rows of one set, their counts and the verdict on them.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::error::Error;
use crate::format::{Record, Role};
use crate::problem::{Problem, ProblemKind, Problems};
use crate::report::{FileReport, Lengths, SetReport};
use crate::sample::{Made, Maker, Sample};
use crate::split::{ContentHash, hash_of, hash_of_prompt, hash_of_tokens, split};

/// Largest share of unknown tokens: beyond it the tokenizer does not know the language.
const UNKNOWN_LIMIT: f64 = 0.2;

/// One parsed row with its place.
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) file: u32,
    pub(crate) line: u64,
}

/// One row after tokenising.
#[allow(clippy::struct_excessive_bools, reason = "independent facts that are counted")]
pub(crate) struct Part {
    pub(crate) made: Made,
    pub(crate) content: ContentHash,
    pub(crate) prompt: ContentHash,
    pub(crate) is_text: bool,
    pub(crate) is_chat: bool,
    /// What a labelled row says, as it is written.
    pub(crate) texts: Vec<String>,
    pub(crate) has_empty_answer: bool,
    pub(crate) has_empty_prompt: bool,
    pub(crate) spells_special: bool,
    /// Characters, and those that the tokenizer drops.
    pub(crate) characters: (u64, u64),
}

pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) parts: Vec<Part>,
}

impl Set {
    pub(crate) fn make(
        name: &'static str,
        items: Vec<Item>,
        maker: &Maker<'_>,
        files: &[FileReport],
        problems: &mut Problems,
    ) -> Result<Self, Error> {
        let parts: Vec<Result<Part, Box<(Item, Error)>>> = items
            .into_par_iter()
            .map(|item| Part::make(&item, maker).map_err(|e| Box::new((item, e))))
            .collect();
        let mut good = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Ok(part) => good.push(part),
                Err(failed) => {
                    let (item, error) = *failed;
                    let kind = match error {
                        Error::Template { what } => ProblemKind::Template { what },
                        Error::Tokenize { what, .. } => ProblemKind::Tokenize { what },
                        Error::Label { kind } => kind,
                        other => return Err(other),
                    };
                    let file = files[item.file as usize].path.clone();
                    problems.push(Problem { file, line: item.line, field: None, kind });
                }
            }
        }
        Ok(Self { name, parts: good })
    }

    /// Takes a share of the rows out. A set of one text is split by its chunks.
    pub(crate) fn split_off(&mut self, fraction: f64, seed: u64, maker: &Maker<'_>) -> Result<Self, Error> {
        let mut groups: Vec<ContentHash> = self.parts.iter().map(|part| part.prompt).collect();
        if groups.iter().collect::<BTreeSet<_>>().len() < 2 {
            if self.parts.iter().all(|part| part.is_text) {
                self.parts = std::mem::take(&mut self.parts)
                    .into_iter()
                    .flat_map(|part| part.into_chunks(maker))
                    .collect();
            }
            // Equal prompts with differing answers: the answers are what can be kept apart.
            groups = self.parts.iter().map(|part| part.content).collect();
        }
        let taken = split(&groups, fraction, seed)?;
        let parts = std::mem::take(&mut self.parts);
        let (eval, train): (Vec<_>, Vec<_>) = parts.into_iter().zip(taken).partition(|(_, taken)| *taken);
        self.parts = train.into_iter().map(|(part, _)| part).collect();
        Ok(Self { name: "eval", parts: eval.into_iter().map(|(part, _)| part).collect() })
    }

    pub(crate) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.parts.iter().flat_map(|part| &part.made.samples)
    }

    pub(crate) fn into_samples(self) -> Vec<Sample> {
        self.parts.into_iter().flat_map(|part| part.made.samples).collect()
    }

    pub(crate) fn sum(&self, of: impl Fn(&Part) -> u64) -> u64 {
        self.parts.iter().map(of).sum()
    }

    fn unknown_share(&self) -> f64 {
        let share = |some: u64, all: u64| if all == 0 { 0.0 } else { some as f64 / all as f64 };
        let tokens = share(self.sum(|p| p.made.unknown), self.sum(|p| p.made.tokens));
        let characters = share(self.sum(|p| p.characters.1), self.sum(|p| p.characters.0));
        tokens.max(characters)
    }

    pub(crate) fn report(&self) -> SetReport {
        let samples: Vec<Sample> = self.samples().cloned().collect();
        let tokens: u64 = samples.iter().map(|s| s.tokens.len() as u64).sum();
        let targets: u64 = samples.iter().map(|s| s.targets() as u64).sum();
        let distinct: BTreeSet<ContentHash> = self.parts.iter().map(|part| part.content).collect();
        SetReport {
            rows: self.parts.len() as u64,
            samples: samples.len() as u64,
            tokens,
            targets,
            trained_share: if tokens == 0 { 0.0 } else { targets as f64 / tokens as f64 },
            truncated: self.sum(|p| p.made.truncated),
            dropped: self.sum(|p| p.made.dropped),
            duplicates: (self.parts.len() - distinct.len()) as u64,
            empty_answers: self.sum(|p| u64::from(p.has_empty_answer)),
            empty_prompts: self.sum(|p| u64::from(p.has_empty_prompt)),
            spelt_specials: self.sum(|p| u64::from(p.spells_special)),
            unknown_share: self.unknown_share(),
            lengths: Lengths::of(&samples),
        }
    }

    /// Refuses a set from which nothing, or nothing sensible, can be learnt.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        let share = self.unknown_share();
        if share > UNKNOWN_LIMIT {
            return Err(Error::Unknown { set: self.name, share });
        }
        if self.samples().next().is_none() {
            let dropped = self.sum(|p| p.made.dropped);
            return Err(Error::NoLabels { set: self.name, samples: dropped, dropped });
        }
        Ok(())
    }
}

impl Part {
    fn make(item: &Item, maker: &Maker<'_>) -> Result<Self, Error> {
        let made = maker.make(&item.record, item.file, item.line)?;
        let mut seen = BTreeMap::new();
        let mut part = Self {
            made,
            content: hash_of(&item.record),
            prompt: hash_of_prompt(&item.record),
            is_text: matches!(item.record, Record::Text(_)),
            is_chat: matches!(item.record, Record::Chat { .. }),
            texts: Vec::new(),
            has_empty_answer: false,
            has_empty_prompt: false,
            spells_special: false,
            characters: (0, 0),
        };
        let mut look = |text: &str| {
            part.spells_special |= maker.tokenizer.spelt_special(text).is_some();
            part.characters.0 += text.chars().count() as u64;
            part.characters.1 += maker.tokenizer.dropped_characters(text, &mut seen);
        };
        match &item.record {
            Record::Text(text) => look(text),
            Record::Labelled { texts, .. } => {
                texts.iter().for_each(|text| look(text));
                part.has_empty_prompt = texts.iter().any(|text| text.trim().is_empty());
                part.texts.clone_from(texts);
            }
            Record::Tagged { words, .. } => {
                words.iter().for_each(|word| look(word));
                part.texts = vec![words.join(" ")];
            }
            Record::Chat { messages, .. } => {
                for message in messages {
                    look(&message.content);
                }
                let says_nothing = |role: Role| {
                    let last = messages.iter().rfind(|m| m.role == role);
                    last.is_some_and(|m| m.content.trim().is_empty() && m.extra.is_empty())
                };
                part.has_empty_answer = says_nothing(Role::Assistant);
                part.has_empty_prompt = says_nothing(Role::User);
            }
        }
        Ok(part)
    }

    /// One part a sample, for a text that is split by its chunks. The row's characters stay with the first.
    fn into_chunks(mut self, maker: &Maker<'_>) -> Vec<Self> {
        let samples = std::mem::take(&mut self.made.samples);
        let mut first = Some(self);
        let chunk = |sample: Sample| {
            let content = hash_of_tokens(&sample.tokens);
            let mut part = first.take().unwrap_or_else(|| Self {
                made: Made::default(),
                content,
                prompt: content,
                is_text: true,
                is_chat: false,
                texts: Vec::new(),
                has_empty_answer: false,
                has_empty_prompt: false,
                spells_special: false,
                characters: (0, 0),
            });
            (part.content, part.prompt) = (content, content);
            (part.made.tokens, part.made.unknown) = maker.counts(&sample.tokens);
            part.made.samples = vec![sample];
            part
        };
        samples.into_iter().map(chunk).collect()
    }
}
