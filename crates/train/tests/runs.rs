//! Whole runs of the embedded base.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]
mod tiny;

use luthier_tensor::DType;
use luthier_train::{Base, Error, Event, Finished, Options, open_adapted, read_adapter, run};
use std::fs;
use std::path::Path;
use tiny::{LORA, Watch, config};

const FRESH: Options = Options { resume: false, overwrite: false };
const RESUME: Options = Options { resume: true, overwrite: false };
const OVERWRITE: Options = Options { resume: false, overwrite: true };
const FULL: &str = "[method.full-ft]";

fn go(folder: &Path, method: &str, more: &[&str], options: Options) -> (Result<Finished, Error>, Watch) {
    let mut watch = Watch::default();
    let result = run(&config(folder, method, more), options, &mut [&mut watch]);
    (result, watch)
}

fn refused(folder: &Path, method: &str, more: &[&str], options: Options) -> Error {
    let (result, watch) = go(folder, method, more, options);
    assert!(watch.losses().is_empty(), "nothing has trained");
    result.unwrap_err()
}

#[test]
fn lora_trains_saves_and_proves() {
    let folder = tempfile::tempdir().unwrap();
    let (finished, watch) = go(folder.path(), LORA, &[], FRESH);
    let finished = finished.unwrap();
    let proof = finished.proof.clone().unwrap();
    assert_eq!(watch.losses().len(), 6);
    assert!(proof.after.loss < proof.before.loss && proof.largest_logit_change > 0.0);
    assert_eq!((proof.read_back_difference, proof.rows), (0.0, "held-out"));
    assert_eq!(finished.base_parameters, 852_608);
    // Rank 2 on the seven linears of four blocks: 2 (d_in + d_out) each.
    let widths = [(128, 128), (128, 64), (128, 64), (128, 128), (128, 341), (128, 341), (341, 128)];
    let want = 4 * 2 * widths.iter().map(|(a, b)| a + b).sum::<usize>();
    assert_eq!(finished.trainable_parameters, want);
    assert!(finished.peak_bytes.total > 0 && finished.peak_bytes.optimizer >= 8 * want);
    let out = folder.path().join("out");
    for name in ["adapter/adapter_config.json", "adapter/README.md", "metrics.jsonl", "resolved.toml"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|l| l.contains("\"event\":\"step\"")).count(), 6);
}

#[test]
fn an_adapter_reads_back_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let method = "[method.lora]\nrank = 2\nmodules_to_save = [\"lm_head\"]";
    let adapter = go(folder.path(), method, &[], FRESH).0.unwrap().adapter.unwrap();
    let base = Base::open(&tiny::assets().join("glass-en")).unwrap();
    let (model, applied) = open_adapted(&base, Some(&adapter), DType::F32, Some(DType::Bf16)).unwrap();
    let again = folder.path().join("again");
    luthier_train::save_adapter(&again, &applied[0].adapter, &model, "x").unwrap();
    let weights = |dir: &Path| fs::read(dir.join("adapter_model.safetensors")).unwrap();
    assert_eq!(weights(&adapter), weights(&again));
    assert!(read_adapter(&adapter).unwrap().tensors.contains("base_model.model.lm_head.weight"));
}

#[test]
fn an_adapter_of_another_base_is_named_whole() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = go(folder.path(), LORA, &[], FRESH).0.unwrap().adapter.unwrap();
    let path = adapter.join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"r\": 2", "\"r\": 3");
    fs::write(&path, text).unwrap();
    let base = Base::open(&tiny::assets().join("glass-en")).unwrap();
    let error = open_adapted(&base, Some(&adapter), DType::F32, None).unwrap_err();
    // Two tensors at each of 28 sites.
    assert!(error.to_string().ends_with("; and 36 more"), "{error}");
    assert!(error.to_string().contains("is [2, 128], expected [3, 128]"), "{error}");
}

#[test]
fn full_fine_tuning_gives_a_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let finished = go(folder.path(), FULL, &[], FRESH).0.unwrap();
    assert_eq!(finished.trainable_parameters, 852_608);
    assert!(finished.loss_after.unwrap() < finished.loss_before);
    let model = Base::open(&finished.model.unwrap()).unwrap();
    assert_eq!(model.config.0["torch_dtype"], "bfloat16");
    assert!(model.spec.tied && model.tokenizer.vocab() == 1024);
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_end() {
    for method in [LORA, FULL] {
        let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let want = go(whole.path(), method, &[], FRESH).0.unwrap();
        let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
        let first = run(&config(stopped.path(), method, &[]), FRESH, &mut [&mut watch]).unwrap();
        assert!(first.proof.is_none() && first.adapter.is_none());
        let (got, watch) = go(stopped.path(), method, &[], RESUME);
        let got = got.unwrap();
        assert_eq!(watch.losses().first().unwrap().0, 4);
        assert_eq!(got.resumed_from, Some(3));
        let (a, b) = (want.proof.unwrap(), got.proof.unwrap());
        assert_eq!((a.before, a.after, a.largest_logit_change), (b.before, b.after, b.largest_logit_change));
        let steps = |dir: &Path| {
            let text = fs::read_to_string(dir.join("out/metrics.jsonl")).unwrap();
            text.lines().filter(|l| l.contains("\"event\":\"step\"")).count()
        };
        assert_eq!((steps(whole.path()), steps(stopped.path())), (6, 6));
    }
}

#[test]
fn an_existing_output_is_refused_and_only_ours_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    go(folder.path(), LORA, &["train.steps=2"], FRESH).0.unwrap();
    let error = refused(folder.path(), LORA, &[], FRESH);
    assert_eq!(error.code(), "output-exists");
    let help = error.help().unwrap();
    assert!(help.contains("--resume") && help.contains("--overwrite"));
    go(folder.path(), LORA, &["train.steps=2"], OVERWRITE).0.unwrap();
    fs::write(folder.path().join("out/thesis.tex"), "years of work").unwrap();
    for options in [FRESH, RESUME, OVERWRITE] {
        assert_eq!(refused(folder.path(), LORA, &[], options).code(), "output-foreign");
    }
    assert!(folder.path().join("out/thesis.tex").exists());
}

#[test]
fn other_settings_or_data_cannot_go_on() {
    let folder = tempfile::tempdir().unwrap();
    go(folder.path(), LORA, &["train.steps=2"], FRESH).0.unwrap();
    let error = refused(folder.path(), LORA, &["train.steps=2", "optimizer.adamw.lr=2e-3"], RESUME);
    assert_eq!(error.code(), "resume-differs");
    assert!(error.to_string().contains("optimizer.adamw.lr was 0.001, is 0.002"), "{error}");
    // When to save changes no weight.
    go(folder.path(), LORA, &["train.steps=2", "train.save_every=1"], RESUME).0.unwrap();
    let data = folder.path().join("data.jsonl");
    let rows = fs::read_to_string(&data).unwrap().replace("Alice", "Emma");
    fs::write(&data, rows).unwrap();
    let error = refused(folder.path(), LORA, &["train.steps=2"], RESUME);
    assert!(error.to_string().contains("data.train[0]'s content"), "{error}");
}

#[test]
fn the_template_of_the_settings_is_what_trains_and_a_resumed_run_needs_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let rows = (0..14).map(|i| format!("{{\"prompt\": \"How many? {i}\", \"completion\": \"{i} cats.\"}}\n"));
    fs::write(folder.path().join("data.jsonl"), rows.collect::<String>()).unwrap();
    let template = folder.path().join("own.jinja");
    let write = |start: &str| {
        let body = "{% for m in messages %}{{ m.content }}{% if not loop.last %} {% endif %}{% endfor %}";
        fs::write(&template, format!("{start}{body}")).unwrap();
    };
    let all_tokens = |watch: &Watch| {
        let count = |e: &Event| if let Event::Step { all_tokens, .. } = e { Some(*all_tokens) } else { None };
        watch.events.iter().find_map(count).unwrap()
    };
    let chosen = format!("data.template='{}'", template.display());
    let more = ["data.loss='assistant'", "data.eval=0.2", "train.steps=2", &chosen];
    write("");
    let (finished, plain) = go(folder.path(), LORA, &more, FRESH);
    finished.unwrap();
    write("Alice, Alice and Alice: ");
    let error = refused(folder.path(), LORA, &more, RESUME);
    assert!(error.to_string().contains("data.template's content"), "{error}");
    let (finished, longer) = go(folder.path(), LORA, &more, OVERWRITE);
    finished.unwrap();
    // Four rows a step, each longer by the words that only the second template has.
    assert!(
        all_tokens(&longer) >= all_tokens(&plain) + 4 * 5,
        "{} {}",
        all_tokens(&plain),
        all_tokens(&longer)
    );
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _held = luthier_platform::fs::DirLock::acquire(&folder.path().join("out")).unwrap().unwrap();
    assert_eq!(refused(folder.path(), LORA, &[], FRESH).code(), "output-locked");
}

#[test]
fn a_damaged_checkpoint_is_said() {
    let folder = tempfile::tempdir().unwrap();
    go(folder.path(), LORA, &[], FRESH).0.unwrap();
    let last = folder.path().join("out/checkpoints/step-000006/state.safetensors");
    let mut bytes = fs::read(&last).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&last, bytes).unwrap();
    let (finished, watch) = go(folder.path(), LORA, &[], RESUME);
    assert!(
        watch.notes().contains("step-000006: state.safetensors has another content"),
        "{}",
        watch.notes()
    );
    assert_eq!(finished.unwrap().resumed_from, Some(4));
}

#[test]
fn what_is_wrong_is_found_before_anything_trains() {
    let folder = tempfile::tempdir().unwrap();
    for (method, more, code) in [
        ("[method.lora]\ntargets = [\"w\"]", vec![], "method-target"),
        (LORA, vec!["storage=nf4"], "config-refused"),
        (LORA, vec!["task=seq2seq"], "config-refused"),
        (LORA, vec!["task=classification"], "data-format"),
        ("[method.lora]\nranks = 3", vec![], "config-refused"),
    ] {
        let error = refused(folder.path(), method, &more, FRESH);
        assert!(error.is_input());
        if code == "config-refused" {
            assert!(matches!(error, Error::Config(_)), "{error}");
        } else {
            assert_eq!(error.code(), code);
        }
        assert!(!folder.path().join("out").exists(), "and nothing is written");
    }
}

#[test]
fn a_run_without_effect_or_that_diverges_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    // The first step of a warm-up has rate 0.
    let error = go(folder.path(), LORA, &["train.steps=1", "schedule.cosine.warmup=1"], FRESH).0.unwrap_err();
    assert_eq!(error.code(), "no-effect");
    let more = ["optimizer.adamw.lr=1e30", "optimizer.adamw.clip=none", "schedule.constant.warmup=0"];
    let error = go(folder.path(), FULL, &more, OVERWRITE).0.unwrap_err();
    assert_eq!(error.code(), "diverged");
    assert!(error.help().unwrap().contains("learning rate"));
}
