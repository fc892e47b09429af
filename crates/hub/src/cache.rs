//! The shared cache on the disk: `models--ORG--NAME/{blobs,refs,snapshots}` and the locks.
//!
//! Source: huggingface_hub, "Understand caching". Its Python tools take the same locks (flock), so both can pull at once.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use luthier_platform::fs::{atomic_write, link_file};

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::names;
use crate::repo::{Repo, is_commit};

/// One model's part of the cache.
pub(crate) struct Cache {
    root: PathBuf,
    folder: String,
}

impl Cache {
    pub(crate) fn new(root: &Path, repo: &Repo) -> Self {
        Self { root: root.to_owned(), folder: repo.folder() }
    }

    /// Where a file's content stands, by its hash.
    pub(crate) fn blob(&self, hash: &Hash) -> PathBuf {
        self.root.join(&self.folder).join("blobs").join(hash.hex())
    }

    /// The folder that shows a commit's files under their own names.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join(&self.folder).join("snapshots").join(commit)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join(&self.folder).join("refs").join(revision)
    }

    /// The commit that a revision stood at when it was last pulled. A commit stands at itself.
    pub(crate) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.reference(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Notes the commit that a revision stands at.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.reference(revision);
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        make_folder_of(&path)?;
        atomic_write(&path, |file| file.write_all(commit.as_bytes()))
            .map_err(|source| Error::io("write", &path, source))
    }

    /// Whether a commit's folder shows this very content under this name.
    pub(crate) fn is_placed(&self, commit: &str, name: &str, hash: &Hash, bytes: u64) -> bool {
        let path = self.snapshot(commit).join(name);
        let is_right = match fs::read_link(&path) {
            Ok(target) => target.file_name().is_some_and(|blob| blob == hash.hex()),
            Err(_) => true, // a copy, as on Windows: its size speaks for it
        };
        is_right && is_file_of(&path, bytes)
    }

    /// Shows a blob under its name in a commit's folder. The name has been checked.
    pub(crate) fn place(&self, commit: &str, name: &str, hash: &Hash) -> Result<()> {
        let path = self.snapshot(commit).join(name);
        make_folder_of(&path)?;
        link_file(&self.blob(hash), &path).map_err(|source| Error::io("link", &path, source))
    }

    /// Waits for the exclusive right to write a blob, which the file holds until it is dropped; `waiting` is called first if
    /// another process has it. `None` on file systems without locks, where each process must write to a name of its own.
    pub(crate) fn lock(&self, hash: &Hash, waiting: impl FnOnce()) -> Result<Option<File>> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{}.lock", hash.hex()));
        make_folder_of(&path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| Error::io("open", &path, source))?;
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => waiting(),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path, source)),
        }
        file.lock().map_err(|source| Error::io("lock", &path, source))?;
        Ok(Some(file))
    }

    /// What a pulled commit lacks to be a model: empty if it is whole.
    pub(crate) fn missing(&self, commit: &str) -> Vec<String> {
        let folder = self.snapshot(commit);
        if folder.join("adapter_config.json").is_file() && folder.join("adapter_model.safetensors").is_file()
        {
            return Vec::new();
        }
        let mut missing = Vec::new();
        if !folder.join("config.json").is_file() {
            missing.push("config.json".to_owned());
        }
        if let Some(shards) = shards_of(&folder.join("model.safetensors.index.json")) {
            missing.extend(
                shards.into_iter().filter(|shard| names::escapes(shard) || !folder.join(shard).is_file()),
            );
        } else if files_with(&folder, "safetensors").is_empty() {
            missing.push("model.safetensors".to_owned());
        }
        missing
    }
}

/// The files that an index of shards names, each once. `None` if there is no index.
fn shards_of(index: &Path) -> Option<Vec<String>> {
    let text = fs::read(index).ok()?;
    let index: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let map = index.get("weight_map")?.as_object()?;
    let mut shards: Vec<String> =
        map.values().filter_map(|shard| shard.as_str().map(str::to_owned)).collect();
    shards.sort_unstable();
    shards.dedup();
    Some(shards)
}

/// The models in a cache, by id.
pub(crate) fn models(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let folders = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<String> = folders.filter_map(|folder| Repo::id_of_folder(&folder)).collect();
    ids.sort_unstable();
    ids
}

/// The files of a folder with an ending, by name; links to nothing do not count.
pub(crate) fn files_with(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let has = |path: &Path| path.extension().is_some_and(|have| have.eq_ignore_ascii_case(extension));
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| has(path) && path.is_file())
        .collect();
    paths.sort_unstable();
    paths
}

/// Whether there is a file of that many bytes.
pub(crate) fn is_file_of(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == bytes)
}

/// Makes the folder that a path stands in.
pub(crate) fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().expect("every path in the cache has a folder");
    fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))
}
