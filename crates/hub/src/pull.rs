//! A whole model: listed, chosen, brought file by file, and noted as pulled once all of it is there.

use std::path::PathBuf;
use std::time::Duration;

use crate::cache::Cache;
use crate::download::{Known, OnEvent, Source, persist};
use crate::error::{Error, Result};
use crate::http::Client;
use crate::listing;
use crate::repo::Repo;
use crate::resolve::pulled;
use crate::settings::Settings;
use crate::wanted::wanted;

/// What to bring.
#[derive(Clone, Debug)]
pub struct Request {
    /// The model and its revision.
    pub repo: Repo,
    /// One GGUF file, by its name in the repository, in place of the safetensors model.
    pub gguf: Option<String>,
}

/// What happens during a pull, in order; a listener may ignore any.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It is known what there is to do.
    Listed {
        /// Files of the model.
        files: usize,
        /// Their bytes.
        bytes: u64,
        /// Bytes of them that the cache has.
        present: u64,
    },
    /// The content of a file starts to come.
    Started {
        /// The file's name.
        file: &'a str,
        /// The first byte that comes: 0, or what an earlier attempt has left.
        at: u64,
        /// Bytes of the whole file.
        bytes: u64,
    },
    /// Some more of it is on the disk.
    Advanced {
        /// The file's name.
        file: &'a str,
        /// Bytes on the disk.
        at: u64,
        /// Bytes of the whole file.
        bytes: u64,
    },
    /// Another process brings this file, and this one waits for it.
    Waiting {
        /// The file's name.
        file: &'a str,
    },
    /// Something failed that may pass.
    Retrying {
        /// The file's name, or the model's for its listing.
        file: &'a str,
        /// What failed.
        reason: &'a Error,
        /// The time until the next attempt.
        wait: Duration,
    },
    /// All of a file came, and its hash is measured.
    Checking {
        /// The file's name.
        file: &'a str,
    },
    /// A file is in its place.
    Finished {
        /// The file's name.
        file: &'a str,
        /// Bytes of it that came over the network: 0 if the cache had it.
        received: u64,
    },
}

/// A model that is on the disk.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What `base` in run.toml means by it: the folder with `config.json`, or the GGUF file.
    pub path: PathBuf,
    /// 40 hex digits.
    pub commit: String,
    /// Its files, in the hub's order; empty when the network was not used.
    pub files: Vec<PulledFile>,
}

/// One file of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledFile {
    /// The name within the model.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Bytes that came over the network this time.
    pub received: u64,
}

/// Brings a model into the cache, or completes it there. What the cache has is not brought again.
pub fn pull(settings: &Settings, request: &Request, on_event: &mut dyn FnMut(&Event<'_>)) -> Result<Pulled> {
    let repo = &request.repo;
    let cache = Cache::new(&settings.cache, repo);
    if settings.offline {
        return without_network(settings, request);
    }
    let client = Client::new(settings)?;
    let listing = persist(settings, repo.id(), on_event, |_| listing::read(&client, repo));
    let listing = listing.map_err(|error| listing::suggest(&client, repo, error))?;
    let source = Source { client: &client, settings, cache: &cache, repo, commit: &listing.commit };
    let mut files = Vec::new();
    for mut remote in wanted(repo, listing.files, request.gguf.as_deref())? {
        persist(settings, &remote.name.clone(), on_event, |_| {
            listing::complete(&client, repo, source.commit, &mut remote)
        })?;
        let no_hash = || Error::NoHash { repo: repo.id().to_owned(), file: remote.name.clone() };
        let (hash, bytes) = remote.hash.zip(remote.bytes).ok_or_else(no_hash)?;
        files.push(Known { name: remote.name, bytes, hash });
    }
    let pulled = bring(&source, &files, on_event)?;
    cache.set_commit(repo.revision(), &listing.commit)?;
    let folder = cache.snapshot(&listing.commit);
    let path = request.gguf.as_ref().map_or(folder.clone(), |gguf| folder.join(gguf));
    Ok(Pulled { path, commit: listing.commit, files: pulled })
}

fn bring(source: &Source<'_>, files: &[Known], on_event: &mut OnEvent<'_>) -> Result<Vec<PulledFile>> {
    let is_placed = |file: &Known| source.cache.is_placed(source.commit, &file.name, &file.hash, file.bytes);
    let bytes = files.iter().map(|file| file.bytes).sum();
    let present = files.iter().filter(|file| is_placed(file)).map(|file| file.bytes).sum();
    on_event(&Event::Listed { files: files.len(), bytes, present });
    let mut pulled = Vec::with_capacity(files.len());
    for file in files {
        let mut received = 0;
        if !is_placed(file) {
            received = source.fetch(file, on_event)?;
            source.cache.place(source.commit, &file.name, &file.hash)?;
        }
        on_event(&Event::Finished { file: &file.name, received });
        pulled.push(PulledFile { name: file.name.clone(), bytes: file.bytes, received });
    }
    Ok(pulled)
}

fn without_network(settings: &Settings, request: &Request) -> Result<Pulled> {
    let offline = |_| Error::Offline { repo: request.repo.to_string(), cache: settings.cache.clone() };
    let (path, commit) = pulled(&settings.cache, &request.repo, request.gguf.as_deref()).map_err(offline)?;
    Ok(Pulled { path, commit, files: Vec::new() })
}
