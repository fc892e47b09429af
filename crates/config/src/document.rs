//! A TOML file with the overrides of the command line laid over it, each value with the place where it was written.

use crate::error::Error;
use crate::place::{Place, Source, Span};
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What overrides are called in a message.
const OVERRIDE: &str = "--set";

/// The tree of values and the texts that they came from.
#[derive(Debug)]
pub(crate) struct Document {
    sources: Vec<Source>,
    pub(crate) root: Node,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Of the value.
    pub(crate) span: Span,
    /// Of the key, where the value has one.
    pub(crate) key: Option<Span>,
}

/// The value itself.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// Text; also a date, which no key takes.
    Text(String),
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<(String, Node)>),
}

impl Document {
    /// Parses the file's text, then lays the overrides (`key.path=value`) over it in their order.
    pub(crate) fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let file = Source { name: name.to_owned(), text: text.to_owned() };
        let root = parse_source(&file, 0)?;
        let mut document = Self { sources: vec![file], root };
        for set in overrides {
            let source = Source { name: OVERRIDE.to_owned(), text: set.clone() };
            let node = parse_override(&source, document.sources.len())?;
            document.sources.push(source);
            lay_over(&mut document.root, node);
        }
        Ok(document)
    }

    /// Reads and parses a file.
    pub(crate) fn load(path: &Path, overrides: &[String]) -> Result<Self, Error> {
        let bytes =
            std::fs::read(path).map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })?;
        let text = String::from_utf8(bytes).map_err(|error| Error::NotText {
            path: path.to_owned(),
            at: error.utf8_error().valid_up_to(),
        })?;
        Self::parse(&path.to_string_lossy(), &text, overrides)
    }

    /// The place of some bytes.
    pub(crate) fn place(&self, span: Span) -> Place {
        self.sources[span.source].place(span.start, span.end)
    }

    /// The place of a key's value by its dotted path; of the nearest table above it if it was not written.
    pub(crate) fn place_of(&self, path: &str) -> Place {
        let mut node = &self.root;
        for key in path.split('.') {
            match node.get(key) {
                Some(child) => node = child,
                None => return self.place(node.name_span()),
            }
        }
        self.place(node.span)
    }
}

impl Node {
    /// A table's value by its key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The key's span, or the value's where there is no key.
    pub(crate) fn name_span(&self) -> Span {
        self.key.unwrap_or(Span { end: self.span.start, ..self.span })
    }
}

/// The tree of one source.
fn parse_source(source: &Source, index: usize) -> Result<Node, Error> {
    let table = DeTable::parse(&source.text).map_err(|error| syntax(source, &error))?;
    Ok(Node {
        kind: convert_table(table.get_ref(), source, index)?,
        span: Span { source: index, start: 0, end: 0 },
        key: None,
    })
}

/// The tree of an override. A value that is no TOML is text, so that quotes need not pass the shell.
fn parse_override(source: &Source, index: usize) -> Result<Node, Error> {
    let refused = || Error::Override { text: source.text.clone() };
    let equals = source.text.find('=').ok_or_else(refused)?;
    if let Ok(node) = parse_source(source, index) {
        return Ok(node);
    }
    let value = source.text[equals + 1..].trim();
    // The key keeps its offsets; a placeholder takes the value's place.
    let key = Source { name: source.name.clone(), text: format!("{}=0", &source.text[..equals]) };
    let mut node = parse_source(&key, index).map_err(|_| refused())?;
    let span = Span { source: index, start: equals + 1, end: source.text.len() };
    set_leaf(&mut node, &Node { kind: Kind::Text(value.to_owned()), span, key: None });
    Ok(node)
}

/// Replaces the one leaf of a chain of tables.
fn set_leaf(node: &mut Node, leaf: &Node) {
    match &mut node.kind {
        Kind::Table(entries) => entries.iter_mut().for_each(|(_, child)| set_leaf(child, leaf)),
        _ => *node = Node { key: node.key, ..leaf.clone() },
    }
}

/// Tables are united, other values replaced.
fn lay_over(below: &mut Node, above: Node) {
    let Kind::Table(new) = above.kind else {
        *below = above;
        return;
    };
    if let Kind::Table(old) = &mut below.kind {
        for (key, node) in new {
            match old.iter_mut().find(|(name, _)| *name == key) {
                Some((_, existing)) => lay_over(existing, node),
                None => old.push((key, node)),
            }
        }
    } else {
        *below = Node { kind: Kind::Table(new), ..above };
    }
}

fn convert_table(table: &DeTable<'_>, source: &Source, index: usize) -> Result<Kind, Error> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let mut node = convert(value, source, index)?;
        node.key = Some(span(index, &key.span()));
        entries.push((key.get_ref().to_string(), node));
    }
    Ok(Kind::Table(entries))
}

fn convert(value: &Spanned<DeValue<'_>>, source: &Source, index: usize) -> Result<Node, Error> {
    let span = span(index, &value.span());
    let out_of_range = |what: &str| Error::Syntax {
        message: format!("{what} is out of range"),
        place: Box::new(source.place(span.start, span.end)),
    };
    let kind = match value.get_ref() {
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Integer(value) => Kind::Integer(
            i64::from_str_radix(value.as_str(), value.radix())
                .map_err(|_| out_of_range("a whole number beyond 64 bits"))?,
        ),
        DeValue::Float(value) => Kind::Float(value.as_str().parse().map_err(|_| out_of_range("a number"))?),
        DeValue::String(value) => Kind::Text(value.to_string()),
        DeValue::Datetime(value) => Kind::Text(value.to_string()),
        DeValue::Array(values) => {
            Kind::List(values.iter().map(|value| convert(value, source, index)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => convert_table(table, source, index)?,
    };
    Ok(Node { kind, span, key: None })
}

fn span(source: usize, range: &std::ops::Range<usize>) -> Span {
    Span { source, start: range.start, end: range.end }
}

fn syntax(source: &Source, error: &toml::de::Error) -> Error {
    let range = error.span().unwrap_or(source.text.len()..source.text.len());
    Error::Syntax {
        message: error.message().to_owned(),
        place: Box::new(source.place(range.start, range.end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, sets: &[&str]) -> Result<Document, Error> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Document::parse("run.toml", text, &sets)
    }

    fn text(document: &Document, path: &str) -> String {
        let mut node = &document.root;
        for key in path.split('.') {
            node = node.get(key).unwrap();
        }
        format!("{:?}", node.kind)
    }

    #[test]
    fn overrides_are_typed_and_win_in_their_order() {
        let document = parse(
            "base = \"a\"\n[train]\nsteps = 5\n",
            &["train.steps=7", "train.steps = 9", "base=models/b", "optimizer.adamw.lr=1e-3", "x=[1, true]"],
        )
        .unwrap();
        assert_eq!(text(&document, "train.steps"), "Integer(9)");
        assert_eq!(text(&document, "base"), "Text(\"models/b\")");
        assert_eq!(text(&document, "optimizer.adamw.lr"), "Float(0.001)");
        assert!(text(&document, "x").contains("Bool(true)"));
        let place = document.place_of("base");
        assert_eq!((place.file.as_str(), place.text.as_str(), place.column), ("--set", "base=models/b", 6));
    }

    #[test]
    fn an_override_without_a_value_or_key_is_refused() {
        for set in ["train.steps", "=5", "a..b=1"] {
            let error = parse("", &[set]).unwrap_err();
            assert_eq!(error.to_string(), format!("`--set {set}` is not of the form KEY=VALUE"));
        }
    }

    #[test]
    fn a_mistake_in_the_text_has_its_place() {
        let error = parse("a = 1\nb = = 2\n", &[]).unwrap_err();
        let place = error.place().unwrap();
        assert_eq!((error.code(), place.line, place.column), ("config-syntax", 2, 5));
        let error = parse("a = 1\na = 2\n", &[]).unwrap_err();
        assert_eq!(error.to_string(), "not TOML: duplicate key");
        assert_eq!(error.place().unwrap().line, 2);
        let error = parse("a = 99999999999999999999\n", &[]).unwrap_err();
        assert_eq!(error.to_string(), "not TOML: a whole number beyond 64 bits is out of range");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_key() {
        assert_eq!(text(&parse("\u{feff}a = 1", &[]).unwrap(), "a"), "Integer(1)");
    }

    #[test]
    fn the_place_of_what_is_not_written_is_the_table_above() {
        let document = parse("base = \"a\"\n[train]\nsteps = 5\n", &[]).unwrap();
        let place = document.place_of("train.batch");
        assert_eq!((place.line, place.column, place.width), (2, 2, 5));
    }
}
