//! `luthier bench` on a tiny shape: what its JSON holds, and that it refuses what it cannot do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::process::Command;

fn bench(args: &[&str]) -> (Value, i32) {
    let all = [&["bench"][..], args, &["--json", "--quiet"]].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_luthier")).args(all).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (serde_json::from_str(text.lines().last().unwrap()).unwrap(), output.status.code().unwrap())
}

#[test]
fn a_step_reports_its_times_rates_and_memory() {
    let sizes = ["--shape", "tiny", "--batch", "2", "--seq", "16", "--steps", "3", "--threads", "2"];
    for method in ["lora", "full-ft"] {
        let (report, code) = bench(&[&["step", "--method", method, "--dtype", "f32"][..], &sizes].concat());
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["ms"].as_array().unwrap().len(), 3, "the first step does not count");
        assert_eq!(report["loss"].as_array().unwrap().len(), 4);
        assert_eq!(report["tokens"], serde_json::json!([32, 32, 32]));
        assert_eq!(report["labelled"], serde_json::json!([30, 30, 30]));
        for key in ["tokens_per_s", "gemm_peak_gflops", "gemm_share"] {
            assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
        }
        for account in ["base", "gradient", "optimizer", "activation", "workspace", "total"] {
            assert!(report["peak_bytes"][account].as_u64().unwrap() > 0, "{method}: {account}");
        }
    }
}

#[test]
fn recomputing_changes_memory_and_no_loss() {
    let args = ["step", "--shape", "tiny", "--batch", "2", "--seq", "64", "--dtype", "f32", "--steps", "2"];
    let ((plain, _), (again, _)) = (bench(&args), bench(&[&args[..], &["--recompute"]].concat()));
    assert_eq!(plain["loss"], again["loss"]);
    let activation = |report: &Value| report["peak_bytes"]["activation"].as_u64().unwrap();
    assert!(activation(&again) < activation(&plain));
}

#[test]
fn products_and_operations_are_listed_with_their_rates() {
    let tiny = ["--shape", "tiny", "--batch", "1", "--seq", "16"];
    let (report, _) = bench(&[&["gemm", "--tier", "portable"][..], &tiny].concat());
    let products = report["products"].as_array().unwrap();
    for dtype in ["bf16", "f32"] {
        for name in
            ["q forward", "head input grad", "down weight grad", "gate, up x A^T", "attention backward"]
        {
            let found = products.iter().any(|p| p["name"] == name && p["dtype"] == dtype);
            assert!(found, "{name} in {dtype}: {products:?}");
        }
    }
    assert!(products.iter().all(|p| p["tier"] == "portable" && p["gflops"].as_f64().unwrap() > 0.0));
    let (report, _) = bench(&[&["op"][..], &tiny].concat());
    let ops = report["ops"].as_array().unwrap();
    assert!(ops.iter().any(|o| o["name"] == "head-loss" && o["flops"].as_u64().unwrap() > 0), "{ops:?}");
    assert!(ops.iter().all(|o| o["forward_us"].as_f64().unwrap() >= 0.0 && o["bytes"].as_u64().unwrap() > 0));
}

#[test]
fn decoding_is_set_against_the_rate_of_reading() {
    let (report, code) = bench(&["decode", "--shape", "tiny", "--tokens", "3"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["ms"].as_array().unwrap().len(), 3);
    let get = |key: &str| report[key].as_f64().unwrap();
    let roofline = get("read_gb_per_s") * 1e9 / get("weight_bytes");
    assert!((get("roofline_tokens_per_s") / roofline - 1.0).abs() < 1e-3);
    assert!((get("roofline_share") - get("median_tokens_per_s") / roofline).abs() < 1e-2);
}

#[test]
fn what_cannot_be_timed_is_refused() {
    for (args, code, part) in [
        (&["step", "--shape", "huge"][..], "shape", "smollm2-135m"),
        (&["step", "--method", "lorra"], "method", "lorra"),
        (&["step", "--init", "no/such/folder"], "io", "ids.json"),
        (&["gemm", "--tier", "sse9"], "usage", "--tier"),
    ] {
        let (report, exit) = bench(args);
        assert_ne!(exit, 0, "{args:?}");
        assert_eq!(report["error"]["code"], code, "{report}");
        assert!(report["error"]["message"].as_str().unwrap().contains(part), "{report}");
    }
}
