//! What can go wrong between a name and a model on the disk.

use std::io;
use std::path::{Path, PathBuf};

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A model that could not be brought or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name cannot be a model's.
    #[error("`{id}` is not a model's name on the hub: {reason}")]
    BadId {
        /// What was written.
        id: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The revision cannot be a branch, a tag or a commit.
    #[error("`{revision}` is not a revision: {reason}")]
    BadRevision {
        /// What was written.
        revision: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// `HF_ENDPOINT` is not an address.
    #[error("the hub's address `{endpoint}` must be http://HOST or https://HOST, with or without a path")]
    BadEndpoint {
        /// What was set.
        endpoint: String,
    },
    /// The token cannot be sent.
    #[error("the token from {source_name} holds letters that no token has")]
    BadToken {
        /// A variable or a file.
        source_name: String,
    },
    /// The file of certificates holds none that can be read.
    #[error("no certificate could be read from {path}")]
    BadCertificates {
        /// The file, in PEM.
        path: PathBuf,
    },
    /// Neither `HF_HOME` nor a home folder says where the cache is.
    #[error("no folder for the hub's cache: neither HF_HUB_CACHE, HF_HOME nor a home folder is set")]
    NoHome,
    /// The network may not be used and the cache does not have the model.
    #[error("`{repo}` is not in the cache {cache}, and HF_HUB_OFFLINE forbids the network")]
    Offline {
        /// The model.
        repo: String,
        /// The cache's folder.
        cache: PathBuf,
    },
    /// No connection, or one that broke, after all attempts.
    #[error("no connection to {host} {}: {source}", after(*.attempts))]
    Unreachable {
        /// Name and port.
        host: String,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt met.
        source: io::Error,
    },
    /// The connection broke within a file, after all attempts.
    #[error("`{file}` broke off after {got} of {expected} bytes, {} without headway", after(*.attempts))]
    Cut {
        /// The file's name.
        file: String,
        /// Bytes on the disk.
        got: u64,
        /// Bytes of the whole file.
        expected: u64,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server answered with an error of its own.
    #[error("{host} answered {status}{}", said(.message))]
    Server {
        /// Name and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The server's words, if it said any.
        message: String,
    },
    /// The hub knows no such model.
    #[error("the hub has no model `{repo}`")]
    NoRepo {
        /// What was asked for.
        repo: String,
        /// A model with a similar name.
        nearest: Option<String>,
    },
    /// The model has no such branch, tag or commit.
    #[error("`{repo}` has no revision `{revision}`")]
    NoRevision {
        /// The model.
        repo: String,
        /// What was asked for.
        revision: String,
        /// A branch or tag with a similar name.
        nearest: Option<String>,
    },
    /// The model has no such file, or the file may not be brought.
    #[error("`{repo}` has no file `{file}` that could be brought")]
    NoFile {
        /// The model.
        repo: String,
        /// What was asked for.
        file: String,
        /// A file with a similar name.
        nearest: Option<String>,
        /// The GGUF files that there are.
        ggufs: Vec<String>,
    },
    /// The hub wants to know who asks, or does not accept the token. It also answers so for names that do not exist.
    #[error("the hub refused `{repo}`: {}", token_state(.token_source.as_ref()))]
    Unauthorized {
        /// The model.
        repo: String,
        /// Where the token that was sent came from.
        token_source: Option<String>,
        /// A model with a similar name.
        nearest: Option<String>,
    },
    /// The model's owners decide who may have it.
    #[error("access to `{repo}` is restricted{}", said(.message))]
    Gated {
        /// The model.
        repo: String,
        /// Where access is asked for.
        page: String,
        /// Where the token that was sent came from.
        token_source: Option<String>,
        /// The server's words, if it said any.
        message: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to `{location}`: {reason}")]
    BadRedirect {
        /// Name and port.
        host: String,
        /// Where it points.
        location: String,
        /// Why it is not followed.
        reason: &'static str,
    },
    /// An answer that does not follow the hub's protocol.
    #[error("{host} did not answer as a hub does: {reason}")]
    BadReply {
        /// Name and port.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name in the listing that leads out of the model's folder.
    #[error("the listing of `{repo}` holds the name {name:?}, which is not a plain file of its own folder")]
    UnsafeName {
        /// The model.
        repo: String,
        /// The name.
        name: String,
    },
    /// The server gives no hash, so the content could not be checked.
    #[error("no hash is known of `{file}` in `{repo}`, so its content cannot be checked")]
    NoHash {
        /// The model.
        repo: String,
        /// The file's name.
        file: String,
    },
    /// The content is not what the hub has. Nothing of it is kept.
    #[error("`{file}` of `{repo}` has the wrong content: expected the hash {expected}, got {got}")]
    HashMismatch {
        /// The model.
        repo: String,
        /// The file's name.
        file: String,
        /// By the hub, in hex.
        expected: String,
        /// Of what came, in hex.
        got: String,
    },
    /// The repository holds no safetensors.
    #[error("`{repo}` has no safetensors weights{}", others(.ggufs, .pickles))]
    NoWeights {
        /// The model.
        repo: String,
        /// Its GGUF files.
        ggufs: Vec<String>,
        /// Its pickled weights, which are never read: loading them runs code.
        pickles: Vec<String>,
    },
    /// The disk or the quota is full. What came so far is kept.
    #[error("no space left while writing {path}{}", bytes_missing(*.missing))]
    DiskFull {
        /// The file that did not fit.
        path: PathBuf,
        /// Bytes of it that are still to come, where known.
        missing: Option<u64>,
    },
    /// The disk refuses.
    #[error("could not {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// `base` is neither a path nor a model that was pulled.
    #[error("base `{base}`: no such file or folder{}", if *.could_be_id { ", and no model of that name was pulled" } else { "" })]
    NoBase {
        /// What was written.
        base: String,
        /// Whether it has the form of a model's name.
        could_be_id: bool,
        /// A model in the cache with a similar name, or another revision of this one.
        nearest: Option<String>,
    },
    /// The path is there, but it is no model.
    #[error("base {path} is not a model: expected {expected}")]
    NotAModel {
        /// The path.
        path: PathBuf,
        /// What a model has.
        expected: &'static str,
        /// GGUF files that lie there.
        ggufs: Vec<PathBuf>,
    },
    /// A part of a pulled model is missing from the cache.
    #[error("`{repo}` in the cache lacks {}", .missing.join(", "))]
    Incomplete {
        /// The model.
        repo: String,
        /// What to type after `luthier pull`.
        argument: String,
        /// The files' names.
        missing: Vec<String>,
    },
}

impl Error {
    /// A short name for machines, which stays when the message changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadId { .. } => "hub-id",
            Self::BadRevision { .. } | Self::NoRevision { .. } => "hub-revision",
            Self::BadEndpoint { .. } => "hub-endpoint",
            Self::BadToken { .. } => "hub-token",
            Self::BadCertificates { .. } => "hub-certificates",
            Self::NoHome => "hub-cache",
            Self::Offline { .. } => "hub-offline",
            Self::Unreachable { .. } | Self::Cut { .. } => "hub-network",
            Self::Server { .. } | Self::BadReply { .. } | Self::BadRedirect { .. } => "hub-server",
            Self::NoRepo { .. } | Self::NoFile { .. } => "hub-not-found",
            Self::Unauthorized { .. } => "hub-unauthorized",
            Self::Gated { .. } => "hub-gated",
            Self::UnsafeName { .. } => "hub-unsafe-name",
            Self::NoHash { .. } | Self::HashMismatch { .. } => "hub-hash",
            Self::NoWeights { .. } => "hub-no-weights",
            Self::DiskFull { .. } => "disk-full",
            Self::Io { .. } => "io",
            Self::NoBase { .. } => "base-not-found",
            Self::NotAModel { .. } => "base-not-a-model",
            Self::Incomplete { .. } => "base-incomplete",
        }
    }

    /// The way out.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::BadId { .. } => "write it as ORG/NAME, as in the model's address on the hub".to_owned(),
            Self::BadRevision { .. } => "name a branch, a tag or a commit of the model".to_owned(),
            Self::BadEndpoint { .. } => "set HF_ENDPOINT to the address of a hub or a mirror, or unset it".to_owned(),
            Self::BadToken { source_name } => format!("put one token, on one line and nothing else, into {source_name}"),
            Self::BadCertificates { .. } => "SSL_CERT_FILE must name a file of certificates in PEM form; unset it to use the usual ones".to_owned(),
            Self::NoHome => "set HF_HOME to a folder with room for models".to_owned(),
            Self::Offline { .. } => "unset HF_HUB_OFFLINE and pull once, or copy the cache from a machine that has the model".to_owned(),
            Self::Unreachable { .. } => "check the connection; behind a proxy set HTTPS_PROXY (and SSL_CERT_FILE if it has its own certificate); for a mirror set HF_ENDPOINT; what came so far is kept".to_owned(),
            Self::Cut { .. } => "run the same command again: it goes on where it stopped".to_owned(),
            Self::Server { status: 429, .. } => "wait a few minutes; with a token (HF_TOKEN) the limit is higher; what came so far is kept".to_owned(),
            Self::Server { .. } => "try again later; what came so far is kept".to_owned(),
            Self::NoRepo { nearest, .. } => with_nearest(nearest.as_ref(), "check the name on the hub"),
            Self::NoRevision { nearest, .. } => with_nearest(nearest.as_ref(), "the model's page lists its branches and tags"),
            Self::NoFile { nearest, ggufs, .. } if ggufs.is_empty() => with_nearest(nearest.as_ref(), "the model has no GGUF file; leave --file out"),
            Self::NoFile { nearest, ggufs, .. } => with_nearest(nearest.as_ref(), &format!("there are: {}", first(ggufs))),
            Self::Unauthorized { token_source: Some(source), nearest, .. } => {
                with_nearest(nearest.as_ref(), &format!("make a new token with read access on the hub and put it into {source}, or check the name"))
            }
            Self::Unauthorized { nearest, .. } => {
                with_nearest(nearest.as_ref(), "check the name; if the model is private or gated, make a token with read access on the hub and set HF_TOKEN")
            }
            Self::Gated { page, token_source: None, .. } => {
                format!("ask for access on {page}, then make a token with read access and set HF_TOKEN")
            }
            Self::Gated { page, token_source: Some(source), .. } => {
                format!("ask for access on {page} with the account of the token from {source}; a fine-grained token must also allow gated models")
            }
            Self::BadRedirect { .. } | Self::BadReply { .. } => "check HF_ENDPOINT and the proxy's settings: this may not be a hub".to_owned(),
            Self::UnsafeName { .. } => "nothing was brought; do not trust this repository".to_owned(),
            Self::NoHash { .. } => "this mirror hides the hashes; use another one (HF_ENDPOINT)".to_owned(),
            Self::HashMismatch { .. } => "nothing of it was kept; try again, and if it happens again distrust the mirror or proxy in between".to_owned(),
            Self::NoWeights { repo, ggufs, .. } if !ggufs.is_empty() => {
                let repo = repo.strip_suffix("@main").unwrap_or(repo);
                format!("bring one GGUF file: luthier pull {repo} --file {}", ggufs[0])
            }
            Self::NoWeights { pickles, .. } if !pickles.is_empty() => {
                "loading pickled weights runs their code, so they are never read; look for a conversion of the model to safetensors".to_owned()
            }
            Self::NoWeights { .. } => "this may be a data set, or weights for another program".to_owned(),
            Self::DiskFull { .. } => "free some space, or set HF_HUB_CACHE to a larger disk; what came so far is kept".to_owned(),
            Self::Io { .. } => return None,
            Self::NoBase { base, could_be_id: true, nearest } => {
                with_nearest(nearest.as_ref(), &format!("check the path, or bring the model: luthier pull {base}"))
            }
            Self::NoBase { base, .. } if base.starts_with('~') => "`~` is not expanded: write the whole path".to_owned(),
            Self::NoBase { .. } => "write a folder with config.json, a .gguf file, or ORG/NAME of a model that was pulled; paths are relative to the file".to_owned(),
            Self::NotAModel { ggufs, .. } => match ggufs.first() {
                Some(gguf) => format!("name the file: base = \"{}\"", gguf.display()),
                None => "write a folder with config.json, a .gguf file, or ORG/NAME of a model that was pulled".to_owned(),
            },
            Self::Incomplete { argument, .. } => format!("bring the rest: luthier pull {argument}"),
        })
    }

    /// Whether the user's input is at fault (exit code 2) and not the world (exit code 1).
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::BadId { .. }
                | Self::BadRevision { .. }
                | Self::BadEndpoint { .. }
                | Self::BadToken { .. }
                | Self::BadCertificates { .. }
                | Self::NoRepo { .. }
                | Self::NoRevision { .. }
                | Self::NoFile { .. }
                | Self::NoWeights { .. }
                | Self::NoBase { .. }
                | Self::NotAModel { .. }
                | Self::Incomplete { .. }
        )
    }

    /// A failure of the disk, with a full one told apart.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), missing: None }
            }
            _ => Self::Io { action, path: path.to_owned(), source },
        }
    }
}

fn after(attempts: u32) -> String {
    if attempts == 1 { "after 1 attempt".to_owned() } else { format!("after {attempts} attempts") }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": \"{message}\"") }
}

fn token_state(source: Option<&String>) -> String {
    match source {
        Some(source) => format!("it does not accept the token from {source}"),
        None => "it is private, gated, or does not exist, and no token was sent".to_owned(),
    }
}

fn bytes_missing(missing: Option<u64>) -> String {
    missing.map_or_else(String::new, |missing| format!(", {missing} bytes are still to come"))
}

fn others(ggufs: &[String], pickles: &[String]) -> String {
    match (ggufs, pickles) {
        ([], []) => String::new(),
        ([], pickles) => format!(", only pickled ones: {}", first(pickles)),
        (ggufs, _) => format!(", but GGUF files: {}", first(ggufs)),
    }
}

/// The first names of a list, with the count of the rest.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 8; // one line of a terminal
    let text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{text} and {} more", names.len() - SHOWN) } else { text }
}

fn with_nearest(nearest: Option<&String>, otherwise: &str) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`? otherwise {otherwise}"),
        None => otherwise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = Error::io("write", Path::new("blob"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.code(), "disk-full");
        assert!(full.help().is_some_and(|help| help.contains("HF_HUB_CACHE")));
        let other = Error::io("write", Path::new("blob"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(other.to_string(), "could not write blob: permission denied");
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let names: Vec<String> = (0..10).map(|i| format!("q{i}.gguf")).collect();
        let text = first(&names);
        assert!(text.ends_with("q7.gguf and 2 more"), "{text}");
    }
}
