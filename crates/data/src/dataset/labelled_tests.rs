//! Labelled rows from files to samples and findings.
use std::path::{Path, PathBuf};

use super::*;
use crate::fixtures::json_of;
use crate::task::{IGNORED, Label};

const GOLDEN: &str = include_str!("../../golden/encoders.json");
const ONE: Task = Task::Classification { multi_label: false };
const MANY: Task = Task::Classification { multi_label: true };

fn tokenizer() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let files = &json_of(GOLDEN)["folders"]["uncased"]["files"];
    for (name, text) in files.as_object().unwrap() {
        std::fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
    }
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> Vec<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    vec![path]
}

fn spec(task: Task, train: Vec<PathBuf>) -> DataSpec {
    DataSpec { train, task, max_tokens: 16, ..DataSpec::default() }
}

const TRAIN: &str = "\
{\"text\": \"the luthier carves\", \"label\": \"work\"}
{\"text\": \"the plate sings\", \"label\": \"sound\"}
{\"text\": \"The plate  sings\", \"label\": \"work\"}
{\"text\": \"the top plate\", \"label\": \"work\"}
{\"text\": \"the top plate\", \"label\": \"work\"}
";

#[test]
fn labels_are_found_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let eval = write(folder.path(), "eval.jsonl", "{\"text\": \"The top plate\", \"label\": \"sound\"}\n");
    let spec =
        DataSpec { eval: EvalSpec::Files(eval), ..spec(ONE, write(folder.path(), "train.jsonl", TRAIN)) };
    let data = load(&spec, &tokenizer()).unwrap();
    assert_eq!(data.labels.names(), ["sound", "work"]);
    assert_eq!(data.train[0].label, Label::Class(1));
    assert_eq!(data.train[0].tokens, [2, 5, 6, 7, 8, 9, 10, 3]);
    assert_eq!(data.texts, [["The top plate"]]);
    let labels = data.report.labels.as_ref().unwrap();
    assert_eq!((labels.train.counts.as_slice(), labels.train.majority), (&[1, 4][..], 0.8));
    assert_eq!(labels.train.contradictions, 2);
    // Always answering `work`, the most frequent of the training rows, is never right here.
    assert_eq!(labels.eval.as_ref().unwrap().majority, 0.0);
    assert_eq!((data.report.shared_rows, data.report.shared_prompts), (0, 1));
    assert_eq!(data.report.train.duplicates, 1);
    let found: Vec<_> = data.report.findings.iter().map(|f| f.code).collect();
    for code in ["contradictions", "duplicates", "shared-prompts", "label-few"] {
        assert!(found.contains(&code), "{code} in {found:?}");
    }
    let text = crate::render_report(&data.report, crate::Style::Plain, 80);
    for line in [
        "work                                 4             0",
        "always the largest              80.0 %         0.0 %",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    assert!(text.contains("train.jsonl:1, 8 tokens, answer: work"), "{text}");
}

#[test]
fn the_base_s_labels_are_taken_if_they_cover_the_data_s() {
    let folder = tempfile::tempdir().unwrap();
    let train = write(folder.path(), "train.jsonl", TRAIN);
    let names = |names: &[&str]| Some(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    let of = |spec: &DataSpec| load(spec, &tokenizer()).map(|data| data.labels.names().join(" "));
    let base = spec(ONE, train);
    let covered = DataSpec { preferred_labels: names(&["work", "none", "sound"]), ..base.clone() };
    assert_eq!(of(&covered).unwrap(), "work none sound");
    let other = DataSpec { preferred_labels: names(&["work", "none"]), ..base.clone() };
    assert_eq!(of(&other).unwrap(), "sound work");
    let given = DataSpec { labels: names(&["work", "none"]), ..base.clone() };
    let refused = of(&given).unwrap_err().to_string();
    assert!(refused.contains("train.jsonl:2: label `sound` is none of: work, none"), "{refused}");
    assert!(matches!(of(&DataSpec { labels: names(&["work"]), ..base }), Err(Error::FewLabels { found: 1 })));
}

#[test]
fn pairs_many_labels_and_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let pair = "{\"sentence1\": \"the luthier carves the top plate\", \"sentence2\": \"the plate sings here\", \"label\": [\"b\", \"a\"]}\n\
                {\"sentence1\": \"a\", \"sentence2\": \"b\", \"label\": []}\n";
    let data = load(&spec(MANY, write(folder.path(), "a.jsonl", pair)), &tokenizer()).unwrap();
    assert_eq!(data.train[0].label, Label::Classes(vec![true, true]));
    assert_eq!(data.train[1].label, Label::Classes(vec![false, false]));
    assert_eq!(data.train[1].types, [0, 0, 0, 1, 1]);
    assert_eq!((data.train[0].tokens.len(), data.report.train.truncated), (16, 0));
    let score = "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 2.5}\n{\"sentence1\": \"b\", \"sentence2\": \"b\", \"score\": \"4\"}\n";
    let data = load(&spec(Task::Regression, write(folder.path(), "b.jsonl", score)), &tokenizer()).unwrap();
    assert_eq!(
        data.train.iter().map(|s| s.label.clone()).collect::<Vec<_>>(),
        [Label::Value(2.5), Label::Value(4.0)]
    );
    let values = data.report.labels.unwrap().train.values.unwrap();
    assert_eq!((values.mean, values.deviation), (3.25, 0.75));
    let listed = load(&spec(ONE, write(folder.path(), "c.jsonl", pair)), &tokenizer()).unwrap_err();
    assert!(listed.to_string().contains("set `multi_label = true`"), "{listed}");
}

#[test]
fn the_first_token_of_a_word_carries_its_tag() {
    let folder = tempfile::tempdir().unwrap();
    let conll =
        "-DOCSTART- -X- O\n\nThe DT O\nluthier NN B-who\ncarves VB O\n\nunaffable JJ O\nplate NN B-what\n";
    let spec = DataSpec {
        format: Format::Conll,
        ..spec(Task::TokenClassification, write(folder.path(), "train.conll", conll))
    };
    let data = load(&spec, &tokenizer()).unwrap();
    assert_eq!(data.labels.names(), ["B-what", "B-who", "O"]);
    let i = IGNORED;
    // [CLS] the lu ##thi ##er carve ##s [SEP]
    assert_eq!(data.train[0].label, Label::Tokens(vec![i, 2, 1, i, i, 2, i, i]));
    assert_eq!((data.train[1].line, data.train[0].targets()), (7, 3));
    assert_eq!(data.report.labels.unwrap().train.counts, [1, 1, 3]);
}

#[test]
fn long_texts_to_be_masked_become_pieces_with_special_tokens_around() {
    let folder = tempfile::tempdir().unwrap();
    let text = "the luthier carves the top plate and the back plate, and then the top plate";
    let spec = DataSpec { max_tokens: 10, ..spec(Task::MaskedLm, write(folder.path(), "a.txt", text)) };
    let data = load(&spec, &tokenizer()).unwrap();
    assert!(data.train.len() > 1);
    for sample in &data.train {
        assert!(sample.tokens.len() <= 10 && sample.tokens[0] == 2 && sample.tokens.last() == Some(&3));
        assert_eq!(sample.targets(), sample.tokens.len() - 2);
    }
    let whole = data.train.iter().flat_map(|s| s.tokens[1..s.tokens.len() - 1].to_vec()).collect::<Vec<_>>();
    assert_eq!(whole, tokenizer().encode(text).unwrap());
    let llama = crate::fixtures::pieces(None);
    assert!(matches!(load(&spec, &llama), Err(Error::SpecialMissing { .. })));
}

#[test]
fn a_benchmark_brings_its_labels_and_formats_fit_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "a\t1\t\tthe plate sings\nb\t0\t*\tthe sings \"plate\nc\t1\t\tthe back plate\n";
    let files = write(folder.path(), "train.tsv", rows);
    let cola = DataSpec { format: Format::benchmark("glue-cola").unwrap(), ..spec(ONE, files.clone()) };
    let data = load(&cola, &tokenizer()).unwrap();
    assert_eq!(data.labels.names(), ["unacceptable", "acceptable"]);
    assert_eq!(data.train[1].label, Label::Class(0));
    for (format, task) in [
        (Format::benchmark("glue-cola").unwrap(), Task::Regression),
        (Format::benchmark("glue-stsb").unwrap(), ONE),
        (Format::Alpaca, ONE),
        (Format::Classification, Task::Lm),
    ] {
        let refused = load(&DataSpec { format, ..spec(task, files.clone()) }, &tokenizer());
        assert!(matches!(refused, Err(Error::FormatTask { .. })), "{format:?} {task:?}");
    }
    assert_eq!(Format::benchmark("glue-coal"), None);
}
