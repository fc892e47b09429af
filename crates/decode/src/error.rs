//! What can go wrong.

/// Why nothing, or nothing more, is generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting out of its range.
    #[error("`{key}` is {got}: expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// A model that scores no next token: an encoder, or one with a task's head.
    #[error("the model generates no text: it is no causal language model")]
    NoGenerator,
    /// A prompt without tokens.
    #[error("prompt {index} is empty: expected at least one token")]
    EmptyPrompt {
        /// Its place among the prompts.
        index: usize,
    },
    /// A prompt that leaves no room for an answer.
    #[error(
        "prompt {index} has {tokens} tokens: the model has {limit} positions, one of them for the answer"
    )]
    PromptTooLong {
        /// Its place among the prompts.
        index: usize,
        /// Its tokens.
        tokens: usize,
        /// The model's positions.
        limit: usize,
    },
    /// A token that the model does not have.
    #[error("prompt {index} has token {token}: the model's vocabulary has {vocab}")]
    UnknownToken {
        /// The prompt's place among the prompts.
        index: usize,
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// Something that needs text, asked of a generator without a tokenizer.
    #[error("{what} needs the model's tokenizer, and the base has none")]
    NoTokenizer {
        /// What needs it.
        what: &'static str,
    },
    /// The model gave something that is no number.
    #[error("the model's scores after token {position} of prompt {index} are not finite")]
    NotFinite {
        /// The prompt's place among the prompts.
        index: usize,
        /// Tokens before the scores.
        position: usize,
    },
    /// From the tokenizer or the template.
    #[error(transparent)]
    Data(#[from] luthier_data::Error),
}

impl Error {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "decode-setting",
            Self::NoGenerator => "decode-no-generator",
            Self::EmptyPrompt { .. } => "decode-empty-prompt",
            Self::PromptTooLong { .. } => "decode-prompt-too-long",
            Self::UnknownToken { .. } => "decode-unknown-token",
            Self::NoTokenizer { .. } => "decode-no-tokenizer",
            Self::NotFinite { .. } => "decode-not-finite",
            Self::Data(e) => e.code(),
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Setting { .. } => None,
            Self::NoGenerator => Some("`luthier eval` measures classifiers and encoders".into()),
            Self::EmptyPrompt { .. } => Some("give a text, or a chat template that begins one".into()),
            Self::PromptTooLong { .. } => Some("shorten the prompt, or start a new conversation".into()),
            Self::UnknownToken { .. } => Some("does the tokenizer belong to this model?".into()),
            Self::NoTokenizer { .. } => Some("put tokenizer.json into the base's folder".into()),
            Self::NotFinite { .. } => {
                Some("the weights or the adapter hold values that overflow; try compute = \"f32\"".into())
            }
            Self::Data(e) => e.help(),
        }
    }
}
