//! Files of tab-separated lines without quoting, and of one word a line: how benchmarks publish their rows.

use serde_json::{Map, Value};

use super::{ROW_LIMIT, Sink};
use crate::problem::ProblemKind;

/// One row a line, cells apart by tabs; a quote is a character like any other. `columns` names the cells of a file
/// without a header. With `skips_short`, a line of fewer cells is passed over and counted.
pub(super) fn tabs(text: &str, columns: Option<&[&str]>, skips_short: bool, sink: &mut Sink) {
    let mut lines = (1..).zip(text.split('\n')).map(|(line, text)| (line, text.trim_end_matches('\r')));
    let names: Vec<String> = match columns {
        Some(names) => names.iter().map(|n| (*n).to_owned()).collect(),
        None => match lines.next() {
            Some((_, header)) => header.split('\t').map(|n| n.trim().to_owned()).collect(),
            None => return,
        },
    };
    for (line, text) in lines {
        if text.trim().is_empty() {
            continue;
        }
        if text.len() > ROW_LIMIT {
            sink.problem(line, None, ProblemKind::TooLong { bytes: text.len(), limit: ROW_LIMIT });
            continue;
        }
        let cells = text.split('\t').collect::<Vec<_>>();
        if cells.len() < names.len() && skips_short {
            sink.rows.skipped += 1;
        } else if cells.len() == names.len() {
            let pairs = names.iter().zip(cells);
            let fields = pairs.map(|(name, cell)| (name.clone(), Value::String(cell.to_owned())));
            sink.row(line, fields.collect());
        } else {
            sink.problem(line, None, ProblemKind::FieldCount { expected: names.len(), got: cells.len() });
        }
    }
}

/// One word and its tag a line (the first and the last of the cells), sentences apart by an empty line, as CoNLL's shared
/// tasks publish them. `-DOCSTART-` lines are passed over.
pub(super) fn words(text: &str, sink: &mut Sink) {
    let (mut words, mut tags, mut start) = (Vec::new(), Vec::new(), 1);
    let flush = |words: &mut Vec<Value>, tags: &mut Vec<Value>, start: u64, sink: &mut Sink| {
        if !words.is_empty() {
            let mut fields = Map::new();
            fields.insert("tokens".to_owned(), Value::Array(std::mem::take(words)));
            fields.insert("tags".to_owned(), Value::Array(std::mem::take(tags)));
            sink.row(start, fields);
        }
    };
    for (line, text) in (1..).zip(text.split('\n')) {
        let mut cells = text.split_whitespace();
        match (cells.next(), cells.next_back()) {
            (None, _) => flush(&mut words, &mut tags, start, sink),
            (Some("-DOCSTART-"), _) => {}
            (Some(_), None) => sink.problem(line, None, ProblemKind::FieldCount { expected: 2, got: 1 }),
            (Some(word), Some(tag)) => {
                if words.is_empty() {
                    start = line;
                }
                words.push(Value::String(word.to_owned()));
                tags.push(Value::String(tag.to_owned()));
            }
        }
    }
    flush(&mut words, &mut tags, start, sink);
}
