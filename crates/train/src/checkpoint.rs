//! Checkpoints: everything that a run needs to go on bit for bit, whole or not at all, each file's hash in a manifest.
//!
//! ```text
//! checkpoints/step-000120/state.safetensors   trained tensors, optimizer state, the adapter's frozen tensors
//!                        /state.json          step, place in the data, progress, facts of the run
//!                        /manifest.json       length and SHA-256 of the others; written last
//! ```
use crate::adapter_file::write_text;
use crate::error::Error;
use crate::facts::{Facts, sha256};
use crate::output::{in_place_of, is_partial, remove};
use crate::session::Session;
use crate::train_loop::{Outcome, Save, Stopped};
use luthier_contract::Role;
use luthier_data::{BatchSize, Cursor, Sampler};
use luthier_storage::{Access, Checkpoint, Declared, Encoding, write_safetensors};
use luthier_tensor::{Account, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const TENSORS: &str = "state.safetensors";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";
/// Of the layout of these files.
const VERSION: u32 = 1;

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    size: BatchSize,
    facts: Facts,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    luthier: String,
    t: u64,
    seed: u64,
    cursor: Cursor,
    outcome: Outcome,
    facts: Facts,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// What was found in a run's folder.
#[derive(Debug)]
pub struct Found {
    /// The newest checkpoint that is intact.
    pub folder: PathBuf,
    /// Newer ones that are not, and why.
    pub damaged: Vec<String>,
}

/// Where a restored run stands.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// Progress, as at the checkpoint; the run goes on if someone had asked it to stop.
    pub outcome: Outcome,
}

impl Checkpoints {
    /// Checkpoints in `folder`, of which the last `keep` (at least one) and the best stay.
    pub fn new(folder: PathBuf, keep: usize, size: BatchSize, facts: Facts) -> Self {
        Self { folder, keep: keep.max(1), size, facts }
    }

    /// The folder of the checkpoint after `step` steps.
    pub fn at(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:06}"))
    }

    /// Steps of the checkpoints that are there, newest first.
    fn steps(&self) -> Result<Vec<u64>, Error> {
        let mut steps = Vec::new();
        if !self.folder.is_dir() {
            return Ok(steps);
        }
        for entry in std::fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))? {
            let name = entry.map_err(Error::io("list", &self.folder))?.file_name();
            let step = name.to_string_lossy().strip_prefix("step-").and_then(|s| s.parse::<u64>().ok());
            steps.extend(step);
        }
        steps.sort_unstable();
        steps.reverse();
        Ok(steps)
    }

    /// Writes a checkpoint, then removes what need not stay.
    pub fn write(&self, session: &Session, outcome: &Outcome) -> Result<PathBuf, Error> {
        let folder = self.at(session.t);
        let state = State {
            version: VERSION,
            luthier: env!("CARGO_PKG_VERSION").into(),
            t: session.t,
            seed: session.seed,
            cursor: session.sampler.cursor(),
            outcome: *outcome,
            facts: self.facts.clone(),
        };
        in_place_of(&folder, |dir| {
            write_tensors(&dir.join(TENSORS), &tensors(session))?;
            write_text(&dir.join(STATE), &json(&state))?;
            let mut files = BTreeMap::new();
            for name in [TENSORS, STATE] {
                let (sha256, bytes) = sha256(&dir.join(name))?;
                files.insert(name.to_string(), Entry { bytes, sha256 });
            }
            write_text(&dir.join(MANIFEST), &json(&Manifest { files }))
        })?;
        self.prune(session.t, outcome.best.map(|(step, _)| step))?;
        Ok(folder)
    }

    /// Removes all but the newest `keep` up to step `now`, and the best. What is newer than `now` is of a run that went on
    /// from before it because it was damaged.
    fn prune(&self, now: u64, best: Option<u64>) -> Result<(), Error> {
        let (newer, own): (Vec<_>, Vec<_>) = self.steps()?.into_iter().partition(|s| *s > now);
        let old = own.into_iter().skip(self.keep).filter(|s| Some(*s) != best);
        newer.into_iter().chain(old).try_for_each(|step| remove(&self.at(step)))
    }

    /// Removes folders that a killed process left half-written.
    pub fn clean(&self) -> Result<(), Error> {
        if !self.folder.is_dir() {
            return Ok(());
        }
        for entry in std::fs::read_dir(&self.folder).map_err(Error::io("list", &self.folder))? {
            let entry = entry.map_err(Error::io("list", &self.folder))?;
            if is_partial(&entry.file_name().to_string_lossy()) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// The newest intact checkpoint; none if there never was one. All damaged is an error.
    pub fn newest(&self) -> Result<Option<Found>, Error> {
        let mut damaged = Vec::new();
        for step in self.steps()? {
            let folder = self.at(step);
            match verify(&folder) {
                Ok(()) => return Ok(Some(Found { folder, damaged })),
                Err(reason) => damaged.push(format!("step-{step:06}: {reason}")),
            }
        }
        if damaged.is_empty() {
            return Ok(None);
        }
        Err(Error::Damaged { path: self.folder.clone(), reason: damaged.join("; ") })
    }

    /// Refuses a checkpoint of a run with other settings, data or base.
    pub fn check(&self, folder: &Path) -> Result<(), Error> {
        match Self::state(folder)?.facts.differences(&self.facts) {
            Some(differences) => Err(Error::ResumeDiffers { path: folder.into(), differences }),
            None => Ok(()),
        }
    }

    /// Refuses a checkpoint whose files are not those that were written.
    pub fn verify(&self, folder: &Path) -> Result<(), Error> {
        verify(folder).map_err(|reason| Error::CheckpointMismatch { path: folder.into(), reason })
    }

    /// Brings a session, prepared at step 0, to where the checkpoint stands. Refuses one of another run.
    pub fn restore(&self, folder: &Path, session: &mut Session) -> Result<Restored, Error> {
        let mismatch = |reason: String| Error::CheckpointMismatch { path: folder.into(), reason };
        self.check(folder)?;
        let state = Self::state(folder)?;
        if state.seed != session.seed {
            return Err(mismatch(format!("seed is {}, expected {}", state.seed, session.seed)));
        }
        self.restore_tensors(folder, session)?;
        session.sampler = Sampler::resume(&session.samples, self.size, session.seed, state.cursor);
        session.t = state.t;
        let mut outcome = state.outcome;
        if outcome.stopped == Some(Stopped::Asked) {
            outcome.stopped = None;
        }
        Ok(Restored { outcome })
    }

    fn state(folder: &Path) -> Result<State, Error> {
        let mismatch = |reason: String| Error::CheckpointMismatch { path: folder.into(), reason };
        let path = folder.join(STATE);
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let state = serde_json::from_slice::<State>(&text).map_err(|e| mismatch(format!("{STATE}: {e}")))?;
        if state.version != VERSION {
            return Err(mismatch(format!("layout {}, expected {VERSION}", state.version)));
        }
        Ok(state)
    }

    /// Sets trained tensors, optimizer state and frozen tensors of `session` to the checkpoint's.
    pub fn restore_tensors(&self, folder: &Path, session: &mut Session) -> Result<(), Error> {
        let mismatch = |reason: String| Error::CheckpointMismatch { path: folder.into(), reason };
        let file = Checkpoint::open_with(&folder.join(TENSORS), Access::Mapped)?;
        let wanted = tensors(session);
        for (name, tensor) in &wanted {
            let expected = (Encoding::from(tensor.dtype()), tensor.shape());
            if file.info(name) != Some(expected) {
                let got = file.info(name).map_or_else(|| "nothing".into(), |g| format!("{g:?}"));
                return Err(mismatch(format!("{name} is {got}, expected {expected:?}")));
            }
        }
        if let Some(name) = file.names().find(|n| !wanted.contains_key(*n)) {
            return Err(mismatch(format!("{name} is unexpected")));
        }
        drop(wanted);
        // Copied out of the map: training writes to them, and the file will be removed.
        let read = |name: &str, account: Account| -> Result<Tensor, Error> {
            Ok(file.stored(name)?.to_tensor(account)?.copy(account))
        };
        for leaf in &mut session.leaves {
            let (name, account) = (leaf.param.name().to_string(), leaf.param.value().account());
            leaf.param.set(read(&name, account)?);
            for (slot, tensor) in &mut leaf.slots {
                *tensor = read(&format!("{name}.{slot}"), Account::Optimizer)?;
            }
        }
        for param in frozen(session) {
            param.set(read(&format!("{FROZEN}{}", param.name()), Account::Adapter)?);
        }
        Ok(())
    }
}

impl Save for Checkpoints {
    type Error = Error;

    fn save(&mut self, session: &Session, progress: &Outcome) -> Result<String, Error> {
        Ok(self.write(session, progress)?.display().to_string())
    }
}

/// Before the names of the adapter's frozen tensors.
const FROZEN: &str = "frozen.";

fn frozen(session: &Session) -> Vec<std::sync::Arc<luthier_tensor::Param>> {
    let all = session.adapter.iter().flat_map(|a| a.tensors());
    let held = all.filter(|(_, spec, _)| matches!(spec.role, Role::Frozen | Role::State));
    held.map(|(.., param)| param.clone()).collect()
}

/// Every tensor of a checkpoint by name, each in its own type.
fn tensors(session: &Session) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for leaf in &session.leaves {
        let name = leaf.param.name();
        all.insert(name.to_string(), leaf.param.value());
        for (slot, tensor) in &leaf.slots {
            all.insert(format!("{name}.{slot}"), tensor.clone());
        }
    }
    for param in frozen(session) {
        all.insert(format!("{FROZEN}{}", param.name()), param.value());
    }
    all
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), Error> {
    let declared = tensors
        .iter()
        .map(|(name, t)| Declared::new(name.clone(), Encoding::from(t.dtype()), t.shape()))
        .collect::<Vec<_>>();
    write_safetensors::<Error>(path, &BTreeMap::new(), &declared, |d, sink| {
        Ok(sink.write_tensor(&tensors[&d.name])?)
    })
}

fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain data with text keys");
    text.push('\n');
    text
}

/// What is wrong with a checkpoint, if anything.
fn verify(folder: &Path) -> Result<(), String> {
    let text = std::fs::read(folder.join(MANIFEST)).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest = serde_json::from_slice::<Manifest>(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    for name in [TENSORS, STATE] {
        let entry = manifest.files.get(name).ok_or_else(|| format!("{MANIFEST} does not list {name}"))?;
        let length = std::fs::metadata(folder.join(name)).map_err(|e| format!("{name}: {e}"))?.len();
        if length != entry.bytes {
            return Err(format!("{name} has {length} bytes, expected {}", entry.bytes));
        }
        let (hash, _) = sha256(&folder.join(name)).map_err(|e| e.to_string())?;
        if hash != entry.sha256 {
            return Err(format!("{name} has another content than was written"));
        }
    }
    Ok(())
}
