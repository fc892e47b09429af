//! Chat templates: a conversation to text, and where in that text the assistant speaks.
//!
//! The spans come from rendering prefixes. With `R(m, g)` the rendering of messages `m` with (`g = 1`) or without the
//! generation prompt, the answer of message `i` starts where `R(m[..i], 1)` ends and ends where `R(m[..=i], 0)` ends,
//! provided that each is a prefix of the full rendering. A template that marks its turns with `{% generation %}` says
//! itself. A template that renders earlier turns differently once later ones follow (it drops their thinking, say) has no
//! such full rendering: each assistant turn becomes a sample of its own, rendered as it is when it is the last.

mod builtin;
mod engine;

use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::format::{Message, Role};
use crate::tokenizer::Tokenizer;
use engine::Engine;
pub(crate) use engine::{SPAN_END, SPAN_START};

/// What the plain template's headings begin with, as in Alpaca's prompts.
const MARK: &str = "### ";

/// Where a template comes from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TemplateSource {
    /// The model's files.
    Model,
    /// The run's settings.
    Given,
    /// Built in: `<|im_start|>role`, used where the vocabulary has the ChatML tokens and the model has no template.
    Chatml,
    /// Built in: `### Instruction:` and `### Response:`, for models that know no chat at all.
    Plain,
    /// None: prompt and completion are joined as they stand.
    None,
}

impl TemplateSource {
    /// A name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Model => "the model's own",
            Self::Given => "the run's own",
            Self::Chatml => "built-in chatml",
            Self::Plain => "built-in plain",
            Self::None => "none",
        }
    }
}

/// A compiled template with the names that it sees.
#[derive(Debug)]
pub struct Template {
    engine: Option<Engine>,
    source: TemplateSource,
    globals: Map<String, Value>,
}

/// A conversation as text, with the assistant's answers in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendering {
    /// The whole text.
    pub text: String,
    /// Byte ranges of the answers, ascending, each with its message's index.
    pub answers: Vec<(Range<usize>, usize)>,
}

/// How a conversation becomes samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One rendering holds every turn.
    Whole(Rendering),
    /// The template rewrites earlier turns: one rendering for each assistant turn, with that one answer marked.
    Split(Vec<Rendering>),
}

impl Template {
    /// The model's template, or else a built-in one: ChatML if the vocabulary has its tokens, else the plain one.
    pub fn of_model(tokenizer: &Tokenizer) -> Result<Self, Error> {
        if let Some(source) = tokenizer.template() {
            return Self::compile(source, TemplateSource::Model, tokenizer);
        }
        if ["<|im_start|>", "<|im_end|>"].iter().all(|token| tokenizer.id(token).is_some()) {
            return Self::chatml(tokenizer);
        }
        Self::plain(tokenizer)
    }

    /// A template from the run's settings.
    pub fn given(source: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        Self::compile(source, TemplateSource::Given, tokenizer)
    }

    /// The built-in ChatML template.
    pub fn chatml(tokenizer: &Tokenizer) -> Result<Self, Error> {
        Self::compile(builtin::CHATML, TemplateSource::Chatml, tokenizer)
    }

    /// The built-in template of headings.
    pub fn plain(tokenizer: &Tokenizer) -> Result<Self, Error> {
        Self::compile(builtin::PLAIN, TemplateSource::Plain, tokenizer)
    }

    /// No template: the contents, one after the other.
    pub fn none() -> Self {
        Self { engine: None, source: TemplateSource::None, globals: Map::new() }
    }

    fn compile(source: &str, origin: TemplateSource, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let special = tokenizer.special();
        let mut globals = Map::new();
        for (name, id) in [
            ("bos_token", special.bos),
            ("eos_token", special.eos),
            ("pad_token", special.pad),
            ("unk_token", special.unk),
        ] {
            let Some((id, token)) = id.and_then(|id| Some((id, tokenizer.token(id)?))) else { continue };
            // A name that does not become its id again is plain text; the built-in templates must not print it.
            let is_spelt = tokenizer.encode(&token).is_ok_and(|ids| ids == [id]);
            if is_spelt || matches!(origin, TemplateSource::Model | TemplateSource::Given) {
                globals.insert(name.to_owned(), Value::String(token));
            }
        }
        // Small vocabularies may not have the sign.
        if origin == TemplateSource::Plain {
            let is_known = tokenizer.encode(MARK)?.iter().all(|&id| !tokenizer.is_unknown(id));
            globals.insert("mark".to_owned(), json!(if is_known { MARK } else { "" }));
        }
        Ok(Self { engine: Some(Engine::new(source)?), source: origin, globals })
    }

    /// Where the template comes from.
    pub fn source(&self) -> &TemplateSource {
        &self.source
    }

    /// Whether BOS is the template's business. The built-in ones leave it to the tokenizer, as plain text does.
    pub fn owns_bos(&self) -> bool {
        matches!(self.source, TemplateSource::Model | TemplateSource::Given)
    }

    /// The conversation as text, without the generation prompt.
    pub fn render(&self, messages: &[Message], tools: Option<&Value>) -> Result<String, Error> {
        Ok(engine::unmarked(self.marked(messages, tools, false)?).0)
    }

    /// The conversation as text that ends where the assistant begins to speak.
    pub fn render_prompt(&self, messages: &[Message], tools: Option<&Value>) -> Result<String, Error> {
        Ok(engine::unmarked(self.marked(messages, tools, true)?).0)
    }

    fn marked(&self, messages: &[Message], tools: Option<&Value>, prompts: bool) -> Result<String, Error> {
        let Some(engine) = &self.engine else {
            return Ok(messages.iter().map(|m| m.content.as_str()).collect());
        };
        let mut context = self.globals.clone();
        context.insert("messages".to_owned(), messages.iter().map(to_value).collect());
        context.insert("add_generation_prompt".to_owned(), json!(prompts));
        if let Some(tools) = tools {
            context.insert("tools".to_owned(), tools.clone());
        }
        engine.render(&context)
    }

    /// Finds the assistant's turns.
    pub fn layout(&self, messages: &[Message], tools: Option<&Value>) -> Result<Layout, Error> {
        let (text, spans) = engine::unmarked(self.marked(messages, tools, false)?);
        let turns: Vec<usize> =
            messages.iter().enumerate().filter(|(_, m)| m.role == Role::Assistant).map(|(i, _)| i).collect();
        if !spans.is_empty() && spans.len() == turns.len() {
            return Ok(Layout::Whole(Rendering { text, answers: spans.into_iter().zip(turns).collect() }));
        }
        let mut answers = Vec::with_capacity(turns.len());
        let mut alone = Vec::with_capacity(turns.len());
        let mut is_whole = true;
        let mut end = 0;
        for &turn in &turns {
            let through = if turn + 1 == messages.len() {
                text.clone()
            } else {
                self.render(&messages[..=turn], tools)?
            };
            let start = self.answer_start(messages, turn, tools, &through)?;
            is_whole &= text.starts_with(&through) && start >= end;
            end = through.len();
            answers.push((start..end, turn));
            alone.push(Rendering { answers: vec![(start..end, turn)], text: through });
        }
        if is_whole { Ok(Layout::Whole(Rendering { text, answers })) } else { Ok(Layout::Split(alone)) }
    }

    /// The byte at which message `turn` begins to speak in `through`, the rendering that ends with it.
    fn answer_start(
        &self,
        messages: &[Message],
        turn: usize,
        tools: Option<&Value>,
        through: &str,
    ) -> Result<usize, Error> {
        let refuse = |why| Error::TemplateSpans { name: self.source.name().to_owned(), turn, why };
        if turn == 0 {
            // Many templates cannot render an empty conversation.
            return Err(refuse("the conversation starts with the assistant"));
        }
        let before = self.render_prompt(&messages[..turn], tools)?;
        if through.starts_with(&before) {
            return Ok(before.len());
        }
        // The generation prompt says more than the header of a turn that is already there (an opened thinking tag):
        // the header is what stands between the turns before and the content, and must open the generation prompt.
        let plain = self.render(&messages[..turn], tools)?;
        let content = messages[turn].content.trim();
        let tail = through.strip_prefix(plain.as_str()).filter(|_| !content.is_empty());
        let header = tail.and_then(|tail| tail.find(content).map(|at| &tail[..at]));
        match header {
            Some(header)
                if !header.is_empty() && before[plain.len().min(before.len())..].starts_with(header) =>
            {
                Ok(plain.len() + header.len())
            }
            _ => Err(refuse("the rendering up to it does not begin the rendering with it")),
        }
    }
}

fn to_value(message: &Message) -> Value {
    let mut value = Map::new();
    value.insert("role".to_owned(), json!(message.role.name()));
    value.insert("content".to_owned(), json!(message.content));
    value.extend(message.extra.clone());
    Value::Object(value)
}

#[cfg(test)]
mod tests;
