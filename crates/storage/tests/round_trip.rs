//! What is written is what is read: random models through both formats, and files that replace others.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;

use luthier_storage::gguf::{Array, Metadata, Value};
use luthier_storage::{Checkpoint, Declared, Encoding, Error, pt_metadata, write_gguf, write_safetensors};
use luthier_tensor::{Account, DType, Tensor, to_dtype};
use proptest::prelude::*;

/// Bytes that follow from a tensor's name, so that a swapped tensor is noticed.
fn content(tensor: &Declared) -> Vec<u8> {
    let n = tensor.encoding.bytes_of(&tensor.shape).unwrap();
    let seed = tensor.name.bytes().fold(1u8, |s, b| s.wrapping_mul(31).wrapping_add(b));
    (0..n).map(|i| (i as u8).wrapping_mul(17).wrapping_add(seed)).collect()
}

fn unique(mut tensors: Vec<Declared>) -> Vec<Declared> {
    let mut seen = std::collections::BTreeSet::new();
    tensors.retain(|t| seen.insert(t.name.clone()));
    tensors
}

fn plain_tensor() -> impl Strategy<Value = Declared> {
    let encodings = prop::sample::select(vec![
        Encoding::F64,
        Encoding::F32,
        Encoding::F16,
        Encoding::Bf16,
        Encoding::I64,
        Encoding::U32,
        Encoding::U8,
        Encoding::Bool,
    ]);
    ("[a-z.\\\\\"\u{e9}\u{6f22}]{1,12}", encodings, prop::collection::vec(0usize..5, 0..4))
        .prop_map(|(name, encoding, shape)| Declared::new(name, encoding, shape))
}

fn ggml_tensor() -> impl Strategy<Value = Declared> {
    let encodings = prop::sample::select(vec![
        Encoding::F32,
        Encoding::F16,
        Encoding::Bf16,
        Encoding::Q8_0,
        Encoding::Q4_0,
        Encoding::Q4_1,
    ]);
    ("[a-z.\u{e9}]{1,12}", encodings, prop::collection::vec(1usize..4, 1..5)).prop_map(
        |(name, encoding, mut shape)| {
            if let Some(row) = shape.last_mut() {
                *row *= encoding.unit().0;
            }
            Declared::new(name, encoding, shape)
        },
    )
}

fn value() -> impl Strategy<Value = Value> {
    let texts = prop::collection::vec(".{0,6}", 0..4).prop_map(|t| t.into_iter().collect());
    let array = prop_oneof![
        any::<Vec<u8>>().prop_map(Array::U8),
        any::<Vec<i8>>().prop_map(Array::I8),
        any::<Vec<u16>>().prop_map(Array::U16),
        any::<Vec<i16>>().prop_map(Array::I16),
        any::<Vec<u32>>().prop_map(Array::U32),
        any::<Vec<i32>>().prop_map(Array::I32),
        prop::collection::vec(-1e9f32..1e9, 0..5).prop_map(Array::F32),
        any::<Vec<bool>>().prop_map(Array::Bool),
        texts.prop_map(Array::Texts),
        any::<Vec<u64>>().prop_map(Array::U64),
        any::<Vec<i64>>().prop_map(Array::I64),
        prop::collection::vec(-1e9f64..1e9, 0..5).prop_map(Array::F64),
    ];
    let nested =
        array.clone().prop_recursive(2, 8, 3, |a| prop::collection::vec(a, 0..3).prop_map(Array::Arrays));
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e9f32..1e9).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,20}".prop_map(Value::Text),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        (-1e9f64..1e9).prop_map(Value::F64),
        nested.prop_map(Value::Array),
    ]
}

fn assert_same(read: &Checkpoint, tensors: &[Declared]) {
    assert_eq!(read.names().count(), tensors.len());
    for tensor in tensors {
        let stored = read.stored(&tensor.name).unwrap();
        assert_eq!((stored.encoding(), stored.shape()), (tensor.encoding, tensor.shape.as_slice()));
        assert_eq!(stored.bytes(), content(tensor), "{}", tensor.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn safetensors(
        tensors in prop::collection::vec(plain_tensor(), 0..8).prop_map(unique),
        metadata in prop::collection::btree_map(".{0,6}", ".{0,6}", 0..3),
        piece in 1usize..40,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        write_safetensors::<Error>(&path, &metadata, &tensors, |t, sink| {
            content(t).chunks(piece).try_for_each(|c| sink.write_bytes(c))
        }).unwrap();
        let read = Checkpoint::open(dir.path()).unwrap();
        assert_same(&read, &tensors);
        prop_assert_eq!(read.safetensors_metadata(), &metadata);
        for tensor in &tensors {
            let stored = read.stored(&tensor.name).unwrap();
            let start = stored.bytes().as_ptr() as usize;
            prop_assert!(start.is_multiple_of(tensor.encoding.unit().1), "aligned to its elements");
        }
    }

    #[test]
    fn gguf(
        tensors in prop::collection::vec(ggml_tensor(), 0..8).prop_map(unique),
        entries in prop::collection::btree_map("[a-z.]{1,10}", value(), 0..10),
        alignment in prop::sample::select(vec![None, Some(1u32), Some(8), Some(64), Some(4096)]),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let mut metadata: Metadata = entries.into_iter().collect();
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", Value::U32(alignment));
        }
        write_gguf::<Error>(&path, &metadata, &tensors, |t, sink| sink.write_bytes(&content(t))).unwrap();
        let read = Checkpoint::open(&path).unwrap();
        assert_same(&read, &tensors);
        prop_assert_eq!(read.gguf().unwrap(), &metadata);
    }

    #[test]
    fn q8_0_is_the_same_in_any_pieces(pieces in prop::collection::vec(1usize..70, 1..6)) {
        let values: Vec<f32> = (0..256).map(|i| ((i * 97 % 256) as f32 - 128.0) * 0.01).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.gguf");
        let tensors = [Declared::new("w", Encoding::Q8_0, [4, 64])];
        write_gguf::<Error>(&path, &Metadata::new(), &tensors, |_, sink| {
            let mut rest = &values[..];
            for &n in pieces.iter().cycle() {
                let (now, later) = rest.split_at(n.min(rest.len()));
                sink.write_f32(now)?;
                rest = later;
                if rest.is_empty() { break }
            }
            Ok(())
        }).unwrap();
        let mut whole = vec![0; 8 * 34];
        luthier_storage::blocks::encode_q8_0(&values, &mut whole).unwrap();
        let read = Checkpoint::open(&path).unwrap();
        prop_assert!(read.stored("w").unwrap().bytes() == whole);
    }
}

#[test]
fn tensors_of_any_type_are_written_as_declared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let values = Tensor::from_f64(&[4], &[1.0, -2.5, 0.1, 300.0], DType::F64, Account::Workspace);
    let all = [Encoding::F64, Encoding::F32, Encoding::Bf16, Encoding::F16];
    let tensors = all.map(|e| Declared::new(e.name(), e, [4]));
    write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |_, sink| sink.write_tensor(&values))
        .unwrap();
    let read = Checkpoint::open(&path).unwrap();
    for (name, dtype) in
        [("F64", DType::F64), ("F32", DType::F32), ("BF16", DType::Bf16), ("F16", DType::F16)]
    {
        let expected = to_dtype(&values, dtype, Account::Workspace);
        assert_eq!(read.read(name).unwrap().bytes(), expected.bytes(), "{name}");
        assert_eq!(Encoding::from(dtype).name(), name);
    }
    let ids = [Declared::new("ids", Encoding::I64, [4])];
    let refused =
        write_safetensors::<Error>(&path, &pt_metadata(), &ids, |_, sink| sink.write_tensor(&values));
    assert!(matches!(refused, Err(Error::CannotEncode { .. })), "{refused:?}");
}

#[test]
fn a_mapped_file_can_be_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let tensors = [Declared::new("w", Encoding::F32, [3])];
    let write = |values: [f32; 3]| {
        write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |_, sink| sink.write_f32(&values))
    };
    write([1.0, 2.0, 3.0]).unwrap();
    let old = Checkpoint::open(&path).unwrap();
    let weight = old.read("w").unwrap();
    // The new content is made from the old one, which is mapped all the while.
    write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |_, sink| {
        let doubled: Vec<f32> = weight.slice::<f32>().iter().map(|v| v * 2.0).collect();
        sink.write_f32(&doubled)
    })
    .unwrap();
    assert_eq!(weight.slice::<f32>(), [1.0, 2.0, 3.0], "the mapping still shows the old file");
    assert_eq!(Checkpoint::open(&path).unwrap().read("w").unwrap().slice::<f32>(), [2.0, 4.0, 6.0]);
}

#[test]
fn too_few_or_too_many_values_leave_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    std::fs::write(&path, b"old").unwrap();
    let tensors = [Declared::new("w", Encoding::F16, [3])];
    for n in [0usize, 2, 4] {
        let written = write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |_, sink| {
            sink.write_f32(&vec![1.0; n])
        });
        assert!(matches!(written, Err(Error::WrongLength { expected: 6, .. })), "{n}: {written:?}");
    }
    let over = write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |_, sink| {
        sink.write_f32(&[1.0, 2.0, 1e6])
    });
    assert!(matches!(over, Err(Error::OutOfRange { index: 2, .. })), "f16 ends at 65504: {over:?}");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no leftover");
}

#[test]
fn names_and_shapes_that_no_file_can_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let none = |_: &Declared, _: &mut luthier_storage::TensorSink<'_>| Ok(());
    let safetensors =
        |t: &[Declared]| write_safetensors::<Error>(&path, &BTreeMap::new(), t, none).unwrap_err();
    let gguf = |t: &[Declared]| write_gguf::<Error>(&path, &Metadata::new(), t, none).unwrap_err();
    let a = Declared::new("a", Encoding::F32, [0]);
    assert!(matches!(safetensors(&[a.clone(), a.clone()]), Error::BadName { why: "used twice", .. }));
    let reserved = Declared::new("__metadata__", Encoding::F32, [0]);
    assert!(matches!(safetensors(&[reserved]), Error::BadName { why: "reserved", .. }));
    let block = Declared::new("a", Encoding::Q8_0, [32]);
    assert!(matches!(safetensors(std::slice::from_ref(&block)), Error::CannotEncode { .. }));
    assert!(matches!(gguf(&[a]), Error::NoGgufShape { .. }));
    assert!(matches!(gguf(&[block.clone(), block]), Error::BadName { .. }));
    assert!(matches!(gguf(&[Declared::new("a", Encoding::Q4_0, [33])]), Error::Unsized { .. }));
    assert!(matches!(gguf(&[Declared::new("a", Encoding::I64, [3])]), Error::CannotEncode { .. }));
    assert!(matches!(gguf(&[Declared::new("a", Encoding::F32, [1; 5])]), Error::NoGgufShape { .. }));
    assert!(matches!(gguf(&[Declared::new("a".repeat(2000), Encoding::F32, [1])]), Error::BadName { .. }));
    assert!(!path.exists());
}

#[test]
fn folders_without_weights_say_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(open(), Error::NoWeights { .. }));
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert!(open().to_string().contains("config.json"));
    std::fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    let error = open();
    assert!(
        matches!(error, Error::Pickle { .. })
            && error.help().is_some_and(|h| h.contains("safe_serialization"))
    );
    let missing = Checkpoint::open(&dir.path().join("no")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
}

#[test]
fn a_misspelt_name_brings_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let tensors = [Declared::new("model.norm.weight", Encoding::F32, [1])];
    write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |_, sink| sink.write_f32(&[1.0])).unwrap();
    let error = Checkpoint::open(&path).unwrap().read("model.norms.weight").unwrap_err();
    assert!(error.to_string().contains("nearest: `model.norm.weight`"), "{error}");
    let error = Checkpoint::open(&path).unwrap().read("lm_head.weight").unwrap_err();
    assert!(matches!(error, Error::MissingTensor { nearest: None, .. }), "nothing alike: {error}");
}
