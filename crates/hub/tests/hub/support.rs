//! A hub on loopback that serves the files of `fixtures/`, and does on demand what networks do.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use luthier_hub::{Repo, Request, Settings};

/// The commit of `fixtures/listing.json`.
pub(crate) const COMMIT: &str = "5f0e6d3c1b2a49788796a5b4c3d2e1f00f1e2d3c";
/// The address of the weights.
pub(crate) const WEIGHTS: &str =
    "/org/tiny/resolve/5f0e6d3c1b2a49788796a5b4c3d2e1f00f1e2d3c/model.safetensors";

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    /// How often this path was asked for before.
    pub(crate) before: usize,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The connection breaks after this many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Hub {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    stopped: Arc<AtomicBool>,
}

impl Hub {
    /// Answers every request by `answer`, each connection on a thread of its own.
    pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let answer = Arc::new(answer);
        let (log, flag) = (Arc::clone(&asked), Arc::clone(&stopped));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                std::thread::spawn(move || serve(stream.unwrap(), &*answer, &log));
            }
        });
        Self { address, asked, stopped }
    }

    /// The hub as it should be.
    pub(crate) fn honest() -> Self {
        Self::start(honest)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Every request for one path.
    pub(crate) fn asked_for(&self, path: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path == path).collect()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Asked) -> Answer, log: &Mutex<Vec<Asked>>) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let asked = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|asked| asked.path == path).count();
        log.push(Asked { method, path, headers, before });
        log.last().unwrap().clone()
    };
    let answer = answer(&asked);
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head.extend(["Content-Length: ", &answer.body.len().to_string(), "\r\n"]);
    }
    for (name, value) in &answer.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let body =
        if asked.method == "HEAD" { &[] } else { &answer.body[..answer.cut.unwrap_or(answer.body.len())] };
    // A client that has seen enough closes first; that is its right.
    let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(body));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = (&stream).read(&mut [0; 64]);
}

/// The hub as it should be: the listing, and the files with ranges and with the hub's headers.
pub(crate) fn honest(asked: &Asked) -> Answer {
    if asked.path == "/api/models/org/tiny/revision/main?blobs=true" {
        return Answer::new(200, fixture("../listing.json")).with("Content-Type", "application/json");
    }
    let prefix = format!("/org/tiny/resolve/{COMMIT}/");
    match asked.path.strip_prefix(&prefix) {
        Some(name) if !name.contains("..") => content(asked, name),
        _ => Answer::new(404, "{}").with("X-Error-Code", "EntryNotFound"),
    }
}

/// A file, or the part of it that was asked for.
pub(crate) fn content(asked: &Asked, name: &str) -> Answer {
    let whole = fixture(name);
    let range = asked
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match range {
        None => Answer::new(200, whole).with("X-Repo-Commit", COMMIT),
        Some(from) if from >= whole.len() => Answer::new(416, ""),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", whole.len() - 1, whole.len());
            Answer::new(206, &whole[from..]).with("Content-Range", &range)
        }
    }
}

/// A file of the repository.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files").join(name)).unwrap()
}

/// The weights' hash, by `make.py` and not by the crate.
pub(crate) fn weights_hash() -> String {
    hash_of("model.safetensors")
}

/// The hash in the listing of any file: SHA-256 of a large one, git's of a small one.
pub(crate) fn hash_of(name: &str) -> String {
    let listing: serde_json::Value = serde_json::from_slice(&fixture("../listing.json")).unwrap();
    let siblings = listing["siblings"].as_array().unwrap();
    let entry = siblings.iter().find(|entry| entry["rfilename"] == name).unwrap();
    let hash = entry.get("lfs").map_or(&entry["blobId"], |lfs| &lfs["sha256"]);
    hash.as_str().unwrap().to_owned()
}

/// An empty cache and settings for a hub, with waits that no one notices.
pub(crate) struct Home {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) settings: Settings,
}

impl Home {
    pub(crate) fn new(endpoint: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(endpoint, folder.path().join("hub")).unwrap();
        settings.first_wait = Duration::from_millis(1);
        settings.longest_wait = Duration::from_millis(5);
        Self { folder, settings }
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.settings.cache.join("models--org--tiny")
    }

    pub(crate) fn blob(&self, name: &str) -> PathBuf {
        self.model().join("blobs").join(hash_of(name))
    }

    pub(crate) fn partial(&self, name: &str) -> PathBuf {
        self.model().join("blobs").join(format!("{}.incomplete", hash_of(name)))
    }

    /// Every file, link and folder below the home, relative and sorted.
    pub(crate) fn tree(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                found.push(
                    entry
                        .path()
                        .strip_prefix(self.folder.path())
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .replace('\\', "/"),
                );
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    pub(crate) fn pull(&self) -> luthier_hub::Result<luthier_hub::Pulled> {
        luthier_hub::pull(&self.settings, &request("org/tiny"), &mut |_| {})
    }
}

pub(crate) fn request(repo: &str) -> Request {
    Request { repo: Repo::parse(repo).unwrap(), gguf: None }
}
