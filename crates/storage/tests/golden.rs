//! Against llama.cpp's own package: decoded and encoded blocks bit for bit, every metadata kind, written files read back.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::{Path, PathBuf};

use luthier_storage::gguf::{Array, Gguf, Value};
use luthier_storage::{Access, Checkpoint, Encoding, FileBytes, blocks};
use luthier_tensor::{Account, DType};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn decoded_blocks_equal_the_package_bit_for_bit() {
    let file = Checkpoint::open(&golden("blocks.safetensors")).unwrap();
    for (name, encoding) in [("q8_0", Encoding::Q8_0), ("q4_0", Encoding::Q4_0), ("q4_1", Encoding::Q4_1)] {
        let expected = file.read(&format!("{name}.values")).unwrap();
        let stored = file.stored(&format!("{name}.blocks")).unwrap();
        let mut got = vec![0.0; expected.numel()];
        blocks::decode_f32(encoding, stored.bytes(), &mut got);
        assert_eq!(bits(&got), bits(expected.slice()), "{name}");
        let mut rounded = vec![half::bf16::ZERO; got.len()];
        blocks::decode_bf16(encoding, stored.bytes(), &mut rounded);
        assert!(rounded.iter().zip(got).all(|(r, x)| *r == half::bf16::from_f32(x)), "{name}");
    }
}

#[test]
fn encoded_blocks_equal_the_package_byte_for_byte() {
    let file = Checkpoint::open(&golden("blocks.safetensors")).unwrap();
    let values = file.read("quantize.values").unwrap();
    let expected = file.stored("quantize.q8_0").unwrap();
    let mut got = vec![0; expected.bytes().len()];
    blocks::encode_q8_0(values.slice(), &mut got).unwrap();
    for (i, (got, expected)) in got.chunks(34).zip(expected.bytes().chunks(34)).enumerate() {
        assert_eq!(got, expected, "block {i}");
    }
}

#[test]
fn every_metadata_kind_of_the_package_is_read() {
    let file = FileBytes::open(&golden("kinds.gguf"), Access::Mapped).unwrap();
    let read = Gguf::parse(file.bytes()).unwrap();
    let expected = [
        ("k.u8", Value::U8(200)),
        ("k.i8", Value::I8(-100)),
        ("k.u16", Value::U16(60000)),
        ("k.i16", Value::I16(-30000)),
        ("k.u32", Value::U32(4_000_000_000)),
        ("k.i32", Value::I32(-2_000_000_000)),
        ("k.f32", Value::F32(0.5)),
        ("k.bool", Value::Bool(true)),
        ("k.text", Value::Text("a \u{e9} \u{6f22}".into())),
        ("k.u64", Value::U64(1 << 63)),
        ("k.i64", Value::I64(-(1 << 62))),
        ("k.f64", Value::F64(1e300)),
        ("k.texts", Value::Array(Array::Texts(["a", "", "\u{e9}"].into_iter().collect()))),
        ("k.ints", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("k.floats", Value::Array(Array::F32(vec![0.25, -1.0]))),
        ("k.bools", Value::Array(Array::Bool(vec![true, false]))),
    ];
    for (key, value) in expected {
        assert_eq!(read.metadata.get(key), Some(&value), "{key}");
    }
    let file = Checkpoint::from_gguf(file).unwrap();
    let t = file.stored("t").unwrap().to_dtype(DType::F32, Account::Workspace).unwrap();
    assert_eq!((t.shape(), t.slice::<f32>()), (&[2, 3][..], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0][..]));
    assert!(!t.is_unique(), "in place in the mapping");
}
