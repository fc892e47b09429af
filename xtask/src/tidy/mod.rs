//! The invariants of the house, held by a walk over the files and by `cargo metadata`.
//!
//! Each check takes what it looks at as arguments and returns complaints, so that its tests can show it failing.
mod arrows;
mod files;
mod goldens;
mod source;
mod tables;

use crate::shell;
use std::fs;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Complaint {
    /// Relative to the root; `Cargo.toml` for what concerns the workspace.
    file: String,
    /// From one; 0 where no line is meant.
    line: usize,
    what: String,
}

impl Complaint {
    fn new(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into() }
    }
}

/// A file that git tracks or would track.
struct Tracked {
    /// Relative to the root, with `/`.
    path: String,
    bytes: Vec<u8>,
}

impl Tracked {
    /// The text, if it is one.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok().filter(|text| !text.contains('\0'))
    }

    /// The crate's folder name, if the file is Rust source of a crate.
    fn rust_of(&self) -> Option<&str> {
        if !self.path.ends_with(".rs") {
            return None;
        }
        let mut parts = self.path.split('/');
        match (parts.next(), parts.next()) {
            (Some("crates"), Some(name)) => Some(name),
            (Some("xtask"), _) => Some("xtask"),
            _ => None,
        }
    }
}

/// Runs every check; `quiet` leaves out the warnings, which fail nothing.
pub(crate) fn run(quiet: bool) -> crate::Outcome {
    let tracked = walk()?;
    let mut complaints = arrows::check()?;
    let mut warnings = Vec::new();
    for file in &tracked {
        complaints.extend(files::check(file));
        if let (Some(owner), Some(text)) = (file.rust_of(), file.text()) {
            complaints.extend(source::check(&file.path, owner, text));
            warnings.extend(source::long_functions(&file.path, text));
        }
    }
    complaints.extend(tables::check(&tracked));
    complaints.extend(tables::missing(&tracked));
    complaints.extend(goldens::check(&tracked));
    complaints.sort();
    if !quiet {
        for Complaint { file, line, what } in &warnings {
            println!("warning: {file}:{line}: {what}");
        }
    }
    for Complaint { file, line, what } in &complaints {
        println!("{file}:{line}: {what}");
    }
    println!("tidy: {} files, {} complaints, {} warnings", tracked.len(), complaints.len(), warnings.len());
    if complaints.is_empty() { Ok(()) } else { Err(format!("{} invariants are broken", complaints.len())) }
}

/// Every file that git tracks or would track, in alphabetic order.
fn walk() -> Result<Vec<Tracked>, String> {
    let listing = shell::read("git", &["ls-files", "-co", "--exclude-standard", "--deduplicate"])?;
    let mut paths: Vec<&str> = listing.lines().collect();
    paths.sort_unstable();
    let mut tracked = Vec::new();
    for path in paths {
        // A file deleted but not yet committed is still listed.
        if let Ok(bytes) = fs::read(shell::root().join(path)) {
            tracked.push(Tracked { path: path.into(), bytes });
        }
    }
    Ok(tracked)
}

#[cfg(test)]
fn tracked(path: &str, text: &str) -> Tracked {
    Tracked { path: path.into(), bytes: text.as_bytes().to_vec() }
}
