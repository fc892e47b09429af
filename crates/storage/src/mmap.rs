//! The bytes of a file, mapped read-only or copied.
//!
//! A mapping costs no memory of its own and is shared between processes, but it is only as good as the file: when another
//! process cuts the file short, reading the lost pages ends the program (SIGBUS). So the length is checked before mapping,
//! can be checked again with [`FileBytes::check_unchanged`], our own writers replace files by renaming (the old content
//! stays alive under a mapping), and a file from an untrusted place can be copied instead ([`Access::Copied`]).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;

/// How the bytes of a file are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Mapped into the address space: pages are read when touched.
    #[default]
    Mapped,
    /// Read into memory at once: safe against whoever else can write the file.
    Copied,
}

/// The bytes of one file, which live as long as this value.
#[derive(Debug)]
pub struct FileBytes {
    path: PathBuf,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Opens a regular file.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        let meta = std::fs::metadata(path).map_err(io("open"))?;
        // Asked before opening: opening a pipe would wait for its writer.
        if !meta.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let mut file = File::open(path).map_err(io("open"))?;
        let len = file.metadata().map_err(io("read the length of"))?.len();
        let len = usize::try_from(len).map_err(|_| Error::TooLarge { path: path.to_owned(), bytes: len })?;
        let held = if len == 0 {
            Held::Owned(Vec::new()) // an empty mapping is an error on some systems
        } else if access == Access::Copied {
            let mut bytes = Vec::new();
            bytes
                .try_reserve_exact(len)
                .map_err(|_| Error::TooLarge { path: path.to_owned(), bytes: len as u64 })?;
            file.by_ref().take(len as u64).read_to_end(&mut bytes).map_err(io("read"))?;
            Held::Owned(bytes)
        } else {
            Held::Mapped(map(&file, len).map_err(io("map"))?)
        };
        let this = Self { path: path.to_owned(), held };
        let got = this.bytes().len();
        if got != len {
            return Err(Error::Changed { path: path.to_owned(), expected: len as u64, got: got as u64 });
        }
        Ok(this)
    }

    /// Bytes that never were in a file, under a name for messages; for tests and fuzzing.
    pub fn from_vec(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self { path: name.into(), held: Held::Owned(bytes) }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Mapped(map) => map,
            Held::Owned(bytes) => bytes,
        }
    }

    /// Where the file was when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the bytes are a mapping, so that they cost no memory of their own.
    pub fn is_mapped(&self) -> bool {
        matches!(self.held, Held::Mapped(_))
    }

    /// Refuses when the file at this path is shorter or longer than the one that was opened.
    ///
    /// A file *replaced* by renaming, as our writers do, is seen too when its length differs; the bytes here stay those of
    /// the old one and safe to read.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        let meta = std::fs::metadata(&self.path).map_err(|source| Error::Io {
            action: "look again at",
            path: self.path.clone(),
            source,
        })?;
        let expected = self.bytes().len() as u64;
        if meta.len() == expected {
            Ok(())
        } else {
            Err(Error::Changed { path: self.path.clone(), expected, got: meta.len() })
        }
    }
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[allow(unsafe_code)]
fn map(file: &File, len: usize) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the mapping is read-only and private to us. What is left to the outside is that nobody changes the file in
    // place while it is mapped: our writers only ever rename, the module's head says what remains and how to avoid it.
    unsafe { memmap2::MmapOptions::new().len(len).map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_and_copied_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"hello").unwrap();
        let mapped = FileBytes::open(&path, Access::Mapped).unwrap();
        let copied = FileBytes::open(&path, Access::Copied).unwrap();
        assert!(mapped.is_mapped() && !copied.is_mapped());
        assert_eq!(mapped.bytes(), copied.bytes());
        assert_eq!(mapped.bytes(), b"hello");
    }

    #[test]
    fn empty_files_and_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(FileBytes::open(&path, Access::Mapped).unwrap().bytes().is_empty());
        assert!(matches!(FileBytes::open(dir.path(), Access::Mapped), Err(Error::NotAFile { .. })));
        assert!(matches!(FileBytes::open(&dir.path().join("no"), Access::Mapped), Err(Error::Io { .. })));
    }

    #[test]
    fn a_file_cut_short_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, vec![1u8; 100]).unwrap();
        let mapped = FileBytes::open(&path, Access::Mapped).unwrap();
        assert!(mapped.check_unchanged().is_ok());
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
        assert!(matches!(mapped.check_unchanged(), Err(Error::Changed { expected: 100, got: 10, .. })));
    }
}
