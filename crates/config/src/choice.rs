//! The method of a run: its id and its own table, which only the method can read.

use crate::document::{Document, Kind, Node};
use crate::error::Error;
use crate::read::read;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The one table under `[method]`.
#[derive(Clone, Debug)]
pub struct Choice {
    id: String,
    node: Node,
    document: Arc<Document>,
}

impl Choice {
    /// Finds the one table under `[method]`, whose name must be one of `known`.
    pub(crate) fn find(document: &Arc<Document>, known: &[&str]) -> Result<Self, Error> {
        let method = document.root.get("method").ok_or_else(|| Error::Missing {
            key: "method".to_owned(),
            table: "the file".to_owned(),
            place: Box::new(document.place(document.root.span)),
        })?;
        let Kind::Table(entries) = &method.kind else {
            return Err(Error::WrongValue {
                key: "method".to_owned(),
                expected: "a table named after a method, as in [method.lora]".to_owned(),
                got: "a value".to_owned(),
                place: Box::new(document.place(method.span)),
            });
        };
        let [(id, node)] = entries.as_slice() else {
            let second = entries.get(1).map_or(method, |(_, node)| node);
            return Err(Error::NotOne {
                table: "method".to_owned(),
                got: entries.iter().map(|(id, _)| id.clone()).collect(),
                place: Box::new(document.place(second.name_span())),
            });
        };
        if !known.contains(&id.as_str()) {
            return Err(Error::UnknownName {
                what: "method".to_owned(),
                name: id.clone(),
                known: known.iter().map(|id| (*id).to_owned()).collect(),
                place: Box::new(document.place(node.name_span())),
            });
        }
        let choice = Self { id: id.clone(), node: node.clone(), document: Arc::clone(document) };
        choice.read::<toml::Table>()?; // `method.lora = 3` is no table
        Ok(choice)
    }

    /// The method's id: `lora`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Reads the table as the method's own type. What the type refuses has its place in the file; deny unknown fields
    /// there, so that a misspelt key is one of those.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(&self.document, &self.node, &format!("method.{}", self.id))
    }

    /// The table as it was written.
    pub fn table(&self) -> toml::Table {
        self.read().expect("found to be a table when the choice was made")
    }

    /// Makes something of the table by a function that knows no places, such as another crate's serde type.
    ///
    /// What it refuses is traced to a key: the one without which it refuses something else or nothing. serde's message
    /// for an unknown key becomes ours, with the nearest name.
    pub fn make<T, E: std::fmt::Display>(
        &self,
        make: impl Fn(toml::Table) -> Result<T, E>,
    ) -> Result<T, Error> {
        let table = self.table();
        let refused = match make(table.clone()) {
            Ok(made) => return Ok(made),
            Err(error) => error.to_string(),
        };
        if let Some((key, known)) = unknown_field(&refused) {
            let key_node = self.node.get(&key);
            return Err(Error::UnknownKey {
                place: Box::new(self.document.place(key_node.unwrap_or(&self.node).name_span())),
                table: format!("[method.{}]", self.id),
                key,
                known,
            });
        }
        let culprit = table.keys().find(|key| {
            let mut rest = table.clone();
            rest.remove(key.as_str());
            make(rest).err().is_none_or(|error| error.to_string() != refused)
        });
        Err(self.refuse(culprit.map(String::as_str), refused, None))
    }

    /// An error of the method's about one of its keys; about the whole table where `key` is `None`.
    pub fn refuse(&self, key: Option<&str>, message: String, help: Option<String>) -> Error {
        let path = match key {
            Some(key) => format!("method.{}.{key}", self.id),
            None => format!("method.{}", self.id),
        };
        let place = match key {
            Some(_) => self.document.place_of(&path),
            None => self.document.place(self.node.name_span()),
        };
        Error::Refused { key: path, message, help, place: Box::new(place) }
    }
}

/// The key and the known keys of serde's message "unknown field `rnak`, expected one of `rank`, `alpha`".
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((key.to_owned(), known))
}
