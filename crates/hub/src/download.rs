//! One file of a repository: brought, gone on with, checked, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use luthier_platform::fs::sync_dir;

use crate::cache::{Cache, is_file_of, make_folder_of};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::http::{Client, Reply, Trouble};
use crate::listing::{file_url, refusal};
use crate::pull::Event;
use crate::repo::Repo;
use crate::settings::Settings;

/// How the caller hears of progress.
pub(crate) type OnEvent<'a> = dyn FnMut(&Event<'_>) + 'a;

/// What a download needs to know besides the file.
pub(crate) struct Source<'a> {
    pub(crate) client: &'a Client,
    pub(crate) settings: &'a Settings,
    pub(crate) cache: &'a Cache,
    pub(crate) repo: &'a Repo,
    pub(crate) commit: &'a str,
}

/// A file whose size and hash are known.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) hash: Hash,
}

/// Repeats an attempt while its trouble may pass, with waits that double.
pub(crate) fn persist<T>(
    settings: &Settings,
    what: &str,
    on_event: &mut OnEvent<'_>,
    mut attempt: impl FnMut(&mut OnEvent<'_>) -> Result<T, Trouble>,
) -> Result<T> {
    let mut failed = 0;
    loop {
        let (error, asked) = match attempt(on_event) {
            Ok(value) => return Ok(value),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing { error, wait, advanced }) => {
                failed = if advanced { 1 } else { failed + 1 };
                (error, wait)
            }
        };
        if failed >= settings.attempts {
            return Err(counted(error, failed));
        }
        let doubled = settings.first_wait.saturating_mul(1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX));
        let wait = asked.unwrap_or(doubled).min(settings.longest_wait);
        on_event(&Event::Retrying { file: what, reason: &error, wait });
        std::thread::sleep(wait);
    }
}

fn counted(error: Error, count: u32) -> Error {
    match error {
        Error::Unreachable { host, source, .. } => Error::Unreachable { host, source, attempts: count },
        Error::Cut { file, got, expected, .. } => Error::Cut { file, got, expected, attempts: count },
        other => other,
    }
}

impl Source<'_> {
    /// Brings a file into the cache's blobs, unless it is there. Returns the bytes that came over the network.
    pub(crate) fn fetch(&self, file: &Known, on_event: &mut OnEvent<'_>) -> Result<u64> {
        let blob = self.cache.blob(&file.hash);
        make_folder_of(&blob)?;
        let lock = self.cache.lock(&file.hash, || on_event(&Event::Waiting { file: &file.name }))?;
        if is_file_of(&blob, file.bytes) {
            return Ok(0); // another process, or another revision with the same content
        }
        let suffix = match lock {
            Some(_) => "incomplete".to_owned(),
            None => format!("{}.incomplete", std::process::id()),
        };
        let partial = blob.with_file_name(format!("{}.{suffix}", file.hash.hex()));
        let mut received = 0;
        let resumed = fs::metadata(&partial).is_ok_and(|found| found.len() > 0);
        received += self.fill(&partial, file, on_event)?;
        let mut got = measure(&partial, file, on_event)?;
        if resumed && got != file.hash {
            // What lay there was not the start of this file; that says nothing about the server.
            remove(&partial)?;
            received += self.fill(&partial, file, on_event)?;
            got = measure(&partial, file, on_event)?;
        }
        if got != file.hash {
            remove(&partial)?;
            let (expected, got) = (file.hash.hex().to_owned(), got.hex().to_owned());
            return Err(Error::HashMismatch {
                repo: self.repo.id().to_owned(),
                file: file.name.clone(),
                expected,
                got,
            });
        }
        name_durably(&partial, &blob)?;
        drop(lock);
        Ok(received)
    }

    /// Brings what a partial file lacks, over as many connections as it takes, and makes it durable.
    fn fill(&self, partial: &Path, file: &Known, on_event: &mut OnEvent<'_>) -> Result<u64> {
        let mut furthest = fs::metadata(partial).map_or(0, |found| found.len());
        let mut received = 0;
        persist(self.settings, &file.name, on_event, |on_event| {
            let mut part = Part::open(partial, file)?;
            let result = self.fill_once(&mut part, file, on_event);
            received += part.received;
            let advanced = part.at > furthest;
            furthest = furthest.max(part.at);
            match result {
                Err(Trouble::Passing { error, wait, .. }) => Err(Trouble::Passing { error, wait, advanced }),
                other => other,
            }
        })?;
        Ok(received)
    }

    fn fill_once(&self, part: &mut Part, file: &Known, on_event: &mut OnEvent<'_>) -> Result<(), Trouble> {
        if part.at < file.bytes {
            let reply =
                self.client.get(&file_url(self.client, self.repo, self.commit, &file.name), part.at)?;
            match reply.status {
                200 => part.restart()?, // the server has ignored the range, or none was asked for
                206 if starts_at(&reply, part.at) => {}
                206 | 416 => {
                    part.restart()?;
                    let reason =
                        format!("it answered with another part of `{}` than was asked for", file.name);
                    return Err(Trouble::passing(Error::BadReply { host: reply.host, reason }));
                }
                _ => return Err(refusal(self.client, self.repo, Some(&file.name), &reply)),
            }
            on_event(&Event::Started { file: &file.name, at: part.at, bytes: file.bytes });
            part.receive(reply, file, on_event)?;
        }
        part.file.sync_all().map_err(|source| Error::io("sync", &part.path, source))?;
        Ok(())
    }
}

fn measure(partial: &Path, file: &Known, on_event: &mut OnEvent<'_>) -> Result<Hash> {
    on_event(&Event::Checking { file: &file.name });
    file.hash.of_same_kind(partial).map_err(|source| Error::io("read", partial, source))
}

/// A file that is being filled.
struct Part {
    file: File,
    path: PathBuf,
    /// Bytes on the disk.
    at: u64,
    /// Bytes that have come over the network.
    received: u64,
}

impl Part {
    /// Opens what is there; more than the whole file cannot be the start of it.
    fn open(path: &Path, known: &Known) -> Result<Self> {
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(|source| Error::io("open", path, source))?;
        let at = file.seek(SeekFrom::End(0)).map_err(|source| Error::io("open", path, source))?;
        let mut part = Self { file, path: path.to_owned(), at, received: 0 };
        if at > known.bytes {
            part.restart()?;
        }
        Ok(part)
    }

    fn restart(&mut self) -> Result<()> {
        if self.at > 0 {
            let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|source| Error::io("empty", &self.path, source))?;
            self.at = 0;
        }
        Ok(())
    }

    fn receive(&mut self, reply: Reply, known: &Known, on_event: &mut OnEvent<'_>) -> Result<(), Trouble> {
        let host = reply.host.clone();
        let mut reader = reply.into_reader()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break, // a cut connection looks like an early end; the size tells
            };
            if read as u64 > known.bytes - self.at {
                let reason = format!(
                    "it sends more than the {} bytes of `{}` that it has announced",
                    known.bytes, known.name
                );
                self.restart()?; // nothing of it can be trusted
                return Err(Error::BadReply { host, reason }.into());
            }
            self.file.write_all(&buffer[..read]).map_err(|source| self.write_failed(source, known))?;
            self.at += read as u64;
            self.received += read as u64;
            on_event(&Event::Advanced { file: &known.name, at: self.at, bytes: known.bytes });
        }
        if self.at < known.bytes {
            let (got, expected) = (self.at, known.bytes);
            return Err(Trouble::passing(Error::Cut {
                file: known.name.clone(),
                got,
                expected,
                attempts: 1,
            }));
        }
        Ok(())
    }

    fn write_failed(&self, source: io::Error, known: &Known) -> Error {
        match Error::io("write", &self.path, source) {
            Error::DiskFull { path, .. } => Error::DiskFull { path, missing: Some(known.bytes - self.at) },
            other => other,
        }
    }
}

/// Whether a partial answer starts at the byte that was asked for. Source: RFC 9110, section 14.4.
fn starts_at(reply: &Reply, from: u64) -> bool {
    let range = reply.header("content-range").and_then(|text| text.trim().strip_prefix("bytes "));
    range.and_then(|range| range.split_once('-')?.0.trim().parse().ok()) == Some(from)
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|source| Error::io("remove", path, source))
}

fn name_durably(partial: &Path, blob: &Path) -> Result<()> {
    let folder = blob.parent().expect("every path in the cache has a folder");
    fs::rename(partial, blob)
        .and_then(|()| sync_dir(folder))
        .map_err(|source| Error::io("rename", partial, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn settings(attempts: u32) -> Settings {
        let mut settings = Settings::new("http://hub.example", "cache").unwrap();
        (settings.attempts, settings.first_wait) = (attempts, Duration::from_micros(10));
        settings.longest_wait = Duration::from_micros(25);
        settings
    }

    fn cut(advanced: bool, wait: Option<Duration>) -> Trouble {
        let error = Error::Cut { file: "f".to_owned(), got: 1, expected: 2, attempts: 1 };
        Trouble::Passing { error, wait, advanced }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut waits = Vec::new();
        let mut listen = |event: &Event<'_>| {
            if let Event::Retrying { wait, .. } = event {
                waits.push(wait.as_micros());
            }
        };
        let result = persist(&settings(5), "f", &mut listen, |_| Err::<(), _>(cut(false, None)));
        assert!(matches!(result, Err(Error::Cut { attempts: 5, .. })));
        assert_eq!(waits, [10, 20, 25, 25]);
    }

    #[test]
    fn headway_starts_the_count_again_and_the_servers_wish_is_bounded() {
        let mut calls = 0;
        let mut waits = Vec::new();
        let mut listen = |event: &Event<'_>| {
            if let Event::Retrying { wait, .. } = event {
                waits.push(wait.as_micros());
            }
        };
        let result = persist(&settings(3), "f", &mut listen, |_| {
            calls += 1;
            if calls == 9 {
                Ok(calls)
            } else {
                Err(cut(calls % 2 == 0, (calls == 1).then_some(Duration::from_secs(3600))))
            }
        });
        assert_eq!(result.unwrap(), 9);
        assert_eq!(waits[0], 25);
    }

    #[test]
    fn lasting_trouble_is_not_repeated() {
        let mut calls = 0;
        let result = persist(&settings(5), "f", &mut |_| {}, |_| {
            calls += 1;
            Err::<(), _>(Trouble::Final(Error::NoHome))
        });
        assert!(matches!(result, Err(Error::NoHome)));
        assert_eq!(calls, 1);
    }
}
