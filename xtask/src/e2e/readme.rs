//! Every command that the README gives, word by word, in a folder laid out like the repository, with short recipes.
use super::{Desk, ensure};
use crate::shell;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// Rows of each data file that the short recipes see: enough tweets for every label.
const TWEETS: usize = 64;
const PROBLEMS: usize = 12;

pub(super) fn play(desk: &Desk) -> crate::Outcome {
    let (root, folder) = (shell::root(), desk.folder.join("clone"));
    copy(&root.join("models/smollm2"), &folder.join("models/smollm2"), Some)?;
    copy(&root.join("models/minilm"), &folder.join("models/minilm"), Some)?;
    copy(&root.join("recipes"), &folder.join("recipes"), |bytes| {
        let recipe = String::from_utf8(bytes).ok()?;
        Some(recipe.lines().map(shortened).collect::<Vec<_>>().join("\n").into_bytes())
    })?;
    copy(&root.join("recipes/data"), &folder.join("recipes/data"), |bytes| {
        let rows = String::from_utf8(bytes).ok()?;
        let many = if rows.contains("\"question\"") { PROBLEMS } else { TWEETS };
        Some(rows.split_inclusive('\n').take(many).collect::<String>().into_bytes())
    })?;
    let readme = root.join("README.md");
    let text = fs::read_to_string(&readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let commands: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("cargo run --release -- ")).collect();
    ensure(commands.len() > 5, || "the README gives no commands".into())?;
    for command in commands {
        let start = Instant::now();
        let line = format!("{} {command}", desk.program.display());
        let output =
            Command::new("sh").args(["-c", &line]).current_dir(&folder).stdin(Stdio::null()).output();
        let output = output.map_err(|e| format!("`{line}` cannot be started: {e}"))?;
        ensure(output.status.success(), || {
            format!("`luthier {command}`: {}", String::from_utf8_lossy(&output.stderr).trim())
        })?;
        println!("    {command}: {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// A line of a recipe, with a few steps in place of all.
fn shortened(line: &str) -> String {
    let key = line.split('=').next().unwrap_or_default().trim();
    match key {
        "steps" | "epochs" => "steps = 4".into(),
        "eval_every" | "save_every" => format!("{key} = 4"),
        "batch" => "batch = 4".into(),
        _ => line.into(),
    }
}

/// Copies the files of a folder, each through `change`.
fn copy(from: &Path, to: &Path, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> crate::Outcome {
    let said = |error: std::io::Error| format!("{} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to).map_err(said)?;
    for entry in fs::read_dir(from).map_err(said)? {
        let path = entry.map_err(said)?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            let bytes = change(fs::read(&path).map_err(said)?);
            let bytes = bytes.ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
            fs::write(to.join(name), bytes).map_err(said)?;
        }
    }
    Ok(())
}
