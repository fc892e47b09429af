//! One test for each way in which a safetensors file can be wrong.

use super::*;
use crate::{Checkpoint, Declared, Error, pt_metadata};
use std::path::Path;

/// A file of this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn fault(header: &str, data: usize) -> SafetensorsFault {
    Header::parse(&file(header, data)).unwrap_err()
}

fn one(entry: &str) -> String {
    format!(r#"{{"a":{entry}}}"#)
}

#[test]
fn a_sound_file_is_read() {
    let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"none":{"dtype":"I64","shape":[0,3],"data_offsets":[12,12]}}   "#;
    let read = Header::parse(&file(header, 12)).unwrap();
    let start = 8 + header.len();
    assert_eq!(read.metadata, pt_metadata());
    assert_eq!(read.tensors["a"], Entry { encoding: Encoding::F32, shape: vec![], range: start..start + 4 });
    assert_eq!(read.tensors["b"].range, start + 4..start + 12);
    assert_eq!(read.tensors["none"].shape, [0, 3]);
}

#[test]
fn header_length_over_the_cap() {
    let mut bytes = 100_000_001u64.to_le_bytes().to_vec();
    bytes.resize(1 << 10, b'{');
    assert_eq!(Header::parse(&bytes), Err(SafetensorsFault::HeaderTooLong { got: 100_000_001 }));
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(Header::parse(&bytes), Err(SafetensorsFault::HeaderTooLong { got: u64::MAX }));
}

#[test]
fn header_length_beyond_the_file() {
    let mut bytes = file("{}", 0);
    bytes[0] = 3;
    assert_eq!(Header::parse(&bytes), Err(SafetensorsFault::HeaderBeyondFile { stated: 3, available: 2 }));
    assert_eq!(Header::parse(&bytes[..7]), Err(SafetensorsFault::TooShort { got: 7 }));
    assert_eq!(Header::parse(&[]), Err(SafetensorsFault::TooShort { got: 0 }));
}

#[test]
fn header_that_is_no_object() {
    assert_eq!(fault(" {}", 0), SafetensorsFault::NotAnObject { got: b' ' });
    assert_eq!(fault("[]", 0), SafetensorsFault::NotAnObject { got: b'[' });
    assert_eq!(fault("", 0), SafetensorsFault::NotAnObject { got: 0 });
    assert!(matches!(fault("{} {}", 0), SafetensorsFault::Json { .. }));
    assert!(matches!(fault("{\"a\u{0}", 0), SafetensorsFault::Json { .. }));
}

#[test]
fn deep_json_nesting() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        assert!(matches!(
            fault(&one(&deep), 0),
            SafetensorsFault::Json { .. } | SafetensorsFault::UnknownField { .. }
        ));
        let in_shape = format!(r#"{{"dtype":"U8","shape":{deep},"data_offsets":[0,0]}}"#);
        assert!(matches!(fault(&one(&in_shape), 0), SafetensorsFault::Json { .. }));
        let index = format!(r#"{{"metadata":{deep},"weight_map":{{}}}}"#);
        let parsed = Index::parse(index.as_bytes());
        assert!(parsed.is_ok() || matches!(parsed, Err(SafetensorsFault::Json { .. })));
    }
}

#[test]
fn duplicate_keys() {
    let t = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let dup = |tensor: Option<&str>, key: &str| SafetensorsFault::DuplicateKey {
        tensor: tensor.map(str::to_owned),
        key: key.to_owned(),
    };
    assert_eq!(fault(&format!(r#"{{"a":{t},"a":{t}}}"#), 1), dup(None, "a"));
    assert_eq!(fault(&format!(r#"{{"a":{t},"\u0061":{t}}}"#), 1), dup(None, "a"), "escaped, but the same");
    assert_eq!(fault(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), dup(None, "__metadata__"));
    assert_eq!(fault(r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0), dup(None, "k"));
    let twice = r#"{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    assert_eq!(fault(&one(twice), 1), dup(Some("a"), "dtype"));
}

#[test]
fn fields_that_are_missing_or_unknown() {
    let missing = |field| SafetensorsFault::MissingField { tensor: "a".into(), field };
    assert_eq!(fault(&one(r#"{"dtype":"U8","shape":[1]}"#), 1), missing("data_offsets"));
    assert_eq!(fault(&one(r#"{"dtype":"U8","data_offsets":[0,1]}"#), 1), missing("shape"));
    assert_eq!(fault(&one(r#"{"shape":[1],"data_offsets":[0,1]}"#), 1), missing("dtype"));
    let extra = one(r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1],"code":"x"}"#);
    assert_eq!(fault(&extra, 1), SafetensorsFault::UnknownField { tensor: "a".into(), field: "code".into() });
}

#[test]
fn numbers_that_are_no_offsets() {
    for bad in
        ["[-1,1]", "[0,1.0]", "[0,1e0]", "[0,18446744073709551616]", "[0]", "[0,1,2]", "[\"0\",1]", "null"]
    {
        let header = one(&format!(r#"{{"dtype":"U8","shape":[1],"data_offsets":{bad}}}"#));
        let got = fault(&header, 1);
        assert!(matches!(&got, SafetensorsFault::Json { tensor: Some(t), .. } if t == "a"), "{bad}: {got}");
    }
    for bad in ["[-1]", "[1.5]", "[99999999999999999999]", "1", "{}"] {
        let header = one(&format!(r#"{{"dtype":"U8","shape":{bad},"data_offsets":[0,1]}}"#));
        assert!(matches!(fault(&header, 1), SafetensorsFault::Json { .. }), "{bad}");
    }
}

#[test]
fn offsets_backwards_and_beyond() {
    let entry = |o: &str| one(&format!(r#"{{"dtype":"U8","shape":[1],"data_offsets":{o}}}"#));
    assert_eq!(
        fault(&entry("[1,0]"), 1),
        SafetensorsFault::BackwardRange { tensor: "a".into(), begin: 1, end: 0 }
    );
    assert_eq!(
        fault(&entry("[0,1]"), 0),
        SafetensorsFault::BeyondFile { tensor: "a".into(), end: 1, available: 0 }
    );
    assert_eq!(
        fault(&entry("[18446744073709551614,18446744073709551615]"), 1),
        SafetensorsFault::BeyondFile { tensor: "a".into(), end: u64::MAX, available: 1 }
    );
}

#[test]
fn overlapping_ranges() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#;
    assert_eq!(fault(header, 7), SafetensorsFault::Overlap { tensor: "b".into(), begin: 3, previous_end: 4 });
    let same = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    assert!(matches!(fault(same, 4), SafetensorsFault::Overlap { .. }));
}

#[test]
fn holes_and_trailing_bytes() {
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#;
    assert_eq!(fault(header, 9), SafetensorsFault::Hole { begin: 4, end: 5 });
    let first = one(r#"{"dtype":"U8","shape":[4],"data_offsets":[1,5]}"#);
    assert_eq!(fault(&first, 5), SafetensorsFault::Hole { begin: 0, end: 1 });
}

#[test]
fn polyglot_with_trailing_zip() {
    // A file that is safetensors from the front and a zip (so a pickle) from the back.
    let mut bytes = file(&one(r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#), 4);
    bytes.extend(b"PK\x05\x06");
    assert_eq!(Header::parse(&bytes), Err(SafetensorsFault::Hole { begin: 4, end: 8 }));
}

#[test]
fn shape_product_overflow() {
    for shape in
        ["[1099511627776,1099511627776]", "[1099511627776,1099511627776,0]", "[18446744073709551615,2]"]
    {
        let header = one(&format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}"#));
        let got = fault(&header, 4);
        assert!(matches!(got, SafetensorsFault::Size { fault: SizeFault::Overflow, .. }), "{shape}: {got}");
    }
    // 2^62 elements fit 63 bits, their 2^64 bytes do not.
    let header = one(r#"{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}"#);
    assert!(matches!(fault(&header, 0), SafetensorsFault::Size { .. }));
}

#[test]
fn size_disagrees_with_dtype() {
    let header = one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#);
    assert_eq!(
        fault(&header, 4),
        SafetensorsFault::WrongSize {
            tensor: "a".into(),
            encoding: Encoding::F32,
            shape: vec![2],
            expected: 8,
            got: 4
        }
    );
}

#[test]
fn unknown_dtype_names_tensor_and_dtype() {
    let got = fault(&one(r#"{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}"#), 1);
    assert_eq!(got, SafetensorsFault::UnknownDtype { tensor: "a".into(), dtype: "F8_E4M3".into() });
    assert!(got.to_string().contains("BF16"), "says what is known: {got}");
}

#[test]
fn too_many_dimensions() {
    let shape = vec!["1"; 17].join(",");
    let header = one(&format!(r#"{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}"#));
    assert_eq!(fault(&header, 1), SafetensorsFault::TooManyDims { tensor: "a".into() });
}

#[test]
fn unaligned_data_is_copied() {
    let header = one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#);
    for pad in 0..4 {
        let header = format!("{header}{}", " ".repeat(pad));
        let mut bytes = file(&header, 0);
        bytes.extend([1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()));
        let read =
            Checkpoint::from_safetensors(crate::FileBytes::from_vec("x", bytes)).unwrap().read("a").unwrap();
        assert_eq!(read.slice::<f32>(), [1.5, -2.0]);
    }
}

fn write_shard(path: &Path, name: &str) {
    let tensors = [Declared::new(name, Encoding::F32, [2])];
    write_safetensors::<Error>(path, &pt_metadata(), &tensors, |_, sink| sink.write_f32(&[1.0, 2.0]))
        .unwrap();
}

fn sharded(weight_map: &str) -> Result<Checkpoint, Error> {
    let dir = tempfile::tempdir().unwrap();
    write_shard(&dir.path().join("one.safetensors"), "a");
    write_shard(&dir.path().join("two.safetensors"), "b");
    let index = format!(r#"{{"metadata":{{"total_size":16,"deep":[[{{}}]]}},"weight_map":{weight_map}}}"#);
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    Checkpoint::open(dir.path())
}

fn index_fault(weight_map: &str) -> SafetensorsFault {
    match sharded(weight_map) {
        Err(Error::Safetensors { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shards_are_joined() {
    let both = sharded(r#"{"a":"one.safetensors","b":"two.safetensors"}"#).unwrap();
    assert_eq!(both.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(both.read("b").unwrap().slice::<f32>(), [1.0, 2.0]);
    assert_eq!(both.files().len(), 2);
}

#[test]
fn shard_missing() {
    let got = index_fault(r#"{"a":"one.safetensors","b":"three.safetensors"}"#);
    assert_eq!(got, SafetensorsFault::MissingShard { shard: "three.safetensors".into(), tensor: "b".into() });
}

#[test]
fn shard_lacks_a_tensor_of_the_index() {
    let got = index_fault(r#"{"a":"one.safetensors","c":"two.safetensors"}"#);
    assert_eq!(got, SafetensorsFault::NotInShard { shard: "two.safetensors".into(), tensor: "c".into() });
}

#[test]
fn shard_path_escapes_the_folder() {
    let outside =
        ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", ".", "", "./one.safetensors"];
    let windows =
        ["..\\\\one.safetensors", "C:\\\\x", "C:x", "one.safetensors:stream", "one\\u0000.safetensors"];
    for shard in outside.iter().chain(&windows) {
        let got = index_fault(&format!(r#"{{"a":"{shard}"}}"#));
        assert!(matches!(got, SafetensorsFault::ShardPath { .. }), "{shard}: {got}");
    }
}

#[test]
fn index_with_duplicates_or_without_a_map() {
    let twice = r#"{"a":"one.safetensors","a":"two.safetensors"}"#;
    assert!(matches!(index_fault(twice), SafetensorsFault::DuplicateKey { .. }));
    assert_eq!(Index::parse(b"{}"), Err(SafetensorsFault::NoWeightMap));
    assert!(matches!(Index::parse(br#"{"weight_map":{"a":1}}"#), Err(SafetensorsFault::Json { .. })));
    assert!(matches!(
        Index::parse(br#"{"weight_map":{},"weight_map":{}}"#),
        Err(SafetensorsFault::DuplicateKey { .. })
    ));
}
