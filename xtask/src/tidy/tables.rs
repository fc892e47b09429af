//! Tables and the files that they name: every file has its row.
use super::{Complaint, Tracked, source};

/// Folders whose every file is one row of a table: the folder, and the file that holds the table.
const TABLES: &[(&str, &str)] = &[
    ("crates/methods/src/full/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/partial/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/adapter/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/side/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/low_rank/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/prompt/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/combined/", "crates/methods/src/lib.rs"),
    ("crates/methods/src/free/", "crates/methods/src/lib.rs"),
    ("crates/models/src/families/", "crates/models/src/families/mod.rs"),
];

/// What a stranger looks for. A commit made over a stale tree takes such files away without a conflict.
const EXPECTED: &[&str] = &[
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs/architecture.md",
    "docs/style.md",
    "docs/glossary.md",
    "docs/log.md",
    ".ci/run",
];

/// Expected files that are not there.
pub(super) fn missing(tracked: &[Tracked]) -> Vec<Complaint> {
    let there = |path: &str| tracked.iter().any(|f| f.path == path);
    let gone = EXPECTED.iter().filter(|path| !there(path));
    gone.map(|path| Complaint::new(path, 0, "is not there")).collect()
}

pub(super) fn check(tracked: &[Tracked]) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (folder, table) in TABLES {
        let rows = tracked
            .iter()
            .find(|f| f.path == *table)
            .and_then(Tracked::text)
            .map(source::code_of)
            .unwrap_or_default();
        for file in tracked.iter().filter(|f| f.path.starts_with(folder)) {
            let Some(stem) = file.path[folder.len()..].strip_suffix(".rs") else { continue };
            // `tests` of a method may lie beside it, in a folder of the method's name.
            if stem == "mod" || stem.contains('/') || stem.ends_with("_tests") {
                continue;
            }
            let row = format!("{stem}::");
            if !rows.iter().any(|line| line.contains(&row) && !line.trim_start().starts_with("use ")) {
                complaints.push(Complaint::new(&file.path, 0, format!("no row `{row}..` in {table}")));
            }
        }
    }
    complaints.extend(tracked.iter().filter(|f| f.path.contains("/families/")).flat_map(mathematics));
    complaints.extend(tracked.iter().filter_map(recipe));
    complaints
}

/// A recipe's first line is the command that runs it.
fn recipe(file: &Tracked) -> Option<Complaint> {
    if !(file.path.starts_with("recipes/") && file.path.ends_with(".toml")) {
        return None;
    }
    let command = format!("# luthier train {}", file.path);
    let first = file.text().unwrap_or_default().lines().next().unwrap_or_default();
    (first != command).then(|| Complaint::new(&file.path, 1, format!("the first line is not `{command}`")))
}

/// A family is data: it computes nothing, so it uses neither kernels nor tensors.
fn mathematics(family: &Tracked) -> Vec<Complaint> {
    let code = family.text().map(source::code_of).unwrap_or_default();
    (1..)
        .zip(&code)
        .filter(|(_, line)| line.contains("luthier_kernels") || line.contains("luthier_tensor"))
        .map(|(number, _)| Complaint::new(&family.path, number, "a family holds no mathematics"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tracked, *};

    #[test]
    fn a_method_without_a_row_is_refused() {
        let table = tracked(
            "crates/methods/src/lib.rs",
            "// dora::CARD\npub static METHODS: &[&Card] = &[&low_rank::lora::CARD];",
        );
        let files = [
            table,
            tracked("crates/methods/src/low_rank/lora.rs", ""),
            tracked("crates/methods/src/low_rank/dora.rs", ""),
        ];
        let complaints = check(&files);
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].file, "crates/methods/src/low_rank/dora.rs");
    }

    #[test]
    fn a_lost_readme_is_missed() {
        let all: Vec<Tracked> = EXPECTED.iter().map(|path| tracked(path, "")).collect();
        assert_eq!(missing(&all), []);
        assert_eq!(missing(&all[1..]), [Complaint::new("README.md", 0, "is not there")]);
    }

    #[test]
    fn a_recipe_begins_with_its_command() {
        assert_eq!(check(&[tracked("recipes/a.toml", "# luthier train recipes/a.toml\nbase = 1")]), []);
        assert_eq!(check(&[tracked("recipes/a.toml", "# luthier train recipes/b.toml\n")]).len(), 1);
    }

    #[test]
    fn a_family_that_computes_is_refused() {
        let files = [
            tracked("crates/models/src/families/mod.rs", "static FAMILIES: &[Family] = &[llama::FAMILY];"),
            tracked("crates/models/src/families/llama.rs", "use luthier_kernels::matmul;"),
        ];
        assert_eq!(
            check(&files),
            [Complaint::new("crates/models/src/families/llama.rs", 1, "a family holds no mathematics")]
        );
    }
}
