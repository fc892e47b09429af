//! Reference values: each has the script that made it, is not stale, and is small.
use super::{Complaint, Tracked};
use crate::shell;
use serde_json::Value;
use std::collections::BTreeMap;

/// House style: one golden file is under 64 KiB. The model that it runs on may be larger.
const MOST_BYTES: usize = 64 << 10;

pub(super) fn check(tracked: &[Tracked]) -> Vec<Complaint> {
    let scripts: BTreeMap<&str, &Tracked> = tracked
        .iter()
        .filter(|f| f.path.ends_with("/make.py"))
        .map(|f| (f.path.trim_end_matches("/make.py"), f))
        .collect();
    let goldens = tracked.iter().filter(|f| f.path.contains("/golden/") && f.path.ends_with(".safetensors"));
    goldens.flat_map(|golden| one(golden, &scripts)).collect()
}

fn one(golden: &Tracked, scripts: &BTreeMap<&str, &Tracked>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut complain = |what: String| complaints.push(Complaint::new(&golden.path, 0, what));
    if golden.path.ends_with("golden.safetensors") && golden.bytes.len() > MOST_BYTES {
        complain(format!("{} bytes, at most {MOST_BYTES}", golden.bytes.len()));
    }
    // The script lies beside the file or, for one with several cases, a folder or two above it.
    let script = golden.path.match_indices('/').rev().find_map(|(at, _)| scripts.get(&golden.path[..at]));
    let Some(script) = script else {
        complain("no make.py beside it or above it".into());
        return complaints;
    };
    if let Some(made_by) = recorded_hash(&golden.bytes) {
        if made_by != shell::sha256(&script.bytes) {
            complain(format!("stale: {} has changed since; run `cargo xtask golden`", script.path));
        }
    } else if golden.path.ends_with("golden.safetensors") {
        complain("its metadata has no `make_sha256`: a stale golden could not be seen".into());
    }
    complaints
}

/// `make_sha256` in a safetensors header.
fn recorded_hash(bytes: &[u8]) -> Option<String> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let header = bytes.get(8..8usize.checked_add(usize::try_from(length).ok()?)?)?;
    let header: Value = serde_json::from_slice(header).ok()?;
    header["__metadata__"]["make_sha256"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: &[u8]) -> Tracked {
        Tracked { path: path.into(), bytes: bytes.to_vec() }
    }

    fn golden(path: &str, hash: &str) -> Tracked {
        let header = format!(r#"{{"__metadata__":{{"make_sha256":"{hash}"}}}}"#);
        file(path, &[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
    }

    fn complaints(files: &[Tracked]) -> Vec<String> {
        check(files).into_iter().map(|c| c.what).collect()
    }

    #[test]
    fn a_golden_needs_its_script_and_the_hash_of_it() {
        let script = || file("crates/a/golden/x/make.py", b"print(1)");
        let fresh = shell::sha256(b"print(1)");
        assert!(
            complaints(&[script(), golden("crates/a/golden/x/case/golden.safetensors", &fresh)]).is_empty()
        );
        assert!(
            complaints(&[script(), golden("crates/a/golden/x/golden.safetensors", "00")])[0]
                .starts_with("stale")
        );
        assert!(
            complaints(&[golden("crates/a/golden/x/golden.safetensors", &fresh)])[0]
                .starts_with("no make.py")
        );
        let nameless = file("crates/a/golden/x/golden.safetensors", b"");
        assert!(complaints(&[script(), nameless])[0].contains("no `make_sha256`"));
    }

    #[test]
    fn a_large_golden_is_refused() {
        let script = file("crates/a/golden/x/make.py", b"");
        let mut large = golden("crates/a/golden/x/golden.safetensors", &shell::sha256(b""));
        large.bytes.resize(MOST_BYTES + 1, 0);
        assert_eq!(complaints(&[script, large]).len(), 1);
    }
}
