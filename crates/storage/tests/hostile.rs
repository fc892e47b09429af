//! Damaged and hostile files: every bit flipped, every length cut, every count replaced. Whatever comes, no panic, no
//! range outside the file, and no memory beyond the allocator's limit of this test binary.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::alloc::System;
use std::path::Path;

use luthier_storage::gguf::{Array, Gguf, Metadata, Value};
use luthier_storage::safetensors::{Header, Index};
use luthier_storage::{
    Checkpoint, Declared, Encoding, Error, FileBytes, pt_metadata, write_gguf, write_safetensors,
};
use luthier_tensor::{Account, DType};

/// The files here have some kilobytes; the test harness and its threads need about a megabyte.
const MEMORY: usize = 24 << 20;

/// An allocation over the limit fails, which ends the process: a parser that believes a count cannot pass.
#[global_allocator]
static LIMITED: cap::Cap<System> = cap::Cap::new(System, MEMORY);

fn fill(t: &Declared) -> Vec<f32> {
    (0..t.shape.iter().product()).map(|i| i as f32 * 0.5 - 3.0).collect()
}

fn small_safetensors(dir: &Path) -> Vec<u8> {
    let path = dir.join("model.safetensors");
    let tensors = [
        Declared::new("a.weight", Encoding::F32, [2, 3]),
        Declared::new("b", Encoding::Bf16, [5]),
        Declared::new("c", Encoding::F16, [1, 2]),
    ];
    write_safetensors::<Error>(&path, &pt_metadata(), &tensors, |t, sink| sink.write_f32(&fill(t))).unwrap();
    std::fs::read(path).unwrap()
}

fn small_gguf(dir: &Path) -> Vec<u8> {
    let path = dir.join("model.gguf");
    let metadata: Metadata = [
        ("general.architecture", Value::Text("llama".into())),
        ("general.alignment", Value::U32(8)),
        ("llama.block_count", Value::U64(1)),
        ("flag", Value::Bool(true)),
        ("tokens", Value::Array(Array::Texts(["<s>", "a", ""].into_iter().collect()))),
        ("scores", Value::Array(Array::F32(vec![0.0, -1.0]))),
        ("nested", Value::Array(Array::Arrays(vec![Array::I64(vec![1]), Array::Bool(vec![false])]))),
    ]
    .into_iter()
    .collect();
    let tensors = [
        Declared::new("blk.0.q", Encoding::Q8_0, [2, 32]),
        Declared::new("norm", Encoding::F32, [3]),
        Declared::new("h", Encoding::F16, [2, 2]),
    ];
    write_gguf::<Error>(&path, &metadata, &tensors, |t, sink| sink.write_f32(&fill(t))).unwrap();
    std::fs::read(path).unwrap()
}

/// Opens and reads everything; what opens must be sound.
fn use_all(bytes: &[u8], open: impl Fn(FileBytes) -> Result<Checkpoint, Error>) -> bool {
    let length = bytes.len();
    let checkpoint = match open(FileBytes::from_vec("x", bytes.to_vec())) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.code().is_empty());
            let _ = error.help();
            return false;
        }
    };
    let mut total = 0;
    for name in checkpoint.names() {
        let stored = checkpoint.stored(name).unwrap();
        assert_eq!(stored.encoding().bytes_of(stored.shape()), Ok(stored.bytes().len()), "{name}");
        total += stored.bytes().len();
        if stored.encoding().is_weight() {
            let decoded = stored.to_dtype(DType::F32, Account::Workspace).unwrap();
            assert_eq!(decoded.shape(), stored.shape());
        }
    }
    assert!(total <= length, "disjoint tensors fit the file");
    true
}

/// Every single-bit flip, every byte set to 0 and 255, every 4 and 8 bytes replaced by extreme numbers.
fn mutations(sound: &[u8], mut check: impl FnMut(&[u8])) {
    let mut bytes = sound.to_vec();
    for at in 0..sound.len() {
        let values = (0..8).map(|bit| sound[at] ^ (1 << bit)).chain([0, 255]);
        for value in values {
            bytes[at] = value;
            check(&bytes);
        }
        bytes[at] = sound[at];
    }
    let wide = [u64::MAX, 1 << 63, (1 << 63) - 1, 1 << 61, 1 << 40, 1 << 32, 1 << 31, 4096, 0];
    for at in 0..sound.len() {
        for (value, width) in wide.iter().flat_map(|v| [(v, 4), (v, 8)]) {
            let end = (at + width).min(sound.len());
            bytes[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            check(&bytes);
            bytes[at..end].copy_from_slice(&sound[at..end]);
        }
    }
}

#[test]
fn safetensors_survive_every_mutation() {
    let dir = tempfile::tempdir().unwrap();
    let sound = small_safetensors(dir.path());
    assert!(use_all(&sound, Checkpoint::from_safetensors));
    let (mut tried, mut opened) = (0, 0);
    mutations(&sound, |bytes| {
        tried += 1;
        opened += usize::from(use_all(bytes, Checkpoint::from_safetensors));
    });
    assert!(opened > 0 && opened < tried, "{opened} of {tried}: values may change, the structure may not");
}

#[test]
fn gguf_survives_every_mutation() {
    let dir = tempfile::tempdir().unwrap();
    let sound = small_gguf(dir.path());
    assert!(use_all(&sound, Checkpoint::from_gguf));
    let (mut tried, mut opened) = (0, 0);
    mutations(&sound, |bytes| {
        tried += 1;
        opened += usize::from(use_all(bytes, Checkpoint::from_gguf));
    });
    assert!(opened > 0 && opened < tried, "{opened} of {tried}: values may change, the structure may not");
}

#[test]
fn every_truncation_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sound = small_safetensors(dir.path());
    for n in 0..sound.len() {
        assert!(Header::parse(&sound[..n]).is_err(), "safetensors cut to {n}");
    }
    let sound = small_gguf(dir.path());
    let end = Gguf::parse(&sound).unwrap().tensors.iter().map(|t| t.range.end).max().unwrap();
    for n in 0..end {
        assert!(Gguf::parse(&sound[..n]).is_err(), "gguf cut to {n}");
    }
}

#[test]
fn every_index_mutation_survives() {
    let sound =
        br#"{"metadata":{"total_size":8},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}"#;
    assert!(Index::parse(sound).is_ok());
    let mut refused = 0;
    mutations(sound, |bytes| match Index::parse(bytes) {
        Ok(index) => {
            assert!(index.weight_map.values().all(|s| !s.contains(['/', '\\', ':', '\0']) && s != ".."));
        }
        Err(_) => refused += 1,
    });
    assert!(refused > 0);
}

#[test]
fn a_header_of_many_tiny_tensors_stays_within_memory() {
    // 40,000 empty tensors in 2.3 MB of header.
    let entries: Vec<String> =
        (0..40_000).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let json = format!("{{{}}}", entries.join(","));
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.as_bytes());
    drop((json, entries));
    assert_eq!(Header::parse(&file).unwrap().tensors.len(), 40_000);
}

#[test]
fn a_model_is_written_in_less_memory_than_it_has() {
    // 64 MB through an allocator that refuses more than 24.
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..8).map(|i| format!("layer.{i}")).collect();
    let piece = vec![0.25f32; 1 << 14];
    let give = |t: &Declared, sink: &mut luthier_storage::TensorSink<'_>| -> Result<(), Error> {
        (0..t.shape[0] * t.shape[1] / piece.len()).try_for_each(|_| sink.write_f32(&piece))
    };
    let tensors: Vec<Declared> =
        names.iter().map(|n| Declared::new(n, Encoding::F32, [2048, 1024])).collect();
    let path = dir.path().join("model.safetensors");
    write_safetensors(&path, &pt_metadata(), &tensors, give).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > 2 * MEMORY as u64);
    let read = Checkpoint::open(&path).unwrap();
    let last = read.read("layer.7").unwrap();
    assert_eq!(last.slice::<f32>()[2048 * 1024 - 1], 0.25, "mapped: read without holding it");
}
