//! Writing GGUF version 3 without holding the model.

use std::collections::BTreeSet;
use std::path::Path;

use super::{
    ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, MAX_DIMS, MAX_ENTRIES, MAX_KEY, MAX_NAME, MAX_TENSORS, Metadata,
    Value,
};
use crate::Error;
use crate::encoding::{Encoding, SizeFault};
use crate::sink::{Declared, TensorSink, write_file};

/// Writes `metadata` and `tensors` to `path`, asking `source` for the content of one tensor after the other, in the order
/// given.
///
/// Encodings are F32, F16, BF16 and the blocks; Q8_0 can be given as numbers ([`TensorSink::write_f32`]), the others'
/// blocks as bytes. Shapes are row-major here and reversed in the file. `general.alignment`, if set in `metadata`, is
/// kept. The file appears at `path` whole or not at all, and may replace one that is mapped.
pub fn write_gguf<E: From<Error>>(
    path: &Path,
    metadata: &Metadata,
    tensors: &[Declared],
    source: impl FnMut(&Declared, &mut TensorSink<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let alignment = alignment(path, metadata)?;
    let head = head(path, metadata, tensors, alignment)?;
    let order: Vec<&Declared> = tensors.iter().collect();
    write_file(path, &head, alignment, &order, source)
}

fn alignment(path: &Path, metadata: &Metadata) -> Result<usize, Error> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(a)) if a.is_power_of_two() => Ok(a as usize),
        Some(other) => Err(Error::MetadataKey {
            path: path.to_owned(),
            key: ALIGNMENT_KEY.to_owned(),
            expected: "a power of two as u32",
            got: other.kind(),
        }),
    }
}

fn head(path: &Path, metadata: &Metadata, tensors: &[Declared], alignment: usize) -> Result<Vec<u8>, Error> {
    let bad = |name: &str, why| Error::BadName { path: path.to_owned(), name: name.to_owned(), why };
    if metadata.len() > MAX_ENTRIES || tensors.len() > MAX_TENSORS {
        return Err(bad(tensors.last().map_or("", |t| &t.name), "one too many for the format"));
    }
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        if key.len() > MAX_KEY {
            return Err(bad(key, "too long"));
        }
        put_text(&mut out, key);
        put_value(&mut out, value);
    }
    let mut names = BTreeSet::new();
    let mut offset = 0usize;
    for tensor in tensors {
        if tensor.name.len() > MAX_NAME {
            return Err(bad(&tensor.name, "too long"));
        }
        if !names.insert(tensor.name.as_str()) {
            return Err(bad(&tensor.name, "used twice"));
        }
        offset = put_record(&mut out, tensor, offset, alignment)?;
    }
    Ok(out)
}

/// Appends a tensor's record; the offset of the next one comes back.
fn put_record(out: &mut Vec<u8>, tensor: &Declared, offset: usize, alignment: usize) -> Result<usize, Error> {
    let Some(number) = tensor.encoding.ggml_type() else {
        return Err(Error::CannotEncode {
            tensor: tensor.name.clone(),
            encoding: tensor.encoding,
            format: "GGUF",
            allowed: Encoding::WEIGHTS,
        });
    };
    let bytes = tensor.bytes()?;
    if tensor.shape.is_empty() || tensor.shape.len() > MAX_DIMS || tensor.shape.contains(&0) {
        return Err(Error::NoGgufShape { tensor: tensor.name.clone(), shape: tensor.shape.clone() });
    }
    put_text(out, &tensor.name);
    out.extend((tensor.shape.len() as u32).to_le_bytes());
    for &d in tensor.shape.iter().rev() {
        out.extend((d as u64).to_le_bytes());
    }
    out.extend(number.to_le_bytes());
    out.extend((offset as u64).to_le_bytes());
    let end = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(alignment));
    end.filter(|&end| isize::try_from(end).is_ok()).ok_or_else(|| Error::Unsized {
        tensor: tensor.name.clone(),
        shape: tensor.shape.clone(),
        encoding: tensor.encoding,
        fault: SizeFault::Overflow,
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Value::U8(v) => put(0, &v.to_le_bytes()),
        Value::I8(v) => put(1, &v.to_le_bytes()),
        Value::U16(v) => put(2, &v.to_le_bytes()),
        Value::I16(v) => put(3, &v.to_le_bytes()),
        Value::U32(v) => put(4, &v.to_le_bytes()),
        Value::I32(v) => put(5, &v.to_le_bytes()),
        Value::F32(v) => put(6, &v.to_le_bytes()),
        Value::Bool(v) => put(7, &[u8::from(*v)]),
        Value::Text(v) => {
            put(8, &[]);
            put_text(out, v);
        }
        Value::Array(v) => {
            put(9, &[]);
            put_array(out, v);
        }
        Value::U64(v) => put(10, &v.to_le_bytes()),
        Value::I64(v) => put(11, &v.to_le_bytes()),
        Value::F64(v) => put(12, &v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let kind: u32 = match array {
        Array::U8(_) => 0,
        Array::I8(_) => 1,
        Array::U16(_) => 2,
        Array::I16(_) => 3,
        Array::U32(_) => 4,
        Array::I32(_) => 5,
        Array::F32(_) => 6,
        Array::Bool(_) => 7,
        Array::Texts(_) => 8,
        Array::Arrays(_) => 9,
        Array::U64(_) => 10,
        Array::I64(_) => 11,
        Array::F64(_) => 12,
    };
    out.extend(kind.to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend(v),
        Array::I8(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::U16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I16(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::U32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::F32(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&x| u8::from(x))),
        Array::Texts(v) => v.iter().for_each(|x| put_text(out, x)),
        Array::Arrays(v) => v.iter().for_each(|x| put_array(out, x)),
        Array::U64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::I64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
        Array::F64(v) => out.extend(v.iter().flat_map(|x| x.to_le_bytes())),
    }
}
