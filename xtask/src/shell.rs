//! Paths of the repository, and other programs run from its root.
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The repository's root: the folder above this crate. `cargo run` names the checkout that it runs in; a binary that was
/// built in another one is only the fallback.
pub(crate) fn root() -> PathBuf {
    let own = env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).parent().expect("xtask lies in the root").to_path_buf()
}

/// The cargo that runs this chore.
pub(crate) fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// The Python of `$PYTHON`, or `python3`.
pub(crate) fn python() -> String {
    env::var("PYTHON").unwrap_or_else(|_| "python3".into())
}

/// Runs `program` in the root with its output shown.
pub(crate) fn show(program: &str, arguments: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed: {status}")),
        Err(error) => Err(format!("`{line}` cannot be started: {error}")),
    }
}

/// Runs `program` in the root and returns what it printed to its standard output.
pub(crate) fn read(program: &str, arguments: &[&str]) -> Result<String, String> {
    let line = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .map_err(|error| format!("`{line}` cannot be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{line}` printed something that is not UTF-8"))
}

/// SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    use std::fmt::Write as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a String takes everything");
        hex
    })
}
