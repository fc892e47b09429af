//! The reader: a cursor that checks, and nothing allocated before the file has shown the bytes for it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{
    ALIGNMENT_KEY, Array, DEFAULT_ALIGNMENT, Gguf, GgufFault, MAX_DEPTH, MAX_DIMS, MAX_ENTRIES,
    MAX_INNER_ARRAYS, MAX_KEY, MAX_NAME, MAX_TENSORS, Metadata, TensorInfo, Texts, Value,
};
use crate::encoding::Encoding;

/// Least bytes of an entry: key length, kind, a value of one byte.
const LEAST_ENTRY: usize = 8 + 4 + 1;
/// Least bytes of a tensor's record: name length, dimension count, one dimension, type, offset.
const LEAST_TENSOR: usize = 8 + 4 + 8 + 4 + 8;

pub(super) fn parse(file: &[u8]) -> Result<Gguf, GgufFault> {
    let mut cursor = Cursor { file, at: 0 };
    let version = read_version(&mut cursor)?;
    let tensors = cursor.u64("the tensor count")?;
    let entries = cursor.u64("the metadata count")?;
    let tensors = cursor.count("tensors", tensors, LEAST_TENSOR, MAX_TENSORS)?;
    let entries = cursor.count("metadata entries", entries, LEAST_ENTRY, MAX_ENTRIES)?;
    let metadata = read_metadata(&mut cursor, entries)?;
    let alignment = read_alignment(&metadata)?;
    let records = read_records(&mut cursor, tensors)?;
    // An aligned start past the end is an empty data section: a vocabulary file has no tensors.
    let data_start = cursor.at.checked_next_multiple_of(alignment).unwrap_or(file.len()).min(file.len());
    let tensors = place(records, data_start, file.len() - data_start, alignment)?;
    Ok(Gguf { version, metadata, tensors, alignment })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufFault> {
    if !cursor.file.starts_with(b"GGUF") {
        return Err(GgufFault::Magic { got: cursor.file[..cursor.file.len().min(4)].to_vec() });
    }
    cursor.at = 4;
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        _ if (1..=255).contains(&version.swap_bytes()) => {
            Err(GgufFault::BigEndian { version: version.swap_bytes() })
        }
        got => Err(GgufFault::Version { got }),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, entries: usize) -> Result<Metadata, GgufFault> {
    let mut metadata = Metadata::new();
    for _ in 0..entries {
        let key = cursor.name("a metadata key", MAX_KEY)?;
        if metadata.contains(&key) {
            return Err(GgufFault::Duplicate { of: "metadata key", name: key });
        }
        let kind = cursor.u32(&key)?;
        let value = read_value(cursor, &key, kind)?;
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, GgufFault> {
    Ok(match kind {
        0 => Value::U8(u8::from_le_bytes(cursor.fixed(key)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.fixed(key)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.fixed(key)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.fixed(key)?)),
        4 => Value::U32(u32::from_le_bytes(cursor.fixed(key)?)),
        5 => Value::I32(i32::from_le_bytes(cursor.fixed(key)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.fixed(key)?)),
        7 => Value::Bool(truth(key, cursor.fixed::<1>(key)?[0])?),
        8 => Value::Text(cursor.text(key)?.to_owned()),
        9 => {
            let mut inner_arrays = MAX_INNER_ARRAYS;
            Value::Array(read_array(cursor, key, 1, &mut inner_arrays)?)
        }
        10 => Value::U64(u64::from_le_bytes(cursor.fixed(key)?)),
        11 => Value::I64(i64::from_le_bytes(cursor.fixed(key)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.fixed(key)?)),
        kind => return Err(GgufFault::ValueKind { key: key.to_owned(), kind }),
    })
}

fn truth(key: &str, byte: u8) -> Result<bool, GgufFault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(GgufFault::NotABool { key: key.to_owned(), got }),
    }
}

fn read_array(
    cursor: &mut Cursor<'_>,
    key: &str,
    depth: usize,
    left: &mut usize,
) -> Result<Array, GgufFault> {
    if depth > MAX_DEPTH {
        return Err(GgufFault::TooDeep { key: key.to_owned() });
    }
    let kind = cursor.u32(key)?;
    let n = cursor.u64(key)?;
    Ok(match kind {
        0 => Array::U8(cursor.take_count::<1>(key, n)?.iter().map(|b| b[0]).collect()),
        1 => Array::I8(cursor.take_count(key, n)?.iter().map(|&b| i8::from_le_bytes(b)).collect()),
        2 => Array::U16(cursor.take_count(key, n)?.iter().map(|&b| u16::from_le_bytes(b)).collect()),
        3 => Array::I16(cursor.take_count(key, n)?.iter().map(|&b| i16::from_le_bytes(b)).collect()),
        4 => Array::U32(cursor.take_count(key, n)?.iter().map(|&b| u32::from_le_bytes(b)).collect()),
        5 => Array::I32(cursor.take_count(key, n)?.iter().map(|&b| i32::from_le_bytes(b)).collect()),
        6 => Array::F32(cursor.take_count(key, n)?.iter().map(|&b| f32::from_le_bytes(b)).collect()),
        7 => Array::Bool(
            cursor.take_count::<1>(key, n)?.iter().map(|b| truth(key, b[0])).collect::<Result<_, _>>()?,
        ),
        8 => {
            let n = cursor.count("texts in a list", n, 8, usize::MAX)?;
            let mut texts = Texts::default();
            for _ in 0..n {
                texts.push(cursor.text(key)?);
            }
            Array::Texts(texts)
        }
        9 => {
            let n = cursor.count("lists in a list", n, 12, *left)?;
            *left -= n;
            let mut arrays = Vec::new();
            for _ in 0..n {
                arrays.push(read_array(cursor, key, depth + 1, left)?);
            }
            Array::Arrays(arrays)
        }
        10 => Array::U64(cursor.take_count(key, n)?.iter().map(|&b| u64::from_le_bytes(b)).collect()),
        11 => Array::I64(cursor.take_count(key, n)?.iter().map(|&b| i64::from_le_bytes(b)).collect()),
        12 => Array::F64(cursor.take_count(key, n)?.iter().map(|&b| f64::from_le_bytes(b)).collect()),
        kind => return Err(GgufFault::ValueKind { key: key.to_owned(), kind }),
    })
}

fn read_alignment(metadata: &Metadata) -> Result<usize, GgufFault> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(a)) if a.is_power_of_two() => Ok(a as usize),
        Some(&Value::U32(a)) => Err(GgufFault::Alignment { got: a.to_string() }),
        Some(other) => Err(GgufFault::Alignment { got: format!("a {}", other.kind()) }),
    }
}

/// A tensor as the file states it, nothing of it believed yet but its name and size.
struct Record {
    name: String,
    encoding: Encoding,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

fn read_records(cursor: &mut Cursor<'_>, tensors: usize) -> Result<Vec<Record>, GgufFault> {
    let mut names = BTreeSet::new();
    let mut records = Vec::new();
    for _ in 0..tensors {
        let record = read_record(cursor)?;
        if !names.insert(record.name.clone()) {
            return Err(GgufFault::Duplicate { of: "tensor", name: record.name });
        }
        records.push(record);
    }
    Ok(records)
}

fn read_record(cursor: &mut Cursor<'_>) -> Result<Record, GgufFault> {
    let name = cursor.name("a tensor's name", MAX_NAME)?;
    let n_dims = cursor.u32(&name)?;
    if n_dims == 0 || n_dims as usize > MAX_DIMS {
        return Err(GgufFault::Dims { tensor: name, got: n_dims });
    }
    let mut stated = Vec::new();
    for _ in 0..n_dims {
        stated.push(cursor.u64(&name)?);
    }
    stated.reverse();
    if stated.contains(&0) {
        return Err(GgufFault::ZeroDim { tensor: name, shape: stated });
    }
    let number = cursor.u32(&name)?;
    let offset = cursor.u64(&name)?;
    let Some(encoding) = Encoding::from_ggml_type(number) else {
        return Err(GgufFault::UnsupportedType { tensor: name, number });
    };
    let overflow = crate::encoding::SizeFault::Overflow;
    let shape: Result<Vec<usize>, _> =
        stated.iter().map(|&d| usize::try_from(d).map_err(|_| overflow)).collect();
    match shape.and_then(|shape| encoding.bytes_of(&shape).map(|bytes| (shape, bytes))) {
        Ok((shape, bytes)) => Ok(Record { name, encoding, shape, bytes, offset }),
        Err(fault) => Err(GgufFault::Size { tensor: name, encoding, shape: stated, fault }),
    }
}

/// Turns offsets into ranges of the file: aligned, inside, disjoint.
fn place(
    records: Vec<Record>,
    data_start: usize,
    available: usize,
    alignment: usize,
) -> Result<Vec<TensorInfo>, GgufFault> {
    let mut tensors = Vec::with_capacity(records.len());
    for Record { name, encoding, shape, bytes, offset } in records {
        if !offset.is_multiple_of(alignment as u64) {
            return Err(GgufFault::Misaligned { tensor: name, offset, alignment });
        }
        let end =
            usize::try_from(offset).ok().and_then(|o| o.checked_add(bytes)).filter(|&end| end <= available);
        let Some(end) = end else {
            return Err(GgufFault::BeyondFile { tensor: name, offset, bytes, available });
        };
        tensors.push(TensorInfo { name, encoding, shape, range: data_start + end - bytes..data_start + end });
    }
    let mut order: Vec<(&Range<usize>, &String)> = tensors.iter().map(|t| (&t.range, &t.name)).collect();
    order.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in order.windows(2) {
        if pair[1].0.start < pair[0].0.end {
            return Err(GgufFault::Overlap { first: pair[0].1.clone(), second: pair[1].1.clone() });
        }
    }
    Ok(tensors)
}

struct Cursor<'f> {
    file: &'f [u8],
    at: usize,
}

impl<'f> Cursor<'f> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, part: &str, needed: u64) -> Result<&'f [u8], GgufFault> {
        let bytes = usize::try_from(needed).ok().and_then(|n| self.file[self.at..].get(..n));
        let Some(bytes) = bytes else {
            return Err(GgufFault::Truncated {
                part: part.to_owned(),
                at: self.at,
                needed,
                left: self.left(),
            });
        };
        self.at += bytes.len();
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self, part: &str) -> Result<[u8; N], GgufFault> {
        let bytes = self.take(part, N as u64)?;
        Ok(*bytes.first_chunk().expect("take gave N bytes"))
    }

    fn u32(&mut self, part: &str) -> Result<u32, GgufFault> {
        Ok(u32::from_le_bytes(self.fixed(part)?))
    }

    fn u64(&mut self, part: &str) -> Result<u64, GgufFault> {
        Ok(u64::from_le_bytes(self.fixed(part)?))
    }

    /// `n` items of `N` bytes.
    fn take_count<const N: usize>(&mut self, part: &str, n: u64) -> Result<&'f [[u8; N]], GgufFault> {
        let bytes = n.saturating_mul(N as u64);
        Ok(self.take(part, bytes)?.as_chunks().0)
    }

    /// Refuses a count that the bytes left cannot hold, or that is over `cap`.
    fn count(
        &self,
        of: &'static str,
        count: u64,
        least_bytes: usize,
        cap: usize,
    ) -> Result<usize, GgufFault> {
        let most = (self.left() / least_bytes).min(cap);
        match usize::try_from(count) {
            Ok(n) if n <= most => Ok(n),
            _ => Err(GgufFault::Count { of, count, most: most as u64 }),
        }
    }

    fn text(&mut self, part: &str) -> Result<&'f str, GgufFault> {
        let length = self.u64(part)?;
        let at = self.at;
        let bytes = self.take(part, length)?;
        std::str::from_utf8(bytes).map_err(|_| GgufFault::NotUtf8 { part: part.to_owned(), at })
    }

    /// A key or a name: a text with a bound of its own.
    fn name(&mut self, part: &'static str, most: usize) -> Result<String, GgufFault> {
        let start = self.at;
        let got = self.u64(part)?;
        if got > most as u64 {
            return Err(GgufFault::TextTooLong { part, at: start, got, most });
        }
        self.at = start;
        Ok(self.text(part)?.to_owned())
    }
}
