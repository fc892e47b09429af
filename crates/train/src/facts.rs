//! What a resumed run must find again: settings, data and base.
use crate::base::Base;
use crate::error::Error;
use luthier_config::{Eval, Run, Schedule, Template, Warmup};
use luthier_tensor::DType;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// Keys of the configuration that change no weight: paths (their contents are compared instead), when to look and save.
const FREE: &[&str] = &[
    "base",
    "output",
    "threads",
    "data.train",
    "data.eval",
    "train.recompute",
    "train.eval_every",
    "train.save_every",
    "train.keep",
    "train.early_stopping",
    "train.best",
];

/// Names and values that determine a run's bits on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts(pub BTreeMap<String, String>);

impl Facts {
    /// The facts of a run; `resolved` is its configuration with every default written out.
    pub fn of(run: &Run, resolved: &str, base: &Base, compute: DType) -> Result<Self, Error> {
        let mut facts = BTreeMap::new();
        let table = resolved.parse::<toml::Table>().expect("written by us a moment ago");
        flatten("", &toml::Value::Table(table), &mut facts);
        FREE.iter().for_each(|key| drop(facts.remove(*key)));
        if let Schedule::Constant(constant) = &run.schedule
            && matches!(constant.warmup, Warmup::Steps(_))
        {
            // Such a schedule does not know the end: a run may be made longer.
            facts.remove("train.steps");
            facts.remove("train.epochs");
        }
        facts.insert("compute".into(), compute.to_string());
        facts.insert("base's files".into(), base.fingerprint());
        let mut hash = |role: &str, files: &[std::path::PathBuf]| -> Result<(), Error> {
            for (i, file) in files.iter().enumerate() {
                facts.insert(format!("data.{role}[{i}]'s content"), sha256(file)?.0);
            }
            Ok(())
        };
        hash("train", &run.data.train)?;
        match &run.data.eval {
            Some(Eval::Files(files)) => hash("eval", files)?,
            Some(Eval::Share(share)) => drop(facts.insert("data.eval".into(), share.to_string())),
            None => {}
        }
        if let Template::File(file) = &run.data.template {
            facts.insert("data.template's content".into(), sha256(file)?.0);
        }
        Ok(Self(facts))
    }

    /// What is different now, with both values; none if nothing is.
    pub fn differences(&self, now: &Self) -> Option<String> {
        let keys = self.0.keys().chain(now.0.keys()).collect::<BTreeSet<_>>();
        let shown = |value: Option<&String>| value.map_or_else(|| "nothing".to_string(), |v| short(v));
        let differs = keys.into_iter().filter(|k| self.0.get(*k) != now.0.get(*k));
        let lines = differs
            .map(|k| format!("{k} was {}, is {}", shown(self.0.get(k)), shown(now.0.get(k))))
            .collect::<Vec<_>>();
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// Hashes are told apart by their first digits.
fn short(value: &str) -> String {
    let is_hash = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hash { format!("{}..", &value[..12]) } else { value.into() }
}

fn flatten(path: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, into);
            }
        }
        other => drop(into.insert(path.into(), other.to_string())),
    }
}

/// SHA-256 of a file in hexadecimal digits, and its length in bytes.
pub(crate) fn sha256(path: &Path) -> Result<(String, u64), Error> {
    let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let n = file.read(&mut buffer).map_err(Error::io("read", path))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        length += n as u64;
    }
    Ok((crate::base::hex(&hash.finalize()), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_key_and_both_values() {
        let facts =
            |pairs: &[(&str, &str)]| Facts(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        let (a, b) = (facts(&[("seed", "0"), ("x", "1")]), facts(&[("seed", "1"), ("x", "1"), ("y", "2")]));
        assert_eq!(a.differences(&b).unwrap(), "seed was 0, is 1; y was nothing, is 2");
        assert_eq!(a.differences(&a), None);
    }
}
