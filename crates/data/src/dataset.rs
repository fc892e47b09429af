//! From a specification to samples, examples and the report.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::Error;
use crate::findings::findings;
use crate::format::{Fields, Format, recognise};
use crate::problem::{Problem, Problems};
use crate::read::read_rows;
use crate::report::{FileReport, Preview, Report, TemplateReport, pieces_of};
use crate::sample::{Example, Loss, Maker, Sample};
use crate::set::{Item, Set};
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
    let maker = Maker { tokenizer, template: &template, loss: spec.loss, max_tokens: spec.max_tokens };
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
    let dataset = Dataset { train: train.into_samples(), eval: eval.into_samples(), examples, report };
    Ok((dataset, verdict.err()))
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
            let mut rows = read_rows(path, self.spec.encoding.as_deref())?;
            self.problems.extend(std::mem::take(&mut rows.problems));
            if rows.rows.is_empty() {
                continue;
            }
            let recognised = recognise(path, &rows, self.spec.format, &self.spec.fields)?;
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
                    Ok(record) => items.push(Item { record, file, line: row.line }),
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
            pieces: pieces_of(sample, maker.tokenizer, PREVIEW_TOKENS)?,
        });
    }
    let mut report = Report {
        files,
        template: TemplateReport {
            source: maker.template.source().clone(),
            is_used: train.parts.iter().chain(&eval.parts).any(|part| !part.is_text),
            split_conversations: train.sum(|p| u64::from(p.made.is_split)),
            ended_answers: train.sum(|p| p.made.ended),
        },
        train: train.report(),
        eval: has_eval.then(|| eval.report()),
        shared_rows,
        shared_prompts,
        findings: Vec::new(),
        previews,
    };
    report.findings = findings(&report, train, maker);
    Ok(report)
}

#[cfg(test)]
mod tests;
