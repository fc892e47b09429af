//! Whole runs of a tiny encoder on tasks: head, labels, metrics, resume, results on disk.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]
mod tiny;

use luthier_data::{LabelSet, Task};
use luthier_tensor::DType;
use luthier_train::{Error, Finished, Options, TaskFile, open_adapted, open_as_saved, open_for_adapter, run};
use std::fs;
use std::path::Path;
use tiny::Watch;

const FRESH: Options = Options { resume: false, overwrite: false };
const RESUME: Options = Options { resume: true, overwrite: false };
const LORA: &str = "[method.lora]\nrank = 2\ndropout = 0.1";
const FULL: &str = "[method.full-ft]";
const WORDS: &str = "[PAD] [UNK] [CLS] [SEP] [MASK] the a plate top back string bow sings rests is was cold warm loud still \
                     and not";

/// The committed BERT of the models' goldens, with a vocabulary of its size.
fn base(folder: &Path) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden/bert/default");
    let base = folder.join("base");
    fs::create_dir_all(&base).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden.join(name), base.join(name)).unwrap();
    }
    let words = WORDS.split(' ').map(str::to_owned).chain((0..40).map(|i| format!("w{i}")));
    fs::write(base.join("vocab.txt"), words.take(61).map(|w| w + "\n").collect::<String>()).unwrap();
}

/// Rows that a word decides.
fn rows(n: usize, row: impl Fn(&str, usize) -> String) -> String {
    let nouns = ["plate", "top", "back", "string", "bow"];
    (0..n)
        .map(|i| row(&format!("the {} w{} is {}", nouns[i % 5], i % 37, ["cold", "warm"][i % 2]), i % 2))
        .collect()
}

fn config(folder: &Path, task: &str, method: &str, text: &str, more: &[&str]) -> luthier_config::Run {
    base(folder);
    let (name, format) = match text.chars().next() {
        Some('{') => ("data.jsonl", ""),
        Some('s') => ("train.tsv", "format = \"glue-sst2\"\n"),
        _ => ("data.conll", "format = \"conll\"\n"),
    };
    fs::write(folder.join(name), text).unwrap();
    let text = format!(
        "base = 'base'\noutput = \"out\"\nseed = 3\ncompute = \"f32\"\nthreads = 1\ntask = \"{task}\"\n{method}\n\
         [data]\ntrain = \"{name}\"\neval = 0.3\n{format}\
         [optimizer.adamw]\nlr = 5e-3\n[train]\nsteps = 40\nbatch = 8\nsave_every = 10\neval_every = 20\n"
    );
    let sets = more.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
    let raw = luthier_config::RawConfig::parse("run.toml", &text, &sets, &["lora", "full-ft"]).unwrap();
    raw.resolve(folder).unwrap()
}

fn go(run_: &luthier_config::Run, options: Options, watch: &mut Watch) -> Result<Finished, Error> {
    run(run_, options, &mut [watch])
}

fn sentences(n: usize) -> String {
    rows(n, |text, class| format!("{{\"text\": \"{text}\", \"label\": \"{}\"}}\n", ["low", "high"][class]))
}

fn metric(finished: &Finished, name: &str) -> f64 {
    let metrics = &finished.proof.as_ref().unwrap().metrics;
    metrics
        .iter()
        .find(|m| m.name == name)
        .unwrap_or_else(|| panic!("no {name} in {metrics:?}"))
        .after
        .unwrap()
}

#[test]
fn a_classifier_is_learnt_saved_with_its_labels_and_merged() {
    for method in [LORA, FULL] {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::default();
        let run = config(folder.path(), "classification", method, &sentences(100), &["train.best=true"]);
        let finished = go(&run, FRESH, &mut watch).unwrap();
        assert_eq!(metric(&finished, "accuracy"), 1.0);
        let majority = finished.proof.as_ref().unwrap().majority.unwrap();
        assert!((0.3..0.7).contains(&majority), "{majority}");
        let out = folder.path().join("out");
        let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        assert!(lines.lines().any(|l| l.contains("\"metric\":\"accuracy\"")), "{lines}");
        let path = folder.path().join("base");
        let opened = match &finished.adapter {
            Some(adapter) => {
                let file = TaskFile::read(adapter).unwrap().unwrap();
                assert_eq!(file.labels, ["high", "low"]);
                let base = open_for_adapter(&path, Some(adapter)).unwrap();
                open_adapted(&base, Some(adapter), DType::F32, None).unwrap();
                let config = fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
                assert!(config.contains("SEQ_CLS") && config.contains("classifier"), "{config}");
                base
            }
            None => open_as_saved(finished.model.as_ref().unwrap()).unwrap(),
        };
        assert_eq!(opened.config.0["label2id"]["low"], 1);
        assert_eq!(opened.config.0["problem_type"], "single_label_classification");
    }
}

#[test]
fn every_task_learns_what_its_words_decide() {
    let many = rows(120, |text, class| {
        format!("{{\"text\": \"{text}\", \"label\": [{}]}}\n", ["\"a\"", "\"b\", \"c\""][class])
    });
    let score =
        rows(120, |text, class| format!("{{\"text\": \"{text}\", \"label\": {}}}\n", ["-1.0", "1.5"][class]));
    let tags = rows(120, |text, class| {
        let tag = |w: &str| match (w, class) {
            ("cold", _) => "B-low",
            ("warm", _) => "B-high",
            _ => "O",
        };
        let lines = text.split(' ').map(|w| format!("{w} {}", tag(w))).collect::<Vec<_>>();
        lines.join("\n") + "\n\n"
    });
    let glue = rows(120, |text, class| format!("{text}\t{class}\n"));
    let glue = format!("sentence\tlabel\n{glue}");
    for (task, text, more, name, least) in [
        ("classification", glue.as_str(), "data.max_tokens=20", "accuracy", 0.95),
        ("classification", &many, "data.multi_label=true", "micro-f1", 0.95),
        ("regression", &score, "train.metric=\"spearman\"", "pearson", 0.9),
        ("token-classification", &tags, "train.label_smoothing=0.1", "entity-f1", 0.95),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let run = config(folder.path(), task, FULL, text, &[more, "train.steps=60"]);
        let finished = go(&run, FRESH, &mut Watch::default()).unwrap();
        let got = metric(&finished, name);
        assert!(got >= least, "{task}: {name} {got}");
        let proof = finished.proof.unwrap();
        assert!(proof.after.loss < proof.before.loss, "{task}");
    }
}

#[test]
fn hidden_tokens_are_guessed_better_after_training() {
    let folder = tempfile::tempdir().unwrap();
    let text = rows(60, |text, _| format!("{{\"text\": \"{text}\"}}\n"));
    let run = config(folder.path(), "masked-lm", LORA, &text, &["train.mask_share=0.3", "data.format=text"]);
    let finished = go(&run, FRESH, &mut Watch::default()).unwrap();
    let proof = finished.proof.unwrap();
    assert!(proof.after.loss < 0.9 * proof.before.loss && proof.metrics.is_empty());
}

#[test]
fn a_stopped_run_ends_as_an_uninterrupted_one_bit_for_bit() {
    let masked = rows(60, |text, _| format!("{{\"text\": \"{text}\"}}\n"));
    for (task, text, more) in [
        ("classification", sentences(60), "train.class_weights=balanced"),
        ("masked-lm", masked, "data.format=text"),
    ] {
        let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |folder: &Path| config(folder, task, LORA, &text, &[more, "train.steps=12"]);
        let want = go(&at(whole.path()), FRESH, &mut Watch::default()).unwrap();
        let mut watch = Watch { stop_after: Some(7), ..Watch::default() };
        assert!(go(&at(stopped.path()), FRESH, &mut watch).unwrap().proof.is_none());
        let got = go(&at(stopped.path()), RESUME, &mut Watch::default()).unwrap();
        assert_eq!(got.resumed_from, Some(7));
        assert_eq!(want.proof, got.proof);
        let weights =
            |f: &Finished| fs::read(f.adapter.as_ref().unwrap().join("adapter_model.safetensors")).unwrap();
        assert_eq!(weights(&want), weights(&got));
    }
}

#[test]
fn settings_that_do_not_fit_the_task_are_refused_at_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |more: &[&str]| {
        let run = config(folder.path(), "classification", LORA, &sentences(30), more);
        go(&run, FRESH, &mut Watch::default()).unwrap_err().to_string()
    };
    let message = refused(&["train.metric=\"acuracy\""]);
    assert!(message.contains("no metric of this task") && message.contains("accuracy"), "{message}");
    let message = refused(&["train.class_weights=[1, 2, 3]"]);
    assert!(message.contains("3 weights for 2 labels (high, low)"), "{message}");
    let labels = LabelSet::new(vec!["low".into(), "high".into()]);
    let task = Task::Classification { multi_label: false };
    assert_eq!(TaskFile::of(task, &labels).labels, ["low", "high"]);
    let text = rows(30, |text, _| format!("{{\"text\": \"{text}\"}}\n"));
    let run = config(folder.path(), "lm", LORA, &text, &[]);
    let message = go(&run, FRESH, &mut Watch::default()).unwrap_err().to_string();
    assert!(message.contains("the base is an encoder"), "{message}");
    let message = refused(&["data.labels=[\"low\", \"mid\"]"]);
    assert!(message.contains("`high` is none of: low, mid"), "{message}");
}
