//! The hash that a file of a repository must have, and the measuring of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::{Digest, Sha1};
use sha2::Sha256;

/// What git knows of a file's content; also the blob's name in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// A small file: SHA-1 of `blob <length>\0` and the content, in hex. Source: Chacon and Straub, "Pro Git", section 10.2.
    Git(String),
    /// A large file: SHA-256 of the content, in hex. Source: the Git LFS specification, "The Pointer".
    Lfs(String),
}

impl Hash {
    /// Reads the forms in which servers write it: bare, quoted as an `ETag`, weak (`W/`), or as `sha256:..`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        let text = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match text.len() {
            40 if is_hex => Some(Self::Git(text)),
            64 if is_hex => Some(Self::Lfs(text)),
            _ => None,
        }
    }

    /// The digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Self::Git(hex) | Self::Lfs(hex) => hex,
        }
    }

    /// The hash of the same kind of a file as it stands on the disk.
    pub(crate) fn of_same_kind(&self, path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(match self {
            Self::Git(_) => {
                let mut digest = Sha1::new_with_prefix(format!("blob {length}\0"));
                feed(&mut file, &mut digest)?;
                Self::Git(to_hex(&digest.finalize()))
            }
            Self::Lfs(_) => {
                let mut digest = Sha256::new();
                feed(&mut file, &mut digest)?;
                Self::Lfs(to_hex(&digest.finalize()))
            }
        })
    }
}

fn feed(file: &mut File, digest: &mut impl Digest) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        digest.update(&buffer[..read]);
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).expect("four bits are one digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_GIT: &str = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
    const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_forms_of_servers_are_read() {
        let git = Some(Hash::Git(EMPTY_GIT.to_owned()));
        let lfs = Some(Hash::Lfs(EMPTY_SHA256.to_owned()));
        assert_eq!(Hash::parse(&format!("\"{EMPTY_GIT}\"")), git);
        assert_eq!(Hash::parse(&format!("W/\"{}\"", EMPTY_GIT.to_uppercase())), git);
        assert_eq!(Hash::parse(&format!("sha256:{EMPTY_SHA256}")), lfs);
        // An MD5, a multi-part ETag of an object store, a path.
        for text in
            ["", "d41d8cd98f00b204e9800998ecf8427e", "abc-12", &"../".repeat(14)[..40], &"z".repeat(64)]
        {
            assert_eq!(Hash::parse(text), None, "{text}");
        }
    }

    #[test]
    fn files_hash_as_git_and_lfs_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        for hex in [EMPTY_GIT, EMPTY_SHA256] {
            assert_eq!(Hash::parse(hex).unwrap().of_same_kind(&path).unwrap().hex(), hex);
        }
        std::fs::write(&path, "hello\n").unwrap(); // printf 'hello\n' | git hash-object --stdin; | sha256sum
        for hex in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            assert_eq!(Hash::parse(hex).unwrap().of_same_kind(&path).unwrap().hex(), hex);
        }
    }
}
