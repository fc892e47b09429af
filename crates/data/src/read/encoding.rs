//! Bytes to text. UTF-8 is expected; anything else is recognised well enough to be named, and read when it was asked for.

use std::path::Path;

use encoding_rs::{Encoding, GB18030, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::error::Error;

/// Decodes a file's bytes; returns the text without its byte order mark and the encoding's name.
pub(super) fn decode(path: &Path, bytes: Vec<u8>, label: Option<&str>) -> Result<(String, String), Error> {
    if let Some(label) = label {
        let encoding = for_label(label)?;
        if encoding != UTF_8 {
            return decode_as(path, &bytes, encoding);
        }
    } else if bytes.starts_with(&[0xFF, 0xFE, 0, 0]) || bytes.starts_with(&[0, 0, 0xFE, 0xFF]) {
        return Err(wrong(path, &bytes, 0, "UTF-32 by its byte order mark".into(), None));
    } else if let Some((encoding, _)) = Encoding::for_bom(&bytes)
        && encoding != UTF_8
    {
        return decode_as(path, &bytes, encoding);
    }
    match String::from_utf8(bytes) {
        Ok(text) => {
            if let Some((name, label)) = utf16_pattern(text.as_bytes()) {
                return Err(wrong(path, text.as_bytes(), 0, format!("looks like {name}"), Some(label)));
            }
            let text = match text.strip_prefix('\u{FEFF}') {
                Some(rest) => rest.to_owned(),
                None => text,
            };
            Ok((text, "UTF-8".to_owned()))
        }
        Err(e) => {
            let at = e.utf8_error().valid_up_to();
            let bytes = e.into_bytes();
            let (guess, label) = guess(&bytes);
            let found = format!("byte 0x{:02X} at offset {at}, {guess}", bytes[at]);
            Err(wrong(path, &bytes, at, found, label))
        }
    }
}

fn for_label(label: &str) -> Result<&'static Encoding, Error> {
    // The WHATWG list spells these two without the hyphen.
    let known = match label.to_ascii_lowercase().as_str() {
        "latin-1" => "latin1".to_owned(),
        "gb-18030" => "gb18030".to_owned(),
        other => other.to_owned(),
    };
    Encoding::for_label_no_replacement(known.as_bytes())
        .ok_or_else(|| Error::EncodingName { label: label.to_owned() })
}

fn decode_as(path: &Path, bytes: &[u8], encoding: &'static Encoding) -> Result<(String, String), Error> {
    let (text, used, had_errors) = encoding.decode(bytes);
    if had_errors {
        let before = text.split('\u{FFFD}').next().unwrap_or_default();
        return Err(Error::Encoding {
            path: path.to_owned(),
            line: before.matches('\n').count() as u64 + 1,
            expected: used.name().to_owned(),
            found: "bytes that the encoding does not have".to_owned(),
            label: None,
        });
    }
    Ok((text.into_owned(), used.name().to_owned()))
}

fn wrong(path: &Path, bytes: &[u8], at: usize, found: String, label: Option<&'static str>) -> Error {
    let line = super::count(&bytes[..at], b'\n') as u64 + 1;
    Error::Encoding { path: path.to_owned(), line, expected: "UTF-8".to_owned(), found, label }
}

/// UTF-16 without a mark: JSON and CSV are mostly ASCII, so that every second byte is zero.
fn utf16_pattern(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let head = &bytes[..bytes.len().min(4096)];
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|&&b| b == 0).count();
    let pairs = head.len() / 2;
    if pairs < 4 {
        return None;
    }
    // A tenth: text of another script has zeros only at its ASCII punctuation.
    if zeros(1) * 10 > pairs && zeros(0) == 0 {
        Some(("UTF-16 LE", "utf-16le"))
    } else if zeros(0) * 10 > pairs && zeros(1) == 0 {
        Some(("UTF-16 BE", "utf-16be"))
    } else {
        None
    }
}

/// Names the most likely encoding of bytes that are not UTF-8.
fn guess(bytes: &[u8]) -> (String, Option<&'static str>) {
    if let Some((name, label)) = utf16_pattern(bytes) {
        return (format!("looks like {name}"), Some(label));
    }
    let (valid, broken) = utf8_sequences(bytes);
    if valid > 4 * broken {
        return (format!("UTF-8 with {broken} broken places"), None);
    }
    let head = &bytes[..bytes.len().min(1 << 20)];
    let (text, _) = GB18030.decode_without_bom_handling(head);
    let ideographs = text
        .chars()
        .filter(|c| matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3000}'..='\u{303F}' | '\u{FF00}'..='\u{FFEF}'))
        .count();
    let foreign = text.chars().filter(|c| !c.is_ascii()).count();
    // Latin-1 accents pair up with a neighbouring letter now and then; in Chinese text nearly every pair is one.
    if foreign > 0 && ideographs * 10 >= foreign * 9 && common_hanzi(&text) {
        return ("looks like GB18030 (GBK)".to_owned(), Some("gb18030"));
    }
    for (encoding, name, label) in [(UTF_16LE, "UTF-16 LE", "utf-16le"), (UTF_16BE, "UTF-16 BE", "utf-16be")]
    {
        let (text, had_errors) = encoding.decode_without_bom_handling(&head[..head.len() & !1]);
        let readable = text.chars().filter(|c| c.is_alphabetic() || c.is_ascii()).count();
        if !had_errors && text.contains('\n') && readable * 10 >= text.chars().count() * 9 {
            return (format!("looks like {name}"), Some(label));
        }
    }
    debug_assert!(WINDOWS_1252.is_single_byte());
    ("looks like latin-1 (windows-1252)".to_owned(), Some("latin-1"))
}

/// Whether most of a text's ideographs belong to GB 2312's first level (the 3,755 common ones), whose first byte in
/// GBK is 0xB0 to 0xD7.
fn common_hanzi(text: &str) -> bool {
    let (mut common, mut all) = (0_usize, 0_usize);
    for c in text.chars().filter(|c| matches!(c, '\u{4E00}'..='\u{9FFF}')).take(10_000) {
        let mut buffer = [0; 4];
        let (bytes, _, _) = GB18030.encode(c.encode_utf8(&mut buffer));
        all += 1;
        if bytes.len() == 2 && (0xB0..=0xD7).contains(&bytes[0]) && bytes[1] >= 0xA1 {
            common += 1;
        }
    }
    common * 10 >= all * 7
}

/// Counts well-formed multi-byte sequences and broken places.
fn utf8_sequences(bytes: &[u8]) -> (usize, usize) {
    let (mut valid, mut broken) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        valid += chunk.valid().bytes().filter(|b| b & 0xC0 == 0xC0).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    (valid, broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8]) -> (u64, String, Option<&'static str>) {
        match decode(Path::new("a.jsonl"), bytes.to_vec(), None) {
            Err(Error::Encoding { line, found, label, .. }) => (line, found, label),
            other => panic!("{other:?}"),
        }
    }

    const CHINESE: &str =
        "{\"question\": \"天空为什么是蓝色的?\"}\n{\"question\": \"请用一句话介绍北京。\"}\n";

    #[test]
    fn gb18030_is_named_and_read() {
        let bytes = GB18030.encode(CHINESE).0.into_owned();
        let (line, what, label) = found(&bytes);
        assert_eq!((line, label), (1, Some("gb18030")));
        assert!(what.contains("GB18030"), "{what}");
        let (text, name) = decode(Path::new("a"), bytes, Some("GB18030")).unwrap();
        assert_eq!((text.as_str(), name.as_str()), (CHINESE, "gb18030"));
    }

    #[test]
    fn utf16_with_a_mark_is_read_and_without_is_named() {
        for (mark, label, wide) in [
            ([0xFF, 0xFE], "utf-16le", CHINESE.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
            ([0xFE, 0xFF], "utf-16be", CHINESE.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()),
        ] {
            let marked: Vec<u8> = mark.iter().copied().chain(wide.iter().copied()).collect();
            assert_eq!(decode(Path::new("a"), marked, None).unwrap().0, CHINESE);
            assert_eq!(found(&wide).2, Some(label));
            assert_eq!(decode(Path::new("a"), wide, Some(label)).unwrap().0, CHINESE);
        }
    }

    #[test]
    fn ascii_in_utf16_is_not_taken_for_utf8() {
        let wide: Vec<u8> = "{\"a\": \"plain\"}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(found(&wide).2, Some("utf-16le"));
    }

    #[test]
    fn latin1_is_named_with_its_line() {
        let (line, what, label) = found(b"{\"a\": \"x\"}\n{\"a\": \"caf\xE9 cr\xE8me\"}\n");
        assert_eq!((line, label), (2, Some("latin-1")));
        assert!(what.starts_with("byte 0xE9"), "{what}");
        assert_eq!(decode(Path::new("a"), b"caf\xE9".to_vec(), Some("latin-1")).unwrap().0, "café");
    }

    #[test]
    fn broken_utf8_is_not_called_latin1() {
        let mut bytes = CHINESE.as_bytes().to_vec();
        bytes.pop();
        bytes.extend_from_slice(b"\xE5\x8C\n");
        let (line, what, label) = found(&bytes);
        assert_eq!((line, label), (2, None));
        assert!(what.contains("UTF-8 with 1 broken places"), "{what}");
    }

    #[test]
    fn a_wrong_setting_is_refused() {
        assert!(matches!(decode(Path::new("a"), vec![], Some("klingon")), Err(Error::EncodingName { .. })));
        let error = decode(Path::new("a"), b"ok\n\xFF\xFF".to_vec(), Some("gb18030")).unwrap_err();
        assert!(matches!(error, Error::Encoding { line: 2, .. }), "{error}");
    }

    #[test]
    fn utf32_is_named() {
        assert!(found(&[0xFF, 0xFE, 0, 0, b'a', 0, 0, 0]).1.contains("UTF-32"));
    }
}
