//! From a specification to samples, examples and the report.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::Error;
use crate::format::{Fields, Format, recognise};
use crate::problem::{Problem, Problems};
use crate::read::read_rows;
use crate::report::{FileReport, Finding, Level, Preview, Report, TemplateReport, pieces_of};
use crate::sample::{Example, Loss, Maker, Sample};
use crate::set::{Item, Set};
use crate::template::{Template, TemplateSource};
use crate::tokenizer::Tokenizer;

/// Samples shown token by token.
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

/// Reads, recognises, splits, tokenises and examines. Nothing is returned unless every row is good.
pub fn load(spec: &DataSpec, tokenizer: &Tokenizer) -> Result<Dataset, Error> {
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
    let report = examine(&train, &eval, files, &maker)?;
    let examples = eval.parts.iter_mut().filter_map(|part| part.made.example.take()).collect();
    Ok(Dataset { train: train.into_samples(), eval: eval.into_samples(), examples, report })
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

fn examine(train: &Set, eval: &Set, files: Vec<FileReport>, maker: &Maker<'_>) -> Result<Report, Error> {
    train.verdict()?;
    let has_eval = !eval.parts.is_empty();
    if has_eval {
        eval.verdict()?;
    }
    let contents: BTreeSet<_> = train.parts.iter().map(|part| part.content).collect();
    let prompts: BTreeSet<_> = train.parts.iter().map(|part| part.prompt).collect();
    let shared_rows = eval.sum(|part| u64::from(contents.contains(&part.content)));
    let shared_prompts = eval.sum(|part| u64::from(prompts.contains(&part.prompt)));
    let mut previews = Vec::new();
    for sample in train.samples().take(PREVIEWS) {
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

fn findings(report: &Report, train: &Set, maker: &Maker<'_>) -> Vec<Finding> {
    let mut list = Vec::new();
    let mut add = |level, code, holds: bool, message: String| {
        if holds {
            list.push(Finding { level, code, message });
        }
    };
    let (set, template) = (&report.train, &report.template);
    let rows = set.rows.max(1);
    let special = maker.tokenizer.special();
    let name = |id: Option<u32>| id.and_then(|id| maker.tokenizer.token(id)).unwrap_or_default();
    let bos_doubled = train.sum(|p| p.made.double_bos);
    let endless = train.sum(|p| p.made.endless);
    add(
        Level::Warning,
        "double-bos",
        bos_doubled > 0,
        format!("{bos_doubled} samples begin with two {}", name(special.bos)),
    );
    add(
        Level::Warning,
        "no-end-token",
        special.eos.is_none(),
        "the tokenizer names no end token: answers will not learn to stop".to_owned(),
    );
    add(
        Level::Warning,
        "dropped",
        set.dropped > 0,
        format!(
            "{} samples have no target within {} tokens and are left out; raise `max_tokens`",
            set.dropped, maker.max_tokens
        ),
    );
    add(
        Level::Warning,
        "truncated",
        set.truncated * 20 > rows,
        format!(
            "{} samples are cut at {} tokens and do not learn where the answer ends",
            set.truncated, maker.max_tokens
        ),
    );
    add(
        Level::Warning,
        "shared-rows",
        report.shared_rows > 0,
        format!(
            "{} held-out rows are also trained on: the held-out loss will look better than it is",
            report.shared_rows
        ),
    );
    add(
        Level::Warning,
        "empty-answers",
        set.empty_answers > 0,
        format!("{} answers are empty: the model learns to say nothing", set.empty_answers),
    );
    add(
        Level::Warning,
        "duplicates",
        set.duplicates * 20 > rows,
        format!("{} of {} rows repeat an earlier one", set.duplicates, set.rows),
    );
    add(
        Level::Warning,
        "spelt-special",
        set.spelt_specials > 0,
        format!("{} rows spell out a special token in their text; it becomes that token", set.spelt_specials),
    );
    add(
        Level::Warning,
        "unknown",
        set.unknown_share > 0.01,
        format!("{:.1} % of the text is unknown to the tokenizer", set.unknown_share * 100.0),
    );
    add(
        Level::Note,
        "shared-prompts",
        report.shared_prompts > report.shared_rows,
        format!("{} held-out rows share their prompt with a trained row", report.shared_prompts),
    );
    add(
        Level::Note,
        "empty-prompts",
        set.empty_prompts > 0,
        format!("{} prompts are empty", set.empty_prompts),
    );
    let is_built_in = matches!(template.source, TemplateSource::Chatml | TemplateSource::Plain);
    add(
        Level::Note,
        "built-in-template",
        template.is_used && is_built_in && maker.tokenizer.template().is_none(),
        format!("the model has no chat template, {} is used; generate with the same", template.source.name()),
    );
    add(
        Level::Note,
        "end-token-added",
        template.ended_answers > 0,
        format!("the template does not end the answer with {0}; {0} is added and learnt", name(special.eos)),
    );
    add(
        Level::Note,
        "endless-turns",
        endless > 0,
        format!("{endless} answers inside conversations have no end token in the template"),
    );
    add(
        Level::Note,
        "split-conversations",
        template.split_conversations > 0,
        format!(
            "the template rewrites earlier turns: {} conversations became one sample a turn",
            template.split_conversations
        ),
    );
    list.sort_by_key(|finding| finding.level);
    list
}

#[cfg(test)]
mod tests;
