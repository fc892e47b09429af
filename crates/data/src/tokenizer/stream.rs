//! Incremental decoding that never emits half a character.

use super::Tokenizer;
use crate::error::Error;

/// A UTF-8 character has at most four bytes, so at most three tokens can wait for the rest of one.
const WAITING: usize = 3;

/// Decodes ids as they come.
///
/// Text is decoded together with the text emitted before it, since some decoders treat a sequence's start differently;
/// what ends in an incomplete character waits for the next ids.
pub struct Streamer<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids emitted last, which spell whole characters, and the waiting ones.
    ids: Vec<u32>,
    /// How many of `ids` are emitted.
    emitted: usize,
}

impl<'a> Streamer<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), emitted: 0 }
    }

    /// Takes one id; returns the text that is complete with it. None while a character waits for more bytes.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, Error> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return self.finish().map(Some);
        }
        self.ids.push(id);
        let through = self.text(0, self.ids.len())?;
        if !through.ends_with('\u{FFFD}') || self.spells_replacement(id) {
            return self.emit(&through, self.ids.len()).map(Some);
        }
        // More waiting ids than one character can have: the oldest of them are broken bytes and stay so.
        if self.ids.len() - self.emitted > 2 * WAITING {
            let upto = self.ids.len() - WAITING;
            let through = self.text(0, upto)?;
            return self.emit(&through, upto).map(Some);
        }
        Ok(None)
    }

    /// Ends the stream: what still waits, incomplete characters replaced by U+FFFD.
    pub fn finish(&mut self) -> Result<String, Error> {
        if self.ids.len() == self.emitted {
            return Ok(String::new());
        }
        let through = self.text(0, self.ids.len())?;
        self.emit(&through, self.ids.len())
    }

    fn text(&self, from: usize, upto: usize) -> Result<String, Error> {
        self.tokenizer.decode_with(&self.ids[from..upto], self.skip_special)
    }

    /// A token may be the replacement character itself, whole; byte-level vocabularies spell its bytes.
    fn spells_replacement(&self, id: u32) -> bool {
        self.ids.len() == self.emitted + 1
            && self
                .tokenizer
                .token(id)
                .is_some_and(|t| t.ends_with('\u{FFFD}') || t.ends_with("\u{ef}\u{bf}\u{bd}"))
    }

    fn emit(&mut self, through: &str, upto: usize) -> Result<String, Error> {
        let before = self.text(0, self.emitted)?;
        // Broken bytes can spoil the text before them, where a decoder replaces a whole run of bytes.
        let text = match through.strip_prefix(before.as_str()) {
            Some(text) => text.to_owned(),
            None => self.text(self.emitted, upto)?,
        };
        // The context must spell something, or the next text would be taken for the start.
        let context = if text.is_empty() { 0 } else { self.emitted };
        self.ids.drain(..context);
        self.emitted = upto - context;
        Ok(text)
    }
}
