//! The keys of `run.toml`, as they are written. Each default stands with its source and with when to change it.

use crate::numbers::{NonNegative, Positive, Share};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) base: String,
    pub(crate) output: String,
    #[serde(default)]
    pub(crate) seed: u64,
    #[serde(default)]
    pub(crate) compute: Compute,
    #[serde(default)]
    pub(crate) storage: Storage,
    #[serde(default)]
    pub(crate) task: Task,
    pub(crate) threads: Option<NonZeroUsize>,
    /// Named here to be a known key; read by [`crate::Choice`].
    #[expect(dead_code, reason = "makes the key known to serde")]
    method: IgnoredAny,
    pub(crate) data: DataSettings,
    pub(crate) optimizer: Optimizer,
    #[serde(default)]
    pub(crate) schedule: Schedule,
    #[serde(default)]
    pub(crate) train: TrainSettings,
}

/// The number format of matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// bf16 where the processor multiplies it, else f32. The default: the quickest that keeps the loss.
    #[default]
    Auto,
    /// bf16 with f32 sums, on any processor.
    Bf16,
    /// f32 throughout: for comparing with other programs.
    F32,
}

/// How the frozen base is held in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Storage {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight. The default: what nearly every base is published in.
    #[default]
    Bf16,
    /// 1 byte a weight and a scale for each row.
    Int8,
    /// Half a byte a weight, in blocks (Dettmers et al. 2023, QLoRA, section 3).
    Nf4,
    /// As the file holds it.
    AsIs,
}

/// What the model learns to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The next token. The default.
    #[default]
    Lm,
    /// One of several labels for a text.
    Classification,
    /// A number for a text.
    Regression,
    /// A label for each word.
    TokenClassification,
    /// The tokens that were hidden, with an encoder.
    MaskedLm,
    /// A text for a text, with an encoder.
    Seq2seq,
}

/// `[data]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSettings {
    pub(crate) train: Files,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) eval: Option<EvalSettings>,
    #[serde(default)]
    pub(crate) format: Format,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) fields: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding: Option<String>,
    #[serde(default)]
    pub(crate) loss: LossOn,
    /// auto, chatml, plain, none, or a file.
    #[serde(default = "default_template")]
    pub(crate) template: String,
    /// Names of the labels in the order of the head's outputs; found in the data, sorted, where they are not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<Vec<String>>,
    /// Whether a row may have any number of labels.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) multi_label: bool,
    /// Longest sample, tokens. 1,024 is the default of TRL's supervised trainer; raise it when the doctor counts cuts.
    #[serde(default = "default_max_tokens")]
    pub(crate) max_tokens: NonZeroUsize,
}

/// How the rows of a data file are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Recognised from the first rows, and said. The default.
    #[default]
    Auto,
    /// `instruction`, `input`, `output` (Taori et al. 2023).
    Alpaca,
    /// `messages` of `role` and `content`.
    Messages,
    /// `conversations` of `from` and `value`.
    Sharegpt,
    /// `prompt`, `completion`.
    PromptCompletion,
    /// `question`, `answer`.
    QuestionAnswer,
    /// One text a row, or a plain text file.
    Text,
    /// One or two texts and their label, or a number.
    Classification,
    /// Words and their labels: `tokens` and `tags`.
    TokenClassification,
    /// One word and its label a line, sentences apart by an empty line.
    Conll,
    /// GLUE's own files (Wang 2019): acceptability, one sentence.
    GlueCola,
    /// Sentiment, one sentence.
    GlueSst2,
    /// Paraphrase, two sentences.
    GlueMrpc,
    /// Similarity from 0 to 5, two sentences.
    GlueStsb,
    /// Duplicate questions.
    GlueQqp,
    /// Inference, three labels.
    GlueMnli,
    /// Whether a sentence answers a question.
    GlueQnli,
    /// Inference, two labels.
    GlueRte,
    /// Inference over pronouns.
    GlueWnli,
    /// CLUE's own files (Xu 2020): similarity of questions.
    ClueAfqmc,
    /// News, fifteen labels.
    ClueTnews,
    /// Descriptions of programs, 119 labels.
    ClueIflytek,
    /// Inference, three labels, translated.
    ClueCmnli,
    /// Inference, three labels, original.
    ClueOcnli,
    /// Whether a pronoun means a noun.
    ClueWsc,
    /// Whether keywords belong to an abstract.
    ClueCsl,
    /// A prompt with a chosen and a rejected answer.
    Preference,
}

impl Format {
    /// The name as it is written.
    pub fn name(self) -> String {
        toml::Value::try_from(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// Which tokens the loss is taken on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossOn {
    /// What the assistant says in every turn. The default: users' words are not to be imitated.
    #[default]
    Assistant,
    /// The last answer only.
    Last,
    /// Every token.
    All,
}

/// `[optimizer.<name>]`. There is no default: the right learning rate depends on the method by a factor of ten.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).
    Adamw(AdamW),
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
}

/// `[optimizer.adamw]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate, per step, at the schedule's top.
    pub lr: Positive,
    /// Decay per step, times the learning rate. 0 is transformers' default; 0.01 to 0.1 against overfitting in full
    /// fine-tuning.
    #[serde(default = "zero")]
    pub weight_decay: NonNegative,
    /// Memory of the mean and of the square: 0.9, 0.999 (Kingma and Ba 2015, algorithm 1). 0.95 for the second when
    /// the loss jumps.
    #[serde(default = "default_betas")]
    pub betas: [Share; 2],
    /// Added to the root: 1e-8 (Kingma and Ba 2015, algorithm 1).
    #[serde(default = "default_eps")]
    pub eps: Positive,
    /// Largest norm of the gradient over all tensors: 1.0 (Pascanu et al. 2013; transformers' default), or "none".
    #[serde(default)]
    pub clip: Clip,
}

/// `[optimizer.sgd]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate, per step, at the schedule's top.
    pub lr: Positive,
    /// Memory of the update: 0 is PyTorch's default; 0.9 is usual where the gradient is noisy.
    #[serde(default = "no_share")]
    pub momentum: Share,
    /// Decay added to the gradient; 0 is PyTorch's default.
    #[serde(default = "zero")]
    pub weight_decay: NonNegative,
    /// Largest norm of the gradient over all tensors: 1.0, or "none".
    #[serde(default)]
    pub clip: Clip,
}

/// The largest norm of a gradient, or none. Written as a number above 0 or as `"none"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip(pub Option<Positive>);

/// `[schedule.<name>]`: the learning rate over the run, as a share of the optimizer's.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same throughout.
    Constant(Constant),
    /// Down to `floor` in a straight line.
    Linear(Linear),
    /// Down to `floor` in half a wave (Loshchilov and Hutter 2017, equation 5). The default.
    Cosine(Cosine),
}

/// `[schedule.constant]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// Steps of rising from 0. None by default.
    #[serde(default = "no_warmup")]
    pub warmup: Warmup,
}

/// `[schedule.linear]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Steps of rising from 0. 0.03 of the run by default (Taori et al. 2023, the Alpaca recipe).
    #[serde(default)]
    pub warmup: Warmup,
    /// Share of the learning rate at the end; 0 by default.
    #[serde(default = "no_share")]
    pub floor: Share,
}

/// `[schedule.cosine]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cosine {
    /// Steps of rising from 0. 0.03 of the run by default (Taori et al. 2023, the Alpaca recipe).
    #[serde(default)]
    pub warmup: Warmup,
    /// Share of the learning rate at the end; 0 by default.
    #[serde(default = "no_share")]
    pub floor: Share,
}

/// How long the learning rate rises: a share of the run (0.03) or a count of steps (10).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warmup {
    /// Of the run's steps.
    Share(Share),
    /// Steps.
    Steps(usize),
}

/// `[train]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TrainSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epochs: Option<Positive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) micro_batch: Option<NonZeroUsize>,
    pub(crate) recompute: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) eval_every: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) save_every: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) early_stopping: Option<NonZeroUsize>,
    pub(crate) best: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metric: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label_smoothing: Option<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) class_weights: Option<ClassWeights>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mask_share: Option<Share>,
}

/// How much each label counts in the loss: `"balanced"`, or one number a label in the order of the labels.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassWeights {
    /// By the inverse of its frequency: `rows / (labels * rows with it)`, scikit-learn's rule.
    Balanced,
    /// As given.
    Given(Vec<f64>),
}

/// One file or several.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Files(pub(crate) Vec<String>);

/// Files, or a share of the training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum EvalSettings {
    Files(Files),
    Share(Positive),
}

impl Default for Clip {
    fn default() -> Self {
        Self(Positive::new(1.0))
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Cosine(Cosine { warmup: Warmup::default(), floor: no_share() })
    }
}

impl Default for Warmup {
    fn default() -> Self {
        Self::Share(Share::new(0.03).expect("0.03 is a share"))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn default_template() -> String {
    "auto".to_owned()
}

fn default_max_tokens() -> NonZeroUsize {
    NonZeroUsize::new(1024).expect("1,024 is not zero")
}

fn default_betas() -> [Share; 2] {
    [0.9, 0.999].map(|beta| Share::new(beta).expect("a beta is a share"))
}

fn default_eps() -> Positive {
    Positive::new(1e-8).expect("1e-8 is above 0")
}

fn zero() -> NonNegative {
    NonNegative::new(0.0).expect("0 is not negative")
}

fn no_share() -> Share {
    Share::new(0.0).expect("0 is a share")
}

fn no_warmup() -> Warmup {
    Warmup::Steps(0)
}
