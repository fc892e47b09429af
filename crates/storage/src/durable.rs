//! Files that are either the old ones or the new ones, whole, and what the writers need besides.
//!
//! The target is never opened for writing, only replaced by a rename: a file that is mapped (by us or by another process)
//! keeps its old content under the mapping.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use luthier_platform::fs::atomic_write;

use crate::Error;

/// Bytes collected before one write call.
const BUFFER: usize = 1 << 20;

/// Calls `fill` with a writer and puts what it wrote at `path`, durably; on any error `path` is as it was.
pub(crate) fn write<E: From<Error>>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), Ended<E>>,
) -> Result<(), E> {
    let mut caller = None;
    let written = atomic_write(path, |file| {
        let mut out = BufWriter::with_capacity(BUFFER, file);
        match fill(&mut out) {
            Ok(()) => out.flush(),
            Err(Ended::Io(error)) => Err(error),
            Err(Ended::Caller(error)) => {
                caller = Some(error);
                Err(io::Error::other("the content could not be made"))
            }
        }
    });
    match (written, caller) {
        (_, Some(error)) => Err(error),
        (Err(source), None) => Err(Error::Io { action: "write", path: path.to_owned(), source }.into()),
        (Ok(()), None) => Ok(()),
    }
}

/// Why a write ended: the disk's reason, or the caller's own.
pub(crate) enum Ended<E> {
    Io(io::Error),
    Caller(E),
}

impl<E> From<io::Error> for Ended<E> {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A writer that counts, for formats that know their offsets beforehand.
pub(crate) struct Counted<'w, W> {
    inner: &'w mut W,
    written: usize,
}

impl<'w, W: Write> Counted<'w, W> {
    pub(crate) fn new(inner: &'w mut W) -> Self {
        Self { inner, written: 0 }
    }

    /// Zeros up to the next multiple of `alignment`.
    pub(crate) fn pad(&mut self, alignment: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        self.write_all(&vec![0; missing])
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written += n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"old").unwrap();
        let failed = write::<Error>(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(Ended::Caller(Error::NotAFile { path: "mine".into() }))
        });
        assert!(matches!(failed, Err(Error::NotAFile { .. })), "the caller's error comes back: {failed:?}");
        let failed = write::<Error>(&path, |_| Err(io::Error::other("no space").into()));
        assert!(matches!(failed, Err(Error::Io { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        write::<Error>(&path, |out| Ok(out.write_all(b"new")?)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
