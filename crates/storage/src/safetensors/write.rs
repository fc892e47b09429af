//! Writing safetensors without holding the model: the header comes from the declarations, the content follows in pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{MAX_HEADER, MAX_TENSORS};
use crate::Error;
use crate::sink::{Declared, TensorSink, write_file};

/// Headers are padded so that the data begins at a multiple of this: readers map it then without copying.
const ALIGNMENT: usize = 8;

/// Writes `tensors` to `path`, asking `source` for the content of one after the other.
///
/// `source` is called once a tensor, widest elements first and by name within a width (every tensor is then aligned to its
/// elements), and gives exactly the declared bytes. `metadata` becomes `__metadata__`; transformers wants
/// `{"format": "pt"}` there, see [`pt_metadata`](crate::pt_metadata). The file appears at `path` whole or not at all, and
/// may replace one that is mapped.
pub fn write_safetensors<E: From<Error>>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[Declared],
    source: impl FnMut(&Declared, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut order: Vec<&Declared> = tensors.iter().collect();
    order.sort_by(|a, b| b.encoding.unit().1.cmp(&a.encoding.unit().1).then_with(|| a.name.cmp(&b.name)));
    let head = head(path, metadata, &order)?;
    write_file(path, &head, 1, &order, source)
}

fn head(path: &Path, metadata: &BTreeMap<String, String>, order: &[&Declared]) -> Result<Vec<u8>, Error> {
    let bad = |name: &str, why| Error::BadName { path: path.to_owned(), name: name.to_owned(), why };
    let mut json = serde_json::Map::new();
    if !metadata.is_empty() {
        json.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    }
    let mut names = BTreeSet::new();
    let mut offset = 0usize;
    for tensor in order {
        if tensor.name == "__metadata__" {
            return Err(bad(&tensor.name, "reserved"));
        }
        if !names.insert(tensor.name.as_str()) {
            return Err(bad(&tensor.name, "used twice"));
        }
        let Some(dtype) = tensor.encoding.safetensors_name() else {
            return Err(Error::CannotEncode {
                tensor: tensor.name.clone(),
                encoding: tensor.encoding,
                format: "safetensors",
                allowed: "no quantised blocks",
            });
        };
        let fault = |fault| Error::Unsized {
            tensor: tensor.name.clone(),
            shape: tensor.shape.clone(),
            encoding: tensor.encoding,
            fault,
        };
        let end = offset
            .checked_add(tensor.bytes()?)
            .filter(|&end| isize::try_from(end).is_ok())
            .ok_or_else(|| fault(crate::encoding::SizeFault::Overflow))?;
        json.insert(
            tensor.name.clone(),
            serde_json::json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end]}),
        );
        offset = end;
    }
    let mut text = serde_json::to_vec(&json).map_err(|e| Error::Io {
        action: "encode the header of",
        path: path.to_owned(),
        source: e.into(),
    })?;
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    if text.len() > MAX_HEADER || order.len() > MAX_TENSORS {
        return Err(bad(order.last().map_or("", |t| &t.name), "one too many for the header"));
    }
    let mut head = (text.len() as u64).to_le_bytes().to_vec();
    head.extend(text);
    Ok(head)
}
