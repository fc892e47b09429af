//! Metadata values: what a GGUF file says about its model, tokenizer and template.

use std::collections::BTreeMap;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Kind 0.
    U8(u8),
    /// Kind 1.
    I8(i8),
    /// Kind 2.
    U16(u16),
    /// Kind 3.
    I16(i16),
    /// Kind 4.
    U32(u32),
    /// Kind 5.
    I32(i32),
    /// Kind 6.
    F32(f32),
    /// Kind 7.
    Bool(bool),
    /// Kind 8.
    Text(String),
    /// Kind 9.
    Array(Array),
    /// Kind 10.
    U64(u64),
    /// Kind 11.
    I64(i64),
    /// Kind 12.
    F64(f64),
}

/// A list of values of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Kind 0.
    U8(Vec<u8>),
    /// Kind 1.
    I8(Vec<i8>),
    /// Kind 2.
    U16(Vec<u16>),
    /// Kind 3.
    I16(Vec<i16>),
    /// Kind 4.
    U32(Vec<u32>),
    /// Kind 5.
    I32(Vec<i32>),
    /// Kind 6.
    F32(Vec<f32>),
    /// Kind 7.
    Bool(Vec<bool>),
    /// Kind 8: tokens, merges.
    Texts(Texts),
    /// Kind 9.
    Arrays(Vec<Array>),
    /// Kind 10.
    U64(Vec<u64>),
    /// Kind 11.
    I64(Vec<i64>),
    /// Kind 12.
    F64(Vec<f64>),
}

/// Many short texts in one allocation: a vocabulary of 250,000 tokens costs 8 bytes each beside its characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Appends one.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The `i`-th.
    pub fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends.get(i)?;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        Some(&self.text[start..end])
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}

impl<S: AsRef<str>> FromIterator<S> for Texts {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut all = Self::default();
        texts.into_iter().for_each(|t| all.push(t.as_ref()));
        all
    }
}

impl Value {
    /// The kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::Text(_) => "text",
            Self::Array(array) => array.kind(),
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
        }
    }

    /// Any integer that is not negative. Writers differ in the width that they choose.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// A float of either width.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }

    /// A text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(v) = self { Some(v) } else { None }
    }

    /// A truth value.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(v) = self { Some(*v) } else { None }
    }

    /// A list of texts.
    pub fn as_texts(&self) -> Option<&Texts> {
        if let Self::Array(Array::Texts(v)) = self { Some(v) } else { None }
    }

    /// A list of integers of any width, widened.
    pub fn as_i64s(&self) -> Option<Vec<i64>> {
        let Self::Array(array) = self else { return None };
        Some(match array {
            Array::U8(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I8(v) => v.iter().map(|&x| x.into()).collect(),
            Array::U16(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I16(v) => v.iter().map(|&x| x.into()).collect(),
            Array::U32(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I32(v) => v.iter().map(|&x| x.into()).collect(),
            Array::I64(v) => v.clone(),
            Array::U64(v) => v.iter().map(|&x| x.try_into().ok()).collect::<Option<_>>()?,
            _ => return None,
        })
    }

    /// A list of floats: token scores.
    pub fn as_f32s(&self) -> Option<&[f32]> {
        if let Self::Array(Array::F32(v)) = self { Some(v) } else { None }
    }
}

impl Array {
    /// The kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "list of u8",
            Self::I8(_) => "list of i8",
            Self::U16(_) => "list of u16",
            Self::I16(_) => "list of i16",
            Self::U32(_) => "list of u32",
            Self::I32(_) => "list of i32",
            Self::F32(_) => "list of f32",
            Self::Bool(_) => "list of bool",
            Self::Texts(_) => "list of text",
            Self::Arrays(_) => "list of lists",
            Self::U64(_) => "list of u64",
            Self::I64(_) => "list of i64",
            Self::F64(_) => "list of f64",
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Texts(v) => v.len(),
            Self::Arrays(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Entries in the file's order, found by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    places: BTreeMap<String, usize>,
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.places.get(key).map(|&i| &self.entries[i].1)
    }

    /// Sets `key`, in its old place if it had one.
    pub fn set(&mut self, key: impl Into<String>, value: Value) {
        let key = key.into();
        if let Some(&i) = self.places.get(&key) {
            self.entries[i].1 = value;
        } else {
            self.places.insert(key.clone(), self.entries.len());
            self.entries.push((key, value));
        }
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let i = self.places.remove(key)?;
        for place in self.places.values_mut() {
            *place -= usize::from(*place > i);
        }
        Some(self.entries.remove(i).1)
    }

    /// Whether `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// All, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K: Into<String>> FromIterator<(K, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|(key, value)| all.set(key, value));
        all
    }
}
