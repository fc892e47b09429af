//! Files and folders that are either the old version or the new one after a crash, never half of each.
//!
//! The order is the usual one: write under a temporary name in the same folder, fsync the file, rename, fsync the folder.
//! Without the last step a rename can be lost (ext4, XFS); without the first fsync it can survive with no content.
//! Source: Pillai et al. 2014, "All File Systems Are Not Created Equal", section 4.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The lock's file name inside a locked folder.
const LOCK_NAME: &str = ".luthier.lock";

/// Writes `path` so that after a crash it holds either its old content or all of what `write` wrote.
///
/// The temporary file stands in the same folder (a rename does not cross file systems) and is removed when `write` fails.
/// The folder must exist.
pub fn atomic_write(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| no_name(path))?;
    let partial = path.with_file_name(fresh_name(name, "partial"));
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&partial)?;
        write(&mut file)?;
        file.sync_all()?;
        drop(file); // Windows does not rename an open file
        std::fs::rename(&partial, path)?;
        sync_dir(folder_of(path))
    })();
    if result.is_err() {
        // The first failure is the one to report; a temporary name left behind does no harm.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

/// Makes the names in a folder durable: created, renamed and removed entries.
///
/// Windows keeps names in its journal and offers no fsync of a folder: nothing is done there.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(path)?.sync_all()
}

/// Puts the folder `new` in the place of the folder `path`, which may exist, and makes it durable.
///
/// Folders cannot be exchanged by one rename on every system, so the old one is first renamed aside, then removed last.
/// A crash between the two renames leaves the old content under `.<name>.<..>.replaced` beside it: nothing is lost, but
/// `path` is missing. Both must be on one file system.
pub fn replace_dir(new: &Path, path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| no_name(path))?;
    let parent = folder_of(path);
    sync_dir(new)?;
    if !path.exists() {
        std::fs::rename(new, path)?;
        return sync_dir(parent);
    }
    let aside = path.with_file_name(fresh_name(name, "replaced"));
    std::fs::rename(path, &aside)?;
    if let Err(error) = std::fs::rename(new, path) {
        std::fs::rename(&aside, path)?;
        return Err(error);
    }
    sync_dir(parent)?;
    std::fs::remove_dir_all(&aside)
}

/// Makes `link` show the content of the file `target`, replacing what stood at `link`.
///
/// A relative symbolic link on Unix. Windows lets ordinary users make none: a hard link there, or a copy where the file
/// system has no hard links. Both paths must be absolute or relative to the same folder, and `link`'s folder must exist.
pub fn link_file(target: &Path, link: &Path) -> io::Result<()> {
    let name = link.file_name().ok_or_else(|| no_name(link))?;
    let fresh = link.with_file_name(fresh_name(name, "link"));
    make_link(target, &fresh)?;
    if let Err(error) = std::fs::rename(&fresh, link) {
        // The first failure is the one to report.
        let _ = std::fs::remove_file(&fresh);
        return Err(error);
    }
    sync_dir(folder_of(link))
}

#[cfg(unix)]
fn make_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative_to(target, folder_of(link)), link)
}

#[cfg(not(unix))]
fn make_link(target: &Path, link: &Path) -> io::Result<()> {
    std::fs::hard_link(target, link).or_else(|_| std::fs::copy(target, link).map(drop))
}

/// `path` as seen from `folder`: up to what they share, then down. Purely by name.
#[cfg(unix)]
fn relative_to(path: &Path, folder: &Path) -> PathBuf {
    let shared = path.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| Path::new(".."));
    up.chain(path.components().skip(shared).map(|part| Path::new(part.as_os_str()))).collect()
}

/// The exclusive use of a folder by this process, until it is dropped.
///
/// The lock is the operating system's on a file in the folder: it goes with the process, so a killed run leaves no stale
/// lock behind. The file itself stays, since removing it would race with the next holder.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    path: PathBuf,
}

impl DirLock {
    /// Locks `folder`, which is created if it is missing. `Ok(None)` means that another process holds it.
    pub fn acquire(folder: &Path) -> io::Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(LOCK_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a folder's entry is the lock, which belongs to no run's output.
    pub fn is_lock_file(name: &OsStr) -> bool {
        name == LOCK_NAME
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file releases the lock as well; nothing is left to do if this fails.
        let _ = self.file.unlock();
    }
}

/// The folder that a path's last name stands in; `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A hidden name beside `name` that no other process and no other thread of this one uses.
fn fresh_name(name: &OsStr, kind: &str) -> OsString {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut fresh = OsString::from(".");
    fresh.push(name);
    fresh.push(format!(".{}-{count}.{kind}", std::process::id()));
    fresh
}

fn no_name(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not end in a name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_written_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter.json");
        for content in ["first, and longer", "second"] {
            atomic_write(&path, |file| file.write_all(content.as_bytes())).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(names(folder.path()), ["adapter.json"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::write(&path, "old").unwrap();
        let result = atomic_write(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(result.unwrap_err().to_string(), "disk full");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["state"]);
    }

    #[test]
    fn the_file_has_its_name_only_after_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        atomic_write(&path, |file| {
            file.write_all(b"all")?;
            assert!(!path.exists());
            Ok(())
        })
        .unwrap();
        assert!(path.exists());
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        let error = atomic_write(Path::new("/"), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("step-10"));
        for path in [&new, &old] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(new.join("a"), "new").unwrap();
        std::fs::write(old.join("b"), "old").unwrap();
        replace_dir(&new, &old).unwrap();
        assert_eq!(names(folder.path()), ["step-10"]);
        assert_eq!(names(&old), ["a"]);
    }

    #[test]
    fn a_folder_moves_to_a_free_place() {
        let folder = tempfile::tempdir().unwrap();
        let (new, free) = (folder.path().join("new"), folder.path().join("step-10"));
        std::fs::create_dir(&new).unwrap();
        replace_dir(&new, &free).unwrap();
        assert_eq!(names(folder.path()), ["step-10"]);
    }

    #[test]
    fn a_folder_that_cannot_be_moved_leaves_the_old_one_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("step-10");
        std::fs::create_dir(&old).unwrap();
        assert!(replace_dir(&folder.path().join("absent"), &old).is_err());
        assert_eq!(names(folder.path()), ["step-10"]);
    }

    #[test]
    fn a_linked_file_shows_its_target_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (blobs, snapshot) = (folder.path().join("blobs"), folder.path().join("snapshots/abc/deep"));
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        let (target, link) = (blobs.join("0123"), snapshot.join("config.json"));
        std::fs::write(&target, "new").unwrap();
        std::fs::write(&link, "old").unwrap();
        link_file(&target, &link).unwrap();
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "new");
        assert_eq!(names(&snapshot), ["config.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_relative_so_that_the_tree_can_be_moved() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("snapshots/abc")).unwrap();
        std::fs::write(tree.join("blob"), "content").unwrap();
        link_file(&tree.join("blob"), &tree.join("snapshots/abc/file")).unwrap();
        std::fs::rename(&tree, folder.path().join("moved")).unwrap();
        assert_eq!(
            std::fs::read_to_string(folder.path().join("moved/snapshots/abc/file")).unwrap(),
            "content"
        );
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("runs/one");
        let first = DirLock::acquire(&output).unwrap().expect("the folder is free");
        assert!(DirLock::acquire(&output).unwrap().is_none());
        assert!(DirLock::is_lock_file(first.path().file_name().unwrap()));
        drop(first);
        assert!(DirLock::acquire(&output).unwrap().is_some());
    }
}
