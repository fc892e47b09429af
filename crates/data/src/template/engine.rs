//! The template engine: minijinja set up as transformers sets up Jinja2, and bounded.
//!
//! A chat template is code from a stranger. It has no loader and no files; its work, recursion and output are bounded,
//! and it sees nothing but the conversation and the names of special tokens.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, ErrorKind, Value};

use crate::error::Error;
use crate::tokenizer::TEMPLATE_LIMIT;

/// Work of one rendering: a unit is one instruction or 64 bytes of strings made, so this bounds memory to 256 MiB as
/// well as time. A conversation of a thousand turns takes some hundred thousand.
const FUEL: u64 = 4 << 20;
/// Depth of macros and loops; known templates use three.
const RECURSION: usize = 64;
/// Largest rendering: as long as the longest row that is read, with room for what the template adds.
const OUTPUT_LIMIT: usize = 48 << 20;

/// Noncharacters that stand around the text of `{% generation %}` blocks; rows that hold them are refused.
pub(crate) const SPAN_START: char = '\u{FDD0}';
/// See [`SPAN_START`].
pub(crate) const SPAN_END: char = '\u{FDD1}';

/// The day that `strftime_now` gives: a run must not depend on when it is started. Llama 3.1's template falls back to
/// this one, 26 July 2024.
const TODAY: Date = Date { year: 2024, month: 7, day: 26, weekday: 5, day_of_year: 208 };

/// A compiled template.
#[derive(Debug)]
pub(super) struct Engine {
    environment: Environment<'static>,
}

impl Engine {
    pub(super) fn new(source: &str) -> Result<Self, Error> {
        if source.len() > TEMPLATE_LIMIT {
            return Err(Error::Template { what: format!("{} bytes, limit {TEMPLATE_LIMIT}", source.len()) });
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        // As transformers: jinja2.Environment(trim_blocks=True, lstrip_blocks=True), no escaping.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::Template { what: reason(&e) })?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |reason: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        environment.add_function("strftime_now", |format: String| TODAY.format(&format));
        environment.add_filter("tojson", to_json);
        let source = with_span_marks(source);
        match catch_unwind(AssertUnwindSafe(|| environment.add_template_owned("chat", source))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return Err(Error::Template { what: reason(&e) }),
            Err(_) => return Err(Error::Template { what: "the engine failed".to_owned() }),
        }
        Ok(Self { environment })
    }

    /// Renders; spans of `{% generation %}` are marked.
    pub(super) fn render(&self, context: &impl serde::Serialize) -> Result<String, Error> {
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            let template = self.environment.get_template("chat")?;
            let mut output = Bounded::default();
            template.render_captured_to(Value::from(Serde(context)), &mut output)?;
            Ok(output.bytes)
        }));
        let bytes = match rendered {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(e)) => return Err(Error::Template { what: reason(&e) }),
            Err(_) => return Err(Error::Template { what: "the engine failed".to_owned() }),
        };
        String::from_utf8(bytes).map_err(|_| Error::Template { what: "its output is not UTF-8".to_owned() })
    }
}

/// The message of the innermost cause, which is what `raise_exception` says.
fn reason(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail(), error.line()) {
        (ErrorKind::OutOfFuel, _, _) => format!("more work than {FUEL} steps"),
        (ErrorKind::WriteFailure, _, _) => format!("more than {OUTPUT_LIMIT} bytes of output"),
        (kind, Some(detail), Some(line)) => format!("{kind}: {detail} (template line {line})"),
        (kind, None, Some(line)) => format!("{kind} (template line {line})"),
        (kind, detail, None) => format!("{kind}: {}", detail.unwrap_or("no detail")),
    }
}

/// A writer that refuses to grow past the limit.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > OUTPUT_LIMIT {
            return Err(io::Error::other("output limit"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Turns `{% generation %}` and `{% endgeneration %}` into blocks that print the marks. A block, since only blocks take the
/// line break after them away as the tags themselves do.
fn with_span_marks(source: &str) -> String {
    let mut text = source.to_owned();
    for (tag, mark) in [("endgeneration", SPAN_END), ("generation", SPAN_START)] {
        let mut rest = std::mem::take(&mut text);
        while let Some((before, open, close, after)) = find_tag(&rest, tag) {
            text.push_str(before);
            let _ = write!(text, "{{%{open} if true %}}{{{{ '{mark}' }}}}{{% endif {close}%}}");
            rest = after.to_owned();
        }
        text.push_str(&rest);
    }
    text
}

/// The first `{%- tag -%}`: text before, the signs of white space control, text after.
fn find_tag<'a>(source: &'a str, tag: &str) -> Option<(&'a str, &'a str, &'a str, &'a str)> {
    let mut from = 0;
    while let Some(at) = source[from..].find("{%").map(|at| at + from) {
        let end = at + 2 + source[at + 2..].find("%}")?;
        let inside = &source[at + 2..end];
        let open = &inside[..inside.bytes().take_while(|b| matches!(b, b'-' | b'+')).count().min(1)];
        let rest = &inside[open.len()..];
        let close = if rest.ends_with('-') { "-" } else { "" };
        if rest[..rest.len() - close.len()].trim() == tag {
            return Some((&source[..at], open, close, &source[end + 2..]));
        }
        from = at + 2;
    }
    None
}

/// Takes the marks out of a rendering; returns the text and the byte ranges between them.
pub(super) fn unmarked(marked: String) -> (String, Vec<Range<usize>>) {
    if !marked.contains(SPAN_START) {
        return (marked, Vec::new());
    }
    let mut text = String::with_capacity(marked.len());
    let mut spans = Vec::new();
    let mut start = None;
    for piece in marked.split_inclusive([SPAN_START, SPAN_END]) {
        let opens = piece.ends_with(SPAN_START);
        let closes = piece.ends_with(SPAN_END);
        text.push_str(piece.trim_end_matches([SPAN_START, SPAN_END]));
        if opens {
            start = Some(text.len());
        } else if closes && let Some(start) = start.take() {
            spans.push(start..text.len());
        }
    }
    (text, spans)
}

/// `tojson` as transformers defines it: Python's `json.dumps` with non-ASCII kept and nothing escaped for HTML.
#[allow(clippy::needless_pass_by_value, reason = "the form of the engine's filters")]
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let sorts: Option<bool> = options.get("sort_keys")?;
    // Python's defaults; non-ASCII is always kept.
    let _ascii: Option<bool> = options.get("ensure_ascii")?;
    let _separators: Option<Value> = options.get("separators")?;
    options.assert_all_used()?;
    // Sixteen is wider than any style.
    let mut json =
        JsonWriter { indent: indent.map(|n| n.min(16)), sorts: sorts == Some(true), out: String::new() };
    json.write(value, 0)?;
    Ok(Value::from_safe_string(json.out))
}

struct JsonWriter {
    indent: Option<usize>,
    sorts: bool,
    out: String,
}

impl JsonWriter {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), minijinja::Error> {
        // A list that holds itself many times over is small in memory and endless as text.
        if depth > RECURSION || self.out.len() > OUTPUT_LIMIT {
            let what = format!("JSON deeper than {RECURSION} or longer than {OUTPUT_LIMIT} bytes");
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, what));
        }
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.out.push_str("null"),
            // The engine prints them as Python does.
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorts {
                    keys.sort();
                }
                self.out.push('{');
                for (index, key) in keys.iter().enumerate() {
                    self.separate(index, depth);
                    self.text(&key.to_string());
                    self.out.push_str(": ");
                    self.write(&value.get_item(key)?, depth + 1)?;
                }
                self.close('}', keys.is_empty(), depth);
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let mut is_empty = true;
                self.out.push('[');
                for (index, item) in value.try_iter()?.enumerate() {
                    self.separate(index, depth);
                    self.write(&item, depth + 1)?;
                    is_empty = false;
                }
                self.close(']', is_empty, depth);
            }
            _ => self.text(&value.to_string()),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push_str(&serde_json::Value::String(text.to_owned()).to_string());
    }

    fn separate(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(if self.indent.is_some() { "," } else { ", " });
        }
        self.line(depth + 1);
    }

    fn close(&mut self, bracket: char, is_empty: bool, depth: usize) {
        if !is_empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }
}

struct Date {
    year: u32,
    month: usize,
    day: u32,
    /// 0 is Sunday.
    weekday: usize,
    day_of_year: u32,
}

impl Date {
    /// The conversions of C's `strftime` that templates use; others stay as they are.
    fn format(&self, format: &str) -> String {
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        const DAYS: [&str; 7] =
            ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
        let (month, day) = (MONTHS[self.month - 1], DAYS[self.weekday]);
        let mut text = String::new();
        let mut signs = format.chars();
        while let Some(c) = signs.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let sign = signs.next();
            let (sign, padded) = if sign == Some('-') { (signs.next(), false) } else { (sign, true) };
            let mut number = |n: u32, width: usize| {
                let width = if padded { width } else { 0 };
                let _ = write!(text, "{n:0width$}");
            };
            match sign {
                Some('Y') => number(self.year, 4),
                Some('y') => number(self.year % 100, 2),
                Some('m') => number(self.month as u32, 2),
                Some('d') => number(self.day, 2),
                Some('j') => number(self.day_of_year, 3),
                Some('H' | 'M' | 'S') => number(0, 2),
                Some('I') => number(12, 2),
                Some('e') => {
                    let _ = write!(text, "{:2}", self.day);
                }
                Some('B') => text.push_str(month),
                Some('b' | 'h') => text.push_str(&month[..3]),
                Some('A') => text.push_str(day),
                Some('a') => text.push_str(&day[..3]),
                Some('p') => text.push_str("AM"),
                Some('Z') => text.push_str("UTC"),
                Some('F') => text.push_str(&self.format("%Y-%m-%d")),
                Some('%') | None => text.push('%'),
                Some(other) => text.extend(['%', other]),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> Result<String, String> {
        let engine = Engine::new(source).map_err(|e| e.to_string())?;
        engine.render(&json!({"x": {"b": 1, "a": ["<é>", null]}})).map_err(|e| e.to_string())
    }

    #[test]
    fn to_json_writes_as_python_does() {
        assert_eq!(render("{{ x | tojson }}").unwrap(), r#"{"b": 1, "a": ["<é>", null]}"#);
        assert_eq!(render("{{ {} | tojson(indent=2) }}").unwrap(), "{}");
        let pretty = "{\n  \"b\": 1,\n  \"a\": [\n    \"<é>\",\n    null\n  ]\n}";
        assert_eq!(render("{{ x | tojson(indent=2) }}").unwrap(), pretty);
    }

    #[test]
    fn blocks_trim_as_in_transformers() {
        assert_eq!(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n").unwrap(), "a\nb\nc");
    }

    #[test]
    fn the_date_is_fixed() {
        assert_eq!(
            render("{{ strftime_now('%d %b %Y, %A %-d %B, day %j') }}").unwrap(),
            "26 Jul 2024, Friday 26 July, day 208"
        );
    }

    #[test]
    fn python_methods_work() {
        assert_eq!(render("{{ ' a-b '.strip().split('-')[1] }}{{ x.get('q', 7) }}{% for k, v in x.items() %}{{ k }}{% endfor %}").unwrap(), "b7ba");
    }

    #[test]
    fn an_exception_carries_its_reason() {
        assert!(
            render("{{ raise_exception('roles must alternate') }}")
                .unwrap_err()
                .contains("roles must alternate")
        );
    }

    #[test]
    fn endless_work_runs_out_of_fuel() {
        let loops = "{% for a in range(10000) %}{% for b in range(10000) %}{{ '' }}{% endfor %}{% endfor %}";
        assert!(render(loops).unwrap_err().contains("steps"));
    }

    #[test]
    fn large_output_is_cut_off() {
        let loops = "{% set s = 'x' * 1000000 %}{% for a in range(1000) %}{{ s }}{% endfor %}";
        assert!(render(loops).unwrap_err().contains("bytes of output"));
    }

    #[test]
    fn strings_cannot_grow_without_bound() {
        assert!(render("{{ ('-' * 100000000000) | length }}").is_err());
        assert!(render("{% set ns = namespace(l=[1]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}").is_err());
        assert!(render("{% set ns = namespace(s='x' * 1000000) %}{% for a in range(200) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}").is_err());
    }

    #[test]
    fn recursion_is_bounded() {
        assert!(render("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}").is_err());
        assert!(render(&format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000))).is_err());
    }

    #[test]
    fn nothing_can_be_loaded() {
        assert!(render("{% include '/etc/hostname' %}").is_err());
        assert!(render("{{ ''.__class__.__mro__ }}").is_err());
    }

    #[test]
    fn a_template_that_does_not_parse_names_its_line() {
        assert!(render("a\n{% if %}").unwrap_err().contains("template line 2"));
    }

    #[test]
    fn a_tag_of_three_signs_is_no_tag() {
        for source in ["{%}", "{%-%}", "{%%}", "{%generation", "{%}generation%}"] {
            let _ = render(source);
        }
        assert_eq!(with_span_marks("{%}"), "{%}");
    }

    #[test]
    fn generation_tags_mark_spans_and_trim_like_blocks() {
        let engine = Engine::new("Q\n{%- generation %}\nA{{ 1 }}\n{% endgeneration -%}\n  end").unwrap();
        let (text, spans) = unmarked(engine.render(&json!({})).unwrap());
        assert_eq!(text, "QA1\nend");
        assert_eq!(spans.iter().map(|s| &text[s.clone()]).collect::<Vec<_>>(), ["A1\n"]);
    }
}
