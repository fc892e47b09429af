//! What a crash, a failing disk or a second process can do to a run: at worst the last steps are lost.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]
mod tiny;

use luthier_tensor::DType;
use luthier_train::{Outcome, Session};
use std::fs;
use std::path::Path;
use tiny::{checkpoints, lora, session};

fn at(t: u64) -> Session {
    Session { t, ..session(&lora(), DType::F32, None) }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_last_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let saver = checkpoints(folder.path(), 2);
    for t in 1..=5 {
        let best = Some((2.min(t), 1.0));
        saver.write(&at(t), &Outcome { step: t, best, ..Outcome::default() }).unwrap();
    }
    assert_eq!(names(folder.path()), ["step-000002", "step-000004", "step-000005"]);
}

/// A crash leaves what was written up to then: any prefix of the files, the last of them cut anywhere, under the
/// temporary name. Whatever it is, the checkpoint before it is found, and the leftovers go.
#[test]
fn a_crash_at_any_file_operation_leaves_the_checkpoint_before() {
    let folder = tempfile::tempdir().unwrap();
    let saver = checkpoints(folder.path(), 1);
    let good = saver.write(&at(1), &Outcome::default()).unwrap();
    let files = ["state.safetensors", "state.json", "manifest.json"];
    for (i, last) in files.iter().enumerate() {
        let whole = fs::read(good.join(last)).unwrap();
        for cut in [0, whole.len() / 2, whole.len()] {
            let partial = folder.path().join(".step-000002.1.partial");
            fs::create_dir(&partial).unwrap();
            for f in &files[..i] {
                fs::copy(good.join(f), partial.join(f)).unwrap();
            }
            fs::write(partial.join(last), &whole[..cut]).unwrap();
            assert_eq!(saver.newest().unwrap().unwrap().folder, good);
            saver.clean().unwrap();
            assert_eq!(names(folder.path()), ["step-000001"]);
        }
    }
}

#[test]
fn with_one_to_keep_there_is_always_one() {
    let folder = tempfile::tempdir().unwrap();
    let saver = checkpoints(folder.path(), 1);
    saver.write(&at(1), &Outcome::default()).unwrap();
    // A file in the way of the next one's temporary folder makes it fail.
    let way = folder.path().join(format!(".step-000002.{}.partial", std::process::id()));
    fs::create_dir(&way).unwrap();
    fs::write(way.join("state.safetensors"), "of an earlier crash").unwrap();
    saver.write(&at(2), &Outcome::default()).unwrap();
    assert_eq!(names(folder.path()), ["step-000002"]);
    // A checkpoint that cannot be made removes nothing.
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "").unwrap();
    assert!(checkpoints(&blocked, 1).write(&at(3), &Outcome::default()).is_err());
    assert!(saver.newest().unwrap().is_some());
}

#[test]
fn a_flipped_byte_or_a_cut_is_seen_and_the_one_before_is_used() {
    for file in ["state.safetensors", "state.json", "manifest.json"] {
        for harm in ["flip", "cut", "remove"] {
            let folder = tempfile::tempdir().unwrap();
            let saver = checkpoints(folder.path(), 2);
            let good = saver.write(&at(1), &Outcome::default()).unwrap();
            let bad = saver.write(&at(2), &Outcome::default()).unwrap();
            let path = bad.join(file);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            match harm {
                "flip" => {
                    bytes[middle] ^= 1;
                    fs::write(&path, bytes).unwrap();
                }
                "cut" => fs::write(&path, &bytes[..middle]).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
            let found = saver.newest().unwrap().unwrap();
            assert_eq!(found.folder, good, "{file} {harm}");
            assert!(found.damaged[0].contains("step-000002"), "{:?}", found.damaged);
            fs::write(good.join("state.json"), "").unwrap();
            assert_eq!(saver.newest().unwrap_err().code(), "checkpoints-damaged");
            // The run goes on from an older one: what is damaged and newer is not taken for the last to keep.
            let next = saver.write(&at(1), &Outcome::default()).unwrap();
            assert_eq!(saver.newest().unwrap().unwrap().folder, next);
        }
    }
}
