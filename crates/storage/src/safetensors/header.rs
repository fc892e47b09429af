//! The header's JSON, visited field by field so that every oddity is seen: serde's derived readers keep the last of two
//! equal keys in a map and say nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Entry, Header, MAX_DIMS, MAX_HEADER, MAX_TENSORS, SafetensorsFault};
use crate::encoding::Encoding;

/// Bytes of the length before the header.
const LENGTH: usize = 8;

pub(super) fn parse(file: &[u8]) -> Result<Header, SafetensorsFault> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(SafetensorsFault::TooShort { got: file.len() });
    };
    let stated = u64::from_le_bytes(*length);
    if stated > MAX_HEADER as u64 {
        return Err(SafetensorsFault::HeaderTooLong { got: stated });
    }
    let n = stated as usize; // fits: at most MAX_HEADER
    let Some((json, data)) = rest.split_at_checked(n) else {
        return Err(SafetensorsFault::HeaderBeyondFile { stated, available: rest.len() });
    };
    match json.first() {
        Some(b'{') => {}
        Some(&got) => return Err(SafetensorsFault::NotAnObject { got }),
        None => return Err(SafetensorsFault::NotAnObject { got: 0 }),
    }
    let raw = read_json(json)?;
    let tensors = check(raw.tensors, LENGTH + n, data.len())?;
    Ok(Header { metadata: raw.metadata, tensors })
}

/// Sizes, bounds, overlaps and holes.
fn check(
    raw: BTreeMap<String, RawEntry>,
    data_start: usize,
    data_len: usize,
) -> Result<BTreeMap<String, Entry>, SafetensorsFault> {
    let mut tensors = BTreeMap::new();
    for (name, RawEntry { encoding, shape, begin, end }) in raw {
        let expected = match encoding.bytes_of(&shape) {
            Ok(bytes) => bytes,
            Err(fault) => return Err(SafetensorsFault::Size { tensor: name, shape, fault }),
        };
        let Some(got) = end.checked_sub(begin) else {
            return Err(SafetensorsFault::BackwardRange { tensor: name, begin, end });
        };
        if end > data_len as u64 {
            return Err(SafetensorsFault::BeyondFile { tensor: name, end, available: data_len });
        }
        if got != expected as u64 {
            return Err(SafetensorsFault::WrongSize { tensor: name, encoding, shape, expected, got });
        }
        let range = begin as usize..end as usize; // fit: at most data_len
        tensors.insert(name, Entry { encoding, shape, range });
    }
    cover(&tensors, data_len)?;
    for entry in tensors.values_mut() {
        entry.range = entry.range.start + data_start..entry.range.end + data_start;
    }
    Ok(tensors)
}

/// The ranges, in order, must meet end to end from the first byte of the data to its last.
fn cover(tensors: &BTreeMap<String, Entry>, data_len: usize) -> Result<(), SafetensorsFault> {
    let mut order: Vec<(&Range<usize>, &String)> = tensors.iter().map(|(name, e)| (&e.range, name)).collect();
    order.sort_by_key(|(range, _)| (range.start, range.end));
    let mut covered = 0;
    for (range, name) in order {
        if range.start < covered {
            return Err(SafetensorsFault::Overlap {
                tensor: name.clone(),
                begin: range.start,
                previous_end: covered,
            });
        }
        if range.start > covered {
            return Err(SafetensorsFault::Hole { begin: covered, end: range.start });
        }
        covered = range.end;
    }
    if covered < data_len {
        return Err(SafetensorsFault::Hole { begin: covered, end: data_len });
    }
    Ok(())
}

struct RawEntry {
    encoding: Encoding,
    shape: Vec<usize>,
    begin: u64,
    end: u64,
}

#[derive(Default)]
struct RawHeader {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawEntry>,
}

/// What the visitors know beside their value: whose entry is read, and the fault in our own words.
#[derive(Default)]
struct Notes {
    tensor: RefCell<Option<String>>,
    fault: RefCell<Option<SafetensorsFault>>,
}

impl Notes {
    fn refuse<E: serde::de::Error>(&self, fault: SafetensorsFault) -> E {
        self.fault.replace(Some(fault));
        E::custom("refused")
    }

    fn tensor(&self) -> String {
        self.tensor.borrow().clone().unwrap_or_default()
    }
}

fn read_json(json: &[u8]) -> Result<RawHeader, SafetensorsFault> {
    let notes = Notes::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let result = reader.deserialize_map(HeaderVisitor(&notes)).and_then(|raw| reader.end().map(|()| raw));
    result.map_err(|error| {
        notes.fault.take().unwrap_or_else(|| SafetensorsFault::Json {
            tensor: notes.tensor.take(),
            detail: error.to_string(),
        })
    })
}

struct HeaderVisitor<'n>(&'n Notes);

impl<'de> Visitor<'de> for HeaderVisitor<'_> {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let notes = self.0;
        let mut header = RawHeader::default();
        let mut has_metadata = false;
        while let Some(key) = map.next_key::<String>()? {
            let twice = if key == "__metadata__" {
                std::mem::replace(&mut has_metadata, true)
            } else {
                header.tensors.contains_key(&key)
            };
            if twice {
                return Err(notes.refuse(SafetensorsFault::DuplicateKey { tensor: None, key }));
            }
            if key == "__metadata__" {
                header.metadata = map.next_value_seed(TextMap(notes))?;
                continue;
            }
            if header.tensors.len() == MAX_TENSORS {
                return Err(notes.refuse(SafetensorsFault::TooManyTensors));
            }
            notes.tensor.replace(Some(key.clone()));
            let entry = map.next_value_seed(EntrySeed(notes))?;
            notes.tensor.take();
            header.tensors.insert(key, entry);
        }
        Ok(header)
    }
}

/// A map of text to text without duplicates; a `weight_map` is one too.
struct TextMap<'n>(&'n Notes);

impl<'de> DeserializeSeed<'de> for TextMap<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextMap<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of text values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut texts = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if texts.contains_key(&key) {
                return Err(self.0.refuse(SafetensorsFault::DuplicateKey { tensor: None, key }));
            }
            if texts.len() == MAX_TENSORS {
                return Err(self.0.refuse(SafetensorsFault::TooManyTensors));
            }
            let value = map.next_value::<String>()?;
            texts.insert(key, value);
        }
        Ok(texts)
    }
}

struct EntrySeed<'n>(&'n Notes);

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = RawEntry;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<RawEntry, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = RawEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntry, A::Error> {
        let notes = self.0;
        let (mut encoding, mut shape, mut offsets) = (None, None, None);
        while let Some(field) = map.next_key::<String>()? {
            let twice = match field.as_str() {
                "dtype" => encoding.replace(map.next_value::<String>()?).is_some(),
                "shape" => shape.replace(map.next_value_seed(Dims(notes))?).is_some(),
                "data_offsets" => offsets.replace(map.next_value::<[u64; 2]>()?).is_some(),
                _ => {
                    let tensor = notes.tensor();
                    return Err(notes.refuse(SafetensorsFault::UnknownField { tensor, field }));
                }
            };
            if twice {
                let tensor = Some(notes.tensor());
                return Err(notes.refuse(SafetensorsFault::DuplicateKey { tensor, key: field }));
            }
        }
        let missing = |field| notes.refuse(SafetensorsFault::MissingField { tensor: notes.tensor(), field });
        let dtype = encoding.ok_or_else(|| missing("dtype"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let [begin, end] = offsets.ok_or_else(|| missing("data_offsets"))?;
        let Some(encoding) = Encoding::from_safetensors(&dtype) else {
            return Err(notes.refuse(SafetensorsFault::UnknownDtype { tensor: notes.tensor(), dtype }));
        };
        Ok(RawEntry { encoding, shape, begin, end })
    }
}

/// A shape, cut off before a long list can be collected.
struct Dims<'n>(&'n Notes);

impl<'de> DeserializeSeed<'de> for Dims<'_> {
    type Value = Vec<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Vec<usize>, D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Dims<'_> {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of unsigned integers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<usize>, A::Error> {
        let mut dims = Vec::new();
        while let Some(d) = seq.next_element::<u64>()? {
            if dims.len() == MAX_DIMS {
                return Err(self.0.refuse(SafetensorsFault::TooManyDims { tensor: self.0.tensor() }));
            }
            dims.push(
                usize::try_from(d).map_err(|_| A::Error::custom("a dimension does not fit the machine"))?,
            );
        }
        Ok(dims)
    }
}

/// Reads `{"metadata": anything, "weight_map": {tensor: shard}}`.
pub(super) fn read_index(json: &[u8]) -> Result<BTreeMap<String, String>, SafetensorsFault> {
    struct IndexVisitor<'n>(&'n Notes);
    impl<'de> Visitor<'de> for IndexVisitor<'_> {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with a `weight_map`")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<String>()? {
                if key != "weight_map" {
                    map.next_value::<serde::de::IgnoredAny>()?;
                } else if found.replace(map.next_value_seed(TextMap(self.0))?).is_some() {
                    return Err(self.0.refuse(SafetensorsFault::DuplicateKey { tensor: None, key }));
                }
            }
            Ok(found)
        }
    }
    let notes = Notes::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let result = reader.deserialize_map(IndexVisitor(&notes)).and_then(|map| reader.end().map(|()| map));
    match result {
        Ok(map) => map.ok_or(SafetensorsFault::NoWeightMap),
        Err(error) => Err(notes
            .fault
            .take()
            .unwrap_or_else(|| SafetensorsFault::Json { tensor: None, detail: error.to_string() })),
    }
}
