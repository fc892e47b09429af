//! Texts and words as encoders read them: with the special tokens that the model's own post-processor puts around them.
//!
//! ```text
//! BERT     [CLS] a [SEP]    [CLS] a [SEP] b [SEP], token types 0 for the first text and 1 for the second
//! RoBERTa  <s> a </s>       <s> a </s></s> b </s>
//! ```

use tokenizers::tokenizer::PostProcessor;
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{EncodeInput, Encoding, InputSequence};

use super::{TEXT_LIMIT, Tokenizer, guarded};
use crate::error::Error;

/// One or two texts, or words, with special tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// Token ids [n].
    pub(crate) tokens: Vec<u32>,
    /// Token types [n]; empty where all are 0.
    pub(crate) types: Vec<u32>,
    /// Index of the word that each token begins; none for special tokens and for what continues a word [n].
    pub(crate) words: Vec<Option<u32>>,
    /// Whether tokens were cut.
    pub(crate) is_cut: bool,
    /// Tokens before the cut.
    pub(crate) whole: usize,
}

impl Tokenizer {
    /// One or two texts in at most `most` tokens; the longer one is cut first, at its end.
    pub(crate) fn encode_texts(&self, texts: &[String], most: usize) -> Result<Encoded, Error> {
        let encode = |text: &String| {
            let limit = format!("{} bytes, limit {TEXT_LIMIT}", text.len());
            if text.len() > TEXT_LIMIT {
                return Err(Error::Tokenize { action: "encode", what: limit });
            }
            guarded("encode", || self.main.encode_fast(text.as_str(), false))
        };
        let first = texts.first().map(encode).transpose()?.unwrap_or_default();
        let second = texts.get(1).map(encode).transpose()?;
        self.surround(first, second, most)
    }

    /// Words in at most `most` tokens.
    pub(crate) fn encode_words(&self, words: &[String], most: usize) -> Result<Encoded, Error> {
        // A byte-level tokenizer tells a word from the middle of one by the space before it.
        let spaced = words.iter().map(|w| if self.spaces_words { format!(" {w}") } else { w.clone() });
        let input: EncodeInput<'_> = InputSequence::from(spaced.collect::<Vec<String>>()).into();
        let encoding = guarded("encode", || self.main.encode(input, false))?; // the fast way keeps no words
        self.surround(encoding, None, most)
    }

    fn surround(&self, first: Encoding, second: Option<Encoding>, most: usize) -> Result<Encoded, Error> {
        let added = self.main.get_post_processor().map_or(0, |p| p.added_tokens(second.is_some()));
        // A tokenizer that puts nothing around a pair may still begin a text by BOS.
        let start = if added == 0 { self.start() } else { Vec::new() };
        let room = most.saturating_sub(added + start.len());
        let length = first.len() + second.as_ref().map_or(0, Encoding::len);
        let (first, second) = if length > room {
            let params = TruncationParams {
                direction: TruncationDirection::Right,
                max_length: room,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
            };
            guarded("encode", || truncate_encodings(first, second, &params))?
        } else {
            (first, second)
        };
        let second = second.map(|mut second| {
            second.set_type_ids(vec![1; second.len()]);
            second
        });
        let whole = guarded("encode", || self.main.post_process(first, second, true))?;
        let tokens = [start.as_slice(), whole.get_ids()].concat();
        let mut types = vec![0; start.len()];
        types.extend(whole.get_type_ids());
        if types.iter().all(|&t| t == 0) {
            types.clear();
        }
        let mut words = vec![None; start.len()];
        let mut last = None;
        for word in whole.get_word_ids() {
            words.push(word.filter(|_| *word != last));
            last = word.or(last);
        }
        let whole = length + added + start.len();
        Ok(Encoded { is_cut: tokens.len() < whole, tokens, types, words, whole })
    }

    /// What stands before and after a single text.
    pub(crate) fn around(&self) -> Result<(Vec<u32>, Vec<u32>), Error> {
        let encoding = guarded("encode", || self.main.encode_fast("a", true))?;
        let (ids, special) = (encoding.get_ids(), encoding.get_special_tokens_mask());
        let before = special.iter().take_while(|&&s| s == 1).count();
        let after = special.iter().rev().take_while(|&&s| s == 1).count();
        if before == ids.len() {
            return Ok((self.start(), Vec::new()));
        }
        Ok((ids[..before].to_vec(), ids[ids.len() - after..].to_vec()))
    }
}

#[cfg(test)]
#[path = "texts_tests.rs"]
mod tests;
