//! The name of a model on the hub: `ORG/NAME`, or `NAME` for the oldest ones, with `@REVISION` where one is meant.

use std::fmt;

use crate::error::{Error, Result};

/// The branch that is meant when none is named.
const DEFAULT_REVISION: &str = "main";

/// The hub's own bound on an id.
const MAX_ID: usize = 96;

/// A model repository and a revision of it, both checked: they are safe in a URL and as names of folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    id: String,
    revision: String,
}

impl Repo {
    /// Reads `ORG/NAME`, `NAME`, or either with `@REVISION`.
    pub fn parse(text: &str) -> Result<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        if let Some(reason) = id_fault(id) {
            return Err(Error::BadId { id: text.to_owned(), reason });
        }
        Self { id: id.to_owned(), revision: DEFAULT_REVISION.to_owned() }.at(revision)
    }

    /// The same model at another branch, tag, commit or `refs/pr/N`.
    pub fn at(mut self, revision: &str) -> Result<Self> {
        if let Some(reason) = revision_fault(revision) {
            return Err(Error::BadRevision { revision: revision.to_owned(), reason });
        }
        revision.clone_into(&mut self.revision);
        Ok(self)
    }

    /// `ORG/NAME`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The part before the slash, where there is one.
    pub(crate) fn org(&self) -> Option<&str> {
        self.id.split_once('/').map(|(org, _)| org)
    }

    /// The part after the slash.
    pub(crate) fn name(&self) -> &str {
        self.id.split_once('/').map_or(&self.id, |(_, name)| name)
    }

    /// The folder's name in the shared cache.
    pub(crate) fn folder(&self) -> String {
        format!("models--{}", self.id.replace('/', "--"))
    }

    /// The id that a cache folder's name stands for, if it is a model's.
    pub(crate) fn id_of_folder(folder: &str) -> Option<String> {
        let id = folder.strip_prefix("models--")?.replacen("--", "/", 1);
        id_fault(&id).is_none().then_some(id)
    }

    /// What to type after `luthier pull`.
    pub(crate) fn to_argument(&self) -> String {
        if self.revision == DEFAULT_REVISION { self.id.clone() } else { format!("{self}") }
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.revision)
    }
}

/// Whether `text` is a full commit, which never moves.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is wrong with an id, by the hub's rules. They keep it a plain folder name too: `--` would be read as the slash.
fn id_fault(id: &str) -> Option<&'static str> {
    let parts: Vec<&str> = id.split('/').collect();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<u8>| matches!(byte, Some(b'-' | b'.'));
    if id.is_empty() {
        Some("it is empty")
    } else if id.len() > MAX_ID {
        Some("it is longer than 96 letters")
    } else if parts.len() > 2 || parts.contains(&"") {
        Some("it is not of the form ORG/NAME")
    } else if !parts.iter().all(|part| part.bytes().all(plain)) {
        Some("only letters, digits, `-`, `_` and `.` may stand in it")
    } else if parts.iter().any(|part| edge(part.bytes().next()) || edge(part.bytes().last())) {
        Some("no part may start or end with `-` or `.`")
    } else if id.contains("--") || id.contains("..") {
        Some("`--` and `..` may not stand in it")
    } else {
        None
    }
}

/// What is wrong with a revision: git's rules for names, as far as they keep it a relative path below `refs`.
fn revision_fault(revision: &str) -> Option<&'static str> {
    let allowed = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'\\' | b':' | b'?' | b'*' | b'[' | b'~' | b'^' | b'<' | b'>' | b'"' | b'|')
    };
    if revision.is_empty() {
        Some("it is empty")
    } else if revision.len() > 200 {
        Some("it is longer than 200 letters")
    } else if !revision.bytes().all(allowed) {
        Some("a letter that git allows in no name stands in it")
    } else if revision.split('/').any(|part| part.is_empty() || part.starts_with('.') || part.ends_with('.'))
    {
        Some("no part may be empty or start or end with `.`")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_revisions_are_read() {
        for (text, id, revision, folder) in [
            ("gpt2", "gpt2", "main", "models--gpt2"),
            ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "main", "models--Qwen--Qwen3-0.6B"),
            ("a/b@v1.0", "a/b", "v1.0", "models--a--b"),
            ("a/b@refs/pr/3", "a/b", "refs/pr/3", "models--a--b"),
        ] {
            let repo = Repo::parse(text).unwrap();
            assert_eq!((repo.id(), repo.revision(), repo.folder().as_str()), (id, revision, folder));
            assert_eq!(Repo::id_of_folder(folder).as_deref(), Some(id));
        }
    }

    #[test]
    fn ids_that_could_leave_the_cache_are_refused() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "../a",
            "a/..",
            "..",
            "a/b..c",
            "a--b/c",
            "-a/b",
            "a/b.",
            "a b/c",
            "a\\b",
            "a/b\0",
            "C:/a",
            "größe/x",
            "https://h/a",
        ] {
            assert!(matches!(Repo::parse(text), Err(Error::BadId { .. })), "{text:?}");
        }
        assert!(matches!(Repo::parse(&"a".repeat(97)), Err(Error::BadId { .. })));
    }

    #[test]
    fn revisions_that_could_leave_the_refs_are_refused() {
        for revision in ["", "..", "../x", "a/../b", "/etc", "a//b", "a\\b", "a b", "a\0", "C:", ".git", "x."]
        {
            let result = Repo::parse("a/b").unwrap().at(revision);
            assert!(matches!(result, Err(Error::BadRevision { .. })), "{revision:?}");
        }
    }

    #[test]
    fn folders_of_others_are_not_models() {
        for folder in ["datasets--a--b", "models--", "models--..--x", ".locks"] {
            assert_eq!(Repo::id_of_folder(folder), None, "{folder}");
        }
    }

    #[test]
    fn a_commit_is_forty_hex_digits() {
        assert!(is_commit(&"0a".repeat(20)));
        assert!(!is_commit(&"0A".repeat(20)));
        assert!(!is_commit("main"));
    }
}
