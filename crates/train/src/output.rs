//! The output folder: whose it is, who may write to it, and folders that appear whole.
use crate::error::Error;
use luthier_platform::fs::{DirLock, replace_dir, sync_dir};
use std::path::{Path, PathBuf};

/// What a run leaves in its output folder. An output with anything else in it is never removed.
const OURS: &[&str] = &[
    "adapter",
    "best",
    "checkpoints",
    "finished.json",
    "metrics.jsonl",
    "model",
    "report.html",
    "resolved.toml",
    "base",
];

/// What to do with an output folder that holds a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Resume,
    Overwrite,
}

/// Entries of `path` that count: not the lock, not half-written folders of ours.
fn entries(path: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        Err(e) => return Err(Error::io("list", path)(e)),
        Ok(list) => {
            for entry in list {
                let name = entry.map_err(Error::io("list", path))?.file_name();
                if !DirLock::is_lock_file(&name) {
                    names.push(name.to_string_lossy().into_owned());
                }
            }
        }
    }
    names.sort();
    names.retain(|n| !is_partial(n));
    Ok(names)
}

/// Names that [`in_place_of`] and the platform's writers use for what is not whole yet.
pub(crate) fn is_partial(name: &str) -> bool {
    name.starts_with('.') && [".partial", ".replaced"].iter().any(|end| name.ends_with(end))
}

/// Refuses an output that may not be used; changes nothing.
pub(crate) fn check(path: &Path, existing: Existing) -> Result<(), Error> {
    let names = entries(path)?;
    if let Some(found) = names.iter().find(|n| !OURS.contains(&n.as_str())) {
        return Err(Error::NotOurs { path: path.into(), found: found.clone() });
    }
    if !names.is_empty() && existing == Existing::Refuse {
        return Err(Error::OutputExists { path: path.into() });
    }
    Ok(())
}

/// Takes the output for this process: locked, and empty unless the run goes on.
pub(crate) fn take(path: &Path, existing: Existing) -> Result<DirLock, Error> {
    let lock = DirLock::acquire(path).map_err(Error::io("lock", path))?;
    let lock = lock.ok_or_else(|| Error::Locked { path: path.into() })?;
    check(path, existing)?; // again, now that nobody else writes
    let list = std::fs::read_dir(path).map_err(Error::io("list", path))?;
    for entry in list {
        let entry = entry.map_err(Error::io("list", path))?;
        let name = entry.file_name();
        let stale = is_partial(&name.to_string_lossy());
        if !DirLock::is_lock_file(&name) && (stale || existing == Existing::Overwrite) {
            remove(&entry.path())?;
        }
    }
    Ok(lock)
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let is_dir = path.symlink_metadata().map_err(Error::io("remove", path))?.is_dir();
    let removed = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(Error::io("remove", path))
}

/// Lets `fill` write a folder beside `path` and puts it in the place of `path`: whole or not at all. Files must be
/// synced by who writes them.
pub(crate) fn in_place_of(path: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial: PathBuf = path.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    if partial.exists() {
        remove(&partial)?;
    }
    std::fs::create_dir(&partial).map_err(Error::io("make", &partial))?;
    let filled = fill(&partial).and_then(|()| {
        sync_dir(&partial).map_err(Error::io("sync", &partial))?;
        replace_dir(&partial, path).map_err(Error::io("replace", path))
    });
    if filled.is_err() {
        // The first failure is the one to report; what is left behind is removed by the next run.
        let _ = std::fs::remove_dir_all(&partial);
    }
    filled
}
