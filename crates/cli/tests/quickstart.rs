//! The first minute of a stranger: quickstart, then what it says to do next.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a command that must succeed; the last line of its output, as JSON.
fn json(folder: &Path, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_luthier"))
        .args(args)
        .arg("--json")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn quickstart_teaches_and_what_it_leaves_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let result = json(at, &["quickstart"]);
    let number = |key: &str| result[key].as_f64().unwrap();
    assert!(number("perplexity_after") < 0.8 * number("perplexity_before"), "{result}");
    assert!(number("trainable_parameters") > 0.0);
    for account in ["base", "adapter", "gradient", "optimizer", "activation", "workspace", "total"] {
        assert!(result["peak_bytes"][account].is_u64(), "{account}");
    }
    let adapter = at.join(result["adapter"].as_str().unwrap());
    assert!(
        adapter.join("adapter_config.json").is_file() && adapter.join("adapter_model.safetensors").is_file()
    );
    let page = std::fs::read_to_string(at.join("runs/quickstart/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Emma was"));

    // What is on disk measures as it did, merged or not.
    let held_out = at.join("runs/quickstart/base/held-out.txt");
    let measured = json(at, &["eval", "runs/quickstart/base/run.toml"]);
    assert!((measured["loss"].as_f64().unwrap() - number("loss_after")).abs() < 1e-6, "{measured}");
    let base = json(at, &["eval", "runs/quickstart/base/run.toml", "--base-only"]);
    assert!((base["loss"].as_f64().unwrap() - number("loss_before")).abs() < 1e-6, "{base}");
    json(at, &["merge", "runs/quickstart/adapter", "--output", "merged"]);
    assert!(at.join("merged/config.json").is_file() && held_out.is_file());

    // Greedy answers are the same each time, and differ from the base's.
    let say = |model: &str| {
        let args = ["generate", model, "--raw", "--prompt", "Emma was", "--max-tokens", "16"];
        json(at, &args)["text"].as_str().unwrap().to_owned()
    };
    let said = say("runs/quickstart");
    assert!(!said.is_empty());
    assert_eq!(said, say("runs/quickstart/adapter"));
    assert_ne!(said, say("runs/quickstart/base"));

    // A second time it starts anew.
    let again = json(at, &["quickstart"]);
    assert_eq!(again["loss_after"], result["loss_after"]);
}
