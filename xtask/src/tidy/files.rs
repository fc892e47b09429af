//! What holds of every tracked file: no path of one machine, no build product, no giant.
use super::{Complaint, Tracked};

/// Folders of one machine. Written in halves, so that this file passes its own check.
const MACHINE_PATHS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/t", "mp/"),
    concat!("C:", "\\Users"),
];

/// Bytes above which a file has no place in the repository: clones stay quick.
const MOST_BYTES: usize = 2 << 20;

pub(super) fn check(file: &Tracked) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if file.bytes.len() > MOST_BYTES {
        let what = format!("{} bytes: files over {MOST_BYTES} are fetched, not committed", file.bytes.len());
        complaints.push(Complaint::new(&file.path, 0, what));
    }
    for (number, line) in (1..).zip(file.bytes.split(|byte| *byte == b'\n')) {
        for path in MACHINE_PATHS {
            if finds(line, path.as_bytes()) {
                complaints.push(Complaint::new(
                    &file.path,
                    number,
                    format!("`{path}` is a path of one machine"),
                ));
            }
        }
    }
    complaints
}

/// Whether `path` starts a path in `line`: `a/b` inside a longer path or an address is not the start of one.
fn finds(line: &[u8], path: &[u8]) -> bool {
    line.windows(path.len()).enumerate().any(|(at, window)| {
        let before = at.checked_sub(1).map(|i| line[i]);
        window == path && !before.is_some_and(|b| b.is_ascii_alphanumeric() || b".-_/}".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tracked, *};

    #[test]
    fn a_machine_path_is_found_in_any_file_and_a_longer_path_is_none() {
        let bad = format!("one\nsee {}me/someone/x\n", "/ho");
        let complaints = check(&tracked("docs/a.md", &bad));
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].line, 2);
        assert_eq!(
            check(&tracked("docs/a.md", "https://example.org/home/x, target/tmp/y, crates/work/z")),
            []
        );
    }

    #[test]
    fn a_giant_is_refused() {
        assert_eq!(check(&tracked("assets/big.bin", &"x".repeat(MOST_BYTES + 1))).len(), 1);
    }
}
