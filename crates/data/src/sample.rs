//! Records to samples: tokens, and which of them are targets.
//!
//! A rendering is cut at the borders of the assistant's answers and each piece is tokenised by itself, so no token
//! straddles prompt and answer, and the tokens of the prompt are exactly those that generation starts from. The pieces
//! are slices of the rendering, so they rejoin to it by construction.
//!
//! An answer is labelled up to its end token. What the template writes behind that (a line break) is never generated,
//! and so not learnt. An answer at the end of the text that has no end token gets one, labelled.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::format::{Message, Record, Role};
use crate::task::{IGNORED, Label, LabelSet, Task};
use crate::template::{Layout, Rendering, Template};
use crate::tokenizer::{Encoded, Tokenizer};

/// Which tokens are targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Every answer of the assistant.
    #[default]
    Assistant,
    /// The last answer only.
    Last,
    /// Every token but the first, which nothing precedes.
    All,
}

/// One sequence to learn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether each token is a target; the first never is. Empty where `label` says what is learnt.
    pub labelled: Vec<bool>,
    /// Token types [tokens]; empty where all are 0.
    pub types: Vec<u32>,
    /// What it is to be answered with.
    pub label: Label,
    /// Index of the file that it comes from, in the order of the report.
    pub file: u32,
    /// Line of its row in that file, from 1.
    pub line: u64,
}

impl Sample {
    /// Tokens, labels or numbers that count in the loss; of a text to be masked, the tokens that can be.
    pub fn targets(&self) -> usize {
        let next = || self.labelled.iter().filter(|&&is_target| is_target).count();
        self.label.targets().unwrap_or_else(next)
    }
}

/// A prompt with the answer that the data gives, to generate and compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Tokens up to where the assistant begins to speak.
    pub prompt_tokens: Vec<u32>,
    /// The answer in the data.
    pub reference: String,
    /// Index of the file that it comes from, in the order of the report.
    pub file: u32,
    /// Line of its row in that file, from 1.
    pub line: u64,
}

/// What one record became.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) samples: Vec<Sample>,
    pub(crate) example: Option<Example>,
    /// Samples that were longer than the limit.
    pub(crate) truncated: u64,
    /// Samples that had no target left.
    pub(crate) dropped: u64,
    /// Tokens before truncation, and those among them that stand for unknown text.
    pub(crate) tokens: u64,
    pub(crate) unknown: u64,
    /// The template rewrites earlier turns.
    pub(crate) is_split: bool,
    /// Answers that got an end token which the template does not write.
    pub(crate) ended: u64,
    /// Answers inside the conversation that no end token follows.
    pub(crate) endless: u64,
    /// Samples that begin with two BOS.
    pub(crate) double_bos: u64,
}

/// Turns records into samples under fixed settings.
pub(crate) struct Maker<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) template: &'a Template,
    pub(crate) loss: Loss,
    pub(crate) max_tokens: usize,
    pub(crate) task: Task,
    pub(crate) labels: &'a LabelSet,
}

/// Tokens of a rendering with their labels.
struct Rendered {
    tokens: Vec<u32>,
    labelled: Vec<bool>,
    /// Tokens before the last answer.
    prompt: usize,
    ended: u64,
    endless: u64,
}

impl Maker<'_> {
    pub(crate) fn make(&self, record: &Record, file: u32, line: u64) -> Result<Made, Error> {
        let mut made = match record {
            Record::Chat { messages, tools } => self.chat(messages, tools.as_ref())?,
            Record::Text(text) if self.task == Task::MaskedLm => self.masked(text)?,
            Record::Text(text) => self.text(text)?,
            Record::Labelled { texts, label } => {
                let label = self.labels.label(label, self.task).map_err(|kind| Error::Label { kind })?;
                let mut made = Made::default();
                let encoded = self.tokenizer.encode_texts(texts, self.max_tokens)?;
                self.answered(encoded, label, &mut made);
                made
            }
            Record::Tagged { words, tags } => self.tagged(words, tags)?,
        };
        for sample in &mut made.samples {
            (sample.file, sample.line) = (file, line);
        }
        if let Some(example) = &mut made.example {
            (example.file, example.line) = (file, line);
        }
        Ok(made)
    }

    fn chat(&self, messages: &[Message], tools: Option<&Value>) -> Result<Made, Error> {
        let mut made = Made::default();
        let layout = match self.template.layout(messages, tools) {
            // Without the spans there is still the text.
            Err(Error::TemplateSpans { .. }) if self.loss == Loss::All => {
                Layout::Whole(Rendering { text: self.template.render(messages, tools)?, answers: Vec::new() })
            }
            other => other?,
        };
        let renderings = match layout {
            Layout::Whole(rendering) => vec![rendering],
            Layout::Split(list) => {
                made.is_split = true;
                let skip = if self.loss == Loss::Assistant { 0 } else { list.len().saturating_sub(1) };
                list.into_iter().skip(skip).collect()
            }
        };
        for rendering in &renderings {
            let encoded = self.encode(rendering, messages)?;
            made.ended += encoded.ended;
            made.endless += encoded.endless;
            if let Some((_, turn)) = rendering.answers.last() {
                made.example = Some(Example {
                    prompt_tokens: encoded.tokens[..encoded.prompt].to_vec(),
                    reference: messages[*turn].content.clone(),
                    file: 0,
                    line: 0,
                });
            }
            self.finish(encoded.tokens, encoded.labelled, &mut made);
        }
        Ok(made)
    }

    fn encode(&self, rendering: &Rendering, messages: &[Message]) -> Result<Rendered, Error> {
        let last = rendering.answers.len().saturating_sub(1);
        let mut pieces = Pieces::new(self.tokenizer, self.template);
        let mut encoded =
            Rendered { tokens: Vec::new(), labelled: Vec::new(), prompt: 0, ended: 0, endless: 0 };
        let mut labelled: Vec<bool> = Vec::new();
        let mut at = 0;
        let text = &rendering.text;
        for (index, (range, turn)) in rendering.answers.iter().enumerate() {
            pieces.push(&text[at..range.start])?;
            at = range.end;
            let start = pieces.tokens.len();
            encoded.prompt = start;
            pieces.push(&text[range.clone()])?;
            labelled.resize(start, false);
            let answer = &pieces.tokens[start..];
            let stop = answer.iter().rposition(|id| self.tokenizer.stops().contains(id));
            let is_learnt = messages[*turn].is_learnt && (self.loss != Loss::Last || index == last);
            labelled.resize(start + stop.map_or(answer.len(), |stop| stop + 1), is_learnt);
            if stop.is_none() {
                match self.tokenizer.special().eos {
                    Some(eos) if range.end == text.len() => {
                        pieces.tokens.push(eos);
                        labelled.push(is_learnt);
                        encoded.ended += 1;
                    }
                    _ => encoded.endless += 1,
                }
            }
        }
        pieces.push(&text[at..])?;
        labelled.resize(pieces.tokens.len(), false);
        encoded.tokens = pieces.tokens;
        if self.loss == Loss::All {
            labelled.fill(true);
        }
        encoded.labelled = labelled;
        Ok(encoded)
    }

    /// A document: every token is a target, a long one becomes several samples. Neighbours share one token, so that
    /// each token but the first is predicted exactly once.
    fn text(&self, text: &str) -> Result<Made, Error> {
        let mut made = Made::default();
        let mut tokens = self.tokenizer.start();
        tokens.extend(self.tokenizer.encode(text)?);
        tokens.extend(self.tokenizer.special().eos);
        self.count(&tokens, &mut made);
        let mut start = 0;
        while start + 1 < tokens.len() {
            let end = (start + self.max_tokens).min(tokens.len());
            self.push(tokens[start..end].to_vec(), vec![true; end - start], &mut made);
            start = end - 1;
        }
        Ok(made)
    }

    fn answered(&self, encoded: Encoded, label: Label, made: &mut Made) {
        let (_, unknown) = self.counts(&encoded.tokens);
        (made.tokens, made.unknown) = (encoded.whole as u64, unknown);
        made.truncated = u64::from(encoded.is_cut);
        let sample = Sample { tokens: encoded.tokens, types: encoded.types, label, ..Sample::default() };
        if sample.targets() == 0 {
            made.dropped += 1;
        } else {
            made.samples.push(sample);
        }
    }

    /// Words with tags: the first token of a word carries its tag (Devlin 2019, section 5.3).
    fn tagged(&self, words: &[String], tags: &[String]) -> Result<Made, Error> {
        let tags = self.labels.tags(tags).map_err(|kind| Error::Label { kind })?;
        let encoded = self.tokenizer.encode_words(words, self.max_tokens)?;
        let tag = |word: &Option<u32>| word.and_then(|w| tags.get(w as usize).copied()).unwrap_or(IGNORED);
        let label = Label::Tokens(encoded.words.iter().map(tag).collect());
        let mut made = Made::default();
        self.answered(encoded, label, &mut made);
        Ok(made)
    }

    /// A document of which tokens will be hidden: a long one becomes several samples, each with the special tokens
    /// around it, which are never hidden.
    fn masked(&self, text: &str) -> Result<Made, Error> {
        let mut made = Made::default();
        let (before, after) = self.tokenizer.around()?;
        let tokens = self.tokenizer.encode(text)?;
        self.count(&tokens, &mut made);
        let room = self.max_tokens.saturating_sub(before.len() + after.len()).max(1);
        for piece in tokens.chunks(room) {
            let tokens = [&before, piece, &after].concat();
            let hidable = |&id: &u32| if self.tokenizer.is_special(id) { IGNORED } else { id };
            let label = Label::Tokens(tokens.iter().map(hidable).collect());
            let sample = Sample { tokens, label, ..Sample::default() };
            if sample.targets() == 0 {
                made.dropped += 1;
            } else {
                made.samples.push(sample);
            }
        }
        Ok(made)
    }

    /// Tokens, and those among them that stand for unknown text.
    pub(crate) fn counts(&self, tokens: &[u32]) -> (u64, u64) {
        let unknown = tokens.iter().filter(|&&id| self.tokenizer.is_unknown(id)).count();
        (tokens.len() as u64, unknown as u64)
    }

    fn count(&self, tokens: &[u32], made: &mut Made) {
        let (all, unknown) = self.counts(tokens);
        made.tokens += all;
        made.unknown += unknown;
        let bos = self.tokenizer.special().bos;
        // Where one token is both, a template may well write it twice at a start.
        if bos.is_some() && bos != self.tokenizer.special().eos {
            made.double_bos +=
                u64::from(tokens.len() > 1 && Some(tokens[0]) == bos && Some(tokens[1]) == bos);
        }
    }

    fn finish(&self, mut tokens: Vec<u32>, mut labelled: Vec<bool>, made: &mut Made) {
        self.count(&tokens, made);
        if tokens.len() > self.max_tokens {
            tokens.truncate(self.max_tokens);
            labelled.truncate(self.max_tokens);
            made.truncated += 1;
        }
        self.push(tokens, labelled, made);
    }

    #[allow(clippy::unused_self, reason = "one of a family")]
    fn push(&self, tokens: Vec<u32>, mut labelled: Vec<bool>, made: &mut Made) {
        if let Some(first) = labelled.first_mut() {
            *first = false;
        }
        let sample = Sample { tokens, labelled, ..Sample::default() };
        if sample.targets() == 0 {
            made.dropped += 1;
        } else {
            made.samples.push(sample);
        }
    }
}

/// Tokenises a text piece by piece.
struct Pieces<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    is_started: bool,
}

impl<'a> Pieces<'a> {
    fn new(tokenizer: &'a Tokenizer, template: &Template) -> Self {
        let tokens = if template.owns_bos() { Vec::new() } else { tokenizer.start() };
        Self { tokenizer, tokens, is_started: false }
    }

    fn push(&mut self, piece: &str) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        let ids = if self.is_started {
            self.tokenizer.encode_continuation(piece)?
        } else {
            self.tokenizer.encode(piece)?
        };
        self.is_started = true;
        self.tokens.extend(ids);
        Ok(())
    }
}

/// Tokens from which the assistant goes on, cut as training cuts them. `tools` is what the template sees as tools.
pub fn prompt_tokens(
    tokenizer: &Tokenizer,
    template: &Template,
    messages: &[Message],
    tools: Option<&Value>,
) -> Result<Vec<u32>, Error> {
    let text = template.render_prompt(messages, tools)?;
    let mut pieces = Pieces::new(tokenizer, template);
    let mut at = 0;
    if messages.iter().any(|m| m.role == Role::Assistant)
        && let Ok(Layout::Whole(rendering)) = template.layout(messages, tools)
    {
        for (range, _) in rendering.answers {
            if text.get(..range.end) == rendering.text.get(..range.end) {
                pieces.push(&text[at..range.start])?;
                pieces.push(&text[range.clone()])?;
                at = range.end;
            }
        }
    }
    pieces.push(&text[at..])?;
    Ok(pieces.tokens)
}

#[cfg(test)]
mod tests;
