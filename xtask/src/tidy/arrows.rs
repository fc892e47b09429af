//! Who may depend on whom, and on what from outside.
use super::Complaint;
use crate::shell;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// The arrows: a crate, and the crates of ours that its code may use. Downward only; tests may use more.
///
/// `methods` and `models` do not see each other: they meet in `contract`. `config`, later `plan`, hold no tensor.
const ARROWS: &[(&str, &[&str])] = &[
    ("tensor", &[]),
    ("platform", &[]),
    ("config", &[]),
    ("data", &["platform"]),
    ("hub", &["platform"]),
    ("kernels", &["tensor"]),
    ("contract", &["tensor", "kernels"]),
    ("storage", &["tensor", "kernels", "contract", "platform"]),
    ("models", &["tensor", "kernels", "contract", "storage"]),
    ("methods", &["tensor", "kernels", "contract"]),
    ("optim", &["tensor", "kernels", "contract"]),
    ("objectives", &["tensor", "kernels", "contract", "models", "data"]),
    ("decode", &["tensor", "kernels", "contract", "models", "data"]),
    ("eval", &["tensor", "kernels", "contract", "models", "data", "objectives", "decode", "platform"]),
    (
        "train",
        &[
            "tensor",
            "kernels",
            "contract",
            "storage",
            "models",
            "methods",
            "optim",
            "objectives",
            "data",
            "decode",
            "eval",
            "config",
            "platform",
            "hub",
        ],
    ),
    (
        "cli",
        &[
            "tensor",
            "kernels",
            "contract",
            "storage",
            "models",
            "methods",
            "optim",
            "objectives",
            "data",
            "decode",
            "eval",
            "train",
            "config",
            "platform",
            "hub",
        ],
    ),
    (
        "testkit",
        &["tensor", "kernels", "contract", "storage", "models", "methods", "optim", "data", "objectives"],
    ),
    ("xtask", &[]),
];

/// Where no C or C++ compiler may be needed.
const TARGETS: &[&str] = &["aarch64-apple-darwin", "x86_64-pc-windows-msvc"];
/// Crates whose use in a build script means that one is.
const COMPILER_CRATES: &[&str] = &["cc", "cmake", "bindgen", "nasm-rs", "autotools", "cxx-build", "meson"];

/// Reads the workspace and complains.
pub(super) fn check() -> Result<Vec<Complaint>, String> {
    let everything = metadata(None)?;
    let mut complaints = workspace(&everything);
    let argued = fs::read_to_string(shell::root().join("xtask/c-code.txt"))
        .map_err(|e| format!("xtask/c-code.txt: {e}"))?;
    let argued: BTreeSet<&str> = argued
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            line.split_once(':').filter(|(_, reason)| !reason.trim().is_empty()).map(|(name, _)| name)
        })
        .collect();
    for target in TARGETS {
        let built = built(target)?;
        complaints.extend(c_code(&metadata(Some(target))?, target, &argued, &|name| built.contains(name)));
    }
    let table = fs::read_to_string(shell::root().join("docs/decisions/000-dependencies.md"))
        .map_err(|e| format!("docs/decisions/000-dependencies.md: {e}"))?;
    complaints.extend(unargued(&everything, &table));
    Ok(complaints)
}

fn metadata(target: Option<&str>) -> Result<Value, String> {
    let mut arguments = vec!["metadata", "--format-version", "1", "--locked"];
    if let Some(target) = target {
        arguments.extend(["--filter-platform", target]);
    }
    let text = shell::read(&shell::cargo(), &arguments)?;
    serde_json::from_str(&text).map_err(|e| format!("cargo metadata printed no JSON: {e}"))
}

/// The crates that a build for `target` compiles. `cargo metadata` cannot say: it joins the features that a dependency
/// has on any target, so that a crate of one target's feature shows in every target's graph.
fn built(target: &str) -> Result<BTreeSet<String>, String> {
    let arguments = [
        "tree",
        "--workspace",
        "--locked",
        "--target",
        target,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ];
    let tree = shell::read(&shell::cargo(), &arguments)?;
    Ok(tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The workspace's own packages.
fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let ids: BTreeSet<&str> = list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    list(metadata, "packages").iter().filter(move |package| ids.contains(text(package, "id")))
}

/// Names, lints and arrows of our own crates.
fn workspace(metadata: &Value) -> Vec<Complaint> {
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut complaints = Vec::new();
    for package in members(metadata) {
        let name = text(package, "name");
        let short = name.strip_prefix("luthier-").unwrap_or(name);
        let file =
            format!("{}/Cargo.toml", if name == "xtask" { name.into() } else { format!("crates/{short}") });
        let mut complain = |what: String| complaints.push(Complaint::new(&file, 0, what));
        if name != "xtask" && !name.starts_with("luthier-") {
            complain(format!("package `{name}` is not called `luthier-<folder>`"));
        }
        let Some(allowed) = table.get(short) else {
            complain(format!("crate `{short}` has no row in ARROWS (xtask/src/tidy/arrows.rs)"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let Some(other) = text(dependency, "name").strip_prefix("luthier-") else { continue };
            // A test may reach further, but never into the program.
            let ok =
                if text(dependency, "kind") == "dev" { other != "cli" } else { allowed.contains(&other) };
            if !ok {
                complain(format!("`{short}` may not depend on `{other}`; it may on {allowed:?}"));
            }
        }
    }
    complaints
}

/// Crates that need a C compiler on `target`, as the program or its build would use them.
fn c_code(
    metadata: &Value,
    target: &str,
    argued: &BTreeSet<&str>,
    is_built: &dyn Fn(&str) -> bool,
) -> Vec<Complaint> {
    let names: BTreeMap<&str, &str> =
        list(metadata, "packages").iter().map(|p| (text(p, "id"), text(p, "name"))).collect();
    let nodes: BTreeMap<&str, &Value> =
        list(&metadata["resolve"], "nodes").iter().map(|n| (text(n, "id"), n)).collect();
    let mut waiting: Vec<&str> =
        list(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    let mut seen: BTreeSet<&str> = waiting.iter().copied().collect();
    let mut complaints = Vec::new();
    while let Some(id) = waiting.pop() {
        for dependency in nodes.get(id).map_or(&[][..], |node| list(node, "deps")) {
            let kinds: Vec<&str> = list(dependency, "dep_kinds").iter().map(|k| text(k, "kind")).collect();
            if kinds.iter().all(|kind| *kind == "dev") {
                continue; // tests are run where there is a compiler
            }
            let (user, used) = (names[id], names[text(dependency, "pkg")]);
            if COMPILER_CRATES.contains(&used) && !argued.contains(user) && is_built(user) {
                let what = format!(
                    "`{user}` compiles C on {target} (by `{used}`); argue for it in xtask/c-code.txt or avoid it"
                );
                complaints.push(Complaint::new("Cargo.lock", 0, what));
            }
            if seen.insert(text(dependency, "pkg")) {
                waiting.push(text(dependency, "pkg"));
            }
        }
    }
    complaints
}

/// Direct dependencies without a row in the table of reasons.
fn unargued(metadata: &Value, table: &str) -> Vec<Complaint> {
    let argued: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .map(|name| name.trim_matches('`'))
        .collect();
    let mut complaints: Vec<Complaint> = members(metadata)
        .flat_map(|package| list(package, "dependencies"))
        .map(|dependency| text(dependency, "name"))
        .filter(|name| !name.starts_with("luthier-") && !argued.contains(name))
        .map(|name| {
            Complaint::new(
                "docs/decisions/000-dependencies.md",
                0,
                format!("no row for the dependency `{name}`"),
            )
        })
        .collect();
    complaints.sort();
    complaints.dedup();
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|(n, kind)| json!({"name": n, "kind": kind})).collect();
        json!({"id": name, "name": name, "dependencies": dependencies})
    }

    fn whole(packages: &[Value], nodes: &[Value]) -> Value {
        let ours: Vec<&Value> = packages
            .iter()
            .map(|p| &p["id"])
            .filter(|i| i.as_str().unwrap().starts_with("luthier"))
            .collect();
        json!({"packages": packages, "workspace_members": ours, "resolve": {"nodes": nodes}})
    }

    #[test]
    fn an_arrow_upward_is_refused_and_a_test_may_reach_further() {
        let metadata = whole(
            &[
                package("luthier-methods", &[("luthier-tensor", None), ("luthier-models", None)]),
                package("luthier-tensor", &[("luthier-models", Some("dev")), ("luthier-cli", Some("dev"))]),
                package("luthier-mystery", &[]),
            ],
            &[],
        );
        let complaints = workspace(&metadata);
        let what: Vec<&str> = complaints.iter().map(|c| c.what.as_str()).collect();
        assert_eq!(what.len(), 3, "{what:?}");
        assert!(what[0].starts_with("`methods` may not depend on `models`"));
        assert!(what[1].starts_with("`tensor` may not depend on `cli`"));
        assert!(what[2].contains("no row in ARROWS"));
    }

    #[test]
    fn a_c_compiler_is_found_at_any_depth_unless_argued_for_or_only_in_tests() {
        let node = |id: &str, deps: &[(&str, Option<&str>)]| {
            let deps: Vec<Value> =
                deps.iter().map(|(p, kind)| json!({"pkg": p, "dep_kinds": [{"kind": kind}]})).collect();
            json!({"id": id, "deps": deps})
        };
        let packages: Vec<Value> =
            ["luthier-cli", "middle", "onig", "cc", "tested"].iter().map(|n| package(n, &[])).collect();
        let nodes = [
            node("luthier-cli", &[("middle", None), ("tested", Some("dev"))]),
            node("middle", &[("onig", None)]),
            node("onig", &[("cc", Some("build"))]),
            node("tested", &[("cc", Some("build"))]),
        ];
        let metadata = whole(&packages, &nodes);
        let found = c_code(&metadata, "somewhere", &BTreeSet::new(), &|_| true);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("`onig` compiles C on somewhere"));
        assert_eq!(c_code(&metadata, "somewhere", &BTreeSet::from(["onig"]), &|_| true), []);
        assert_eq!(c_code(&metadata, "somewhere", &BTreeSet::new(), &|name| name != "onig"), []);
    }

    #[test]
    fn a_dependency_without_a_reason_is_named_once() {
        let metadata =
            whole(&[package("luthier-cli", &[("clap", None), ("left-pad", None), ("left-pad", None)])], &[]);
        let found = unargued(&metadata, "| crate | used for |\n|---|---|\n| clap | help |\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("left-pad"));
    }
}
