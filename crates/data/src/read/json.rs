//! JSON lines and JSON documents. A document is split into its objects first, so that each keeps its line and one bad
//! object does not hide the others.

use serde_json::Value;

use super::{ROW_LIMIT, Sink, kind_of};
use crate::problem::ProblemKind;

/// One object a line; blank lines are skipped.
pub(super) fn lines(text: &str, sink: &mut Sink) {
    for (index, line) in text.split('\n').enumerate() {
        let line = line.trim();
        if !line.is_empty() {
            object(line, index as u64 + 1, sink);
        }
    }
}

/// An array of objects, or objects one after the other.
pub(super) fn document(text: &str, sink: &mut Sink) {
    let mut scan = Scan { bytes: text.as_bytes(), at: 0, line: 1 };
    scan.skip_space();
    let is_array = scan.peek() == Some(b'[');
    let opened = scan.line;
    if is_array {
        scan.step();
    }
    loop {
        scan.skip_space_and(b',');
        match scan.peek() {
            None if is_array => {
                return sink.problem(
                    opened,
                    None,
                    ProblemKind::Json { what: "the list is never closed".into() },
                );
            }
            None => return,
            Some(b']') if is_array => {
                scan.step();
                scan.skip_space();
                if scan.peek().is_some() {
                    let what = "text after the list's end".into();
                    sink.problem(scan.line, None, ProblemKind::Json { what });
                }
                return;
            }
            Some(_) => {}
        }
        let (start, line) = (scan.at, scan.line);
        let closed = scan.skip_value();
        // The scan stops only at ASCII bytes or the end, so the slice lies on character boundaries.
        object(&text[start..scan.at], line, sink);
        if !closed {
            return;
        }
    }
}

fn object(text: &str, line: u64, sink: &mut Sink) {
    if text.len() > ROW_LIMIT {
        return sink.problem(line, None, ProblemKind::TooLong { bytes: text.len(), limit: ROW_LIMIT });
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => sink.row(line, fields),
        Ok(other) => sink.problem(line, None, ProblemKind::NotAnObject { got: kind_of(&other) }),
        Err(e) => {
            // The parser counts lines within this object.
            let line = line + (e.line() as u64).saturating_sub(1);
            let reason = e.to_string();
            let reason = reason.split(" at line ").next().unwrap_or(&reason);
            sink.problem(
                line,
                None,
                ProblemKind::Json { what: format!("{reason} at column {}", e.column()) },
            );
        }
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.step();
        }
    }

    fn skip_space_and(&mut self, separator: u8) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace() || b == separator) {
            self.step();
        }
    }

    /// Moves behind one value without recursion; false if the text ends inside it.
    fn skip_value(&mut self) -> bool {
        let mut depth = 0_usize;
        let start = self.at;
        loop {
            match self.peek() {
                None => return depth == 0,
                Some(b'"') => {
                    if !self.skip_string() {
                        return false;
                    }
                    if depth == 0 {
                        return true;
                    }
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.step();
                }
                Some(b'}' | b']') => {
                    // A bracket at depth 0 belongs to the list around; at the start it belongs to nothing.
                    if depth == 0 {
                        if self.at == start {
                            self.step();
                        }
                        return true;
                    }
                    depth -= 1;
                    self.step();
                    if depth == 0 {
                        return true;
                    }
                }
                Some(b',' | b'\n') if depth == 0 => return true,
                Some(_) => self.step(),
            }
        }
    }

    fn skip_string(&mut self) -> bool {
        self.step();
        loop {
            match self.peek() {
                None => return false,
                Some(b'\\') => {
                    self.step();
                    if self.peek().is_some() {
                        self.step();
                    }
                }
                Some(b'"') => {
                    self.step();
                    return true;
                }
                Some(_) => self.step(),
            }
        }
    }
}
