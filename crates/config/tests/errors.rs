//! Every mistake in a `run.toml`: the message, the place that is underlined, the way out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use luthier_config::{Error, RawConfig, Run};
use std::path::Path;

const METHODS: [&str; 2] = ["lora", "full-ft"];

/// A valid file of ten lines; cases put one line of it wrong.
const GOOD: &str = r#"base = "model"
output = "out"
seed = 7
[method.lora]
rank = 8
[data]
train = "train.jsonl"
[optimizer.adamw]
lr = 2e-4
[train]
steps = 20
"#;

fn parse(text: &str, sets: &[&str]) -> Result<RawConfig, Error> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    RawConfig::parse("run.toml", text, &sets, &METHODS)
}

/// `code: message`, then line:column and the underlined text, then the help.
fn show(error: &Error) -> String {
    let place = error.place().map_or(String::new(), |place| {
        let underlined: String = place.text.chars().skip(place.column - 1).take(place.width).collect();
        format!("\n  {} {}:{} {underlined}", place.file, place.line, place.column)
    });
    let help = error.help().map_or(String::new(), |help| format!("\n  help: {help}"));
    format!("{}: {error}{place}{help}", error.code())
}

/// The file with one line replaced gives this error.
#[track_caller]
fn wrong(line: &str, replacement: &str, expected: &str) {
    assert!(GOOD.contains(line), "{line}");
    let error = parse(&GOOD.replace(line, replacement), &[]).expect_err("the file is wrong");
    assert_eq!(show(&error), expected);
}

#[test]
fn the_file_itself_is_right() {
    let raw = parse(GOOD, &[]).unwrap();
    assert_eq!(raw.method().id(), "lora");
}

#[test]
fn misspelt_keys_are_underlined_and_the_nearest_named() {
    wrong(
        "seed = 7",
        "sede = 7",
        "config-unknown-key: unknown key `sede` in the file\n  run.toml 3:1 sede\n  help: did you mean `seed`?",
    );
    wrong(
        "steps = 20",
        "max_steps = 20",
        "config-unknown-key: unknown key `max_steps` in [train]\n  run.toml 11:1 max_steps\n  help: did you mean `steps`?",
    );
    wrong(
        "steps = 20",
        "lr = 0.1",
        "config-unknown-key: unknown key `lr` in [train]\n  run.toml 11:1 lr\n  help: `lr` belongs to [optimizer.adamw]",
    );
    wrong(
        "lr = 2e-4",
        "lr = 2e-4\nmoon = 1",
        "config-unknown-key: unknown key `moon` in [optimizer.adamw]\n  run.toml 10:1 moon\n  help: known keys: lr, weight_decay, betas, eps, clip",
    );
    wrong(
        "[method.lora]",
        "[methods.lora]",
        "config-unknown-key: unknown key `methods` in the file\n  run.toml 4:2 methods\n  help: did you mean `method`?",
    );
}

#[test]
fn misspelt_names_are_underlined_and_the_nearest_named() {
    wrong(
        "[method.lora]",
        "[method.lroa]",
        "config-unknown-name: unknown method `lroa`\n  run.toml 4:9 lroa\n  help: did you mean `lora`? known names: lora, full-ft",
    );
    wrong(
        "[optimizer.adamw]",
        "[optimizer.adam]",
        "config-unknown-name: unknown optimizer `adam`\n  run.toml 8:12 adam\n  help: did you mean `adamw`? known names: adamw, sgd",
    );
    wrong(
        "seed = 7",
        "compute = \"bf61\"",
        "config-unknown-name: unknown compute `bf61`\n  run.toml 3:11 \"bf61\"\n  help: did you mean `bf16`? known names: auto, bf16, f32",
    );
    wrong(
        "train = \"train.jsonl\"",
        "train = \"train.jsonl\"\nformat = \"chatml\"",
        "config-unknown-name: unknown data.format `chatml`\n  run.toml 8:10 \"chatml\"\n  help: known names: auto, alpaca, messages, sharegpt, prompt-completion, question-answer, text, classification, token-classification, conll, glue-cola, glue-sst2, glue-mrpc, glue-stsb, glue-qqp, glue-mnli, glue-qnli, glue-rte, glue-wnli, clue-afqmc, clue-tnews, clue-iflytek, clue-cmnli, clue-ocnli, clue-wsc, clue-csl, preference",
    );
}

#[test]
fn wrong_types_are_said_in_words() {
    for (line, replacement, expected) in [
        (
            "steps = 20",
            "steps = \"20\"",
            "`train.steps` must be a whole number of at least 1, got the text \"20\"\n  run.toml 11:9 \"20\"",
        ),
        (
            "steps = 20",
            "steps = 1.5",
            "`train.steps` must be a whole number of at least 1, got 1.5\n  run.toml 11:9 1.5",
        ),
        ("steps = 20", "recompute = 1", "`train.recompute` must be true or false, got 1\n  run.toml 11:13 1"),
        ("seed = 7", "seed = -7", "`seed` must be a whole number of at least 0, got -7\n  run.toml 3:8 -7"),
        ("base = \"model\"", "base = [1]", "`base` must be text in quotes, got a list\n  run.toml 1:8 [1]"),
        (
            "lr = 2e-4",
            "lr = \"2e-4\"",
            "`optimizer.adamw.lr` must be a number, got the text \"2e-4\"\n  run.toml 9:6 \"2e-4\"",
        ),
        (
            "lr = 2e-4",
            "lr = 1\nbetas = [0.9]",
            "`optimizer.adamw.betas` must be a list of two numbers, got a list of 1\n  run.toml 10:9 [0.9]",
        ),
        (
            "lr = 2e-4",
            "lr = 1\nbetas = [0.9, 0.9, 0.9]",
            "`optimizer.adamw.betas` must be a list of 2, got a list of 3\n  run.toml 10:9 [0.9, 0.9, 0.9]",
        ),
    ] {
        wrong(line, replacement, &format!("config-value: {expected}"));
    }
    let flat = GOOD.replace("[train]\nsteps = 20\n", "");
    let error = parse(&format!("train = 5\n{flat}"), &[]).unwrap_err();
    assert_eq!(show(&error), "config-value: `train` must be a table, got 5\n  run.toml 1:9 5");
}

#[test]
fn values_out_of_range_are_refused_where_they_stand() {
    for (line, replacement, expected) in [
        (
            "steps = 20",
            "steps = 0",
            "`train.steps` must be a whole number of at least 1, got 0\n  run.toml 11:9 0",
        ),
        (
            "steps = 20",
            "batch = 0",
            "`train.batch` must be a whole number of at least 1, got 0\n  run.toml 11:9 0",
        ),
        ("steps = 20", "epochs = -1", "`train.epochs` must be a number above 0, got -1\n  run.toml 11:10 -1"),
        (
            "steps = 20",
            "keep = 0",
            "`train.keep` must be a whole number of at least 1, got 0\n  run.toml 11:8 0",
        ),
        ("lr = 2e-4", "lr = 0", "`optimizer.adamw.lr` must be a number above 0, got 0\n  run.toml 9:6 0"),
        (
            "lr = 2e-4",
            "lr = inf",
            "`optimizer.adamw.lr` must be a number above 0, got inf\n  run.toml 9:6 inf",
        ),
        (
            "lr = 2e-4",
            "lr = 1\nweight_decay = -0.1",
            "`optimizer.adamw.weight_decay` must be a number of at least 0, got -0.1\n  run.toml 10:16 -0.1",
        ),
        (
            "lr = 2e-4",
            "lr = 1\nbetas = [0.9, 1.0]",
            "`optimizer.adamw.betas.1` must be a number from 0 to below 1, got 1\n  run.toml 10:15 1.0",
        ),
        (
            "lr = 2e-4",
            "lr = 1\nclip = 0",
            "`optimizer.adamw.clip` must be a number above 0 or \"none\", got 0\n  run.toml 10:8 0",
        ),
        (
            "lr = 2e-4",
            "lr = 1\nclip = \"off\"",
            "`optimizer.adamw.clip` must be a number above 0 or \"none\", got the text \"off\"\n  run.toml 10:8 \"off\"",
        ),
        (
            "[train]",
            "[schedule.cosine]\nwarmup = 1.5\n[train]",
            "`schedule.cosine.warmup` must be a share of the run from 0 to below 1, or a whole number of steps, got 1.5\n  run.toml 11:10 1.5",
        ),
        (
            "train = \"train.jsonl\"",
            "train = []",
            "`data.train` must be at least one file, got an empty list\n  run.toml 7:9 []",
        ),
        (
            "train = \"train.jsonl\"",
            "train = 0.5",
            "`data.train` must be a file name or a list of them, got 0.5\n  run.toml 7:9 0.5",
        ),
        (
            "train = \"train.jsonl\"",
            "train = [\"a\", 1]",
            "`data.train.1` must be text in quotes, got 1\n  run.toml 7:15 1",
        ),
        (
            "train = \"train.jsonl\"",
            "train = \"t\"\neval = 1.0",
            "`data.eval` must be a file name or a list of them, or a share of the training rows above 0 and below 1, got 1.0\n  run.toml 8:8 1.0",
        ),
        (
            "train = \"train.jsonl\"",
            "train = \"t\"\nmax_tokens = 0",
            "`data.max_tokens` must be a whole number of at least 1, got 0\n  run.toml 8:14 0",
        ),
    ] {
        wrong(line, replacement, &format!("config-value: {expected}"));
    }
}

#[test]
fn a_choice_holds_exactly_one_table() {
    wrong(
        "[method.lora]",
        "[method.full-ft]\n[method.lora]",
        "config-not-one: [method] must hold exactly one table, got `full-ft` and `lora`\n  run.toml 5:9 lora\n  help: keep one of them",
    );
    wrong(
        "[method.lora]\nrank = 8",
        "[method]",
        "config-not-one: [method] must hold exactly one table, got none\n  run.toml 4:2 method\n  help: write one, as in [method.lora] with rank = 8",
    );
    wrong(
        "lr = 2e-4",
        "lr = 2e-4\n[optimizer.sgd]\nlr = 1",
        "config-not-one: [optimizer] must hold exactly one table, got `adamw` and `sgd`\n  run.toml 10:12 sgd\n  help: keep one of them",
    );
    wrong(
        "[optimizer.adamw]\nlr = 2e-4",
        "[optimizer]",
        "config-not-one: [optimizer] must hold exactly one table, got none\n  run.toml 8:2 optimizer\n  help: write one, as in [optimizer.adamw] with lr = 2e-4",
    );
}

#[test]
fn a_choice_is_a_table_and_not_a_name() {
    let flat = GOOD.replace("[optimizer.adamw]\nlr = 2e-4\n", "");
    let error = parse(&format!("optimizer = \"adamw\"\n{flat}"), &[]).unwrap_err();
    assert_eq!(
        show(&error),
        "config-value: `optimizer` must be a table, written [optimizer.adamw], got the text \"adamw\"\n  run.toml 1:13 \"adamw\""
    );
    wrong(
        "[method.lora]\nrank = 8",
        "[method]\nlora = 3",
        "config-value: `method.lora` must be a table, got 3\n  run.toml 5:8 3",
    );
    let error = parse(&format!("compute = {{ bf16 = 1 }}\n{GOOD}"), &[]).unwrap_err();
    assert_eq!(
        show(&error),
        "config-value: `compute` must be a name in quotes, as in \"bf16\", got a table\n  run.toml 1:11 { bf16 = 1 }"
    );
}

#[test]
fn what_must_be_there_is_named_with_an_example() {
    for (line, expected) in [
        (
            "base = \"model\"\n",
            "missing key `base` in the file\n  run.toml 1:1 o\n  help: name the model: a folder with config.json, a .gguf file, or an id that `luthier pull` brought",
        ),
        (
            "[method.lora]\nrank = 8\n",
            "missing key `method` in the file\n  run.toml 1:1 b\n  help: write one, as in [method.lora] with rank = 8",
        ),
        (
            "[optimizer.adamw]\nlr = 2e-4\n",
            "missing key `optimizer` in the file\n  run.toml 1:1 b\n  help: write one, as in [optimizer.adamw] with lr = 2e-4",
        ),
        (
            "lr = 2e-4\n",
            "missing key `lr` in [optimizer.adamw]\n  run.toml 8:12 adamw\n  help: the size of a step: 1e-4 to 5e-4 for lora, 1e-5 to 5e-5 for full-ft",
        ),
        (
            "train = \"train.jsonl\"\n",
            "missing key `train` in [data]\n  run.toml 6:2 data\n  help: name the file to learn from, as in train = \"train.jsonl\"",
        ),
    ] {
        wrong(line, "", &format!("config-missing-key: {expected}"));
    }
}

#[test]
fn keys_that_exclude_or_need_each_other() {
    wrong(
        "steps = 20",
        "steps = 20\nepochs = 2",
        "config-conflict: `train.steps` and `train.epochs` exclude each other\n  run.toml 12:10 2\n  help: remove one of the two",
    );
    wrong(
        "steps = 20",
        "batch = 20\ntokens = 2",
        "config-conflict: `train.batch` and `train.tokens` exclude each other\n  run.toml 12:10 2\n  help: remove one of the two",
    );
    for (line, column) in [("best = true", 8), ("eval_every = 5", 14), ("early_stopping = 3", 18)] {
        let (key, value) = line.split_once(" = ").unwrap();
        wrong(
            "steps = 20",
            line,
            &format!(
                "config-conflict: `train.{key}` needs `data.eval`\n  run.toml 11:{column} {value}\n  help: set `data.eval`, or remove the key"
            ),
        );
    }
    let text = GOOD.replace("[optimizer", "eval = 0.1\n[optimizer") + "early_stopping = 3\n";
    assert_eq!(parse(&text, &[]).unwrap_err().to_string(), "`train.early_stopping` needs `train.eval_every`");
}

#[test]
fn a_mistake_in_an_override_points_to_the_override() {
    let error = parse(GOOD, &["train.steps=0"]).unwrap_err();
    assert_eq!(
        show(&error),
        "config-value: `train.steps` must be a whole number of at least 1, got 0\n  --set 1:13 0"
    );
    let error = parse(GOOD, &["train.batch=8", "train.stesp=5"]).unwrap_err();
    assert_eq!(
        show(&error),
        "config-unknown-key: unknown key `stesp` in [train]\n  --set 1:7 stesp\n  help: did you mean `steps`?"
    );
    let error = parse(GOOD, &["method.full-ft.master=f32"]).unwrap_err();
    assert_eq!(
        show(&error),
        "config-not-one: [method] must hold exactly one table, got `lora` and `full-ft`\n  --set 1:8 full-ft\n  help: keep one of them"
    );
    let error = parse(GOOD, &["train.steps"]).unwrap_err();
    assert_eq!(
        show(&error),
        "config-override: `--set train.steps` is not of the form KEY=VALUE\n  help: for example --set train.steps=50 or --set method.lora.rank=16"
    );
}

#[test]
fn a_methods_own_table_is_read_by_its_type() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lora {
        #[serde(rename = "rank")]
        _rank: std::num::NonZeroUsize,
    }
    let raw = parse(&GOOD.replace("rank = 8", "rnak = 8"), &[]).unwrap();
    assert_eq!(
        show(&raw.method().read::<Lora>().unwrap_err()),
        "config-unknown-key: unknown key `rnak` in [method.lora]\n  run.toml 5:1 rnak\n  help: did you mean `rank`?"
    );
    let raw = parse(&GOOD.replace("rank = 8", "rank = 0"), &[]).unwrap();
    assert_eq!(
        show(&raw.method().read::<Lora>().unwrap_err()),
        "config-value: `method.lora.rank` must be a whole number of at least 1, got 0\n  run.toml 5:8 0"
    );
    let raw = parse(GOOD, &[]).unwrap();
    assert_eq!(raw.method().table()["rank"].as_integer(), Some(8));
    let refused =
        raw.method().refuse(Some("rank"), "larger than d_model".to_owned(), Some("try 4".to_owned()));
    assert_eq!(
        show(&refused),
        "config-value: `method.lora.rank`: larger than d_model\n  run.toml 5:8 8\n  help: try 4"
    );
    let refused = raw.method().refuse(None, "not ready".to_owned(), None);
    assert_eq!(show(&refused), "config-value: `method.lora`: not ready\n  run.toml 4:9 lora");
}

#[test]
fn what_another_crate_refuses_is_traced_to_its_key() {
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lora {
        #[serde(rename = "rank")]
        _rank: std::num::NonZeroUsize,
        #[serde(rename = "alpha", default)]
        _alpha: f64,
    }
    let make = |line: &str| {
        let raw = parse(&GOOD.replace("rank = 8", line), &[]).unwrap();
        raw.method().make(|table| serde_json::from_value::<Lora>(serde_json::to_value(table).unwrap()))
    };
    assert!(make("rank = 8").is_ok());
    for (line, expected) in [
        (
            "rank = 8\nalhpa = 16",
            "config-unknown-key: unknown key `alhpa` in [method.lora]\n  run.toml 6:1 alhpa\n  help: did you mean `alpha`?",
        ),
        (
            "alpha = 1\nrank = 0",
            "config-value: `method.lora.rank`: invalid value: integer `0`, expected a nonzero usize\n  run.toml 6:8 0",
        ),
        (
            "rank = 8\nalpha = \"x\"",
            "config-value: `method.lora.alpha`: invalid type: string \"x\", expected f64\n  run.toml 6:9 \"x\"",
        ),
        ("alpha = 1", "config-value: `method.lora`: missing field `rank`\n  run.toml 4:9 lora"),
    ] {
        assert_eq!(show(&make(line).unwrap_err()), expected);
    }
}

/// A folder with a model and a data file.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    std::fs::write(folder.path().join("train.jsonl"), "{}\n").unwrap();
    std::fs::write(folder.path().join("run.toml"), GOOD).unwrap();
    folder
}

#[test]
fn files_that_are_not_there_are_named_with_one_like_them() {
    let folder = folder();
    let load =
        |set: &str| Run::load(&folder.path().join("run.toml"), &[set.to_owned()], &METHODS).unwrap_err();
    let error = load("data.train=trian.jsonl");
    let path = folder.path().join("trian.jsonl");
    assert_eq!(
        show(&error),
        format!(
            "config-no-file: no file `{}` for `data.train`\n  --set 1:12 trian.jsonl\n  help: did you mean `train.jsonl`? paths are relative to the configuration's folder",
            path.display()
        )
    );
    let error = load("base=./moddel");
    assert!(error.help().unwrap().starts_with("did you mean `model`?"), "{error}");
    let error = load("data.eval=nothing-like-it");
    assert_eq!(error.help().unwrap(), "paths are relative to the configuration's folder");
}

#[test]
fn a_file_that_cannot_be_read() {
    let folder = folder();
    let error = Run::load(&folder.path().join("absent.toml"), &[], &METHODS).unwrap_err();
    assert_eq!(error.code(), "config-unreadable");
    let path = folder.path().join("latin.toml");
    std::fs::write(&path, b"base = \"\xe9\"").unwrap();
    let error = Run::load(&path, &[], &METHODS).unwrap_err();
    assert_eq!(
        show(&error),
        format!(
            "config-unreadable: `{}` is not UTF-8: byte 8 starts no character\n  help: save the file as UTF-8",
            path.display()
        )
    );
    let error = Run::load(Path::new(""), &[], &METHODS).unwrap_err();
    assert_eq!(error.code(), "config-unreadable");
}
