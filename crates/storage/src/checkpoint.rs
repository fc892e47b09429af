//! The weights of a model, whatever files they stand in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use luthier_kernels::linear::Base;
use luthier_tensor::{Account, Tensor};

use crate::Error;
use crate::base::StoreAs;
use crate::encoding::Encoding;
use crate::gguf::{Gguf, Metadata, Value};
use crate::mmap::{Access, FileBytes};
use crate::safetensors::{Header, Index, SafetensorsFault};
use crate::stored::Stored;

/// The one file of an unsharded model.
const SINGLE: &str = "model.safetensors";
/// What a folder must hold.
const EXPECTED: &str =
    "`model.safetensors`, `model.safetensors.index.json` or one `.safetensors` or `.gguf` file";
/// Names listed in an error.
const LISTED: usize = 8;

/// Open weights: tensors by name. Cloning shares the files.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<FileBytes>>,
    tensors: BTreeMap<String, Place>,
    about: About,
}

#[derive(Clone, Debug)]
struct Place {
    file: usize,
    encoding: Encoding,
    shape: Vec<usize>,
    range: Range<usize>,
}

#[derive(Clone, Debug)]
enum About {
    Safetensors(BTreeMap<String, String>),
    Gguf(Box<Metadata>),
}

impl Checkpoint {
    /// Opens a folder of safetensors (single or sharded), a `.safetensors` or a `.gguf` file, mapped.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Access::Mapped)
    }

    /// [`open`](Self::open), with a say in how the bytes are reached.
    pub fn open_with(path: &Path, access: Access) -> Result<Self, Error> {
        let meta = std::fs::metadata(path).map_err(|source| Error::Io {
            action: "open",
            path: path.to_owned(),
            source,
        })?;
        if !meta.is_dir() {
            return Self::open_file(path, access);
        }
        let index = path.join("model.safetensors.index.json");
        if index.is_file() {
            return Self::open_sharded(path, &index, access);
        }
        Self::open_file(&only_weights(path)?, access)
    }

    fn open_file(path: &Path, access: Access) -> Result<Self, Error> {
        if is_pickle(path) {
            return Err(Error::Pickle { path: path.to_owned() });
        }
        let file = FileBytes::open(path, access)?;
        if file.bytes().starts_with(b"GGUF") || has_extension(path, "gguf") {
            return Self::from_gguf(file);
        }
        Self::from_safetensors(file)
    }

    /// The weights in one GGUF file.
    pub fn from_gguf(file: FileBytes) -> Result<Self, Error> {
        let path = file.path().to_owned();
        let gguf = Gguf::parse(file.bytes()).map_err(|fault| Error::Gguf { path: path.clone(), fault })?;
        let place = |t: crate::gguf::TensorInfo| {
            (t.name, Place { file: 0, encoding: t.encoding, shape: t.shape, range: t.range })
        };
        Ok(Self {
            path,
            files: vec![Arc::new(file)],
            tensors: gguf.tensors.into_iter().map(place).collect(),
            about: About::Gguf(Box::new(gguf.metadata)),
        })
    }

    /// The weights in one safetensors file.
    pub fn from_safetensors(file: FileBytes) -> Result<Self, Error> {
        let path = file.path().to_owned();
        let header = read_header(&file)?;
        let place = |(name, e): (String, crate::safetensors::Entry)| {
            (name, Place { file: 0, encoding: e.encoding, shape: e.shape, range: e.range })
        };
        Ok(Self {
            path,
            files: vec![Arc::new(file)],
            tensors: header.tensors.into_iter().map(place).collect(),
            about: About::Safetensors(header.metadata),
        })
    }

    fn open_sharded(folder: &Path, index_path: &Path, access: Access) -> Result<Self, Error> {
        let broken = |fault| Error::Safetensors { path: index_path.to_owned(), fault };
        let index_file = FileBytes::open(index_path, Access::Copied)?;
        let index = Index::parse(index_file.bytes()).map_err(broken)?;
        let mut files = Vec::new();
        let mut headers = BTreeMap::new();
        let mut about = BTreeMap::new();
        for (shard, tensor) in index.shards() {
            let path = folder.join(shard);
            if !path.is_file() {
                let (shard, tensor) = (shard.to_owned(), tensor.to_owned());
                return Err(broken(SafetensorsFault::MissingShard { shard, tensor }));
            }
            let file = FileBytes::open(&path, access)?;
            let mut header = read_header(&file)?;
            about.append(&mut header.metadata);
            headers.insert(shard, (files.len(), header.tensors));
            files.push(Arc::new(file));
        }
        let mut tensors = BTreeMap::new();
        for (tensor, shard) in &index.weight_map {
            let found =
                headers.get_mut(shard.as_str()).and_then(|(file, h)| Some((*file, h.remove(tensor)?)));
            let Some((file, entry)) = found else {
                return Err(broken(SafetensorsFault::NotInShard {
                    shard: shard.clone(),
                    tensor: tensor.clone(),
                }));
            };
            let place = Place { file, encoding: entry.encoding, shape: entry.shape, range: entry.range };
            tensors.insert(tensor.clone(), place);
        }
        Ok(Self { path: folder.to_owned(), files, tensors, about: About::Safetensors(about) })
    }

    /// The folder or file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files, in the order of their names: what a fingerprint of the base covers.
    pub fn files(&self) -> &[Arc<FileBytes>] {
        &self.files
    }

    /// The metadata of a GGUF; `None` for safetensors.
    pub fn gguf(&self) -> Option<&Metadata> {
        if let About::Gguf(metadata) = &self.about { Some(metadata) } else { None }
    }

    /// `__metadata__` of safetensors files; empty for a GGUF.
    pub fn safetensors_metadata(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        if let About::Safetensors(metadata) = &self.about { metadata } else { NONE }
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How a tensor is stored and its row-major shape.
    pub fn info(&self, name: &str) -> Option<(Encoding, &[usize])> {
        self.tensors.get(name).map(|p| (p.encoding, p.shape.as_slice()))
    }

    /// Bytes of all tensors as stored.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(|p| p.range.len()).sum()
    }

    /// A tensor as stored: for reordering, converting, or serving as a base.
    pub fn stored(&self, name: &str) -> Result<Stored, Error> {
        let Some(place) = self.tensors.get(name) else {
            return Err(Error::MissingTensor {
                path: self.path.clone(),
                tensor: name.to_owned(),
                nearest: self.nearest(name),
            });
        };
        Ok(Stored {
            name: name.to_owned(),
            encoding: place.encoding,
            shape: place.shape.clone(),
            owner: Arc::clone(&self.files[place.file]),
            range: place.range.clone(),
        })
    }

    /// A tensor in its own type, in the base's account; see [`Stored::to_tensor`].
    pub fn read(&self, name: &str) -> Result<Tensor, Error> {
        self.stored(name)?.to_tensor(Account::Base)
    }

    /// A matrix as a frozen linear map; see [`Stored::to_base`].
    pub fn as_base(&self, name: &str, how: StoreAs) -> Result<Arc<dyn Base>, Error> {
        self.stored(name)?.to_base(how)
    }

    /// A metadata value of a GGUF, or an error that says what is there instead.
    pub fn gguf_value<'s, T>(
        &'s self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&'s Value) -> Option<T>,
    ) -> Result<T, Error> {
        let value = self.gguf().and_then(|m| m.get(key));
        value.and_then(read).ok_or_else(|| Error::MetadataKey {
            path: self.path.clone(),
            key: key.to_owned(),
            expected,
            got: value.map_or("nothing", Value::kind),
        })
    }

    /// Refuses when a file has another length than when it was opened.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.files.iter().try_for_each(|f| f.check_unchanged())
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let near = |other: &&String| distance(name, other);
        let best = self.tensors.keys().take(MAX_COMPARED).min_by_key(near)?;
        (distance(name, best) <= name.len() / 3).then(|| best.clone())
    }
}

/// Names compared for a suggestion: a bound on the work that an error costs.
const MAX_COMPARED: usize = 4096;
/// Bytes of a name compared.
const COMPARED: usize = 128;

/// Levenshtein's edit distance over bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(COMPARED)], &b.as_bytes()[..b.len().min(COMPARED)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn read_header(file: &FileBytes) -> Result<Header, Error> {
    Header::parse(file.bytes()).map_err(|fault| Error::Safetensors { path: file.path().to_owned(), fault })
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn is_pickle(path: &Path) -> bool {
    ["bin", "pt", "pth", "pkl", "ckpt"].iter().any(|e| has_extension(path, e))
}

/// The one weights file of a folder without an index: `model.safetensors`, or the only candidate.
fn only_weights(folder: &Path) -> Result<PathBuf, Error> {
    let single = folder.join(SINGLE);
    if single.is_file() {
        return Ok(single);
    }
    let io = |source| Error::Io { action: "list", path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        paths.push(entry.map_err(io)?.path());
    }
    paths.sort();
    for extension in ["safetensors", "gguf"] {
        let mut candidates = paths.iter().filter(|p| has_extension(p, extension));
        if let (Some(one), None) = (candidates.next(), candidates.next()) {
            return Ok(one.clone());
        }
    }
    if let Some(pickle) = paths.iter().find(|p| is_pickle(p)) {
        return Err(Error::Pickle { path: pickle.clone() });
    }
    let names: Vec<String> = paths
        .iter()
        .take(LISTED)
        .filter_map(|p| Some(format!("`{}`", p.file_name()?.to_string_lossy())))
        .collect();
    let found = match paths.len() {
        0 => "nothing".to_owned(),
        n if n > LISTED => format!("{} and {} more", names.join(", "), n - LISTED),
        _ => names.join(", "),
    };
    Err(Error::NoWeights { path: folder.to_owned(), expected: EXPECTED, found })
}
