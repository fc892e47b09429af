//! Reads serde types from a document's nodes, so that what serde refuses has a place, a path and the known names.

use crate::document::{Document, Kind, Node};
use crate::error::Error;
use crate::place::Span;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor,
};
use std::fmt;

/// Reads a value from the node that stands at `path`.
pub(crate) fn read<T: DeserializeOwned>(document: &Document, node: &Node, path: &str) -> Result<T, Error> {
    T::deserialize(Reader { node, path: path.to_owned() }).map_err(|error| error.into_error(document))
}

/// What is wrong, before it is known where.
#[derive(Debug)]
enum Fault {
    UnknownKey { key: String, known: &'static [&'static str] },
    UnknownName { name: String, known: &'static [&'static str] },
    Missing { key: &'static str },
    Wrong { expected: String, got: String },
    NotOne { got: Vec<String> },
    Message(String),
}

/// serde's error: a fault, and where it was once that is known.
#[derive(Debug)]
struct ReadError {
    fault: Box<Fault>,
    at: Option<(Span, String)>,
}

impl ReadError {
    fn new(fault: Fault) -> Self {
        Self { fault: Box::new(fault), at: None }
    }

    /// Adds the place unless a deeper one is known.
    fn at(mut self, reader: &Reader<'_>) -> Self {
        if self.at.is_none() {
            let span = match *self.fault {
                Fault::Missing { .. } | Fault::NotOne { .. } => reader.node.name_span(),
                _ => reader.node.span,
            };
            self.at = Some((span, reader.path.clone()));
        }
        self
    }

    fn at_span(mut self, span: Span, path: &str) -> Self {
        self.at.get_or_insert_with(|| (span, path.to_owned()));
        self
    }

    fn into_error(self, document: &Document) -> Error {
        let (span, path) = self.at.unwrap_or((document.root.span, String::new()));
        let place = Box::new(document.place(span));
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let table = if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") };
        match *self.fault {
            Fault::UnknownKey { key, known } => Error::UnknownKey { key, table, known: owned(known), place },
            Fault::UnknownName { name, known } => {
                Error::UnknownName { what: path, name, known: owned(known), place }
            }
            Fault::Missing { key } => Error::Missing { key: key.to_owned(), table, place },
            Fault::Wrong { expected, got } => Error::WrongValue { key: path, expected, got, place },
            Fault::NotOne { got } => Error::NotOne { table: path, got, place },
            // Our own ranges say "must be .., got ..", which has its variant.
            Fault::Message(message) => match message
                .strip_prefix("must be ")
                .and_then(|rest| rest.split_once(", got "))
            {
                Some((expected, got)) => {
                    Error::WrongValue { key: path, expected: expected.to_owned(), got: got.to_owned(), place }
                }
                None => Error::Refused { key: path, message, help: None, place },
            },
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Message(message.to_string()))
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(Fault::Wrong { expected: in_words(&expected.to_string()), got: describe(&got) })
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(got, expected)
    }

    fn invalid_length(got: usize, expected: &dyn Expected) -> Self {
        Self::new(Fault::Wrong { expected: in_words(&expected.to_string()), got: format!("a list of {got}") })
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownName { name: name.to_owned(), known })
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownKey { key: key.to_owned(), known })
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Fault::Missing { key })
    }
}

/// serde's names of Rust types, in words for a reader of TOML.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0",
        "a nonzero u32" | "a nonzero u64" | "a nonzero usize" => "a whole number of at least 1",
        "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list",
        "a map" => "a table",
        "an array of length 2" => "a list of two numbers",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    words.to_owned()
}

fn describe(got: &Unexpected<'_>) -> String {
    match got {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Float(value) => format!("{value:?}"), // 1.0, not 1
        Unexpected::Str(value) => format!("the text \"{value}\""),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// A node with the dotted path that leads to it.
#[derive(Clone)]
struct Reader<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> Reader<'a> {
    fn child(&self, key: &str, node: &'a Node) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { node, path }
    }

    fn wrong(&self, expected: String) -> ReadError {
        let got = match &self.node.kind {
            Kind::Bool(value) => value.to_string(),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => format!("{value:?}"),
            Kind::Text(value) => format!("the text \"{value}\""),
            Kind::List(_) => "a list".to_owned(),
            Kind::Table(_) => "a table".to_owned(),
        };
        ReadError::new(Fault::Wrong { expected, got }).at(self)
    }

    fn any<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Bool(value) => visitor.visit_bool(*value),
            Kind::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Kind::Float(value) => visitor.visit_f64(*value),
            Kind::Text(value) => visitor.visit_str(value),
            Kind::List(nodes) => {
                let mut elements = Elements { reader: self, nodes: nodes.iter(), index: 0 };
                let value = visitor.visit_seq(&mut elements)?;
                if elements.nodes.len() > 0 {
                    let expected = format!("a list of {}", elements.index);
                    return Err(ReadError::new(Fault::Wrong {
                        expected,
                        got: format!("a list of {}", nodes.len()),
                    }));
                }
                Ok(value)
            }
            Kind::Table(entries) => {
                visitor.visit_map(Entries { reader: self, rest: entries.iter(), value: None })
            }
        }
    }

    fn choice<'de, V: Visitor<'de>>(
        &self,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.kind {
            Kind::Text(name) => visitor.visit_enum(Variant { reader: self, name, table: None }),
            Kind::Table(entries) => {
                if let [(name, node)] = entries.as_slice() {
                    return visitor.visit_enum(Variant { reader: self, name, table: Some(node) });
                }
                let got = entries.iter().map(|(name, _)| name.clone()).collect();
                let span = entries.get(1).map_or(self.node, |(_, second)| second).name_span();
                Err(ReadError::new(Fault::NotOne { got }).at_span(span, &self.path))
            }
            _ => Err(self.wrong(format!("one of {}", known.join(", ")))),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.any(visitor).map_err(|error| error.at(&self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self) // TOML has no null: a key that is written has a value
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let at = self.clone();
        visitor.visit_newtype_struct(self).map_err(|error| error.at(&at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.choice(known, visitor).map_err(|error| error.at(&self))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

/// A list's elements; the path of each has its index.
struct Elements<'r, 'a> {
    reader: &'r Reader<'a>,
    nodes: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Elements<'_, '_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let reader = self.reader.child(&self.index.to_string(), node);
        self.index += 1;
        seed.deserialize(reader.clone()).map_err(|error| error.at(&reader)).map(Some)
    }
}

/// A table's entries.
struct Entries<'r, 'a> {
    reader: &'r Reader<'a>,
    rest: std::slice::Iter<'a, (String, Node)>,
    value: Option<Reader<'a>>,
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some(self.reader.child(key, node));
        // A key that is refused stands in this table, and its own text is underlined.
        seed.deserialize(key.as_str().into_deserializer())
            .map_err(|error: ReadError| error.at_span(node.name_span(), &self.reader.path))
            .map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, ReadError> {
        let reader = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(reader.clone()).map_err(|error| error.at(&reader))
    }
}

/// One of several: a bare name, or a table named after it.
struct Variant<'r, 'a> {
    reader: &'r Reader<'a>,
    name: &'a str,
    table: Option<&'a Node>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, '_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), ReadError> {
        let span = self.table.map_or(self.reader.node.span, Node::name_span);
        let value = seed
            .deserialize(self.name.into_deserializer())
            .map_err(|error: ReadError| error.at_span(span, &self.reader.path))?;
        Ok((value, self))
    }
}

impl<'a> Variant<'_, 'a> {
    fn inner(&self) -> Result<Reader<'a>, ReadError> {
        let table = self.table.ok_or_else(|| {
            self.reader.wrong(format!("a table, written [{}.{}]", self.reader.path, self.name))
        })?;
        Ok(self.reader.child(self.name, table))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        match self.table {
            None => Ok(()),
            Some(_) => Err(self.reader.wrong(format!("a name in quotes, as in \"{}\"", self.name))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        seed.deserialize(self.inner()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.inner()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.inner()?.deserialize_any(visitor)
    }
}
