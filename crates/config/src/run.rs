//! From what was written to what it means here.

use crate::choice::Choice;
use crate::document::Document;
use crate::error::Error;
use crate::find::Finder;
use crate::place::Place;
use crate::read::read;
use crate::settings::{
    ClassWeights, Compute, DataSettings, EvalSettings, Files, Format, LossOn, Optimizer, Schedule, Settings,
    Storage, Task, TrainSettings,
};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Samples a step where neither `batch` nor `tokens` is set: transformers' default.
const DEFAULT_BATCH: usize = 8;
/// Passes over the data where neither `steps` nor `epochs` is set: transformers' default.
const DEFAULT_EPOCHS: f64 = 3.0;
/// Checkpoints to keep: the last and the one before it, should the last prove bad.
const DEFAULT_KEEP: usize = 2;

/// Share of the tokens that a masked language model must guess (Devlin 2019, section 3.1).
const DEFAULT_MASK_SHARE: f64 = 0.15;

/// A configuration as it was written: names, types and ranges are right; the disk has not been looked at.
#[derive(Clone, Debug)]
pub struct RawConfig {
    settings: Settings,
    method: Choice,
    document: Arc<Document>,
}

/// What a configuration means: all paths absolute and there, all defaults filled in.
#[derive(Clone, Debug)]
pub struct Run {
    /// The model to start from.
    pub base: Base,
    /// Folder for adapter, checkpoints, metrics and report.
    pub output: PathBuf,
    /// Of every random number of the run. 0 by default.
    pub seed: u64,
    /// The number format of matrix products.
    pub compute: Compute,
    /// How the frozen base is held.
    pub storage: Storage,
    /// What the model learns to answer.
    pub task: Task,
    /// Threads to compute with; all of the machine's where it is `None`. Changes no result.
    pub threads: Option<NonZeroUsize>,
    /// The method and its own table.
    pub method: Choice,
    /// `[data]`.
    pub data: Data,
    /// `[optimizer.<name>]`.
    pub optimizer: Optimizer,
    /// `[schedule.<name>]`.
    pub schedule: Schedule,
    /// `[train]`.
    pub train: Train,
    document: Arc<Document>,
}

/// The model to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A folder with config.json, or a .gguf file.
    Path(PathBuf),
    /// An id that `luthier pull` brought: `ORG/NAME`, with `@REVISION` or `/FILE.gguf` behind it.
    Hub(String),
}

/// `[data]`, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// Files to learn from, in this order.
    pub train: Vec<PathBuf>,
    /// What the loss is measured on, if anything.
    pub eval: Option<Eval>,
    /// Layout of the rows.
    pub format: Format,
    /// The data's column for each field of the format: `{ question = "Q", answer = "A" }`.
    pub fields: BTreeMap<String, String>,
    /// Text encoding of the files; UTF-8 where it is `None`.
    pub encoding: Option<String>,
    /// Which tokens the loss is taken on.
    pub loss: LossOn,
    /// How conversations become text.
    pub template: Template,
    /// Names of the labels in the order of the head's outputs; found in the data where it is `None`.
    pub labels: Option<Vec<String>>,
    /// Whether a row may have any number of labels.
    pub multi_label: bool,
    /// Longest sample, tokens; a longer one is cut, and counted.
    pub max_tokens: usize,
}

/// How conversations become text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// `"auto"`: the model's own chat template, or a built-in one where it has none. The default.
    Auto,
    /// `"chatml"`: the built-in ChatML.
    Chatml,
    /// `"plain"`: built-in headings.
    Plain,
    /// `"none"`: prompt and completion as they stand, joined.
    None,
    /// Any other text: a file that holds a template.
    File(PathBuf),
}

/// What the loss is measured on.
#[derive(Clone, Debug, PartialEq)]
pub enum Eval {
    /// Files of their own.
    Files(Vec<PathBuf>),
    /// A share of the training rows, above 0 and below 1, taken away by the seed.
    Share(f64),
}

/// `[train]`, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// When the run ends. Three epochs by default (transformers' default).
    pub length: Length,
    /// What one step takes. Eight samples by default (transformers' default).
    pub batch: Batch,
    /// Samples that go through the model at once; the whole batch where it is `None`. Less takes less memory, and
    /// changes no result but rounding.
    pub micro_batch: Option<usize>,
    /// Whether each block's activations are computed again in the backward pass: about a third more time, much less
    /// memory (Chen et al. 2016, section 3). Off by default.
    pub recompute: bool,
    /// Steps between measurements of the held-out loss; only at the start and the end where it is `None`.
    pub eval_every: Option<usize>,
    /// Steps between checkpoints; only at the end where it is `None`.
    pub save_every: Option<usize>,
    /// Checkpoints to keep. Two by default.
    pub keep: usize,
    /// Measurements without a better held-out loss after which the run ends; never where it is `None`.
    pub early_stopping: Option<usize>,
    /// Whether the result is the best step by the held-out rows (their metric, or their loss), and not the last. Off by
    /// default.
    pub best: bool,
    /// What a step is the best by: a metric of the task, or `loss`; the task's first metric where it is `None`.
    pub metric: Option<String>,
    /// Share of a label's target that is spread over all labels. None by default; 0.1 is Szegedy's (2016).
    pub label_smoothing: f64,
    /// How much each label counts in the loss; all the same where it is `None`.
    pub class_weights: Option<ClassWeights>,
    /// Share of the tokens that a masked language model must guess: 0.15 by default (Devlin 2019).
    pub mask_share: f64,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// After so many updates.
    Steps(usize),
    /// After so many passes over the data; may be a fraction.
    Epochs(f64),
}

/// What one step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// So many samples.
    Samples(usize),
    /// As many samples as fit into so many tokens, and at least one.
    Tokens(usize),
}

impl RawConfig {
    /// Parses a configuration from text. `name` is what messages call it, `overrides` are `key.path=value`, `methods`
    /// the ids that may stand under `[method]`.
    pub fn parse(name: &str, text: &str, overrides: &[String], methods: &[&str]) -> Result<Self, Error> {
        Self::from_document(Document::parse(name, text, overrides)?, methods)
    }

    fn from_document(document: Document, methods: &[&str]) -> Result<Self, Error> {
        let document = Arc::new(document);
        let settings: Settings = read(&document, &document.root, "")?;
        let method = Choice::find(&document, methods)?;
        let raw = Self { settings, method, document };
        raw.check()?;
        Ok(raw)
    }

    /// The method and its own table.
    pub fn method(&self) -> &Choice {
        &self.method
    }

    /// What no single key can tell.
    fn check(&self) -> Result<(), Error> {
        let train = &self.settings.train;
        let conflict = |both: bool, first: &str, second: &str| {
            if !both {
                return Ok(());
            }
            let place = Box::new(self.document.place_of(second));
            Err(Error::Conflict { first: first.to_owned(), second: second.to_owned(), place })
        };
        conflict(train.steps.is_some() && train.epochs.is_some(), "train.steps", "train.epochs")?;
        conflict(train.batch.is_some() && train.tokens.is_some(), "train.batch", "train.tokens")?;
        let no_eval = self.settings.data.eval.is_none();
        for (set, key) in [
            (train.eval_every.is_some(), "train.eval_every"),
            (train.early_stopping.is_some(), "train.early_stopping"),
            (train.best, "train.best"),
        ] {
            if set && no_eval {
                return Err(self.needs(key, "data.eval"));
            }
        }
        self.check_task()?;
        if train.early_stopping.is_some() && train.eval_every.is_none() {
            return Err(self.needs("train.early_stopping", "train.eval_every"));
        }
        Ok(())
    }

    /// Keys that only some tasks read: set for another, they would silently do nothing.
    fn check_task(&self) -> Result<(), Error> {
        let (train, data, task) = (&self.settings.train, &self.settings.data, self.settings.task);
        let one_label = matches!(task, Task::Classification) && !data.multi_label;
        let tags = task == Task::TokenClassification;
        let has_labels = task == Task::Classification || tags;
        for (key, set, read, by) in [
            ("data.labels", data.labels.is_some(), has_labels, "classification and token-classification"),
            ("data.multi_label", data.multi_label, task == Task::Classification, "classification"),
            (
                "train.label_smoothing",
                train.label_smoothing.is_some(),
                one_label || tags,
                "one label a row or word",
            ),
            (
                "train.class_weights",
                train.class_weights.is_some(),
                one_label || tags,
                "one label a row or word",
            ),
            ("train.mask_share", train.mask_share.is_some(), task == Task::MaskedLm, "masked-lm"),
            ("train.metric", train.metric.is_some(), task != Task::Lm, "tasks other than lm"),
        ] {
            if set && !read {
                let place = Box::new(self.document.place_of(key));
                let message = format!("has no meaning here, it is for {by}");
                let help = Some("remove the key, or set `task`".to_owned());
                return Err(Error::Refused { key: key.to_owned(), message, help, place });
            }
        }
        Ok(())
    }

    fn needs(&self, key: &str, needs: &str) -> Error {
        Error::Needs {
            key: key.to_owned(),
            needs: needs.to_owned(),
            place: Box::new(self.document.place_of(key)),
        }
    }

    /// Finds the files, relative to `folder`, and fills in the defaults.
    pub fn resolve(self, folder: &Path) -> Result<Run, Error> {
        // A bare file name has the empty folder.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = std::path::absolute(folder)
            .map_err(|cause| Error::Unreadable { path: folder.to_owned(), cause })?;
        let finder = Finder { folder: &folder, document: &self.document };
        let settings = self.settings;
        Ok(Run {
            base: finder.base(&settings.base)?,
            output: finder.join(&settings.output),
            seed: settings.seed,
            compute: settings.compute,
            storage: settings.storage,
            task: settings.task,
            threads: settings.threads,
            method: self.method,
            data: finder.data(settings.data)?,
            optimizer: settings.optimizer,
            schedule: settings.schedule,
            train: resolve_train(&settings.train),
            document: self.document,
        })
    }
}

impl Run {
    /// Reads a file and resolves it; see [`RawConfig::parse`].
    pub fn load(path: &Path, overrides: &[String], methods: &[&str]) -> Result<Self, Error> {
        let raw = RawConfig::from_document(Document::load(path, overrides)?, methods)?;
        raw.resolve(path.parent().unwrap_or(Path::new("")))
    }

    /// Where a key was written, by its dotted path (`data.train`); the table above it if it was not.
    pub fn place(&self, key: &str) -> Place {
        self.document.place_of(key)
    }

    /// An error about a key that another part of the program found wrong.
    pub fn refuse(&self, key: &str, message: String, help: Option<String>) -> Error {
        Error::Refused { key: key.to_owned(), message, help, place: Box::new(self.document.place_of(key)) }
    }

    /// The run as a `run.toml` with absolute paths and every default written out: reading it gives the same run.
    ///
    /// `method` is the method's table with its own defaults filled in; as it was written where it is `None`.
    pub fn to_toml(&self, method: Option<toml::Table>) -> Result<String, Error> {
        use toml::Value;
        let mut file = toml::Table::new();
        file.insert("base".to_owned(), Value::String(self.base_text()?));
        file.insert("output".to_owned(), Value::String(text_of(&self.output)?));
        file.insert("seed".to_owned(), value(&self.seed));
        file.insert("compute".to_owned(), value(&self.compute));
        file.insert("storage".to_owned(), value(&self.storage));
        file.insert("task".to_owned(), value(&self.task));
        if let Some(threads) = self.threads {
            file.insert("threads".to_owned(), value(&threads));
        }
        let table = method.unwrap_or_else(|| self.method.table());
        let method = toml::Table::from_iter([(self.method.id().to_owned(), Value::Table(table))]);
        file.insert("method".to_owned(), Value::Table(method));
        file.insert("data".to_owned(), value(&self.data_settings()?));
        file.insert("optimizer".to_owned(), value(&self.optimizer));
        file.insert("schedule".to_owned(), value(&self.schedule));
        file.insert("train".to_owned(), value(&self.train_settings()));
        Ok(toml::to_string(&file).expect("tables with text keys are TOML"))
    }

    fn base_text(&self) -> Result<String, Error> {
        match &self.base {
            Base::Path(path) => text_of(path),
            Base::Hub(id) => Ok(id.clone()),
        }
    }

    fn data_settings(&self) -> Result<DataSettings, Error> {
        let files =
            |paths: &[PathBuf]| Ok(Files(paths.iter().map(|path| text_of(path)).collect::<Result<_, _>>()?));
        Ok(DataSettings {
            train: files(&self.data.train)?,
            eval: match &self.data.eval {
                Some(Eval::Files(paths)) => Some(EvalSettings::Files(files(paths)?)),
                Some(Eval::Share(share)) => crate::Positive::new(*share).map(EvalSettings::Share),
                None => None,
            },
            format: self.data.format,
            fields: self.data.fields.clone(),
            encoding: self.data.encoding.clone(),
            loss: self.data.loss,
            template: match &self.data.template {
                Template::Auto => "auto".to_owned(),
                Template::Chatml => "chatml".to_owned(),
                Template::Plain => "plain".to_owned(),
                Template::None => "none".to_owned(),
                Template::File(path) => text_of(path)?,
            },
            labels: self.data.labels.clone(),
            multi_label: self.data.multi_label,
            max_tokens: NonZeroUsize::new(self.data.max_tokens).unwrap_or(NonZeroUsize::MIN),
        })
    }

    fn train_settings(&self) -> TrainSettings {
        let train = &self.train;
        let (steps, epochs) = match train.length {
            Length::Steps(steps) => (NonZeroUsize::new(steps), None),
            Length::Epochs(epochs) => (None, crate::Positive::new(epochs)),
        };
        let (batch, tokens) = match train.batch {
            Batch::Samples(samples) => (NonZeroUsize::new(samples), None),
            Batch::Tokens(tokens) => (None, NonZeroUsize::new(tokens)),
        };
        TrainSettings {
            steps,
            epochs,
            batch,
            tokens,
            micro_batch: train.micro_batch.and_then(NonZeroUsize::new),
            recompute: train.recompute,
            eval_every: train.eval_every.and_then(NonZeroUsize::new),
            save_every: train.save_every.and_then(NonZeroUsize::new),
            keep: NonZeroUsize::new(train.keep),
            early_stopping: train.early_stopping.and_then(NonZeroUsize::new),
            best: train.best,
            metric: train.metric.clone(),
            label_smoothing: Some(train.label_smoothing).filter(|s| *s > 0.0).and_then(crate::Share::new),
            class_weights: train.class_weights.clone(),
            mask_share: (self.task == Task::MaskedLm).then(|| crate::Share::new(train.mask_share)).flatten(),
        }
    }
}

fn resolve_train(train: &TrainSettings) -> Train {
    let number = |value: Option<NonZeroUsize>| value.map(NonZeroUsize::get);
    Train {
        length: match (train.steps, train.epochs) {
            (Some(steps), _) => Length::Steps(steps.get()),
            (None, epochs) => Length::Epochs(epochs.map_or(DEFAULT_EPOCHS, crate::Positive::get)),
        },
        batch: match (train.tokens, train.batch) {
            (Some(tokens), _) => Batch::Tokens(tokens.get()),
            (None, batch) => Batch::Samples(number(batch).unwrap_or(DEFAULT_BATCH)),
        },
        micro_batch: number(train.micro_batch),
        recompute: train.recompute,
        eval_every: number(train.eval_every),
        save_every: number(train.save_every),
        keep: number(train.keep).unwrap_or(DEFAULT_KEEP),
        early_stopping: number(train.early_stopping),
        best: train.best,
        metric: train.metric.clone(),
        label_smoothing: train.label_smoothing.map_or(0.0, crate::Share::get),
        class_weights: train.class_weights.clone(),
        mask_share: train.mask_share.map_or(DEFAULT_MASK_SHARE, crate::Share::get),
    }
}

fn text_of(path: &Path) -> Result<String, Error> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::PathNotText { path: path.to_owned() })
}

fn value<T: serde::Serialize>(value: &T) -> toml::Value {
    toml::Value::try_from(value).expect("settings are numbers, text and tables with text keys")
}
