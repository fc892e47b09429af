//! Files to rows: JSON lines, JSON, CSV and plain text, each row with the line that it starts on.

mod encoding;
mod json;
mod lines;
mod table;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Error;
use crate::problem::{Problem, ProblemKind, Problems};

/// Longest row: 16 MiB of text are some four million tokens, far beyond any context; a longer line is a file without
/// line breaks or not data at all.
pub(crate) const ROW_LIMIT: usize = 16 << 20;

/// One row: columns in the file's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Line on which the row starts, from 1.
    pub line: u64,
    /// Columns and values.
    pub fields: Map<String, Value>,
}

/// A file's good rows and its bad ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Good rows in the file's order.
    pub rows: Vec<Row>,
    /// Bad rows.
    pub problems: Problems,
    /// The encoding that was read, for the report.
    pub encoding: String,
    /// Whether the file is plain text: one row with the column `text`.
    pub is_text: bool,
    /// Broken lines that a benchmark is known for, passed over.
    pub skipped: u64,
}

/// How the rows lie in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As the file's ending says.
    Objects,
    /// Cells apart by tabs, without quoting.
    Tabs {
        /// Names of the cells where the file has no header.
        columns: Option<&'static [&'static str]>,
        /// Whether lines with too few cells are passed over.
        skips_short: bool,
    },
    /// One word a line.
    Words,
}

/// Reads a file; its ending says what it holds. Bad rows are collected, a file that is wrong as a whole is an error.
///
/// `encoding` is a WHATWG label; without it the file must be UTF-8 (or carry the byte order mark of UTF-16).
pub fn read_rows(path: &Path, encoding: Option<&str>) -> Result<Rows, Error> {
    read_as(path, encoding, Layout::Objects)
}

/// Reads a file of a layout that its format knows.
pub(crate) fn read_as(path: &Path, encoding: Option<&str>, layout: Layout) -> Result<Rows, Error> {
    let kind = Kind::under(path, layout)?;
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    rows_in(path, bytes, encoding, kind)
}

/// Reads a file's bytes; the path gives its kind and its name in errors.
pub fn rows_of(path: &Path, bytes: Vec<u8>, encoding: Option<&str>) -> Result<Rows, Error> {
    rows_in(path, bytes, encoding, Kind::of(path)?)
}

fn rows_in(path: &Path, bytes: Vec<u8>, encoding: Option<&str>, kind: Kind) -> Result<Rows, Error> {
    let (text, encoding) = encoding::decode(path, bytes, encoding)?;
    let mut sink = Sink { path: path.to_owned(), rows: Rows { encoding, ..Rows::default() } };
    match kind {
        Kind::JsonLines => json::lines(&text, &mut sink),
        Kind::Json => json::document(&text, &mut sink),
        Kind::Table { separator } => table::rows(&text, separator, &mut sink),
        Kind::Tabs { columns, skips_short } => lines::tabs(&text, columns, skips_short, &mut sink),
        Kind::Words => lines::words(&text, &mut sink),
        Kind::Text => {
            if !text.trim().is_empty() {
                let fields = Map::from_iter([("text".to_owned(), Value::String(text))]);
                sink.row(1, fields);
            }
            sink.rows.is_text = true;
        }
    }
    if sink.rows.rows.is_empty() && sink.rows.problems.is_empty() {
        return Err(Error::NoRows { path: path.to_owned() });
    }
    Ok(sink.rows)
}

#[derive(Clone, Copy)]
enum Kind {
    JsonLines,
    Json,
    Table { separator: Option<u8> },
    Text,
    Tabs { columns: Option<&'static [&'static str]>, skips_short: bool },
    Words,
}

impl Kind {
    fn under(path: &Path, layout: Layout) -> Result<Self, Error> {
        match layout {
            Layout::Objects => Self::of(path),
            Layout::Tabs { columns, skips_short } => Ok(Self::Tabs { columns, skips_short }),
            Layout::Words => Ok(Self::Words),
        }
    }

    fn of(path: &Path) -> Result<Self, Error> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Table { separator: None }),
            "tsv" => Ok(Self::Table { separator: Some(b'\t') }),
            "txt" | "text" | "md" => Ok(Self::Text),
            _ => Err(Error::FileKind { path: path.to_owned() }),
        }
    }
}

/// Collects rows and problems of one file.
struct Sink {
    path: PathBuf,
    rows: Rows,
}

impl Sink {
    fn row(&mut self, line: u64, fields: Map<String, Value>) {
        for (name, value) in &fields {
            if let Some(code) = forbidden(value) {
                self.problem(line, Some(name.clone()), ProblemKind::Character { code });
                return;
            }
        }
        self.rows.rows.push(Row { line, fields });
    }

    fn problem(&mut self, line: u64, field: Option<String>, kind: ProblemKind) {
        self.rows.problems.push(Problem { file: self.path.clone(), line, field, kind });
    }
}

/// The first character of a value that must not reach templates: NUL (a sign of UTF-16 or of binary data) and the two
/// noncharacters with which the template engine marks spans.
fn forbidden(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => text
            .chars()
            .find(|&c| c == '\0' || c == crate::template::SPAN_START || c == crate::template::SPAN_END)
            .map(u32::from),
        Value::Array(items) => items.iter().find_map(forbidden),
        Value::Object(items) => items.values().find_map(forbidden),
        _ => None,
    }
}

/// How often a byte occurs.
fn count(bytes: &[u8], byte: u8) -> usize {
    bytes.iter().map(|&b| usize::from(b == byte)).sum()
}

/// Names a JSON value's kind.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8]) -> Result<Rows, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read_rows(&path, None)
    }

    fn problems(name: &str, bytes: &[u8]) -> Vec<String> {
        let rows = read(name, bytes).unwrap();
        rows.problems
            .shown()
            .iter()
            .map(|p| {
                let field = p.field.as_deref().map(|f| format!("{f}: ")).unwrap_or_default();
                format!("{}: {field}{}", p.line, p.kind)
            })
            .collect()
    }

    #[test]
    fn json_lines_with_mark_blank_lines_and_crlf() {
        let rows = read("a.jsonl", b"\xEF\xBB\xBF{\"a\": 1}\r\n\r\n  {\"a\": 2}\n").unwrap();
        assert!(rows.problems.is_empty());
        assert_eq!(rows.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn each_bad_line_is_named() {
        let found =
            problems("a.jsonl", b"{\"a\": 1}\n{\"a\": }\n[1]\n{\"a\": \"\\u0000\"}\n{\"a\": \"\\ud800\"}\n");
        assert_eq!(found.len(), 4);
        assert!(found[0].starts_with("2: not JSON: expected value"), "{found:?}");
        assert_eq!(found[1], "3: expected an object, got a list");
        assert_eq!(found[2], "4: a: holds the character U+0000");
        assert!(found[3].starts_with("5: not JSON: "), "{found:?}");
    }

    #[test]
    fn deep_json_is_a_problem_not_a_stack_overflow() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        for name in ["a.jsonl", "a.json"] {
            assert!(problems(name, deep.as_bytes())[0].contains("recursion limit"));
        }
        assert!(problems("b.json", format!("[{deep}]").as_bytes())[0].contains("recursion limit"));
    }

    #[test]
    fn a_line_of_a_hundred_megabytes_is_a_problem() {
        let mut line = b"{\"a\": \"".to_vec();
        line.resize(100 << 20, b'x');
        line.extend_from_slice(b"\"}\n{\"a\": 1}\n");
        let rows = read("a.jsonl", &line).unwrap();
        assert_eq!(rows.rows.len(), 1);
        assert!(matches!(rows.problems.shown()[0].kind, ProblemKind::TooLong { .. }));
    }

    #[test]
    fn problems_beyond_twenty_are_counted() {
        let rows = read("a.jsonl", "nonsense\n".repeat(33).as_bytes()).unwrap();
        assert_eq!((rows.problems.shown().len(), rows.problems.total()), (20, 33));
        assert_eq!(rows.problems.lines().last().unwrap(), "and 13 more");
    }

    #[test]
    fn a_json_array_knows_the_line_of_each_object() {
        let rows = read("a.json", b"[\n  {\"a\": \"x]},\\\"\"},\n\n  {\"a\":\n 2}\n, 7]").unwrap();
        assert_eq!(rows.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(rows.problems.shown()[0].line, 6);
        assert_eq!(rows.problems.shown()[0].kind, ProblemKind::NotAnObject { got: "a number" });
    }

    #[test]
    fn json_lines_in_a_json_file_are_read() {
        let rows = read("a.json", b"{\"a\": 1}\n{\"a\": 2}\n").unwrap();
        assert_eq!(rows.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_json_array_cut_short_is_a_problem() {
        let found = problems("a.json", b"[{\"a\": 1},\n{\"a\": \"two");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("2: not JSON: "), "{found:?}");
        assert!(problems("b.json", b"[{\"a\": 1}")[0].contains("never closed"));
    }

    #[test]
    fn csv_with_quotes_line_breaks_and_short_rows() {
        let rows =
            read("a.csv", "q,a\n\"eins, \"\"zwei\"\"\",x\n\"two\nlines\",y\nalone\nlast,z\n".as_bytes())
                .unwrap();
        assert_eq!(rows.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 3, 6]);
        assert_eq!(rows.rows[0].fields["q"], "eins, \"zwei\"");
        assert_eq!(rows.problems.shown()[0].line, 5);
        assert_eq!(rows.problems.shown()[0].kind, ProblemKind::FieldCount { expected: 2, got: 1 });
    }

    #[test]
    fn csv_quote_never_closed_is_named_where_it_opens() {
        let found = problems("a.csv", b"q,a\nx,y\n\"open,z\nnext,w\n");
        assert_eq!(found, ["3: not CSV: a quote opens here and never closes"]);
    }

    #[test]
    fn csv_separator_is_found() {
        assert_eq!(read("a.csv", b"q;a\n1;2\n").unwrap().rows[0].fields["a"], "2");
        assert_eq!(read("a.csv", b"q\ta\n1\t2\n").unwrap().rows[0].fields["a"], "2");
        assert_eq!(read("a.tsv", b"q\ta\n1\t2\n").unwrap().rows[0].fields["a"], "2");
    }

    #[test]
    fn empty_files_and_unknown_endings_are_refused() {
        assert!(matches!(read("a.jsonl", b" \n"), Err(Error::NoRows { .. })));
        assert!(matches!(read("a.json", b"[]"), Err(Error::NoRows { .. })));
        assert!(matches!(read("a.csv", b""), Err(Error::NoRows { .. })));
        assert!(matches!(read("a.txt", b"\n"), Err(Error::NoRows { .. })));
        assert!(matches!(read("a.parquet", b"x"), Err(Error::FileKind { .. })));
        assert!(matches!(read_rows(Path::new("missing.jsonl"), None), Err(Error::Io { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, kind in 0..4usize) {
            let name = ["a.jsonl", "a.json", "a.csv", "a.txt"][kind];
            let _ = read(name, &bytes);
        }

        #[test]
        fn json_like_text_never_panics(text in "[\\[\\]{}\",:a\\\\ \n0-9]{0,60}", kind in 0..3usize) {
            let name = ["a.jsonl", "a.json", "a.csv"][kind];
            let _ = read(name, text.as_bytes());
        }
    }
}
