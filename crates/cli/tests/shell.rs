//! The command line from outside: help, usage errors, configuration errors, exit codes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn luthier(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(args)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn here(args: &[&str]) -> Output {
    luthier(Path::new(env!("CARGO_MANIFEST_DIR")), args)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The last line of standard output, as JSON.
fn last_json(output: &Output) -> Value {
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

/// Compares with `tests/snapshots/<name>.txt`. To make the files again: `LUTHIER_SNAPSHOTS=write cargo test`.
fn snapshot(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("LUTHIER_SNAPSHOTS").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(got, expected, "{} differs", path.display());
}

#[test]
fn help_is_as_documented() {
    for (name, args) in [
        ("help", vec!["--help"]),
        ("help-quickstart", vec!["quickstart", "--help"]),
        ("help-train", vec!["train", "--help"]),
        ("help-data", vec!["data", "--help"]),
        ("help-eval", vec!["eval", "--help"]),
        ("help-generate", vec!["generate", "--help"]),
        ("help-chat", vec!["chat", "--help"]),
        ("help-merge", vec!["merge", "--help"]),
        ("help-pull", vec!["pull", "--help"]),
        ("help-methods", vec!["methods", "--help"]),
        ("help-bench", vec!["bench", "--help"]),
        ("help-bench-step", vec!["bench", "step", "--help"]),
    ] {
        let output = here(&args);
        assert!(output.status.success(), "{name}");
        assert!(output.stderr.is_empty(), "{name}");
        snapshot(name, &text(&output.stdout));
    }
}

#[test]
fn the_version_is_the_workspaces() {
    assert_eq!(text(&here(&["--version"]).stdout), format!("luthier {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_two_and_is_readable_by_programs() {
    for (args, message, help) in [
        (vec!["trian", "--json"], "unrecognized subcommand 'trian'", "a similar subcommand exists: 'train'"),
        (
            vec!["--json", "train"],
            "the following required arguments were not provided: <RUN.toml>",
            "see `luthier --help`",
        ),
        (
            vec!["train", "a.toml", "--rsume", "--json"],
            "unexpected argument '--rsume' found",
            "a similar argument exists: '--resume'",
        ),
    ] {
        let output = here(&args);
        assert_eq!(output.status.code(), Some(2));
        let error = &last_json(&output)["error"];
        assert_eq!((error["code"].as_str(), error["message"].as_str()), (Some("usage"), Some(message)));
        assert_eq!(error["help"], help);
        assert!(error["file"].is_null() && error["line"].is_null());
    }
    let output = here(&["trian"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("'train'"));
    assert!(output.stdout.is_empty());
}

#[test]
fn no_command_shows_the_help_as_an_error() {
    let output = here(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("quickstart"));
}

/// A folder whose run.toml has a misspelt key on line 7.
fn misspelt() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let run = "base = \"org/model\"\noutput = \"out\"\n[method.lora]\n[data]\ntrain = \"t.jsonl\"\n[train]\nstpes = 5\n[optimizer.adamw]\nlr = 1e-3\n";
    std::fs::write(folder.path().join("run.toml"), run).unwrap();
    folder
}

#[test]
fn a_misspelt_key_is_shown_to_people() {
    let folder = misspelt();
    let output = luthier(folder.path(), &["train", "run.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert_eq!(
        text(&output.stderr),
        "error: unknown key `stpes` in [train]\n --> run.toml:7:1\n7 | stpes = 5\n  | ^^^^^\n  help: did you mean `steps`?\n"
    );
}

#[test]
fn a_misspelt_key_is_told_to_programs() {
    let folder = misspelt();
    let output = luthier(folder.path(), &["train", "run.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        last_json(&output),
        serde_json::json!({"error": {
            "code": "config-unknown-key",
            "message": "unknown key `stpes` in [train]",
            "help": "did you mean `steps`?",
            "file": "run.toml",
            "line": 7,
        }})
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = luthier(folder.path(), &["train", "absent.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let error = &last_json(&output)["error"];
    assert_eq!(
        (error["code"].as_str(), error["file"].as_str()),
        (Some("config-unreadable"), Some("absent.toml"))
    );
}

#[test]
fn colour_is_for_terminals() {
    let folder = misspelt();
    let run = |force: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_luthier"))
            .args(["train", "run.toml"])
            .current_dir(folder.path())
            .env_remove("NO_COLOR")
            .env("CLICOLOR_FORCE", force)
            .output()
            .unwrap();
        text(&output.stderr).contains('\u{1b}')
    };
    assert!(run("1"));
    assert!(!run("0"));
}

#[test]
fn a_configuration_is_found_by_its_bare_name() {
    let folder = misspelt();
    let text = std::fs::read_to_string(folder.path().join("run.toml")).unwrap().replace("stpes", "steps");
    std::fs::write(folder.path().join("run.toml"), text).unwrap();
    let output = luthier(folder.path(), &["train", "run.toml", "--json"]);
    assert_eq!(last_json(&output)["error"]["code"], "config-no-file", "the data is what is missing");
}
