//! From a specification to samples, examples and the report.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::benchmark::Benchmark;
use crate::error::Error;
use crate::findings::findings;
use crate::format::{Fields, Format, Record, recognise};
use crate::label_report;
use crate::problem::{Problem, Problems};
use crate::read::read_as;
use crate::report::{FileReport, Preview, Report, TemplateReport, answer_of, pieces_of};
use crate::sample::{Example, Loss, Maker, Sample};
use crate::set::{Item, Set};
use crate::task::{LabelSet, Task, Written};
use crate::template::Template;
use crate::tokenizer::Tokenizer;

/// Samples shown token by token, unless more are asked for.
const PREVIEWS: usize = 3;
/// Tokens shown of each.
const PREVIEW_TOKENS: usize = 400;

/// Where the held-out data comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum EvalSpec {
    /// Nowhere.
    #[default]
    None,
    /// Its own files.
    Files(Vec<PathBuf>),
    /// A share of the training rows, between 0 and 1.
    Fraction(f64),
}

/// Which chat template conversations go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The model's, or else ChatML if the vocabulary has its tokens, or else the plain one.
    #[default]
    Auto,
    /// The built-in ChatML.
    Chatml,
    /// The built-in headings.
    Plain,
    /// Prompt and completion joined as they stand.
    None,
    /// A template's text.
    Source(String),
}

/// The `[data]` table, resolved: paths exist or are refused, defaults are filled.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// Files to train on.
    pub train: Vec<PathBuf>,
    /// Held-out data.
    pub eval: EvalSpec,
    /// Form of the rows.
    pub format: Format,
    /// Names of the columns.
    pub fields: Fields,
    /// Which tokens are targets.
    pub loss: Loss,
    /// Longest sample; a longer one is cut.
    pub max_tokens: usize,
    /// Encoding of the files, UTF-8 if none.
    pub encoding: Option<String>,
    /// The chat template.
    pub template: TemplateChoice,
    /// Seed of the split.
    pub seed: u64,
    /// What the model learns to answer.
    pub task: Task,
    /// The labels in the order of the head's outputs; found in the data where they are `None`.
    pub labels: Option<Vec<String>>,
    /// Labels that are taken if every label of the data is among them: those of a base that has a head.
    pub preferred_labels: Option<Vec<String>>,
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            eval: EvalSpec::None,
            format: Format::Auto,
            fields: Fields::default(),
            loss: Loss::Assistant,
            max_tokens: 512,
            encoding: None,
            template: TemplateChoice::Auto,
            seed: 0,
            task: Task::Lm,
            labels: None,
            preferred_labels: None,
        }
    }
}

/// Samples, examples and the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// To train on.
    pub train: Vec<Sample>,
    /// To measure the held-out loss on.
    pub eval: Vec<Sample>,
    /// To generate held-out answers from: one a held-out conversation.
    pub examples: Vec<Example>,
    /// Names of the labels in the order of the head's outputs; none where nothing is classified.
    pub labels: LabelSet,
    /// What each held-out sample of a labelled set says, as it is written.
    pub texts: Vec<Vec<String>>,
    /// What the doctor found.
    pub report: Report,
}

/// Reads, recognises, splits, tokenises and examines. Nothing is returned unless every row is good and the sets can be
/// learnt from.
pub fn load(spec: &DataSpec, tokenizer: &Tokenizer) -> Result<Dataset, Error> {
    let (dataset, verdict) = examined(spec, tokenizer, PREVIEWS)?;
    verdict.map_or(Ok(dataset), Err)
}

/// The doctor: the report with the first `previews` samples, and the refusal with which [`load`] would end.
pub fn inspect(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    previews: usize,
) -> Result<(Report, Option<Error>), Error> {
    let (dataset, verdict) = examined(spec, tokenizer, previews)?;
    Ok((dataset.report, verdict))
}

fn examined(
    spec: &DataSpec,
    tokenizer: &Tokenizer,
    previews: usize,
) -> Result<(Dataset, Option<Error>), Error> {
    check(spec)?;
    let template = match &spec.template {
        TemplateChoice::Auto => Template::of_model(tokenizer)?,
        TemplateChoice::Chatml => Template::chatml(tokenizer)?,
        TemplateChoice::Plain => Template::plain(tokenizer)?,
        TemplateChoice::None => Template::none(),
        TemplateChoice::Source(source) => Template::given(source, tokenizer)?,
    };
    if spec.task == Task::MaskedLm && tokenizer.special().mask.is_none() {
        return Err(Error::SpecialMissing { token: "mask", task: spec.task.name() });
    }
    let mut loader = Loader { spec, files: Vec::new(), problems: Problems::default() };
    let (train_use, eval_files) = match &spec.eval {
        EvalSpec::None => ("train", &[][..]),
        EvalSpec::Files(files) => ("train", files.as_slice()),
        EvalSpec::Fraction(_) => ("train and eval", &[][..]),
    };
    let train_items = loader.read(&spec.train, train_use)?;
    let eval_items = loader.read(eval_files, "eval")?;
    let Loader { files, mut problems, .. } = loader;
    if !problems.is_empty() {
        return Err(Error::Rows { problems });
    }
    let labels = labels_of(spec, &train_items, &eval_items)?;
    let maker = Maker {
        tokenizer,
        template: &template,
        loss: spec.loss,
        max_tokens: spec.max_tokens,
        task: spec.task,
        labels: &labels,
    };
    let mut train = Set::make("train", train_items, &maker, &files, &mut problems)?;
    let mut eval = Set::make("eval", eval_items, &maker, &files, &mut problems)?;
    if !problems.is_empty() {
        return Err(Error::Rows { problems });
    }
    if let EvalSpec::Fraction(fraction) = spec.eval {
        eval = train.split_off(fraction, spec.seed, &maker)?;
    }
    let report = examine(&train, &eval, files, &maker, previews)?;
    let examples = eval.parts.iter_mut().filter_map(|part| part.made.example.take()).collect();
    let has_eval = !eval.parts.is_empty();
    let verdict = train.verdict().and_then(|()| if has_eval { eval.verdict() } else { Ok(()) });
    let labelled = |part: &&crate::set::Part| !part.texts.is_empty() && !part.made.samples.is_empty();
    let texts = eval.parts.iter().filter(labelled).map(|part| part.texts.clone()).collect();
    let (train, eval) = (train.into_samples(), eval.into_samples());
    let dataset = Dataset { train, eval, examples, labels, texts, report };
    Ok((dataset, verdict.err()))
}

/// The labels: those given, a benchmark's own, the base's if they cover the data's, or those of the data.
fn labels_of(spec: &DataSpec, train: &[Item], eval: &[Item]) -> Result<LabelSet, Error> {
    if !spec.task.has_labels() {
        return Ok(LabelSet::default());
    }
    if let Some(names) = &spec.labels {
        let labels = LabelSet::new(names.clone());
        let distinct = names.iter().collect::<BTreeSet<_>>().len();
        return if distinct < 2 { Err(Error::FewLabels { found: distinct }) } else { Ok(labels) };
    }
    if let Format::Benchmark(name) = spec.format
        && let Some(names) = Benchmark::find(name).and_then(Benchmark::labels)
    {
        return Ok(LabelSet::new(names));
    }
    let all = || train.iter().chain(eval).flat_map(|item| written(&item.record));
    if let Some(names) = &spec.preferred_labels {
        let labels = LabelSet::new(names.clone());
        if labels.covers(all()) {
            return Ok(labels);
        }
    }
    let labels = LabelSet::found(all());
    let least = if spec.task == (Task::Classification { multi_label: true }) { 1 } else { 2 };
    if labels.len() < least { Err(Error::FewLabels { found: labels.len() }) } else { Ok(labels) }
}

fn written(record: &Record) -> Vec<&str> {
    match record {
        Record::Labelled { label: Written::One(name), .. } => vec![name],
        Record::Labelled { label: Written::Many(names), .. } | Record::Tagged { tags: names, .. } => {
            names.iter().map(String::as_str).collect()
        }
        _ => Vec::new(),
    }
}

fn check(spec: &DataSpec) -> Result<(), Error> {
    let wrong = |key, got: String, expected| Err(Error::Setting { key, got, expected });
    if spec.train.is_empty() {
        return wrong("train", "[]".to_owned(), "at least one file");
    }
    if spec.max_tokens < 2 {
        return wrong("max_tokens", spec.max_tokens.to_string(), "at least 2: a token needs one before it");
    }
    match &spec.eval {
        EvalSpec::Fraction(f) if !(*f > 0.0 && *f < 1.0) => {
            wrong("eval", f.to_string(), "files, or a fraction between 0 and 1")
        }
        EvalSpec::Files(files) if files.is_empty() => {
            wrong("eval", "[]".to_owned(), "files, or a fraction between 0 and 1")
        }
        _ => Ok(()),
    }
}

struct Loader<'a> {
    spec: &'a DataSpec,
    files: Vec<FileReport>,
    problems: Problems,
}

impl Loader<'_> {
    fn read(&mut self, paths: &[PathBuf], used_for: &'static str) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        for path in paths {
            let mut rows = read_as(path, self.spec.encoding.as_deref(), self.spec.format.layout())?;
            self.problems.extend(std::mem::take(&mut rows.problems));
            if rows.rows.is_empty() {
                continue;
            }
            let recognised = recognise(path, &rows, self.spec.format, &self.spec.fields, self.spec.task)?;
            let file = self.files.len() as u32;
            self.files.push(FileReport {
                path: path.clone(),
                used_for,
                rows: rows.rows.len() as u64,
                encoding: rows.encoding.clone(),
                format: recognised.format.name(),
                why: recognised.why.clone(),
            });
            for row in &rows.rows {
                match recognised.record(row) {
                    Ok(record) => {
                        items.extend(record.map(|record| Item { record, file, line: row.line }));
                    }
                    Err((field, kind)) => {
                        self.problems.push(Problem { file: path.clone(), line: row.line, field, kind });
                    }
                }
            }
        }
        Ok(items)
    }
}

fn examine(
    train: &Set,
    eval: &Set,
    files: Vec<FileReport>,
    maker: &Maker<'_>,
    shown: usize,
) -> Result<Report, Error> {
    let has_eval = !eval.parts.is_empty();
    let contents: BTreeSet<_> = train.parts.iter().map(|part| part.content).collect();
    let prompts: BTreeSet<_> = train.parts.iter().map(|part| part.prompt).collect();
    let shared_rows = eval.sum(|part| u64::from(contents.contains(&part.content)));
    let shared_prompts = eval.sum(|part| u64::from(prompts.contains(&part.prompt)));
    let mut previews = Vec::new();
    for sample in train.samples().take(shown) {
        previews.push(Preview {
            path: files[sample.file as usize].path.clone(),
            line: sample.line,
            tokens: sample.tokens.len() as u64,
            answer: answer_of(&sample.label, maker.labels),
            pieces: pieces_of(sample, maker.tokenizer, PREVIEW_TOKENS)?,
        });
    }
    let mut report = Report {
        files,
        template: TemplateReport {
            source: maker.template.source().clone(),
            is_used: train.parts.iter().chain(&eval.parts).any(|part| part.is_chat),
            split_conversations: train.sum(|p| u64::from(p.made.is_split)),
            ended_answers: train.sum(|p| p.made.ended),
        },
        train: train.report(),
        eval: has_eval.then(|| eval.report()),
        shared_rows,
        shared_prompts,
        labels: label_report::labels(train, eval, maker.labels),
        findings: Vec::new(),
        previews,
    };
    report.findings = findings(&report, train, maker);
    Ok(report)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod labelled_tests;
