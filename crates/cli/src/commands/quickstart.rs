//! `luthier quickstart`: the whole way on what the program brings along.

use crate::args::QuickstartArgs;
use crate::commands::train::{describe, done};
use crate::error::CliError;
use crate::finish::{Prompt, report, samples};
use crate::observe::Screen;
use crate::output::Output;
use crate::report::Sample;
use luthier_config::Run;
use luthier_platform::fs::atomic_write;
use luthier_platform::interrupt;
use luthier_train::{Event, Flow, Observer, Options, Stopped};
use serde_json::json;
use std::io::Write;
use std::path::Path;

/// The embedded model and text, and the configuration that brings them together.
const FILES: [(&str, &[u8]); 8] = [
    ("base/config.json", include_bytes!("../../../../assets/glass-en/config.json")),
    ("base/generation_config.json", include_bytes!("../../../../assets/glass-en/generation_config.json")),
    ("base/model.safetensors", include_bytes!("../../../../assets/glass-en/model.safetensors")),
    ("base/tokenizer.json", include_bytes!("../../../../assets/glass-en/tokenizer.json")),
    ("base/tokenizer_config.json", include_bytes!("../../../../assets/glass-en/tokenizer_config.json")),
    ("base/LICENSE", include_bytes!("../../../../assets/glass-en/LICENSE")),
    ("base/train.txt", include_bytes!("../../../../assets/emma/train.txt")),
    ("base/held-out.txt", include_bytes!("../../../../assets/emma/held-out.txt")),
];
const RUN: &str = include_str!("quickstart.toml");
/// What the model goes on from, before and after.
const PROMPT: &str = "Emma was";
/// What a quickstart leaves, and all that the next one removes.
const OURS: [&str; 9] = [
    "adapter",
    "base",
    "best",
    "checkpoints",
    "finished.json",
    "metrics.jsonl",
    "report.html",
    "resolved.toml",
    "model",
];

/// Runs the command.
pub fn run(args: &QuickstartArgs, output: &Output) -> Result<(), CliError> {
    let folder = &args.output;
    output.note("a Llama of 0.85 million parameters, trained on Lewis Carroll, learns Jane Austen's Emma (all embedded)");
    unpack(folder)?;
    let path = folder.join("base/run.toml");
    let run = Run::load(&path, &[], &luthier_methods::ids())?;
    interrupt::install();
    // The folder holds the unpacked base, which a new run would refuse: it goes on from nothing instead.
    let options = Options { resume: true, overwrite: false };
    let quiet = output.without_events();
    let finished = luthier_train::run(&run, options, &mut [&mut Calm(Screen::new(&quiet))])?;
    if finished.outcome.stopped == Some(Stopped::Asked) {
        return Err(CliError::failed("interrupted", "interrupted")
            .help("start it again: it takes less than a minute"));
    }
    let samples = samples(&run, &finished, vec![Prompt::Text(PROMPT)])?;
    let page = report(&run, &finished, samples.clone())?;
    output.result(
        || {
            let mut result = done(&run, &finished);
            if let Some(object) = result.as_object_mut() {
                object.shift_remove("event"); // one object, and no stream that it ends
            }
            result["report"] = json!(page);
            result["samples"] = samples
                .iter()
                .map(|s| json!({"prompt": s.prompt, "before": s.before, "after": s.after}))
                .collect();
            result
        },
        || {
            format!(
                "{}{}\nreport  {}\n\n{}",
                said(&samples),
                describe(&finished),
                page.display(),
                next(folder)
            )
        },
    );
    Ok(())
}

/// A screen without the loop's remarks, which are about settings that nobody here has chosen.
struct Calm<'a>(Screen<'a>);

impl Observer for Calm<'_> {
    fn on(&mut self, event: &Event) -> Flow {
        if matches!(event, Event::Note { .. }) { Flow::Continue } else { self.0.on(event) }
    }
}

/// Writes the embedded files into a folder that holds nothing, or an earlier quickstart.
fn unpack(folder: &Path) -> Result<(), CliError> {
    let is_ours = folder.join("base/run.toml").is_file();
    let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if !is_ours && !is_empty {
        let message = format!("{} holds something other than a quickstart", folder.display());
        return Err(CliError::input("output-exists", message).help("name another folder by --output"));
    }
    for name in OURS {
        let path = folder.join(name);
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CliError::io("remove", &path, &error));
            }
            _ => {}
        }
    }
    let base = folder.join("base");
    std::fs::create_dir_all(&base).map_err(|error| CliError::io("create", &base, &error))?;
    for (name, content) in FILES.iter().chain([&("base/run.toml", RUN.as_bytes())]) {
        let path = folder.join(name);
        atomic_write(&path, |file| file.write_all(content))
            .map_err(|error| CliError::io("write", &path, &error))?;
    }
    Ok(())
}

fn said(samples: &[Sample]) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let show = |s: &Sample| {
        format!(
            "before  {} {}\nafter   {} {}\n\n",
            s.prompt,
            one_line(&s.before),
            s.prompt,
            one_line(&s.after)
        )
    };
    samples.iter().map(show).collect()
}

fn next(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Next:\n  luthier generate {folder} --raw --prompt \"{PROMPT}\"      hear more of it\n  \
         luthier merge {folder}/adapter --output {folder}-merged   one model for transformers\n  \
         luthier train RUN.toml                                your own model and data; {folder}/base/run.toml is an example"
    )
}
