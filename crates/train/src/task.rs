//! A task's head: which one a base is opened with, what trains it, and the names of its labels on disk.
//!
//! A whole model carries the labels in its `config.json` (`id2label`, `label2id`, `problem_type`), as transformers reads
//! them. An adapter's base has no such labels, so that they lie beside it in `labels.json`.
use crate::adapter_file::write_text;
use crate::base::Base;
use crate::error::Error;
use luthier_config::{ClassWeights, Run};
use luthier_data::{DataSpec, Dataset, LabelSet, Task};
use luthier_models::Head;
use luthier_objectives::Objective;
use luthier_objectives::classification::{Classification, MultiLabel};
use luthier_objectives::lm::LanguageModelling;
use luthier_objectives::masked_lm::MaskedLanguageModelling;
use luthier_objectives::regression::Regression;
use luthier_objectives::token_classification::TokenClassification;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Beside an adapter.
const LABELS: &str = "labels.json";

/// What a result answers, as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFile {
    /// The task's name in run.toml.
    pub task: String,
    /// Names of the labels in the order of the head's outputs; none for numbers and masked tokens.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether labels are independent of each other.
    #[serde(default)]
    pub multi_label: bool,
}

impl TaskFile {
    /// Of a task and its labels.
    pub fn of(task: Task, labels: &LabelSet) -> Self {
        let multi_label = task == Task::Classification { multi_label: true };
        Self { task: task.name().to_owned(), labels: labels.names().to_vec(), multi_label }
    }

    /// The task; none if the name is none of ours.
    pub fn task(&self) -> Option<Task> {
        [
            Task::Lm,
            Task::Classification { multi_label: self.multi_label },
            Task::Regression,
            Task::TokenClassification,
            Task::MaskedLm,
        ]
        .into_iter()
        .find(|task| task.name() == self.task)
    }

    /// Writes it beside an adapter.
    pub fn write(&self, adapter: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).expect("plain data with text keys");
        write_text(&adapter.join(LABELS), &(text + "\n"))
    }

    /// [`write`](Self::write), unless the result is a language model's, whose base says all.
    pub(crate) fn write_for(&self, adapter: &Path) -> Result<(), Error> {
        if self.task() == Some(Task::Lm) { Ok(()) } else { self.write(adapter) }
    }

    /// What lies beside an adapter; none for a language model's.
    pub fn read(adapter: &Path) -> Result<Option<Self>, Error> {
        let path = adapter.join(LABELS);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let read = serde_json::from_slice(&text);
        read.map(Some).map_err(|e| Error::ConfigJson { path, reason: e.to_string() })
    }

    /// What a model's `config.json` says of its head; none where it is a language model's.
    pub fn of_config(config: &Value) -> Option<Self> {
        let architecture = config["architectures"][0].as_str()?;
        let labels = labels_of(config).unwrap_or_default();
        let problem = config["problem_type"].as_str().unwrap_or_default();
        let one = labels.len() == 1 || problem == "regression";
        let (task, labels) = if architecture.ends_with("ForTokenClassification") {
            (Task::TokenClassification, labels)
        } else if !architecture.ends_with("ForSequenceClassification") {
            return None;
        } else if one {
            (Task::Regression, Vec::new())
        } else {
            (Task::Classification { multi_label: problem == "multi_label_classification" }, labels)
        };
        Some(Self::of(task, &LabelSet::new(labels)))
    }
}

/// Names of the labels in a model's `config.json`, in their order; none where they are transformers' placeholders or not
/// there.
pub fn labels_of(config: &Value) -> Option<Vec<String>> {
    let map = config["id2label"].as_object()?;
    let at = |i: usize| map.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned);
    let names = (0..map.len()).map(at).collect::<Option<Vec<_>>>()?;
    let is_placeholder = names.iter().enumerate().all(|(i, name)| *name == format!("LABEL_{i}"));
    (!is_placeholder && !names.is_empty()).then_some(names)
}

/// The head that answers a task; none for the base's own, the language model's.
pub fn head_of(task: Task, labels: usize) -> Option<Head> {
    match task {
        Task::Lm => None,
        Task::MaskedLm => Some(Head::MaskedLm),
        Task::Regression => Some(Head::Classifier { labels: 1 }),
        Task::Classification { .. } => Some(Head::Classifier { labels }),
        Task::TokenClassification => Some(Head::TokenClassifier { labels }),
    }
}

/// Opens a base with the head of a task, and writes the labels into its description.
pub fn open_for_task(path: &Path, task: Task, labels: &LabelSet) -> Result<Base, Error> {
    let Some(head) = head_of(task, labels.len()) else { return Base::open(path) };
    let mut base = Base::open_for(path, head)?;
    if let Value::Object(config) = &mut base.config.0 {
        describe(config, task, labels);
    }
    Ok(base)
}

/// Opens the base of an adapter with the head that lies beside the adapter.
pub fn open_for_adapter(path: &Path, adapter: Option<&Path>) -> Result<Base, Error> {
    let beside = adapter.map(TaskFile::read).transpose()?.flatten();
    match beside.as_ref().and_then(|file| Some((file.task()?, LabelSet::new(file.labels.clone())))) {
        Some((task, labels)) => open_for_task(path, task, &labels),
        None => open_as_saved(path),
    }
}

/// Opens a model with the head that its own `config.json` names.
pub fn open_as_saved(path: &Path) -> Result<Base, Error> {
    let base = Base::open(path)?;
    let saved = TaskFile::of_config(&base.config.0);
    match saved.as_ref().and_then(|file| Some((file.task()?, LabelSet::new(file.labels.clone())))) {
        Some((task, labels)) if !labels.is_empty() || task == Task::Regression => {
            open_for_task(path, task, &labels)
        }
        _ => Ok(base),
    }
}

/// Fits the data of a task to its base: rows are no longer than the base was made for, and the labels that it names are
/// taken if they cover the data's. Gives what the user should know.
pub fn fit(spec: &mut DataSpec, base: &Base) -> Option<String> {
    if spec.task == Task::Lm {
        return None;
    }
    spec.preferred_labels = labels_of(&base.config.0);
    let most = base.spec.max_positions;
    let is_longer = spec.max_tokens > most;
    spec.max_tokens = spec.max_tokens.min(most);
    is_longer.then(|| format!("rows are cut at {most} tokens, the longest that the base was made for"))
}

/// What transformers reads of labels in a `config.json`.
fn describe(config: &mut Map<String, Value>, task: Task, labels: &LabelSet) {
    for key in ["id2label", "label2id", "problem_type", "num_labels"] {
        config.remove(key);
    }
    if labels.is_empty() && task != Task::Regression {
        return;
    }
    let names = if task == Task::Regression { vec!["LABEL_0".to_owned()] } else { labels.names().to_vec() };
    let by_id = names.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name)));
    config.insert("id2label".into(), Value::Object(by_id.collect()));
    let by_name = names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i)));
    config.insert("label2id".into(), Value::Object(by_name.collect()));
    let problem = match task {
        Task::Classification { multi_label: false } => "single_label_classification",
        Task::Classification { multi_label: true } => "multi_label_classification",
        Task::Regression => "regression",
        _ => return,
    };
    config.insert("problem_type".into(), json!(problem));
}

/// What trains the head.
pub(crate) fn objective(
    run: &Run,
    data: &Dataset,
    base: &Base,
    task: Task,
) -> Result<Box<dyn Objective>, Error> {
    let smoothing = run.train.label_smoothing;
    Ok(match task {
        Task::Lm => Box::new(LanguageModelling),
        Task::Regression => Box::new(Regression),
        Task::Classification { multi_label: true } => Box::new(MultiLabel),
        Task::Classification { multi_label: false } => {
            Box::new(Classification { smoothing, weights: class_weights(run, data)? })
        }
        Task::TokenClassification => {
            Box::new(TokenClassification { smoothing, weights: class_weights(run, data)? })
        }
        Task::MaskedLm => Box::new(masked(run, base)?),
    })
}

fn masked(run: &Run, base: &Base) -> Result<MaskedLanguageModelling, Error> {
    let refused = || run.refuse("task", "the base's tokenizer names no mask token".into(), None);
    let mask = base.tokenizer.special().mask.ok_or_else(refused)?;
    let vocab = base.tokenizer.vocab().min(base.spec.vocab) as u32;
    Ok(MaskedLanguageModelling { mask, vocab, share: run.train.mask_share })
}

/// Scores the rows of a session without training: what `luthier eval` measures with.
pub fn plain_objective(task: Task, base: &Base) -> Box<dyn Objective> {
    match task {
        Task::Lm => Box::new(LanguageModelling),
        Task::Regression => Box::new(Regression),
        Task::Classification { multi_label: true } => Box::new(MultiLabel),
        Task::Classification { multi_label: false } => Box::new(Classification::default()),
        Task::TokenClassification => Box::new(TokenClassification::default()),
        Task::MaskedLm => Box::new(MaskedLanguageModelling {
            mask: base.tokenizer.special().mask.unwrap_or_default(),
            vocab: base.tokenizer.vocab().min(base.spec.vocab) as u32,
            share: 0.15,
        }),
    }
}

/// One weight a label: as given, or `n / (labels * n_label)` (scikit-learn's "balanced").
fn class_weights(run: &Run, data: &Dataset) -> Result<Option<Vec<f64>>, Error> {
    let labels = data.labels.len();
    let refuse = |message: String| Error::from(run.refuse("train.class_weights", message, None));
    match &run.train.class_weights {
        None => Ok(None),
        Some(ClassWeights::Given(weights)) if weights.len() == labels => Ok(Some(weights.clone())),
        Some(ClassWeights::Given(weights)) => {
            let names = data.labels.names().join(", ");
            Err(refuse(format!("{} weights for {labels} labels ({names})", weights.len())))
        }
        Some(ClassWeights::Balanced) => {
            let counts = data.report.labels.as_ref().map(|l| l.train.counts.clone()).unwrap_or_default();
            if let Some(never) = counts.iter().position(|n| *n == 0) {
                let name = &data.labels.names()[never];
                return Err(refuse(format!("\"balanced\" needs a training row with the label `{name}`")));
            }
            let all = counts.iter().sum::<u64>() as f64;
            Ok(Some(counts.iter().map(|n| all / (labels as f64 * *n as f64)).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> LabelSet {
        LabelSet::new(names.iter().map(|n| (*n).to_owned()).collect())
    }

    #[test]
    fn a_config_says_what_was_written_into_it() {
        for (task, names, architecture) in [
            (
                Task::Classification { multi_label: false },
                &["no", "yes"][..],
                "BertForSequenceClassification",
            ),
            (Task::Classification { multi_label: true }, &["a", "b", "c"], "BertForSequenceClassification"),
            (Task::Regression, &[], "BertForSequenceClassification"),
            (Task::TokenClassification, &["O", "B-x"], "BertForTokenClassification"),
        ] {
            let mut config = json!({ "architectures": [architecture], "id2label": { "0": "old" } });
            describe(config.as_object_mut().unwrap(), task, &labels(names));
            let read = TaskFile::of_config(&config).unwrap();
            assert_eq!((read.task(), read.labels.as_slice()), (Some(task), labels(names).names()));
        }
        assert_eq!(TaskFile::of_config(&json!({ "architectures": ["BertModel"] })), None);
    }

    #[test]
    fn placeholders_are_no_names() {
        assert_eq!(labels_of(&json!({ "id2label": { "0": "LABEL_0", "1": "LABEL_1" } })), None);
        assert_eq!(
            labels_of(&json!({ "id2label": { "1": "b", "0": "a" } })),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(labels_of(&json!({ "id2label": { "0": "a", "2": "b" } })), None);
    }

    #[test]
    fn labels_lie_beside_an_adapter() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(TaskFile::read(folder.path()).unwrap(), None);
        let file = TaskFile::of(Task::Classification { multi_label: true }, &labels(&["a", "b"]));
        file.write(folder.path()).unwrap();
        assert_eq!(TaskFile::read(folder.path()).unwrap(), Some(file));
    }
}
