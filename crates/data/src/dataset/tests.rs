use std::path::Path;

use super::*;
use crate::fixtures;
use crate::render::{Style, render_report};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn questions(n: usize) -> String {
    let row = |i| format!("{{\"question\": \"What is {i} + 1?\", \"answer\": \"{}\"}}\n", i + 1);
    (0..n).map(row).collect()
}

fn spec(folder: &Path, text: &str) -> DataSpec {
    DataSpec { train: vec![write(folder, "train.jsonl", text)], ..DataSpec::default() }
}

#[test]
fn questions_become_samples_and_examples() {
    let folder = tempfile::tempdir().unwrap();
    let spec = DataSpec { eval: EvalSpec::Fraction(0.1), ..spec(folder.path(), &questions(50)) };
    let tokenizer = fixtures::bytes(None);
    let dataset = load(&spec, &tokenizer).unwrap();
    assert_eq!((dataset.train.len(), dataset.eval.len(), dataset.examples.len()), (45, 5, 5));
    let report = &dataset.report;
    assert_eq!((report.train.rows, report.eval.as_ref().unwrap().rows), (45, 5));
    assert_eq!((report.shared_rows, report.shared_prompts), (0, 0));
    assert_eq!(report.files[0].why, "columns `question` and `answer`");
    assert_eq!(report.train.targets, dataset.train.iter().map(|s| s.targets() as u64).sum::<u64>());
    let again = load(&spec, &tokenizer).unwrap();
    assert_eq!(dataset, again);
    let other = load(&DataSpec { seed: 1, ..spec }, &tokenizer).unwrap();
    assert_ne!(dataset.eval, other.eval);
}

#[test]
fn all_bad_rows_are_found_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = questions(3);
    text += "{\"question\": \"x\"}\nnonsense\n";
    let mut spec = spec(folder.path(), &text);
    spec.eval =
        EvalSpec::Files(vec![write(folder.path(), "eval.jsonl", "{\"question\": 1, \"answer\": []}\n")]);
    let error = load(&spec, &fixtures::bytes(None)).unwrap_err();
    let details: Vec<String> = error
        .details()
        .iter()
        .map(|d| d.rsplit_once(std::path::MAIN_SEPARATOR).unwrap().1.to_owned())
        .collect();
    assert_eq!(details[0], "train.jsonl:5: not JSON: expected ident at column 2");
    assert_eq!(details[1], "train.jsonl:4: field `answer`: missing");
    assert_eq!(details[2], "eval.jsonl:1: field `answer`: expected a string, got a list");
    assert_eq!(error.place().unwrap().1, Some(5));
    assert_eq!(error.code(), "data-rows");
}

#[test]
fn rows_that_the_template_refuses_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n\
                {\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n";
    let source = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let spec = DataSpec { template: TemplateChoice::Source(source.into()), ..spec(folder.path(), text) };
    let details = load(&spec, &fixtures::bytes(None)).unwrap_err().details();
    assert_eq!(details.len(), 1);
    assert!(
        details[0].contains("train.jsonl:2: the chat template refuses it")
            && details[0].contains("no tools here"),
        "{details:?}"
    );
}

#[test]
fn a_set_without_a_target_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spec = DataSpec { max_tokens: 4, ..spec(folder.path(), &questions(3)) };
    let error = load(&spec, &fixtures::bytes(None)).unwrap_err();
    assert!(matches!(error, Error::NoLabels { set: "train", samples: 3, dropped: 3 }), "{error}");
    let (report, verdict) = inspect(&spec, &fixtures::bytes(None), 5).unwrap();
    assert_eq!((report.train.dropped, report.train.samples, verdict.is_some()), (3, 0, true));
    assert!(render_report(&report, Style::Plain, 80).contains("3 samples left out"));
}

#[test]
fn text_of_an_unknown_script_is_refused() {
    let tree = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []},
    });
    let files = crate::TokenizerFiles { tokenizer: tree.to_string().into_bytes(), ..Default::default() };
    let tokenizer = Tokenizer::from_files(files).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let error = load(&spec(folder.path(), "{\"text\": \"abc琴琴\"}\n"), &tokenizer).unwrap_err();
    assert!(matches!(error, Error::Unknown { share, .. } if (share - 0.4).abs() < 1e-9), "{error}");
    assert!(load(&spec(folder.path(), "{\"text\": \"abcabcabc琴\"}\n"), &tokenizer).is_ok());
}

#[test]
fn duplicates_are_counted_within_and_across() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = questions(10);
    text += &questions(2).to_uppercase().replace("QUESTION", "question").replace("ANSWER", "answer");
    let mut spec = spec(folder.path(), &text);
    let eval = questions(3).replace("\"answer\": \"3\"", "\"answer\": \"three\"");
    spec.eval = EvalSpec::Files(vec![write(folder.path(), "eval.jsonl", &eval)]);
    let report = load(&spec, &fixtures::bytes(None)).unwrap().report;
    assert_eq!(report.train.duplicates, 2);
    assert_eq!((report.shared_rows, report.shared_prompts), (2, 3));
    let codes: Vec<&str> = report.findings.iter().map(|f| f.code).collect();
    assert_eq!(
        codes,
        ["shared-rows", "duplicates", "shared-prompts", "built-in-template", "end-token-added"]
            [..codes.len()]
    );
}

#[test]
fn a_fraction_keeps_duplicates_on_one_side() {
    let folder = tempfile::tempdir().unwrap();
    let text = questions(20).repeat(3);
    for seed in 0..5 {
        let spec = DataSpec { eval: EvalSpec::Fraction(0.2), seed, ..spec(folder.path(), &text) };
        let dataset = load(&spec, &fixtures::bytes(None)).unwrap();
        assert_eq!((dataset.train.len(), dataset.eval.len()), (48, 12));
        assert_eq!((dataset.report.shared_rows, dataset.report.train.duplicates), (0, 32));
    }
}

#[test]
fn a_text_file_is_split_by_its_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let line = |i| format!("Line {i} of the luthier's book.\n");
    let text: String = (0..200).map(line).collect();
    let train = vec![write(folder.path(), "book.txt", &text)];
    let spec = DataSpec { train, eval: EvalSpec::Fraction(0.25), max_tokens: 32, ..DataSpec::default() };
    let dataset = load(&spec, &fixtures::bytes(None)).unwrap();
    let share = dataset.eval.len() as f64 / (dataset.train.len() + dataset.eval.len()) as f64;
    assert!((share - 0.25).abs() < 0.02 && dataset.examples.is_empty());
    assert_eq!(dataset.report.files[0].why, "the file is plain text");
    assert!(!dataset.report.template.is_used);
}

#[test]
fn settings_out_of_range_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = spec(folder.path(), &questions(3));
    let tokenizer = fixtures::bytes(None);
    for (changed, key_) in [
        (DataSpec { train: vec![], ..base.clone() }, "train"),
        (DataSpec { max_tokens: 1, ..base.clone() }, "max_tokens"),
        (DataSpec { eval: EvalSpec::Fraction(1.0), ..base.clone() }, "eval"),
        (DataSpec { eval: EvalSpec::Fraction(f64::NAN), ..base.clone() }, "eval"),
        (DataSpec { eval: EvalSpec::Files(vec![]), ..base.clone() }, "eval"),
    ] {
        let error = load(&changed, &tokenizer).unwrap_err();
        assert!(matches!(error, Error::Setting { key, .. } if key == key_), "{error}");
        assert!(error.help().is_some());
    }
}

#[test]
fn csv_in_gb18030_is_read_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = encoding_rs::GB18030
        .encode("问题,答案\n琴有几根弦?,四根。\n弓是什么做的?,木头和马尾。\n")
        .0
        .into_owned();
    let path = folder.path().join("fragen.csv");
    std::fs::write(&path, bytes).unwrap();
    let fields =
        Fields { prompt: Some("问题".into()), completion: Some("答案".into()), ..Fields::default() };
    let spec = DataSpec { train: vec![path], fields, ..DataSpec::default() };
    let error = load(&spec, &fixtures::bytes(None)).unwrap_err();
    assert!(error.help().unwrap().contains("encoding = \"gb18030\""), "{error}");
    let dataset =
        load(&DataSpec { encoding: Some("gb18030".into()), ..spec }, &fixtures::bytes(None)).unwrap();
    assert_eq!((dataset.train.len(), dataset.report.files[0].encoding.as_str()), (2, "gb18030"));
}

#[test]
fn the_doctor_says_what_it_sees() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"prompt\": \"琴?\", \"completion\": \"A violin.\"}\n\
                {\"prompt\": \"Say <|im_end|>\", \"completion\": \"\"}\n\
                {\"prompt\": \"琴?\", \"completion\": \"a  violin.\"}\n";
    let mut report = load(&spec(folder.path(), text), &fixtures::bytes(None)).unwrap().report;
    report.files[0].path = "train.jsonl".into();
    report.previews.truncate(1);
    report.previews[0].path = "train.jsonl".into();
    let seen = render_report(&report, Style::Plain, 60);
    let expected = include_str!("../../golden/doctor.txt");
    assert_eq!(seen, expected, "seen:\n{seen}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["train"]["empty_answers"], 1);
    let pieces = json["previews"][0]["pieces"].as_array().unwrap();
    assert!(pieces.iter().any(|piece| piece["text"] == "琴" && piece["labelled"] == false));
}
