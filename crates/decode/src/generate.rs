//! The loop: feed, score, choose, until each sequence ends.
use crate::error::Error;
use crate::sampling::Sampling;
use crate::stop::{Gate, Stop};
use luthier_contract::{Context, Segments};
use luthier_data::{Streamer, Tokenizer};
use luthier_models::{Applied, Cache, Model, Run};
use luthier_tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Most tokens fed in one run of the model: bounds the memory of long prompts.
const FED_AT_ONCE: usize = 1024;

/// How to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How a token is chosen.
    pub sampling: Sampling,
    /// When a sequence ends.
    pub stop: Stop,
    /// Most sequences at once.
    pub batch: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sampling: Sampling::default(), stop: Stop::default(), batch: 16 }
    }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The model ended it.
    Eos,
    /// A stop string came.
    Stop,
    /// `max_tokens`, or the model's last position.
    Length,
    /// The caller broke off.
    Interrupted,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// Its text, without stop string and special tokens; empty if there is no tokenizer.
    pub text: String,
    /// Its tokens, without the one that ended it; those of a stop string are here.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub reason: Reason,
}

/// Takes the text of prompt `.0` as it comes, whole characters only; `Break` ends all sequences.
pub type OnText<'f> = dyn FnMut(usize, &str) -> ControlFlow<()> + 'f;

/// A model ready to generate.
#[derive(Clone, Copy, Debug)]
pub struct Generator<'a> {
    /// The model.
    pub model: &'a Model,
    /// Adapters; their segments are places among the prompts.
    pub adapters: &'a [Applied],
    /// For text and stop strings; without it, tokens only.
    pub tokenizer: Option<&'a Tokenizer>,
}

/// A sequence in progress.
pub(crate) struct Sequence<'a> {
    /// Place among the prompts.
    pub(crate) index: usize,
    pub(crate) cache: Cache,
    /// Prompt and answer.
    pub(crate) tokens: Vec<u32>,
    prompt: usize,
    stream: Option<Streamer<'a>>,
    gate: Gate,
    text: String,
    reason: Option<Reason>,
}

impl<'a> Sequence<'a> {
    /// The cache may hold the first tokens of the prompt already.
    pub(crate) fn new(
        index: usize,
        prompt: Vec<u32>,
        cache: Cache,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Self {
        Self {
            index,
            cache,
            prompt: prompt.len(),
            tokens: prompt,
            stream: tokenizer.map(Tokenizer::stream),
            gate: Gate::default(),
            text: String::new(),
            reason: None,
        }
    }

    fn waiting(&self) -> usize {
        self.tokens.len() - self.cache.len()
    }

    /// Takes a new token; true if a stop string came with it.
    fn take(&mut self, token: u32, stops: &[String], on_text: &mut OnText<'_>) -> Result<bool, Error> {
        self.tokens.push(token);
        let text = self.stream.as_mut().map(|s| s.push(token)).transpose()?.flatten();
        Ok(text.is_some_and(|text| self.show(&text, stops, on_text)))
    }

    /// Gives `text` through the gate; true if a stop string came.
    fn show(&mut self, text: &str, stops: &[String], on_text: &mut OnText<'_>) -> bool {
        let (text, stopped) = self.gate.push(text, stops);
        self.give(&text, on_text);
        stopped
    }

    fn give(&mut self, text: &str, on_text: &mut OnText<'_>) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        if on_text(self.index, text).is_break() {
            self.reason = Some(Reason::Interrupted);
        }
    }

    /// Ends the sequence. What still waits is shown, unless a stop string cut it off.
    fn end(&mut self, reason: Reason, stops: &[String], on_text: &mut OnText<'_>) -> Result<(), Error> {
        self.reason = Some(reason);
        if reason == Reason::Stop {
            return Ok(());
        }
        let rest = self.stream.as_mut().map(Streamer::finish).transpose()?.unwrap_or_default();
        if self.show(&rest, stops, on_text) {
            self.reason = Some(Reason::Stop);
        } else {
            let held = self.gate.finish();
            self.give(&held, on_text);
        }
        Ok(())
    }

    fn into_generated(mut self) -> (Generated, Cache, Vec<u32>) {
        let tokens = self.tokens.split_off(self.prompt);
        let mut fed = self.tokens;
        fed.extend(&tokens);
        fed.truncate(self.cache.len());
        let reason = self.reason.unwrap_or(Reason::Interrupted);
        (Generated { text: self.text, tokens, reason }, self.cache, fed)
    }
}

impl<'a> Generator<'a> {
    /// Continues every prompt. Results come in the order of the prompts; which sequences run together changes none of them.
    pub fn generate(
        &self,
        prompts: Vec<Vec<u32>>,
        settings: &Settings,
        on_text: &mut OnText<'_>,
    ) -> Result<Vec<Generated>, Error> {
        self.check(&prompts, settings)?;
        let model = self.model;
        let start = |(index, prompt)| {
            Sequence::new(index, prompt, Cache::new(model.spec(), model.compute()), self.tokenizer)
        };
        let all = prompts.into_iter().enumerate().map(start);
        Ok(self.run(all, settings, on_text)?.into_iter().map(|(generated, ..)| generated).collect())
    }

    /// Whether settings and prompts fit the model.
    pub(crate) fn check(&self, prompts: &[Vec<u32>], settings: &Settings) -> Result<(), Error> {
        if !self.model.spec().generates() {
            return Err(Error::NoGenerator);
        }
        settings.sampling.check()?;
        let zero = |key| Error::Setting { key, expected: "a number from 1", got: "0".into() };
        if settings.batch == 0 {
            return Err(zero("batch"));
        }
        if settings.stop.max_tokens == 0 {
            return Err(zero("max_tokens"));
        }
        if settings.stop.strings.iter().any(String::is_empty) {
            return Err(Error::Setting { key: "stop", expected: "a text", got: "an empty one".into() });
        }
        if self.tokenizer.is_none() && !settings.stop.strings.is_empty() {
            return Err(Error::NoTokenizer { what: "a stop string" });
        }
        let (limit, vocab) = (self.model.spec().max_positions, self.model.spec().vocab);
        for (index, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(Error::EmptyPrompt { index });
            }
            if prompt.len() >= limit {
                return Err(Error::PromptTooLong { index, tokens: prompt.len(), limit });
            }
            if let Some(&token) = prompt.iter().find(|&&t| t as usize >= vocab) {
                return Err(Error::UnknownToken { index, token, vocab });
            }
        }
        Ok(())
    }

    /// Runs sequences, at most `batch` at once; gives for each its answer, its cache and the tokens that the cache holds.
    pub(crate) fn run(
        &self,
        mut all: impl ExactSizeIterator<Item = Sequence<'a>>,
        settings: &Settings,
        on_text: &mut OnText<'_>,
    ) -> Result<Vec<(Generated, Cache, Vec<u32>)>, Error> {
        let mut done = (0..all.len()).map(|_| None).collect::<Vec<_>>();
        let mut active: Vec<Sequence<'a>> = Vec::new();
        let mut interrupted = false;
        loop {
            while active.len() < settings.batch
                && let Some(next) = all.next()
            {
                active.push(next);
            }
            if active.is_empty() || interrupted {
                break;
            }
            self.step(&mut active, settings, on_text)?;
            interrupted = active.iter().any(|s| s.reason == Some(Reason::Interrupted));
            let (ended, going) = active.into_iter().partition(|s| s.reason.is_some());
            active = going;
            for sequence in ended {
                let index = sequence.index;
                done[index] = Some(sequence.into_generated());
            }
        }
        for sequence in active.into_iter().chain(all) {
            let index = sequence.index;
            done[index] = Some(sequence.into_generated());
        }
        Ok(done.into_iter().map(|d| d.expect("every sequence ends")).collect())
    }

    /// Feeds what waits, up to a bound, and lets every sequence that has been fed whole choose a token.
    fn step(
        &self,
        active: &mut [Sequence<'a>],
        settings: &Settings,
        on_text: &mut OnText<'_>,
    ) -> Result<(), Error> {
        let mut room = FED_AT_ONCE;
        let mut chosen = Vec::new();
        let mut parts = Vec::new();
        for (i, sequence) in active.iter_mut().enumerate() {
            let take = sequence.waiting().min(room);
            room -= take;
            if take == 0 {
                continue;
            }
            let from = sequence.cache.len();
            chosen.push((i, sequence.index, take == sequence.tokens.len() - from));
            parts.push((&mut sequence.cache, &sequence.tokens[from..from + take]));
        }
        let indices = chosen.iter().map(|c| c.1).collect::<Vec<_>>();
        let adapters = self.among(&indices);
        let hidden = self.model.decode(&mut parts, &adapters);
        if chosen.iter().all(|c| !c.2) {
            return Ok(()); // parts of long prompts only
        }
        let scores = self.scores(&hidden, adapters);
        for (row, (i, _, whole)) in chosen.into_iter().enumerate() {
            if whole {
                let mut row = scores.narrow(row..row + 1).to_f64_vec();
                self.advance(&mut active[i], &mut row, settings, on_text)?;
            }
        }
        Ok(())
    }

    /// Adapters, their segments counted among `indices` (ascending) instead of among all prompts.
    fn among(&self, indices: &[usize]) -> Vec<Applied> {
        let place = |index: usize| indices.partition_point(|&i| i < index);
        let moved = |applied: &Applied| Applied {
            adapter: applied.adapter.clone(),
            segments: applied.segments.as_ref().map(|s| place(s.start)..place(s.end)),
        };
        self.adapters.iter().map(moved).collect()
    }

    /// Scores `[sequences, vocab]` of the sequences' last hidden states.
    fn scores(&self, hidden: &Tensor, adapters: Vec<Applied>) -> Tensor {
        let n = hidden.rows() as u32;
        let context = Context::eval(vec![0; n as usize], Segments::new((0..=n).collect()));
        self.model.logits(hidden, &Run { context: Arc::new(context), adapters, recompute: false })
    }

    fn advance(
        &self,
        sequence: &mut Sequence<'a>,
        scores: &mut [f64],
        settings: &Settings,
        on_text: &mut OnText<'_>,
    ) -> Result<(), Error> {
        let (index, position, stop) = (sequence.index, sequence.tokens.len(), &settings.stop);
        let chosen = settings.sampling.choose(scores, &sequence.tokens, index as u64);
        let token = chosen.ok_or(Error::NotFinite { index, position })?;
        let ends = |t: &Tokenizer| t.stops().contains(&token);
        if stop.ids.contains(&token) || self.tokenizer.is_some_and(ends) {
            return sequence.end(Reason::Eos, &stop.strings, on_text);
        }
        if sequence.take(token, &stop.strings, on_text)? {
            return sequence.end(Reason::Stop, &stop.strings, on_text);
        }
        let is_full = sequence.tokens.len() >= self.model.spec().max_positions;
        if sequence.reason.is_none() && (is_full || position + 1 - sequence.prompt >= stop.max_tokens) {
            return sequence.end(Reason::Length, &stop.strings, on_text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_data::TokenizerFiles;

    /// Byte-level tokens: characters beyond ASCII are several of them.
    #[test]
    fn text_comes_in_whole_characters() {
        let tokenizer = include_bytes!("../../data/golden/bytes.tokenizer.json").to_vec();
        let tokenizer =
            Tokenizer::from_files(TokenizerFiles { tokenizer, ..TokenizerFiles::default() }).unwrap();
        let text = "größe €5 😀 日本";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() > text.chars().count(), "some characters are several tokens");
        let spec = luthier_testkit::laws::shapes().swap_remove(0);
        let cache = Cache::new(&spec, luthier_tensor::DType::F32);
        let mut sequence = Sequence::new(3, vec![1], cache, Some(&tokenizer));
        let mut pieces = Vec::new();
        let mut on_text = |index: usize, piece: &str| {
            pieces.push((index, piece.to_string()));
            ControlFlow::Continue(())
        };
        for &id in &ids {
            assert!(!sequence.take(id, &["never".into()], &mut on_text).unwrap());
        }
        sequence.end(Reason::Length, &["never".into()], &mut on_text).unwrap();
        assert!(pieces.iter().all(|(index, p)| *index == 3 && !p.contains('\u{FFFD}')), "{pieces:?}");
        assert_eq!(pieces.iter().map(|p| p.1.as_str()).collect::<String>(), text);
        assert_eq!(sequence.text, text);
    }
}
