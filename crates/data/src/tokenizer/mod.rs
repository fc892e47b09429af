//! Text to token ids and back, over the `tokenizers` crate: loading is guarded, special tokens are ours to place.
//!
//! Nothing here adds a special token by itself. The chat template renders them, or the caller asks for
//! [`Tokenizer::start`]; so a BOS is never doubled.

mod gguf;
mod load;
mod parts;
mod stream;
mod texts;
mod to_gguf;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Error;

pub use gguf::GgufTokenizer;
pub(crate) use load::TEMPLATE_LIMIT;
pub use load::TokenizerFiles;
pub use stream::Streamer;
pub(crate) use texts::Encoded;

/// Longest text that is turned into tokens at once: a whole book series.
const TEXT_LIMIT: usize = 1 << 30;

/// Ids of the special tokens that the model names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Fills batches of other programs; batches here have no padding.
    pub pad: Option<u32>,
    /// Stands for what the vocabulary does not have.
    pub unk: Option<u32>,
    /// Hides a token that is to be guessed.
    pub mask: Option<u32>,
}

/// A model's tokenizer with its special tokens and chat template.
pub struct Tokenizer {
    /// As the model's own file says, without truncation, padding and dropout.
    main: tokenizers::Tokenizer,
    /// The same without a space put before the text, for text that continues other text; absent where there is none.
    continuation: Option<tokenizers::Tokenizer>,
    special: SpecialIds,
    /// Ids that end generation, `eos` first.
    stops: Vec<u32>,
    adds_bos: bool,
    drops_unknown: bool,
    /// Byte-level, and puts no space before a text: a word by itself would be the middle of one.
    spaces_words: bool,
    template: Option<String>,
    vocab: usize,
    /// Content of each special token and its id, longest first.
    specials: Vec<(String, u32)>,
    files: Vec<(String, Vec<u8>)>,
}

impl Tokenizer {
    /// Ids of a whole text. Special tokens that the text spells out become their ids; none is added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        encode_with(&self.main, text)
    }

    /// Ids of a text that continues another one: no space is put before it, as SentencePiece models do at a start.
    pub fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, Error> {
        let Some(continuation) = &self.continuation else { return self.encode(text) };
        // What follows a special token is a start again for these tokenizers.
        let head = self.specials.iter().filter_map(|(content, _)| text.find(content.as_str())).min();
        let (head, rest) = text.split_at(head.unwrap_or(text.len()));
        let mut ids = encode_with(continuation, head)?;
        if !rest.is_empty() {
            ids.extend(encode_with(&self.main, rest)?);
        }
        Ok(ids)
    }

    /// Text of the ids, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, true)
    }

    /// Text of the ids, special tokens spelt out.
    pub fn decode_raw(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, false)
    }

    fn decode_with(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        guarded("decode", || self.main.decode(ids, skip_special))
    }

    /// The ids with which a plain text begins: BOS, if this tokenizer puts one.
    pub fn start(&self) -> Vec<u32> {
        self.special.bos.filter(|_| self.adds_bos).into_iter().collect()
    }

    /// Decodes a stream of ids; special tokens are left out.
    pub fn stream(&self) -> Streamer<'_> {
        Streamer::new(self, true)
    }

    /// Runs of ids with the whole characters that they spell: a character of several byte tokens is one run.
    pub fn whole_characters(&self, ids: &[u32]) -> Result<Vec<(Range<usize>, String)>, Error> {
        let mut stream = Streamer::new(self, false);
        let mut runs = Vec::new();
        let mut start = 0;
        for (index, &id) in ids.iter().enumerate() {
            if let Some(text) = stream.push(id)? {
                runs.push((start..index + 1, text));
                start = index + 1;
            }
        }
        let rest = stream.finish()?;
        if start < ids.len() {
            runs.push((start..ids.len(), rest));
        }
        Ok(runs)
    }

    /// The special ids.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// Ids that end an answer: EOS and the further ones of the model's generation settings.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// Whether a plain text begins with BOS.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// The model's chat template, if it has one.
    pub fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// One more than the largest id; the embedding has at least as many rows.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The id of a token by its exact spelling in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.main.token_to_id(token)
    }

    /// A token's spelling in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.main.id_to_token(id)
    }

    /// Whether an id is one of the special tokens.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.iter().any(|&(_, special)| special == id)
    }

    /// The first special token that a text spells out, if any.
    pub fn spelt_special(&self, text: &str) -> Option<&str> {
        self.specials.iter().map(|(content, _)| content.as_str()).find(|content| text.contains(content))
    }

    /// The files that a Hugging Face folder needs for this tokenizer: name and content.
    pub fn files(&self) -> &[(String, Vec<u8>)] {
        &self.files
    }

    /// Characters of a text that leave no trace in its ids; only for tokenizers that drop what they do not know.
    /// `seen` remembers characters between calls.
    pub(crate) fn dropped_characters(&self, text: &str, seen: &mut BTreeMap<char, bool>) -> u64 {
        if !self.drops_unknown {
            return 0;
        }
        let mut dropped = 0;
        for c in text.chars() {
            let is_dropped = *seen.entry(c).or_insert_with(|| {
                let mut buffer = [0; 4];
                self.encode(c.encode_utf8(&mut buffer)).is_ok_and(|ids| ids.is_empty()) && !c.is_whitespace()
            });
            dropped += u64::from(is_dropped);
        }
        dropped
    }

    /// Whether an id counts as unknown text. A model that gives UNK the id of another special token has none.
    pub(crate) fn is_unknown(&self, id: u32) -> bool {
        self.special.unk == Some(id) && self.special.bos != Some(id) && !self.stops.contains(&id)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab", &self.vocab)
            .field("special", &self.special)
            .field("stops", &self.stops)
            .field("adds_bos", &self.adds_bos)
            .finish_non_exhaustive()
    }
}

fn encode_with(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    if text.len() > TEXT_LIMIT {
        let what = format!("{} bytes, limit {TEXT_LIMIT}", text.len());
        return Err(Error::Tokenize { action: "encode", what });
    }
    guarded("encode", || tokenizer.encode_fast(text, false)).map(|encoding| encoding.get_ids().to_vec())
}

/// Runs the library; a panic of its code becomes an error, since the vocabulary that led to it is a user's file.
fn guarded<T>(action: &'static str, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(Error::Tokenize { action, what: e.to_string() }),
        Err(_) => Err(Error::Tokenize { action, what: "the tokenizer's files are inconsistent".to_owned() }),
    }
}

#[cfg(test)]
mod tests;
