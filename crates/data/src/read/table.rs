//! CSV with a header row; the separator is a comma, or the semicolon or tab that the header uses in its place.

use serde_json::{Map, Value};

use super::{ROW_LIMIT, Sink};
use crate::problem::ProblemKind;

/// One row a record; the header names the columns.
pub(super) fn rows(text: &str, separator: Option<u8>, sink: &mut Sink) {
    let separator = separator.unwrap_or_else(|| guess_separator(text));
    let mut reader =
        csv::ReaderBuilder::new().delimiter(separator).flexible(true).from_reader(text.as_bytes());
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(e) => return sink.problem(1, None, ProblemKind::Csv { what: e.to_string() }),
    };
    let mut record = csv::StringRecord::new();
    // The reader stands on the line break before the next record when it reports a position, so the line is counted
    // from the bytes that it has passed.
    let mut lines = LineCounter { text: text.as_bytes(), at: 0, line: 1 };
    loop {
        let more = reader.read_record(&mut record);
        let start = record.position().map_or(0, csv::Position::byte) as usize;
        let end = reader.position().byte() as usize;
        match more {
            Ok(false) => return,
            Err(e) => {
                let line = e.position().map_or(lines.line, csv::Position::line);
                return sink.problem(line, None, ProblemKind::Csv { what: e.to_string() });
            }
            Ok(true) => {}
        }
        let line = lines.first_text_after(start);
        let raw = text.as_bytes().get(start..end).unwrap_or_default();
        if super::count(raw, b'"') % 2 == 1 {
            sink.problem(line, None, ProblemKind::Csv { what: "a quote opens here and never closes".into() });
        } else if raw.len() > ROW_LIMIT {
            sink.problem(line, None, ProblemKind::TooLong { bytes: raw.len(), limit: ROW_LIMIT });
        } else if record.len() == header.len() {
            let pairs = header.iter().zip(&record);
            let fields: Map<_, _> = pairs
                .map(|(name, value)| (name.trim().to_owned(), Value::String(value.to_owned())))
                .collect();
            sink.row(line, fields);
        } else {
            sink.problem(line, None, ProblemKind::FieldCount { expected: header.len(), got: record.len() });
        }
    }
}

/// The separator that the header holds most of; a comma if none.
fn guess_separator(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    let count = |b: u8| header.bytes().filter(|&x| x == b).count();
    if count(b',') > 0 || (count(b';') == 0 && count(b'\t') == 0) {
        b','
    } else if count(b';') >= count(b'\t') {
        b';'
    } else {
        b'\t'
    }
}

struct LineCounter<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl LineCounter<'_> {
    /// The line of the first byte at or after `start` that is no line break.
    fn first_text_after(&mut self, start: usize) -> u64 {
        let mut end = start.min(self.text.len());
        while self.text.get(end).is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            end += 1;
        }
        self.line += super::count(&self.text[self.at..end], b'\n') as u64;
        self.at = end;
        self.line
    }
}
