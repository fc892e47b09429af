//! What CI runs, cheapest first.
use crate::{e2e, fuzz, shell, tidy};
use std::time::Instant;

const STEPS: &[(&str, fn() -> crate::Outcome)] = &[
    ("fmt", fmt),
    ("tidy", || tidy::run(true)),
    ("clippy", clippy),
    ("test", test),
    ("fuzz-check", fuzz::run),
    ("e2e", e2e::run),
];

/// Runs all steps, or the named ones, and stops at the first that fails.
pub(crate) fn run(wanted: &[&str]) -> crate::Outcome {
    if let Some(unknown) = wanted.iter().find(|w| !STEPS.iter().any(|(name, _)| name == *w)) {
        return Err(format!("no step `{unknown}`"));
    }
    for (name, step) in STEPS.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        println!("== {name}");
        let start = Instant::now();
        step().map_err(|e| format!("step {name}: {e}"))?;
        println!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn fmt() -> crate::Outcome {
    shell::show(&shell::cargo(), &["fmt", "--all", "--check"])
}

fn clippy() -> crate::Outcome {
    shell::show(
        &shell::cargo(),
        &["clippy", "--workspace", "--all-targets", "--release", "--quiet", "--", "-D", "warnings"],
    )
}

fn test() -> crate::Outcome {
    shell::show(&shell::cargo(), &["test", "--workspace", "--release"])
}
