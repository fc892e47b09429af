//! What a model's repository holds, by the hub's API, and what to suggest when there is no such repository.

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::http::{Client, Reply, Trouble, percent_encode};
use crate::nearest::nearest;
use crate::repo::{Repo, is_commit};

/// A file of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// The name within the repository, unchecked until `wanted` has seen it.
    pub(crate) name: String,
    /// Its size, where the listing says it.
    pub(crate) bytes: Option<u64>,
    /// Its hash, where the listing says it.
    pub(crate) hash: Option<Hash>,
}

/// The files of one commit.
#[derive(Debug)]
pub(crate) struct Listing {
    /// 40 hex digits.
    pub(crate) commit: String,
    /// In the hub's order, which is by name.
    pub(crate) files: Vec<Remote>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

/// The hub writes `sha256`; other servers of the protocol write git's own word, `oid`.
#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: Option<String>,
    size: Option<u64>,
}

/// Asks for the commit that a revision stands at and its files with sizes and hashes.
pub(crate) fn read(client: &Client, repo: &Repo) -> Result<Listing, Trouble> {
    let reply =
        client.get(&format!("{}?blobs=true", model_url(client, repo, &["revision", repo.revision()])), 0)?;
    if reply.status != 200 {
        return Err(refusal(client, repo, None, &reply));
    }
    let host = reply.host.clone();
    let listing =
        parse(&reply.into_json()?).map_err(|reason| Error::BadReply { host: host.clone(), reason })?;
    if is_commit(repo.revision()) && listing.commit != repo.revision() {
        let reason = format!("asked for the commit {}, it lists {}", repo.revision(), listing.commit);
        return Err(Error::BadReply { host, reason }.into());
    }
    Ok(listing)
}

fn parse(json: &[u8]) -> Result<Listing, String> {
    let info: Info =
        serde_json::from_slice(json).map_err(|error| format!("its listing cannot be read: {error}"))?;
    if !is_commit(&info.sha) {
        // The commit becomes a folder's name.
        return Err("its listing names no commit of 40 hex digits".to_owned());
    }
    let files = info.siblings.into_iter().map(|sibling| {
        let (bytes, hash) = match sibling.lfs {
            Some(lfs) => (lfs.size.or(sibling.size), lfs.sha256),
            None => (sibling.size, sibling.blob_id),
        };
        Remote { name: sibling.rfilename, bytes, hash: hash.as_deref().and_then(Hash::parse) }
    });
    Ok(Listing { commit: info.sha, files: files.collect() })
}

/// Completes what the listing of a mirror leaves out, from the head of the file itself.
pub(crate) fn complete(
    client: &Client,
    repo: &Repo,
    commit: &str,
    remote: &mut Remote,
) -> Result<(), Trouble> {
    if remote.bytes.is_some() && remote.hash.is_some() {
        return Ok(());
    }
    let reply = client.head(&file_url(client, repo, commit, &remote.name))?;
    if reply.status >= 400 {
        return Err(refusal(client, repo, Some(&remote.name), &reply));
    }
    // The hub's own words on a large file precede those of the store that it redirects to.
    let hash = reply.header("x-linked-etag").or_else(|| reply.header("etag")).and_then(Hash::parse);
    let own_length = reply.header("content-length").filter(|_| reply.status == 200);
    let bytes = reply.header("x-linked-size").or(own_length).and_then(|text| text.parse().ok());
    let no_hash = || Error::NoHash { repo: repo.id().to_owned(), file: remote.name.clone() };
    let no_size = || Error::BadReply {
        host: reply.host.clone(),
        reason: format!("no size is known of `{}`", remote.name),
    };
    remote.hash = Some(remote.hash.clone().or(hash).ok_or_else(no_hash)?);
    remote.bytes = Some(remote.bytes.or(bytes).ok_or_else(no_size)?);
    Ok(())
}

/// The address of a file's content.
pub(crate) fn file_url(client: &Client, repo: &Repo, commit: &str, name: &str) -> String {
    let mut segments: Vec<&str> = repo.id().split('/').collect();
    segments.extend(["resolve", commit]);
    segments.extend(name.split('/'));
    client.url(&segments)
}

fn model_url(client: &Client, repo: &Repo, rest: &[&str]) -> String {
    let mut segments = vec!["api", "models"];
    segments.extend(repo.id().split('/'));
    segments.extend(rest);
    client.url(&segments)
}

/// What a status other than success means.
pub(crate) fn refusal(client: &Client, repo: &Repo, file: Option<&str>, reply: &Reply) -> Trouble {
    let server =
        || Error::Server { host: reply.host.clone(), status: reply.status, message: reply.message() };
    let code = reply.header("x-error-code").unwrap_or_default();
    let id = repo.id().to_owned();
    match reply.status {
        408 | 429 | 500..=599 => {
            let seconds = reply.header("retry-after").and_then(|text| text.trim().parse().ok());
            Trouble::Passing {
                error: server(),
                wait: seconds.map(std::time::Duration::from_secs),
                advanced: false,
            }
        }
        // The address that the hub signed has run out: asking the hub again gives a new one.
        _ if !reply.at_endpoint => Trouble::passing(server()),
        401 | 403 if reply.status == 403 || code == "GatedRepo" => Trouble::Final(Error::Gated {
            page: client.url(&repo.id().split('/').collect::<Vec<_>>()),
            repo: id,
            token_source: client.token_source(),
            message: reply.message(),
        }),
        401 => Trouble::Final(Error::Unauthorized {
            repo: id,
            token_source: client.token_source(),
            nearest: None,
        }),
        404 if code == "RevisionNotFound" => Trouble::Final(Error::NoRevision {
            repo: id,
            revision: repo.revision().to_owned(),
            nearest: None,
        }),
        404 => Trouble::Final(match file {
            Some(file) => Error::NoFile {
                repo: repo.to_string(),
                file: file.to_owned(),
                nearest: None,
                ggufs: Vec::new(),
            },
            None => Error::NoRepo { repo: id, nearest: None },
        }),
        _ => Trouble::Final(server()),
    }
}

/// Adds to an error what was probably meant, as far as the hub can say. A failure here leaves the error as it is.
pub(crate) fn suggest(client: &Client, repo: &Repo, error: Error) -> Error {
    match error {
        Error::NoRepo { repo: id, nearest: None } => {
            Error::NoRepo { nearest: similar_model(client, repo), repo: id }
        }
        Error::Unauthorized { repo: id, token_source, nearest: None } => {
            Error::Unauthorized { repo: id, token_source, nearest: similar_model(client, repo) }
        }
        Error::NoRevision { repo: id, revision, nearest: None } => {
            Error::NoRevision { nearest: similar_revision(client, repo), repo: id, revision }
        }
        other => other,
    }
}

/// First among models with that name, then among those of the organisation.
fn similar_model(client: &Client, repo: &Repo) -> Option<String> {
    #[derive(Deserialize)]
    struct Found {
        id: String,
    }
    let ask = |query: String| -> Option<String> {
        let found: Vec<Found> =
            read_json(client, &format!("{}?{query}&limit=100", client.url(&["api", "models"])))?;
        // Only what could be typed is suggested: the text comes from the network.
        let ids = found
            .iter()
            .map(|found| found.id.as_str())
            .filter(|id| Repo::parse(id).is_ok() && *id != repo.id());
        nearest(repo.id(), ids)
    };
    ask(format!("search={}", percent_encode(repo.name())))
        .or_else(|| ask(format!("author={}", percent_encode(repo.org()?))))
}

fn similar_revision(client: &Client, repo: &Repo) -> Option<String> {
    #[derive(Deserialize)]
    struct Refs {
        #[serde(default)]
        branches: Vec<Ref>,
        #[serde(default)]
        tags: Vec<Ref>,
    }
    #[derive(Deserialize)]
    struct Ref {
        name: String,
    }
    let refs: Refs = read_json(client, &model_url(client, repo, &["refs"]))?;
    let names = refs.branches.iter().chain(&refs.tags).map(|reference| reference.name.as_str());
    nearest(repo.revision(), names.filter(|name| repo.clone().at(name).is_ok()))
}

fn read_json<T: for<'de> Deserialize<'de>>(client: &Client, url: &str) -> Option<T> {
    let reply = client.get(url, 0).ok().filter(|reply| reply.status == 200)?;
    serde_json::from_slice(&reply.into_json().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_hashes_are_read_in_both_spellings() {
        let json = format!(
            r#"{{"sha":"{}","gated":false,"siblings":[{{"rfilename":"a","size":3,"blobId":"{}"}},
            {{"rfilename":"b","size":130,"blobId":"{}","lfs":{{"oid":"{}","size":9,"pointerSize":130}}}},{{"rfilename":"c"}}]}}"#,
            "0".repeat(40),
            "1".repeat(40),
            "2".repeat(40),
            "3".repeat(64)
        );
        let files = parse(json.as_bytes()).unwrap().files;
        let seen: Vec<_> =
            files.iter().map(|file| (file.bytes, file.hash.as_ref().map(|hash| hash.hex().len()))).collect();
        assert_eq!(seen, [(Some(3), Some(40)), (Some(9), Some(64)), (None, None)]);
    }

    #[test]
    fn a_listing_that_is_none_is_refused() {
        for json in [
            "",
            "[]",
            "{}",
            "<html>",
            r#"{"sha":"../../../../../../../../../../../../etc/ssh"}"#,
            r#"{"sha":"main"}"#,
        ] {
            assert!(parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
