//! What holds of every Rust file: where `unsafe`, printing and exits may be, names, sizes.
use super::Complaint;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "core"];
/// Lines above which a file says why it is long, and a function is worth a look.
const MOST_LINES: usize = 500;
const MOST_LINES_IN_A_FUNCTION: usize = 70;
/// How far above an `unsafe` block its reason may stand, comments not counted.
const REASON_WITHIN: usize = 3;

/// `path` relative to the root, `owner` the crate's folder.
pub(super) fn check(path: &str, owner: &str, text: &str) -> Vec<Complaint> {
    let raw: Vec<&str> = text.lines().collect();
    let code = code_of(text);
    let tests_from = first_test_line(path, &code);
    let mut complaints = Vec::new();
    complaints.extend(names(path));
    if raw.len() > MOST_LINES && !raw.iter().take(40).any(|line| line.starts_with("// Long because: ")) {
        let what = format!(
            "{} lines: over {MOST_LINES}, a line `// Long because: ..` near the top says why",
            raw.len()
        );
        complaints.push(Complaint::new(path, raw.len(), what));
    }
    let prints = owner == "cli" || owner == "xtask";
    for (i, line) in code.iter().enumerate() {
        let mut complain = |what: &str| complaints.push(Complaint::new(path, i + 1, what));
        if has_word(line, "unsafe") && !line.contains("unsafe_code") && !line.contains("unsafe(") {
            if !may_be_unsafe(path) {
                complain("`unsafe` outside kernels, tensor/src/buffer.rs and storage/src/mmap.rs");
            } else if !is_signature(line) && !has_reason(&raw, i) {
                complain("`unsafe` without a `// SAFETY:` line above it");
            }
        }
        if !prints && i < tests_from {
            if ["println!", "eprintln!", "print!", "eprint!", "dbg!"].iter().any(|m| has_word(line, m)) {
                complain("only the command line prints");
            }
            // The second Ctrl-C means now, wherever the program is.
            if line.contains("process::exit") && path != "crates/platform/src/interrupt.rs" {
                complain("only the command line exits");
            }
        }
    }
    complaints
}

/// Functions longer than the house likes: a warning, since a long `match` may be clear.
pub(super) fn long_functions(path: &str, text: &str) -> Vec<Complaint> {
    let code = code_of(text);
    let tests_from = first_test_line(path, &code);
    let mut warnings = Vec::new();
    for (i, line) in code.iter().enumerate().take(tests_from) {
        if !has_word(line, "fn") {
            continue;
        }
        let (mut depth, mut opened) = (0i32, false);
        for (j, line) in code.iter().enumerate().skip(i) {
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
            opened |= line.contains('{');
            if !opened && line.contains(';') {
                break; // a declaration in a trait
            }
            if opened && depth <= 0 {
                if j - i + 1 > MOST_LINES_IN_A_FUNCTION {
                    let what = format!("a function of {} lines, over {MOST_LINES_IN_A_FUNCTION}", j - i + 1);
                    warnings.push(Complaint::new(path, i + 1, what));
                }
                break;
            }
        }
    }
    warnings
}

fn names(path: &str) -> Option<Complaint> {
    let empty = path.trim_end_matches(".rs").split('/').skip(2).find(|part| EMPTY_NAMES.contains(part))?;
    Some(Complaint::new(path, 0, format!("a module called `{empty}` says nothing about what is inside")))
}

fn may_be_unsafe(path: &str) -> bool {
    path.starts_with("crates/kernels/")
        || path == "crates/tensor/src/buffer.rs"
        || path == "crates/storage/src/mmap.rs"
}

/// `unsafe fn` and `unsafe trait` state their contract in their docs; the lint `missing_safety_doc` sees to it.
fn is_signature(line: &str) -> bool {
    ["unsafe fn", "unsafe trait", "unsafe extern"].iter().any(|form| line.contains(form))
}

/// Whether a `SAFETY:` comment stands on line `at` or above it, over comments and at most `REASON_WITHIN` other lines.
fn has_reason(raw: &[&str], at: usize) -> bool {
    if raw[at].contains("SAFETY:") {
        return true;
    }
    let mut code_lines = 0;
    for line in raw[..at].iter().rev() {
        if line.contains("SAFETY:") {
            return true;
        }
        if !line.trim_start().starts_with("//") {
            code_lines += 1;
        }
        if code_lines > REASON_WITHIN {
            return false;
        }
    }
    false
}

/// The line from which a file holds tests only.
fn first_test_line(path: &str, code: &[String]) -> usize {
    let is_test_file = ["/tests/", "/benches/", "/examples/"].iter().any(|part| path.contains(part))
        || path.ends_with("tests.rs")
        || path.ends_with("bench.rs");
    if is_test_file {
        0
    } else {
        code.iter().position(|line| line.trim() == "#[cfg(test)]").unwrap_or(code.len())
    }
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part_of_name);
        let after = line[at + word.len()..].chars().next().is_some_and(part_of_name);
        !before && (!after || word.ends_with('!'))
    })
}

/// The lines of a Rust file with comments and the insides of literals left out.
pub(super) fn code_of(text: &str) -> Vec<String> {
    #[derive(Clone, Copy, PartialEq)]
    enum In {
        Code,
        Text,
        Raw(usize),
        Comment(usize),
    }
    let mut place = In::Code;
    let mut lines = Vec::new();
    for line in text.lines() {
        let chars: Vec<char> = line.chars().collect();
        let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
        let (mut code, mut i) = (String::new(), 0);
        while i < chars.len() {
            match place {
                In::Code if at(i) == '/' && at(i + 1) == '/' => break,
                In::Code if at(i) == '/' && at(i + 1) == '*' => (place, i) = (In::Comment(1), i + 1),
                In::Code
                    if at(i) == 'r'
                        && (at(i + 1) == '"' || at(i + 1) == '#')
                        && !code.ends_with(char::is_alphanumeric) =>
                {
                    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
                    if at(i + 1 + hashes) == '"' {
                        (place, i) = (In::Raw(hashes), i + 1 + hashes);
                    } else {
                        code.push('r');
                    }
                }
                In::Code if at(i) == '"' => place = In::Text,
                // A character, not a lifetime: 'x' or '\..'
                In::Code if at(i) == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') => {
                    let start = if at(i + 1) == '\\' { i + 3 } else { i + 2 };
                    i = (start..chars.len()).find(|j| at(*j) == '\'').unwrap_or(chars.len());
                }
                In::Code => code.push(at(i)),
                In::Text if at(i) == '\\' => i += 1,
                In::Text if at(i) == '"' => place = In::Code,
                In::Raw(hashes) if at(i) == '"' && (1..=hashes).all(|k| at(i + k) == '#') => {
                    (place, i) = (In::Code, i + hashes);
                }
                In::Comment(depth) if at(i) == '*' && at(i + 1) == '/' => {
                    place = if depth == 1 { In::Code } else { In::Comment(depth - 1) };
                    i += 1;
                }
                In::Comment(depth) if at(i) == '/' && at(i + 1) == '*' => {
                    (place, i) = (In::Comment(depth + 1), i + 1);
                }
                In::Text | In::Raw(_) | In::Comment(_) => {}
            }
            i += 1;
        }
        lines.push(code);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let owner = path.split('/').nth(1).unwrap();
        check(path, owner, text).into_iter().map(|c| format!("{}: {}", c.line, c.what)).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "let a = \"unsafe \\\" println!\"; // unsafe\nlet b = r#\"print!\"#; /* unsafe\nunsafe */ let c = '\"'; x('a);";
        assert_eq!(code_of(text), ["let a = ; ", "let b = ; ", " let c = ; x('a);"]);
    }

    #[test]
    fn unsafe_stays_where_it_is_allowed_and_gives_its_reason() {
        assert!(
            found("crates/data/src/a.rs", "fn f() { unsafe { g() } }")[0].starts_with("1: `unsafe` outside")
        );
        assert!(
            found("crates/kernels/src/a.rs", "fn f() { unsafe { g() } }")[0]
                .contains("without a `// SAFETY:`")
        );
        assert!(
            found("crates/kernels/src/a.rs", "// SAFETY: g is pure.\nlet x = 1;\nunsafe { g() }").is_empty()
        );
        assert_eq!(
            found("crates/kernels/src/a.rs", "// SAFETY: g.\na;\nb;\nc;\nd;\nunsafe { g() }").len(),
            1
        );
        assert!(found("crates/data/src/a.rs", "#![deny(unsafe_code)] // unsafe").is_empty());
    }

    #[test]
    fn printing_and_exits_stay_in_the_command_line() {
        assert_eq!(found("crates/train/src/a.rs", "println!();\nstd::process::exit(1);").len(), 2);
        assert!(found("crates/cli/src/a.rs", "println!();\nstd::process::exit(1);").is_empty());
        assert!(
            found("crates/train/src/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn t() { println!(); } }")
                .is_empty()
        );
    }

    #[test]
    fn empty_names_are_refused() {
        assert!(found("crates/data/src/utils.rs", "")[0].contains("`utils`"));
        assert!(found("crates/data/src/misc/a.rs", "")[0].contains("`misc`"));
    }

    #[test]
    fn a_long_file_says_why() {
        let long = "\n".repeat(MOST_LINES + 1);
        assert_eq!(found("crates/data/src/a.rs", &long).len(), 1);
        assert!(
            found("crates/data/src/a.rs", &format!("//! A table.\n// Long because: one row a case.\n{long}"))
                .is_empty()
        );
    }

    #[test]
    fn a_long_function_is_a_warning() {
        let long = format!("fn f() {{\n{}}}\n", "a();\n".repeat(MOST_LINES_IN_A_FUNCTION));
        assert_eq!(long_functions("crates/data/src/a.rs", &long).len(), 1);
        assert!(long_functions("crates/data/src/a.rs", "fn f() {\na();\n}\n").is_empty());
    }
}
