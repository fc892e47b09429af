//! The fuzz targets: outside the workspace, so that nobody builds them by accident, but never broken.
use crate::shell;
use std::fs;

/// Compiles `fuzz/` and checks that its manifest names every target.
pub(crate) fn run() -> crate::Outcome {
    let folder = shell::root().join("fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml"))
        .map_err(|e| format!("fuzz/Cargo.toml cannot be read: {e}"))?;
    let targets = fs::read_dir(folder.join("fuzz_targets"))
        .map_err(|e| format!("fuzz/fuzz_targets cannot be read: {e}"))?;
    for target in targets.flatten() {
        let name = target.file_name().to_string_lossy().into_owned();
        if !manifest.contains(&format!("fuzz_targets/{name}")) {
            return Err(format!("fuzz/Cargo.toml does not name fuzz_targets/{name}"));
        }
    }
    shell::show(
        &shell::cargo(),
        &["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"],
    )
}
