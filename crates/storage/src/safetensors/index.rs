//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::{MAX_HEADER, SafetensorsFault, header};

/// A checked index: every shard is a plain file name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Tensor name to shard file name.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads and checks an index file's content.
    pub fn parse(json: &[u8]) -> Result<Self, SafetensorsFault> {
        if json.len() > MAX_HEADER {
            return Err(SafetensorsFault::IndexTooLong { got: json.len() });
        }
        let weight_map = header::read_index(json)?;
        for (tensor, shard) in &weight_map {
            if !is_plain_name(shard) {
                return Err(SafetensorsFault::ShardPath { tensor: tensor.clone(), shard: shard.clone() });
            }
        }
        Ok(Self { weight_map })
    }

    /// The shards in order, each with the first tensor that it holds.
    pub fn shards(&self) -> BTreeMap<&str, &str> {
        let mut shards = BTreeMap::new();
        for (tensor, shard) in &self.weight_map {
            shards.entry(shard.as_str()).or_insert(tensor.as_str());
        }
        shards
    }
}

/// One ordinary path component on every system: no separator, drive, stream, parent or NUL.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let one =
        matches!(components.next(), Some(Component::Normal(c)) if c == name) && components.next().is_none();
    one && !name.contains(['/', '\\', ':', '\0'])
}
