//! Golden files made again by the scripts beside them.
use crate::shell;
use std::{path::PathBuf, process::Command};

/// Runs the `make.py` of each name, `all` of them, or lists them.
pub(crate) fn run(names: &[&str]) -> crate::Outcome {
    let scripts = scripts()?;
    if names.is_empty() {
        for (name, _) in &scripts {
            println!("{name}");
        }
        return Ok(());
    }
    for wanted in names {
        let chosen: Vec<_> = scripts
            .iter()
            .filter(|(name, _)| {
                *wanted == "all" || name == wanted || name.split_once('/').is_some_and(|(_, n)| n == *wanted)
            })
            .collect();
        if chosen.is_empty() {
            return Err(format!("no golden `{wanted}`; `cargo xtask golden` lists them"));
        }
        for (name, script) in chosen {
            println!("{name}");
            make(script)?;
        }
    }
    Ok(())
}

/// `(crate/name, script)` of every golden, in alphabetic order.
fn scripts() -> Result<Vec<(String, PathBuf)>, String> {
    let mut found = Vec::new();
    for file in shell::read("git", &["ls-files", "-co", "--exclude-standard", "crates"])?.lines() {
        let parts: Vec<&str> = file.split('/').collect();
        if let ["crates", owner, "golden", name @ .., "make.py"] = parts.as_slice() {
            found.push((format!("{owner}/{}", name.join("/")), shell::root().join(file)));
        }
    }
    found.sort();
    Ok(found)
}

fn make(script: &PathBuf) -> crate::Outcome {
    let python = shell::python();
    let status = Command::new(&python)
        .arg(script)
        // One thread and a fixed hash seed: the same bytes on every run, also in files that hold a Python set.
        .envs([("OMP_NUM_THREADS", "1"), ("PYTHONHASHSEED", "0"), ("PYTHONDONTWRITEBYTECODE", "1")])
        .env("HF_HUB_OFFLINE", "1")
        .status()
        .map_err(|error| {
            format!(
                "`{python}` cannot be started: {error}; set PYTHON to one with torch, transformers and peft"
            )
        })?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", script.display())) }
}
