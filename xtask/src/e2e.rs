//! The program from outside: what a stranger does on the first day, on a real model, with short runs.
//!
//! Every command is asked for JSON, and what it promises in JSON is checked.
mod readme;

use crate::{fetch, shell};
use serde_json::Value;
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

const LORA: &str = "recipes/smollm2-gsm8k-lora.toml";
const TWEETS: &str = "recipes/minilm-tweets-lora.toml";
const FULL: &str = "recipes/smollm2-gsm8k-full.toml";
/// Few steps on short samples: the recipes themselves are run by hand.
const STEPS: u64 = 8;
const HELD_OUT_ROWS: usize = 16;

/// Builds the release program and goes through everything with it.
pub(crate) fn run() -> crate::Outcome {
    shell::show(&shell::cargo(), &["build", "--release", "--quiet"])?;
    fetch::smollm2()?;
    let desk = Desk::new()?;
    desk.scene("help", help)?;
    desk.scene("mistakes", mistakes)?;
    desk.scene("quickstart", quickstart)?;
    desk.scene("data", data)?;
    desk.scene("train, interrupt, resume", train)?;
    desk.scene("eval", eval)?;
    desk.scene("generate", generate)?;
    desk.scene("merge", merge)?;
    desk.scene("full fine-tuning", full)?;
    desk.scene("classification", classification)?;
    desk.scene("the README's commands", readme::play)?;
    fs::remove_dir_all(&desk.folder).map_err(|e| format!("{}: {e}", desk.folder.display()))
}

/// A temporary folder, and the program that works in it.
struct Desk {
    folder: PathBuf,
    program: PathBuf,
}

/// What a command gave back.
struct Answer {
    line: String,
    code: i32,
    out: String,
    err: String,
    seconds: f64,
}

impl Desk {
    fn new() -> Result<Self, String> {
        let folder = env::temp_dir().join(format!("luthier-e2e-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let rows = fs::read_to_string(shell::root().join("recipes/data/gsm8k-eval.jsonl"))
            .map_err(|e| format!("recipes/data/gsm8k-eval.jsonl: {e}"))?;
        let few: String = rows.split_inclusive('\n').take(HELD_OUT_ROWS).collect();
        fs::write(folder.join("eval.jsonl"), few).map_err(|e| format!("{}: {e}", folder.display()))?;
        let program = shell::root().join("target/release/luthier").with_extension(env::consts::EXE_EXTENSION);
        Ok(Self { folder, program })
    }

    fn scene(&self, name: &str, play: fn(&Self) -> crate::Outcome) -> crate::Outcome {
        let start = Instant::now();
        play(self).map_err(|e| format!("{name}: {e}"))?;
        println!("  {name}: {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// A path in the folder.
    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    fn ask(&self, arguments: &[&str]) -> Result<Answer, String> {
        let line = format!("luthier {}", arguments.join(" "));
        let start = Instant::now();
        let output =
            self.command(arguments).output().map_err(|e| format!("`{line}` cannot be started: {e}"))?;
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).map_err(|_| format!("`{line}` printed something that is not UTF-8"))
        };
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout)?,
            err: text(output.stderr)?,
            seconds: start.elapsed().as_secs_f64(),
            line,
        })
    }

    /// A recipe shortened to `steps`, with its output in the folder.
    fn short(&self, recipe: &str, output: &str, steps: u64) -> Vec<String> {
        let set = |key: &str, value: String| ["--set".to_owned(), format!("{key}={value}")];
        let mut arguments =
            vec!["train".into(), shell::root().join(recipe).display().to_string(), "--json".into()];
        arguments.extend(set("output", self.at(output)));
        arguments.extend(set("data.eval", self.at("eval.jsonl")));
        arguments.extend(set("data.max_tokens", "192".into()));
        arguments.extend(set("train.steps", steps.to_string()));
        arguments.extend(set("train.batch", "4".into()));
        arguments.extend(set("train.eval_every", steps.to_string()));
        arguments.extend(set("train.save_every", "2".into()));
        arguments
    }
}

impl Answer {
    /// The answer, if the command ended with `code`.
    fn exits(self, code: i32) -> Result<Self, String> {
        if self.code == code {
            return Ok(self);
        }
        let last: Vec<&str> = self.err.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(format!(
            "`{}` ended with {}, expected {code}\n{}\n{}",
            self.line,
            self.code,
            self.out.trim(),
            last.join("\n")
        ))
    }

    /// The last line, as JSON.
    fn json(&self) -> Result<Value, String> {
        let last = self.out.lines().last().ok_or(format!("`{}` printed nothing", self.line))?;
        serde_json::from_str(last)
            .map_err(|e| format!("`{}` ended with a line that is no JSON: {e}: {last}", self.line))
    }
}

/// The number under `key`.
fn number(value: &Value, key: &str) -> Result<f64, String> {
    value[key].as_f64().ok_or(format!("no number `{key}` in {value}"))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> crate::Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn exists(path: &Path) -> crate::Outcome {
    ensure(path.exists(), || format!("{} is not there", path.display()))
}

/// `peak_bytes` has every account, and they are numbers.
fn peak(value: &Value) -> crate::Outcome {
    for account in ["base", "adapter", "gradient", "optimizer", "activation", "workspace", "total"] {
        number(&value["peak_bytes"], account)?;
    }
    Ok(())
}

fn help(desk: &Desk) -> crate::Outcome {
    let answer = desk.ask(&["--help"])?.exits(0)?;
    println!("  --help in {:.0} ms", 1e3 * answer.seconds);
    ensure(answer.out.contains("quickstart"), || "--help does not name quickstart".into())
}

fn mistakes(desk: &Desk) -> crate::Outcome {
    let recipe = shell::root().join(LORA).display().to_string();
    let wrong: &[&[&str]] = &[
        &["train", &recipe, "--set", "train.stepz=1", "--json"],
        &["train", "nothing-here.toml", "--json"],
        &["eval", "nothing-here", "--json"],
    ];
    for arguments in wrong {
        let answer = desk.ask(arguments)?.exits(2)?;
        let error = &answer.json()?["error"];
        for key in ["code", "message"] {
            ensure(error[key].is_string(), || format!("`{}`: no `error.{key}`", answer.line))?;
        }
    }
    let answer = desk.ask(wrong[0])?;
    ensure(answer.out.contains("steps"), || format!("the nearest key is not named: {}", answer.out))
}

fn quickstart(desk: &Desk) -> crate::Outcome {
    let answer = desk.ask(&["quickstart", "--json"])?.exits(0)?;
    let result = answer.json()?;
    let (before, after) = (number(&result, "perplexity_before")?, number(&result, "perplexity_after")?);
    println!("  quickstart: perplexity {before:.1} -> {after:.1} in {:.0} s", answer.seconds);
    ensure(after <= 0.8 * before, || format!("perplexity fell from {before} to {after} only"))?;
    ensure(number(&result, "trainable_parameters")? > 0.0, || "nothing was trainable".into())?;
    peak(&result)?;
    let adapter = desk.folder.join(result["adapter"].as_str().ok_or("no `adapter`")?);
    exists(&adapter.join("adapter_config.json"))?;
    exists(&adapter.join("adapter_model.safetensors"))?;
    exists(&desk.folder.join("runs/quickstart/report.html"))
}

fn data(desk: &Desk) -> crate::Outcome {
    let recipe = shell::root().join(LORA).display().to_string();
    desk.ask(&["data", &recipe, "--json"])?.exits(0)?.json().map(drop)
}

fn train(desk: &Desk) -> crate::Outcome {
    let arguments = desk.short(LORA, "lora", STEPS);
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    interrupt(desk, &arguments)?;
    let refused = desk.ask(&arguments)?.exits(2)?;
    ensure(refused.out.contains("--resume"), || {
        format!("the refusal does not name --resume: {}", refused.out)
    })?;
    arguments.push("--resume");
    let answer = desk.ask(&arguments)?.exits(0)?;
    let done = answer.json()?;
    ensure(done["event"] == "done", || format!("the last event is {done}"))?;
    exists(&desk.folder.join("lora/metrics.jsonl"))?;
    exists(&desk.folder.join("lora/report.html"))?;
    exists(&desk.folder.join("lora/adapter/adapter_model.safetensors"))?;
    println!("  train: {done}");
    Ok(())
}

/// Starts the run and ends it by Ctrl-C after a few events; what it then leaves can be resumed.
fn interrupt(desk: &Desk, arguments: &[&str]) -> crate::Outcome {
    let mut child = desk
        .command(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("the run cannot be started: {e}"))?;
    let lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
    let mut steps = 0;
    for line in lines {
        let event: Value = serde_json::from_str(&line.map_err(|e| e.to_string())?)
            .map_err(|e| format!("an event is no JSON: {e}"))?;
        steps += u64::from(event["event"] == "step");
        if steps == 3 {
            shell::show("kill", &["-INT", &child.id().to_string()])?;
        }
        ensure(event["event"] != "done", || "the run ended in spite of Ctrl-C".into())?;
    }
    child.wait().map_err(|e| e.to_string())?;
    ensure((3..STEPS).contains(&steps), || format!("interrupted after {steps} steps"))
}

fn eval(desk: &Desk) -> crate::Outcome {
    let recipe = shell::root().join(LORA).display().to_string();
    let (output, rows) = (format!("output={}", desk.at("lora")), desk.at("eval.jsonl"));
    let common = ["eval", &recipe, "--set", &output, "--data", &rows, "--json"];
    let mut loss = Vec::new();
    for more in [&["--base-only"][..], &["--answer", "####", "--limit", "2", "--max-tokens", "64"], &[]] {
        let answer = desk.ask(&[&common, more].concat())?.exits(0)?.json()?;
        println!("  eval {more:?}: {answer}");
        number(&answer, "perplexity")?;
        number(&answer, "tokens")?;
        loss.push(number(&answer, "loss")?);
    }
    ensure(loss[2] < loss[0], || format!("held-out loss {} with the adapter, {} without", loss[2], loss[0]))
}

fn generate(desk: &Desk) -> crate::Outcome {
    let base = model();
    let adapter = desk.at("lora/adapter");
    let common = ["generate", &base, "--prompt", "What is 2 + 3?", "--max-tokens", "16", "--json"];
    for more in [&[][..], &["--adapter", &adapter]] {
        let first = desk.ask(&[&common, more].concat())?.exits(0)?;
        let second = desk.ask(&[&common, more].concat())?.exits(0)?;
        let text =
            first.json()?["text"].as_str().map(str::to_owned).ok_or(format!("no `text` in {}", first.out))?;
        ensure(!text.is_empty(), || "an empty answer".into())?;
        ensure(second.json()?["text"] == text.as_str(), || "greedy decoding gave two answers".into())?;
        println!("  generate {more:?}: {text:?}");
    }
    Ok(())
}

fn merge(desk: &Desk) -> crate::Outcome {
    let (adapter, rows, base) = (desk.at("lora/adapter"), desk.at("eval.jsonl"), model());
    let loss = |subject: &str, more: &[&str]| {
        let answer =
            desk.ask(&[&["eval", subject, "--data", &rows, "--json"], more].concat())?.exits(0)?.json()?;
        number(&answer, "loss")
    };
    let adapted = loss(&base, &["--adapter", &adapter])?;
    for (output, kind) in [("merged", "f16"), ("merged.gguf", "f16"), ("merged-q8.gguf", "q8_0")] {
        let output = desk.at(output);
        desk.ask(&["merge", &adapter, "--output", &output, "--type", kind, "--json"])?.exits(0)?;
        let merged = loss(&output, &[])?;
        println!(
            "  merge: {} {merged:.4}, adapter {adapted:.4}",
            Path::new(&output).file_name().unwrap_or_default().display()
        );
        // bf16 and Q8_0 round every weight once more; the loss moves in the third digit.
        ensure((merged - adapted).abs() < 0.02, || {
            format!("{output} has loss {merged}, base and adapter {adapted}")
        })?;
    }
    exists(&desk.folder.join("merged/config.json"))?;
    exists(&desk.folder.join("merged/tokenizer.json"))
}

fn full(desk: &Desk) -> crate::Outcome {
    let arguments = desk.short(FULL, "full", 2);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = desk.ask(&arguments)?.exits(0)?.json()?;
    ensure(done["event"] == "done", || format!("the last event is {done}"))?;
    println!("  full: {done}");
    Ok(())
}

/// A few dozen steps beat the most frequent class, and the result answers for itself.
fn classification(desk: &Desk) -> crate::Outcome {
    fetch::minilm()?;
    let recipe = shell::root().join(TWEETS).display().to_string();
    let output = format!("output={}", desk.at("tweets"));
    let short =
        ["--set", "train.epochs=0.5", "--set", "train.eval_every=100", "--set", "train.save_every=100"];
    let doctor = desk.ask(&["data", &recipe, "--json"])?.exits(0)?.json()?;
    let majority = number(&doctor["labels"]["eval"], "majority")?;
    let train = [&["train", &recipe, "--set", &output, "--json"], &short[..]].concat();
    let done = desk.ask(&train)?.exits(0)?.json()?;
    exists(&desk.folder.join("tweets/adapter/labels.json"))?;
    let rows = desk.at("tweets.jsonl");
    let eval = ["eval", &recipe, "--set", &output, "--predictions", &rows, "--json"];
    let report = desk.ask(&eval)?.exits(0)?.json()?;
    let accuracy = number(&report, "accuracy")?;
    let low = number(&report["metrics"][0]["interval"], "low")?;
    println!("  classification: accuracy {accuracy:.3} (from {low:.3}), always the largest {majority:.3}");
    ensure(low > majority + 0.05, || format!("accuracy {accuracy} is not above {majority}"))?;
    let proof = &done["proof"]["metrics"][0];
    // Training holds the frozen weights in bf16, `eval` as the file has them.
    let after = number(proof, "after")?;
    ensure((after - accuracy).abs() < 0.02, || format!("eval says {accuracy}, training {after}"))?;
    let against = desk.ask(&[&eval[..], &["--against", &rows]].concat())?.exits(0)?.json()?;
    ensure(number(&against["against"], "mcnemar")? == 1.0, || {
        format!("a model differs from itself: {against}")
    })?;
    let merged = desk.at("tweets-merged");
    desk.ask(&["merge", &desk.at("tweets/adapter"), "--output", &merged, "--json"])?.exits(0)?;
    let data = shell::root().join("recipes/data/tweets-eval.jsonl").display().to_string();
    let again = desk.ask(&["eval", &merged, "--data", &data, "--json"])?.exits(0)?.json()?;
    let merged = number(&again, "accuracy")?;
    ensure((merged - accuracy).abs() < 0.02, || {
        format!("accuracy {merged} merged, {accuracy} with the adapter")
    })
}

/// The fetched model.
fn model() -> String {
    shell::root().join("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf").display().to_string()
}
