//! `luthier pull`: a model from the hub into the shared cache.

use crate::args::PullArgs;
use crate::error::CliError;
use crate::output::{Output, bytes, duration};
use luthier_hub::{Event, Pulled, Repo, Request, Settings};
use serde_json::json;
use std::time::Instant;

/// Runs the command.
pub fn run(args: &PullArgs, output: &Output) -> Result<(), CliError> {
    let settings = Settings::from_env()?;
    let request = Request { repo: Repo::parse(&args.id)?, gguf: args.gguf.clone() };
    let mut rate = Rate { start: Instant::now(), came: 0, total: 0, last: (String::new(), 0) };
    let pulled = luthier_hub::pull(&settings, &request, &mut |event| show(event, &mut rate, output))?;
    output.result(|| to_json(&args.id, &pulled), || describe(&pulled));
    Ok(())
}

/// How much came since the start.
struct Rate {
    start: Instant,
    came: u64,
    /// Bytes that had to come.
    total: u64,
    /// The file that comes, and how much of it is on the disk.
    last: (String, u64),
}

impl Rate {
    fn advance(&mut self, file: &str, at: u64) {
        if self.last.0 == file {
            self.came += at.saturating_sub(self.last.1);
        }
        self.last = (file.to_owned(), at);
    }

    fn line(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64().max(1e-3);
        let rate = self.came as f64 / seconds;
        let left = self.total.saturating_sub(self.came) as f64 / rate.max(1.0);
        format!(
            "{}  {} of {}, {}/s, {} left",
            self.last.0,
            bytes(self.came),
            bytes(self.total),
            bytes(rate as u64),
            duration(left)
        )
    }
}

fn show(event: &Event<'_>, rate: &mut Rate, output: &Output) {
    match event {
        Event::Listed { files, bytes: all, present } => {
            rate.total = all.saturating_sub(*present);
            output.note(&format!("{files} files, {}; {} to bring", bytes(*all), bytes(rate.total)));
        }
        Event::Started { file, at, .. } => rate.last = ((*file).to_owned(), *at),
        Event::Advanced { file, at, .. } => {
            rate.advance(file, *at);
            output.progress(|| rate.line());
        }
        Event::Waiting { file } => output.note(&format!("{file}: another process brings it; waiting")),
        Event::Retrying { file, reason, wait } => {
            output.note(&format!("{file}: {reason}; again in {}", duration(wait.as_secs_f64())));
        }
        _ => {}
    }
}

fn to_json(id: &str, pulled: &Pulled) -> serde_json::Value {
    let files: Vec<_> = pulled
        .files
        .iter()
        .map(|file| json!({"name": file.name, "bytes": file.bytes, "received": file.received}))
        .collect();
    json!({"model": id, "path": pulled.path, "commit": pulled.commit, "files": files})
}

fn describe(pulled: &Pulled) -> String {
    format!("{}\nUse it in a run.toml: base = \"{}\"", pulled.path.display(), pulled.path.display())
}
