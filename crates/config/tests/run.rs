//! What a configuration means, and that writing it back changes nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use luthier_config::{
    AdamW, Base, Batch, ClassWeights, Clip, Compute, Eval, Format, Length, LossOn, Optimizer, Run, Schedule,
    Storage, Task, Template, Warmup,
};
use std::path::Path;

const METHODS: [&str; 2] = ["lora", "full-ft"];

fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("models/smollm2")).unwrap();
    for name in ["gsm8k.jsonl", "more.jsonl", "gsm8k-test.jsonl"] {
        std::fs::write(folder.path().join(name), "{}\n").unwrap();
    }
    std::fs::write(folder.path().join("run.toml"), text).unwrap();
    folder
}

fn load(folder: &Path, sets: &[&str]) -> Run {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Run::load(&folder.join("run.toml"), &sets, &METHODS).unwrap()
}

const SHORT: &str = r#"
base = "models/smollm2"
output = "runs/first"
[method.lora]
[data]
train = "gsm8k.jsonl"
[optimizer.adamw]
lr = 2e-4
"#;

/// The example of the documentation.
const LONG: &str = r#"
base   = "models/smollm2"
output = "runs/gsm8k-lora"
seed   = 3
compute = "f32"
storage = "as-is"
task   = "lm"
threads = 2

[method.lora]
rank    = 8
alpha   = 16.0
targets = ["q", "v"]
rank_pattern = { "layers.0.attn.q" = 4 }

[data]
train = ["gsm8k.jsonl", "more.jsonl"]
eval  = "gsm8k-test.jsonl"
format = "question-answer"
fields = { question = "Q", answer = "A" }
encoding = "gb18030"
loss  = "last"
template = "more.jsonl"
max_tokens = 512

[optimizer.adamw]
lr = 2e-4
weight_decay = 0.01
betas = [0.9, 0.95]
eps = 1e-6
clip = "none"

[schedule.linear]
warmup = 10
floor = 0.1

[train]
steps  = 200
tokens = 4096
micro_batch = 2
recompute = true
eval_every = 50
save_every = 25
keep = 3
early_stopping = 4
best = true
"#;

#[test]
fn what_is_left_out_has_its_documented_default() {
    let folder = folder(SHORT);
    let run = load(folder.path(), &[]);
    assert_eq!(run.base, Base::Path(folder.path().join("models/smollm2")));
    assert_eq!(run.output, folder.path().join("runs/first"));
    assert_eq!((run.seed, run.threads), (0, None));
    assert_eq!((run.compute, run.storage, run.task), (Compute::Auto, Storage::Bf16, Task::Lm));
    assert_eq!(run.data.train, [folder.path().join("gsm8k.jsonl")]);
    assert_eq!((run.data.eval, run.data.encoding), (None, None));
    assert_eq!(
        (run.data.format, run.data.loss, run.data.max_tokens),
        (Format::Auto, LossOn::Assistant, 1024)
    );
    let Optimizer::Adamw(AdamW { lr, weight_decay, betas, eps, clip }) = &run.optimizer else {
        panic!("adamw")
    };
    assert_eq!((lr.get(), weight_decay.get(), eps.get()), (2e-4, 0.0, 1e-8));
    assert_eq!((betas[0].get(), betas[1].get(), clip), (0.9, 0.999, &Clip::default()));
    let Schedule::Cosine(cosine) = &run.schedule else { panic!("cosine") };
    assert_eq!((cosine.warmup, cosine.floor.get()), (Warmup::default(), 0.0));
    assert_eq!((run.train.length, run.train.batch), (Length::Epochs(3.0), Batch::Samples(8)));
    assert_eq!((run.train.keep, run.train.best, run.train.recompute), (2, false, false));
}

#[test]
fn what_is_written_is_what_runs() {
    let folder = folder(LONG);
    let run = load(folder.path(), &[]);
    assert_eq!((run.compute, run.storage), (Compute::F32, Storage::AsIs));
    assert_eq!(run.data.eval, Some(Eval::Files(vec![folder.path().join("gsm8k-test.jsonl")])));
    assert_eq!(run.data.fields["question"], "Q");
    assert_eq!(run.data.template, Template::File(folder.path().join("more.jsonl")));
    assert_eq!(run.data.encoding.as_deref(), Some("gb18030"));
    assert_eq!((run.train.length, run.train.batch), (Length::Steps(200), Batch::Tokens(4096)));
    assert_eq!((run.train.micro_batch, run.train.early_stopping), (Some(2), Some(4)));
    let Schedule::Linear(linear) = &run.schedule else { panic!("linear") };
    assert_eq!((linear.warmup, linear.floor.get()), (Warmup::Steps(10), 0.1));
    let Optimizer::Adamw(adamw) = &run.optimizer else { panic!("adamw") };
    assert_eq!(adamw.clip, Clip(None));
}

#[test]
fn the_resolved_file_gives_the_same_run() {
    for text in [SHORT, LONG] {
        let folder = folder(text);
        let run = load(folder.path(), &["data.eval=0.05", "seed=9"]);
        let resolved = run.to_toml(None).unwrap();
        // Elsewhere, since its paths are absolute.
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("run.toml"), &resolved).unwrap();
        let again = load(other.path(), &[]);
        assert_eq!(again.to_toml(None).unwrap(), resolved);
        assert_eq!((again.base, again.output, again.seed), (run.base, run.output, 9));
        assert_eq!((again.data, again.train), (run.data, run.train));
        assert_eq!((again.optimizer, again.schedule), (run.optimizer, run.schedule));
        assert_eq!(again.method.table(), run.method.table());
        assert_eq!(
            (again.compute, again.storage, again.task, again.threads),
            (run.compute, run.storage, run.task, run.threads)
        );
    }
}

#[test]
fn the_methods_own_defaults_can_be_written_out() {
    let folder = folder(SHORT);
    let table = toml::Table::from_iter([("rank".to_owned(), toml::Value::Integer(8))]);
    let resolved = load(folder.path(), &[]).to_toml(Some(table)).unwrap();
    assert!(resolved.contains("[method.lora]\nrank = 8\n"), "{resolved}");
}

#[test]
fn a_base_is_a_path_if_there_is_one_and_else_a_hub_id() {
    let folder = folder(SHORT);
    let base = |set: &str| load(folder.path(), &[set]).base;
    assert_eq!(base("base=models/smollm2"), Base::Path(folder.path().join("models/smollm2")));
    assert_eq!(base("base=org/Some-Model_1.5"), Base::Hub("org/Some-Model_1.5".to_owned()));
    for id in ["org/model@v1.0", "org/model/model-q8.gguf"] {
        assert_eq!(base(&format!("base={id}")), Base::Hub(id.to_owned()));
    }
    for written in ["./model", "../model", "model", "a/b/c", "/model", "org/model.gguf"] {
        let sets = [format!("base={written}")];
        let error = Run::load(&folder.path().join("run.toml"), &sets, &METHODS).unwrap_err();
        assert_eq!(error.code(), "config-no-file", "{written}");
    }
}

#[test]
fn sgd_and_a_constant_rate() {
    let text = SHORT.replace(
        "[optimizer.adamw]\nlr = 2e-4",
        "[optimizer.sgd]\nlr = 1\nmomentum = 0.9\nclip = 2\n[schedule.constant]",
    );
    let folder = folder(&text);
    let run = load(folder.path(), &[]);
    let Optimizer::Sgd(sgd) = &run.optimizer else { panic!("sgd") };
    assert_eq!((sgd.lr.get(), sgd.momentum.get(), sgd.weight_decay.get()), (1.0, 0.9, 0.0));
    assert_eq!(sgd.clip.0.map(luthier_config::Positive::get), Some(2.0));
    let Schedule::Constant(constant) = &run.schedule else { panic!("constant") };
    assert_eq!(constant.warmup, Warmup::Steps(0));
}

#[test]
fn an_error_of_another_part_points_into_the_file() {
    let folder = folder(SHORT);
    let error = load(folder.path(), &[]).refuse("data.train", "no row has an answer".to_owned(), None);
    let place = error.place().unwrap();
    assert_eq!((place.line, place.column), (6, 9));
    assert_eq!(error.to_string(), "`data.train`: no row has an answer");
}

#[test]
fn paths_are_written_the_short_way() {
    let folder = folder(SHORT);
    let inner = folder.path().join("recipes");
    std::fs::create_dir(&inner).unwrap();
    let text = SHORT
        .replace("models/", "../models/")
        .replace("gsm8k.jsonl", "./../gsm8k.jsonl")
        .replace("runs/", "../runs/");
    std::fs::write(inner.join("run.toml"), text).unwrap();
    let run = Run::load(&inner.join("run.toml"), &[], &METHODS).unwrap();
    assert_eq!(run.base, Base::Path(folder.path().join("models/smollm2")));
    assert_eq!(run.data.train, [folder.path().join("gsm8k.jsonl")]);
    assert_eq!(run.output, folder.path().join("runs/first"));
}

/// Labels, metric, weights and smoothing stand where they are read.
#[test]
fn a_classification_reads_its_own_keys_and_writes_them_back() {
    let text = SHORT.replace("[method.lora]", "task = \"classification\"\n[method.lora]").replace(
        "lr = 2e-4",
        "lr = 2e-4\n[train]\nlabel_smoothing = 0.1\nclass_weights = [1, 2.5]\nmetric = \"macro-f1\"",
    );
    let folder = folder(&text);
    let sets = ["data.labels=[\"no\", \"yes\"]", "data.format=\"glue-cola\""];
    let run = load(folder.path(), &sets);
    assert_eq!((run.task, run.data.format), (Task::Classification, Format::GlueCola));
    assert_eq!(run.data.labels.as_deref(), Some(&["no".to_owned(), "yes".to_owned()][..]));
    assert_eq!((run.train.label_smoothing, run.train.metric.as_deref()), (0.1, Some("macro-f1")));
    assert_eq!(run.train.class_weights, Some(ClassWeights::Given(vec![1.0, 2.5])));
    std::fs::write(folder.path().join("run.toml"), run.to_toml(None).unwrap()).unwrap();
    let again = load(folder.path(), &[]);
    assert_eq!((again.data, again.train), (run.data, run.train));
    let balanced = load(folder.path(), &["train.class_weights=\"balanced\""]);
    assert_eq!(balanced.train.class_weights, Some(ClassWeights::Balanced));
}

#[test]
fn keys_of_another_task_are_refused() {
    let folder = folder(SHORT);
    let refused = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Run::load(&folder.path().join("run.toml"), &sets, &METHODS).unwrap_err().to_string()
    };
    for key in [
        "data.labels=[\"a\", \"b\"]",
        "train.label_smoothing=0.1",
        "train.metric=\"loss\"",
        "train.mask_share=0.2",
    ] {
        let message = refused(&[key]);
        assert!(message.contains("has no meaning here"), "{message}");
    }
    let many = ["task=classification", "data.multi_label=true", "train.class_weights=balanced"];
    assert!(refused(&many).contains("one label a row"));
    assert!(refused(&["task=classification", "train.class_weights=\"even\""]).contains("balanced"));
    assert!(refused(&["task=classification", "train.class_weights=[0, 0]"]).contains("above 0"));
    assert!(refused(&["data.format=\"glue-coal\""]).contains("glue-coal"));
}
