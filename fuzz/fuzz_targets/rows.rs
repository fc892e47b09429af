//! Any bytes are rows, bad rows with their place, or an error; the first byte chooses the kind of file.
#![no_main]
use luthier_data::rows_of;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let kinds = [("a.jsonl", None), ("a.json", None), ("a.csv", None), ("a.txt", None), ("a.json", Some("gb18030"))];
    let (name, encoding) = kinds[first as usize % kinds.len()];
    if let Ok(rows) = rows_of(Path::new(name), rest.to_vec(), encoding) {
        let lines = rest.iter().filter(|&&b| b == b'\n').count() as u64 + 1;
        // GB18030 has no line break that is not the byte 0x0A, and UTF-16 has its own bytes for it.
        for line in rows.rows.iter().map(|r| r.line).chain(rows.problems.shown().iter().map(|p| p.line)) {
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
    }
});
