//! One test for each way in which a GGUF can be wrong; those that stand for a published flaw carry its number.

use super::*;
use crate::Error;

/// A file put together by hand, so that it can be wrong anywhere.
#[derive(Clone)]
struct Draft {
    version: u32,
    n_tensors: Option<u64>,
    n_entries: Option<u64>,
    entries: Vec<Vec<u8>>,
    records: Vec<Vec<u8>>,
    data: usize,
}

fn text(t: &str) -> Vec<u8> {
    let mut out = (t.len() as u64).to_le_bytes().to_vec();
    out.extend(t.as_bytes());
    out
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

fn record(name: &str, dims: &[u64], number: u32, offset: u64) -> Vec<u8> {
    let mut out = text(name);
    out.extend((dims.len() as u32).to_le_bytes());
    out.extend(dims.iter().flat_map(|d| d.to_le_bytes()));
    out.extend(number.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

impl Draft {
    fn new() -> Self {
        Self { version: 3, n_tensors: None, n_entries: None, entries: vec![], records: vec![], data: 0 }
    }

    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries.push(entry(key, kind, value));
        self
    }

    fn tensor(mut self, name: &str, dims: &[u64], number: u32, offset: u64) -> Self {
        self.records.push(record(name, dims, number, offset));
        self
    }

    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.records.len() as u64).to_le_bytes());
        out.extend(self.n_entries.unwrap_or(self.entries.len() as u64).to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.records.concat());
        out.resize(out.len().next_multiple_of(32), 0);
        out.resize(out.len() + self.data, 7);
        out
    }

    fn fault(&self) -> GgufFault {
        Gguf::parse(&self.bytes()).unwrap_err()
    }
}

#[test]
fn a_sound_file_is_read_in_both_versions() {
    for version in [2, 3] {
        let mut draft = Draft::new()
            .entry("general.architecture", 8, &text("llama"))
            .entry("llama.block_count", 4, &2u32.to_le_bytes())
            .tensor("a", &[32, 2], 8, 0)
            .tensor("b", &[3], 0, 96)
            .data(108);
        draft.version = version;
        let read = Gguf::parse(&draft.bytes()).unwrap();
        assert_eq!(read.version, version);
        assert_eq!(read.metadata.get("general.architecture").unwrap().as_str(), Some("llama"));
        assert_eq!(read.metadata.get("llama.block_count").unwrap().as_u64(), Some(2));
        assert_eq!(read.tensors[0].shape, [2, 32], "row-major");
        assert_eq!(read.tensors[0].encoding, Encoding::Q8_0);
        assert_eq!(read.tensors[0].range.len(), 68);
        assert_eq!(read.tensors[1].range.end, draft.bytes().len());
    }
}

#[test]
fn not_gguf() {
    assert_eq!(Gguf::parse(b"GGML...."), Err(GgufFault::Magic { got: b"GGML".to_vec() }));
    assert_eq!(Gguf::parse(b""), Err(GgufFault::Magic { got: vec![] }));
    assert!(matches!(Gguf::parse(b"GGUF\x03\0"), Err(GgufFault::Truncated { .. })));
}

#[test]
fn big_endian_is_refused_by_name() {
    let mut draft = Draft::new();
    draft.version = 3u32.swap_bytes();
    let fault = draft.fault();
    assert_eq!(fault, GgufFault::BigEndian { version: 3 });
    assert!(fault.to_string().contains("big endian") && fault.is_unsupported());
}

#[test]
fn other_versions_are_refused_by_number() {
    for version in [0, 1, 4, u32::MAX] {
        let mut draft = Draft::new();
        draft.version = version;
        assert_eq!(draft.fault(), GgufFault::Version { got: version });
    }
}

#[test]
fn cve_2024_21802_tensor_dimensions() {
    // n_dims drove a loop over a fixed array of four.
    for n in [0usize, 5, 9] {
        let draft = Draft::new().tensor("t", &vec![1; n], 0, 0).data(64);
        assert_eq!(draft.fault(), GgufFault::Dims { tensor: "t".into(), got: n as u32 });
    }
    let mut draft = Draft::new().tensor("t", &[1], 0, 0).data(64);
    draft.records[0][9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(draft.fault(), GgufFault::Dims { tensor: "t".into(), got: u32::MAX });
}

#[test]
fn cve_2024_21825_array_element_counts() {
    // count * element size wrapped to a small allocation that was then filled.
    for kind in (0..=7u32).chain(10..=12) {
        for n in [u64::MAX, u64::MAX / 8 + 2, 1 << 61, 1 << 40] {
            let value = [&kind.to_le_bytes()[..], &n.to_le_bytes(), &[0; 64]].concat();
            let fault = Draft::new().entry("k", 9, &value).fault();
            assert!(matches!(fault, GgufFault::Truncated { .. }), "kind {kind} n {n}: {fault}");
        }
    }
}

#[test]
fn cve_2024_21836_tensor_count() {
    for n in [u64::MAX, 1 << 60, 1 << 32, 1000] {
        let mut draft = Draft::new().tensor("t", &[1], 0, 0).data(64);
        draft.n_tensors = Some(n);
        assert!(matches!(draft.fault(), GgufFault::Count { of: "tensors", count, .. } if count == n));
    }
}

#[test]
fn cve_2024_23496_text_lengths() {
    for n in [u64::MAX, u64::MAX - 8, 1 << 40] {
        let mut value = n.to_le_bytes().to_vec();
        value.extend(b"short");
        assert!(
            matches!(Draft::new().entry("k", 8, &value).fault(), GgufFault::Truncated { needed, .. } if needed == n)
        );
        let mut draft = Draft::new().entry("key", 4, &[0; 4]).data(64);
        draft.entries[0][..8].copy_from_slice(&n.to_le_bytes());
        assert!(matches!(draft.fault(), GgufFault::TextTooLong { got, .. } if got == n));
        let mut draft = Draft::new().tensor("t", &[1], 0, 0).data(64);
        draft.records[0][..8].copy_from_slice(&n.to_le_bytes());
        assert!(matches!(draft.fault(), GgufFault::TextTooLong { got, .. } if got == n));
    }
}

#[test]
fn cve_2024_23605_entry_count() {
    for n in [u64::MAX, u64::MAX / 64 + 1, 1 << 32, 1000] {
        let mut draft = Draft::new().entry("k", 4, &[0; 4]).data(64);
        draft.n_entries = Some(n);
        assert!(
            matches!(draft.fault(), GgufFault::Count { of: "metadata entries", count, .. } if count == n)
        );
    }
}

#[test]
fn cve_2024_25664_to_25668_texts_in_lists() {
    // Counts of texts in a list were believed before the texts were there.
    for n in [u64::MAX, 1 << 61, 1 << 20] {
        let value = [&8u32.to_le_bytes()[..], &n.to_le_bytes(), &text("a")].concat();
        assert!(
            matches!(Draft::new().entry("k", 9, &value).fault(), GgufFault::Count { count, .. } if count == n)
        );
    }
    let value = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &u64::MAX.to_le_bytes()].concat();
    assert!(matches!(Draft::new().entry("k", 9, &value).fault(), GgufFault::Truncated { .. }));
}

#[test]
fn cve_2025_53630_and_2026_27940_sum_of_sizes() {
    // Each size fits, their sum wrapped: here no sum is formed, each must lie in the file by itself.
    let half = 1u64 << 60;
    let draft = Draft::new().tensor("a", &[half], 0, 0).tensor("b", &[half], 0, half).data(64);
    assert!(matches!(draft.fault(), GgufFault::BeyondFile { .. }));
    let draft = Draft::new().tensor("a", &[8], 0, 0).tensor("b", &[8], 0, u64::MAX - 31).data(64);
    assert!(matches!(draft.fault(), GgufFault::BeyondFile { .. }));
}

#[test]
fn cve_2026_33298_tensor_size_wraps() {
    // Exabytes by its shape, some megabytes after the product wrapped; candle#3714 is the same in Rust.
    for dims in
        [&[1u64 << 40, 1 << 40][..], &[1 << 32, 1 << 32, 1 << 32], &[u64::MAX, 2], &[1 << 62], &[u64::MAX]]
    {
        let draft = Draft::new().tensor("t", dims, 0, 0).data(64);
        assert!(matches!(draft.fault(), GgufFault::Size { fault: SizeFault::Overflow, .. }), "{dims:?}");
    }
    // Blocks: 2^63 elements of Q4_0 are fewer bytes than elements.
    let draft = Draft::new().tensor("t", &[32, 1 << 59], 2, 0).data(64);
    assert!(matches!(draft.fault(), GgufFault::Size { .. } | GgufFault::BeyondFile { .. }));
}

#[test]
fn cve_2026_7482_data_beyond_the_file() {
    let whole = Draft::new().tensor("t", &[32], 0, 0).data(128);
    assert!(Gguf::parse(&whole.bytes()).is_ok());
    let short = Draft::new().tensor("t", &[32], 0, 0).data(127);
    assert_eq!(
        short.fault(),
        GgufFault::BeyondFile { tensor: "t".into(), offset: 0, bytes: 128, available: 127 }
    );
    let late = Draft::new().tensor("t", &[32], 0, 32).data(128);
    assert!(matches!(late.fault(), GgufFault::BeyondFile { offset: 32, .. }));
}

#[test]
fn candle_3712_alignment_zero() {
    for bad in [0u32, 3, 33, u32::MAX] {
        let fault = Draft::new().entry(ALIGNMENT_KEY, 4, &bad.to_le_bytes()).fault();
        assert_eq!(fault, GgufFault::Alignment { got: bad.to_string() });
    }
    let fault = Draft::new().entry(ALIGNMENT_KEY, 10, &32u64.to_le_bytes()).fault();
    assert_eq!(fault, GgufFault::Alignment { got: "a u64".into() });
    for fine in [1u32, 64, 1 << 31] {
        let bytes = Draft::new().entry(ALIGNMENT_KEY, 4, &fine.to_le_bytes()).bytes();
        assert_eq!(Gguf::parse(&bytes).unwrap().alignment, fine as usize);
    }
}

#[test]
fn candle_3533_3588_3713_rows_that_are_no_blocks() {
    for (number, row) in [(8, 33), (2, 31), (3, 1), (8, 48)] {
        let fault = Draft::new().tensor("t", &[row, 32], number, 0).data(4096).fault();
        assert!(
            matches!(fault, GgufFault::Size { fault: SizeFault::Ragged { block: 32, .. }, .. }),
            "{fault}"
        );
    }
}

#[test]
fn candle_3970_small_record_asks_gigabytes() {
    // A list of 2^32 bytes in a file of a hundred: refused before anything is allocated.
    let value = [&0u32.to_le_bytes()[..], &(1u64 << 32).to_le_bytes()].concat();
    assert!(matches!(
        Draft::new().entry("k", 9, &value).fault(),
        GgufFault::Truncated { needed, .. } if needed == 1 << 32
    ));
}

#[test]
fn gguf_15_and_nested_lists() {
    let nested = |depth: usize| {
        let mut value = Vec::new();
        for _ in 1..depth {
            value.extend(9u32.to_le_bytes());
            value.extend(1u64.to_le_bytes());
        }
        value.extend(0u32.to_le_bytes());
        value.extend(0u64.to_le_bytes());
        Draft::new().entry("k", 9, &value)
    };
    assert!(Gguf::parse(&nested(MAX_DEPTH).bytes()).is_ok());
    assert_eq!(nested(MAX_DEPTH + 1).fault(), GgufFault::TooDeep { key: "k".into() });
    assert_eq!(nested(100_000).fault(), GgufFault::TooDeep { key: "k".into() });
    // Wide instead of deep: more inner lists than the cap, all of them there.
    let mut wide = [&9u32.to_le_bytes()[..], &(MAX_INNER_ARRAYS as u64 + 1).to_le_bytes()].concat();
    wide.extend(vec![0; 12 * (MAX_INNER_ARRAYS + 1)]);
    assert!(matches!(Draft::new().entry("k", 9, &wide).fault(), GgufFault::Count { .. }));
}

#[test]
fn unsupported_types_are_named_with_what_is_supported() {
    for (number, name) in [(12, "Q4_K"), (6, "Q5_0"), (14, "Q6_K"), (26, "I32"), (9999, "unknown")] {
        let fault = Draft::new().tensor("blk.0.w", &[256], number, 0).data(4096).fault();
        assert_eq!(fault, GgufFault::UnsupportedType { tensor: "blk.0.w".into(), number });
        let message = fault.to_string();
        assert!(
            message.contains(name) && message.contains("Q4_1") && message.contains("blk.0.w"),
            "{message}"
        );
        assert_eq!(Error::Gguf { path: "x".into(), fault }.code(), "model-unsupported");
    }
}

#[test]
fn overlapping_tensors() {
    let draft = Draft::new().tensor("a", &[16], 0, 0).tensor("b", &[16], 0, 32).data(128);
    assert_eq!(draft.fault(), GgufFault::Overlap { first: "a".into(), second: "b".into() });
    let same = Draft::new().tensor("a", &[16], 0, 0).tensor("b", &[16], 0, 0).data(128);
    assert!(matches!(same.fault(), GgufFault::Overlap { .. }));
}

#[test]
fn misaligned_tensor() {
    let draft = Draft::new().tensor("a", &[4], 0, 8).data(64);
    assert_eq!(draft.fault(), GgufFault::Misaligned { tensor: "a".into(), offset: 8, alignment: 32 });
}

#[test]
fn duplicates() {
    let draft = Draft::new().tensor("a", &[1], 0, 0).tensor("a", &[1], 0, 32).data(64);
    assert_eq!(draft.fault(), GgufFault::Duplicate { of: "tensor", name: "a".into() });
    let draft = Draft::new().entry("k", 0, &[1]).entry("k", 0, &[2]);
    assert_eq!(draft.fault(), GgufFault::Duplicate { of: "metadata key", name: "k".into() });
}

#[test]
fn values_of_no_kind() {
    for kind in [13, 255, u32::MAX] {
        assert_eq!(
            Draft::new().entry("k", kind, &[0; 8]).fault(),
            GgufFault::ValueKind { key: "k".into(), kind }
        );
        let list = [&kind.to_le_bytes()[..], &1u64.to_le_bytes(), &[0; 8]].concat();
        assert_eq!(Draft::new().entry("k", 9, &list).fault(), GgufFault::ValueKind { key: "k".into(), kind });
    }
    assert_eq!(Draft::new().entry("k", 7, &[2]).fault(), GgufFault::NotABool { key: "k".into(), got: 2 });
    let list = [&7u32.to_le_bytes()[..], &2u64.to_le_bytes(), &[1, 9]].concat();
    assert_eq!(Draft::new().entry("k", 9, &list).fault(), GgufFault::NotABool { key: "k".into(), got: 9 });
}

#[test]
fn texts_that_are_not_utf8() {
    let mut bad = text("abc");
    bad[9] = 0xff;
    assert!(
        matches!(Draft::new().entry("k", 8, &bad).fault(), GgufFault::NotUtf8 { part, .. } if part == "k")
    );
}

#[test]
fn a_dimension_of_zero() {
    let draft = Draft::new().tensor("a", &[32, 0], 0, 0).data(64);
    assert_eq!(draft.fault(), GgufFault::ZeroDim { tensor: "a".into(), shape: vec![0, 32] });
}
