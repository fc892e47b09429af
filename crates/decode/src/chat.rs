//! A conversation through the model's template.
use crate::error::Error;
use crate::generate::{Generated, Generator, OnText, Reason, Sequence, Settings};
use luthier_data::{Message, Role, Template, prompt_tokens};
use luthier_models::Cache;

/// A conversation, and the cache of the tokens that the model has seen of it.
///
/// The whole conversation is rendered for every turn, since a template may rewrite earlier turns; the cache is rolled
/// back to the first token that differs, and only what follows is fed.
pub struct Chat<'a> {
    generator: Generator<'a>,
    template: Template,
    messages: Vec<Message>,
    cache: Cache,
    /// Tokens in the cache.
    cached: Vec<u32>,
}

impl<'a> Chat<'a> {
    /// A new conversation; `system` comes first if given.
    pub fn new(generator: Generator<'a>, template: Template, system: Option<&str>) -> Result<Self, Error> {
        if generator.tokenizer.is_none() {
            return Err(Error::NoTokenizer { what: "a conversation" });
        }
        let cache = Cache::new(generator.model.spec(), generator.model.compute());
        let messages = system.map(|text| Message::new(Role::System, text)).into_iter().collect();
        Ok(Self { generator, template, messages, cache, cached: Vec::new() })
    }

    /// The conversation so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Forgets everything but the system message.
    pub fn reset(&mut self) {
        self.messages.retain(|m| m.role == Role::System);
    }

    /// Tokens that the next turn with this text would feed to the model, and those of them that the cache holds.
    pub fn tokens(&self, text: &str) -> Result<(usize, usize), Error> {
        let mut messages = self.messages.clone();
        messages.push(Message::new(Role::User, text));
        let prompt = self.prompt(&messages)?;
        Ok((prompt.len(), self.shared(&prompt)))
    }

    /// The user says `text`; the model answers. What fails leaves the conversation as it was.
    pub fn say(
        &mut self,
        text: &str,
        settings: &Settings,
        on_text: &mut dyn FnMut(&str) -> std::ops::ControlFlow<()>,
    ) -> Result<Generated, Error> {
        let mut messages = self.messages.clone();
        messages.push(Message::new(Role::User, text));
        let mut prompts = [self.prompt(&messages)?];
        self.generator.check(&prompts, settings)?;
        let prompt = std::mem::take(&mut prompts[0]);
        let keep = self.shared(&prompt);
        let empty = Cache::new(self.generator.model.spec(), self.generator.model.compute());
        let mut cache = std::mem::replace(&mut self.cache, empty);
        self.cached.clear();
        cache.truncate(keep);
        let sequence = Sequence::new(0, prompt, cache, self.generator.tokenizer);
        let give: &mut OnText<'_> = &mut |_, text| on_text(text);
        let mut results = self.generator.run([sequence].into_iter(), settings, give)?;
        let (answer, cache, cached) = results.pop().expect("one result for one sequence");
        (self.cache, self.cached) = (cache, cached);
        if answer.reason != Reason::Interrupted || !answer.text.is_empty() {
            messages.push(Message::new(Role::Assistant, answer.text.clone()));
            self.messages = messages;
        }
        Ok(answer)
    }

    fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, Error> {
        let tokenizer = self.generator.tokenizer.expect("checked when the conversation began");
        Ok(prompt_tokens(tokenizer, &self.template, messages, None)?)
    }

    /// Tokens at the start of `prompt` that the cache holds; the last one is always fed, for its scores.
    fn shared(&self, prompt: &[u32]) -> usize {
        let same = prompt.iter().zip(&self.cached).take_while(|(a, b)| a == b).count();
        same.min(prompt.len().saturating_sub(1))
    }
}
