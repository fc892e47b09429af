//! What is above the blocks: a head, in the order of its forward run.
//!
//! `out(dropout(norm(act(dense(dropout(h))))))`, each part where the family has it, on the rows that the head reads.
use crate::config::Config;
use crate::error::Error;
use luthier_kernels::activation::Activation;

/// What the model is for; chosen when the base is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The next token, at every token.
    Lm,
    /// The token itself where it is masked: encoders.
    MaskedLm,
    /// A class (or one number, with one label) of the whole segment.
    Classifier {
        /// Scores a segment.
        labels: usize,
    },
    /// A class of each token.
    TokenClassifier {
        /// Scores a token.
        labels: usize,
    },
}

impl Head {
    /// Scores of a row that are not the vocabulary's.
    pub const fn labels(self) -> Option<usize> {
        match self {
            Self::Lm | Self::MaskedLm => None,
            Self::Classifier { labels } | Self::TokenClassifier { labels } => Some(labels),
        }
    }

    /// As written in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lm => "a language-model head",
            Self::MaskedLm => "a masked language-model head",
            Self::Classifier { .. } => "a classifier",
            Self::TokenClassifier { .. } => "a token classifier",
        }
    }
}

/// A head's modules.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// What it is for.
    pub kind: Head,
    /// Which row of a segment a classifier reads.
    pub takes: Takes,
    /// The dense layer before the last.
    pub dense: Option<Dense>,
    /// Module of the norm behind it.
    pub norm: Option<&'static str>,
    /// Module of the last linear.
    pub out: &'static str,
    /// Name of its bias.
    pub bias: Option<&'static str>,
    /// Dropout before the dense layer, and before the last.
    pub dropout: [f64; 2],
    /// Deviation of the normal numbers at which a matrix starts that the base has not: `initializer_range`.
    pub std: f64,
    /// Seed of those numbers, which are keyed by the tensor's name too.
    pub seed: u64,
    /// Names of the head's tensors that the opened base has not.
    pub missing: Vec<String>,
}

/// Which row of a segment a classifier reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// The first: `[CLS]`, `<s>`.
    First,
    /// The last: what a causal model has read all of.
    Last,
}

/// A dense layer with an activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Its module.
    pub module: &'static str,
    /// Its activation.
    pub activation: Activation,
    /// Whether it is pretrained with the base: BERT's pooler.
    pub of_base: bool,
}

impl HeadSpec {
    /// One linear without dropout.
    pub const fn plain(kind: Head, takes: Takes, out: &'static str, bias: Option<&'static str>) -> Self {
        Self {
            kind,
            takes,
            dense: None,
            norm: None,
            out,
            bias,
            dropout: [0.0, 0.0],
            std: 0.02,
            seed: 0,
            missing: Vec::new(),
        }
    }

    /// A language-model head: `lm_head`.
    pub const fn lm() -> Self {
        Self::plain(Head::Lm, Takes::Last, "lm_head", None)
    }

    /// A decoder's: `lm_head`, or transformers' `score` on the last token, or on every token with a bias.
    pub fn of_decoder(config: &Config, kind: Head) -> Result<Self, Error> {
        let std = config.number_or("initializer_range", 0.02)?;
        let head = match kind {
            Head::Lm => Self::lm(),
            Head::MaskedLm => return Err(no_such_head(config, kind)),
            Head::Classifier { .. } => Self::plain(kind, Takes::Last, "score", None),
            Head::TokenClassifier { .. } => {
                let dropout =
                    config.share_or("classifier_dropout", config.share_or("hidden_dropout", 0.1)?)?;
                Self {
                    dropout: [0.0, dropout],
                    ..Self::plain(kind, Takes::Last, "score", Some("score.bias"))
                }
            }
        };
        Ok(Self { std, ..head })
    }

    /// Width of the scores.
    pub fn width(&self, vocab: usize) -> usize {
        self.kind.labels().unwrap_or(vocab)
    }

    /// Whether a base need not have the head's tensors.
    pub fn may_start_fresh(&self) -> bool {
        self.kind != Head::Lm
    }
}

/// A family without that head.
pub(crate) fn no_such_head(config: &Config, kind: Head) -> Error {
    let family = config.text("model_type").unwrap_or("this family").to_string();
    Error::NoHead { family, head: kind.as_str() }
}
