//! The doctor's report as text for a terminal: targets in colour, columns by display width.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

use crate::label_report::LabelReport;
use crate::report::{Level, Piece, Report, SetReport};

/// How a report is marked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Targets are green, the rest dim; every second token is underlined.
    Ansi,
    /// Targets stand in guillemets, for terminals and files without colour.
    Plain,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Ansi => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// Writes a report, lines at most `width` columns wide where the text allows.
pub fn render_report(report: &Report, style: Style, width: usize) -> String {
    let width = width.clamp(40, 400);
    let mut out = String::new();
    files(report, style, &mut out);
    out.push('\n');
    table(report, &mut out);
    if let Some(found) = &report.labels {
        labels(found, &mut out);
    }
    lengths("train", &report.train, width, &mut out);
    if let Some(eval) = &report.eval {
        lengths("eval", eval, width, &mut out);
    }
    findings(report, style, &mut out);
    previews(report, style, width, &mut out);
    out
}

fn files(report: &Report, style: Style, out: &mut String) {
    for file in &report.files {
        let _ = writeln!(
            out,
            "{}  {} rows for {}, {} ({}), {}",
            style.paint("1", &visible(&file.path.display().to_string())),
            grouped(file.rows),
            file.used_for,
            file.format,
            visible(&file.why),
            file.encoding,
        );
    }
    if report.template.is_used {
        let _ = writeln!(out, "chat template: {}", report.template.source.name());
    }
}

fn table(report: &Report, out: &mut String) {
    let sets: Vec<&SetReport> = std::iter::once(&report.train).chain(&report.eval).collect();
    let mut row = |name: &str, value: &dyn Fn(&SetReport) -> String| {
        let _ = write!(out, "{name:<24}");
        for set in &sets {
            let _ = write!(out, "{:>14}", value(set));
        }
        out.push('\n');
    };
    let titles = ["train", "eval"];
    let index = std::cell::Cell::new(0);
    row("", &|_| {
        let at = index.replace(index.get() + 1);
        titles[at].to_owned()
    });
    row("rows", &|s| grouped(s.rows));
    row("samples", &|s| grouped(s.samples));
    row("tokens", &|s| grouped(s.tokens));
    let is_labelled = report.labels.is_some();
    row(if is_labelled { "labels" } else { "trained tokens" }, &|s| grouped(s.targets));
    if !is_labelled {
        row("share trained", &|s| percent(s.trained_share));
    }
    row("truncated", &|s| grouped(s.truncated));
    row("dropped, no target", &|s| grouped(s.dropped));
    row("duplicates", &|s| grouped(s.duplicates));
    if is_labelled {
        row("empty texts", &|s| grouped(s.empty_prompts));
    } else {
        row("empty answers", &|s| grouped(s.empty_answers));
    }
    row("unknown tokens", &|s| percent(s.unknown_share));
    if report.eval.is_some() {
        let _ = writeln!(out, "{:<24}{:>28}", "eval rows also trained", grouped(report.shared_rows));
        let _ = writeln!(
            out,
            "{:<24}{:>28}",
            if is_labelled { "eval texts also trained" } else { "eval prompts also trained" },
            grouped(report.shared_prompts)
        );
    }
}

/// Names of labels that are shown one by one.
const SHOWN_LABELS: usize = 40;

fn labels(report: &LabelReport, out: &mut String) {
    out.push('\n');
    let eval = report.eval.as_ref();
    let _ = writeln!(out, "{:<24}{:>14}{:>14}", "label", "train", if eval.is_some() { "eval" } else { "" });
    for (i, name) in report.names.iter().enumerate().take(SHOWN_LABELS) {
        let held = eval.map(|e| grouped(e.counts[i])).unwrap_or_default();
        let _ = writeln!(out, "{:<24}{:>14}{held:>14}", visible(name), grouped(report.train.counts[i]));
    }
    if report.names.len() > SHOWN_LABELS {
        let _ = writeln!(out, "... and {} more labels", report.names.len() - SHOWN_LABELS);
    }
    let mut row = |name: &str, train: String, eval: Option<String>| {
        let _ = writeln!(out, "{name:<24}{train:>14}{:>14}", eval.unwrap_or_default());
    };
    if let Some(values) = report.train.values {
        let eval = eval.and_then(|e| e.values);
        for (name, of) in [
            ("smallest", (|v: &crate::Values| v.min) as fn(&crate::Values) -> f64),
            ("mean", |v| v.mean),
            ("largest", |v| v.max),
            ("standard deviation", |v| v.deviation),
        ] {
            row(name, format!("{:.3}", of(&values)), eval.map(|v| format!("{:.3}", of(&v))));
        }
        return;
    }
    row("always the largest", percent(report.train.majority), eval.map(|e| percent(e.majority)));
    let against = |n: u64| grouped(n);
    row("labelled two ways", against(report.train.contradictions), eval.map(|e| against(e.contradictions)));
}

fn lengths(name: &str, set: &SetReport, width: usize, out: &mut String) {
    let l = &set.lengths;
    let _ = writeln!(
        out,
        "\nlength of {name} samples in tokens: {} to {}, median {}, 95 % up to {}",
        l.min, l.max, l.median, l.p95
    );
    let most = l.histogram.iter().map(|bin| bin.count).max().unwrap_or(0).max(1);
    let room = width.saturating_sub(26) as u64;
    for bin in &l.histogram {
        let bar = "#".repeat((bin.count * room).div_ceil(most) as usize);
        let _ = writeln!(out, "{:>7}-{:<7} {:>8} {bar}", bin.from, bin.to, grouped(bin.count));
    }
}

fn findings(report: &Report, style: Style, out: &mut String) {
    if report.findings.is_empty() {
        return;
    }
    out.push('\n');
    for finding in &report.findings {
        let name = match finding.level {
            Level::Warning => style.paint("33;1", "warning"),
            Level::Note => style.paint("36", "note"),
        };
        let _ = writeln!(out, "{name}: {}", visible(&finding.message));
    }
}

fn previews(report: &Report, style: Style, width: usize, out: &mut String) {
    if report.previews.is_empty() {
        return;
    }
    let legend = match style {
        Style::Ansi => {
            format!("{} is learnt, {} is not", style.paint("32", "green"), style.paint("2", "dim"))
        }
        Style::Plain => "\u{ab}learnt\u{bb}, the rest is not".to_owned(),
    };
    let _ = writeln!(out, "\nfirst samples as the model sees them ({legend}):");
    for preview in &report.previews {
        let place = visible(&preview.path.display().to_string());
        let answer =
            preview.answer.as_deref().map(|a| format!(", answer: {}", visible(a))).unwrap_or_default();
        let _ = writeln!(out, "\n{place}:{}, {} tokens{answer}", preview.line, grouped(preview.tokens));
        pieces(&preview.pieces, style, width, out);
        let shown: u64 = preview.pieces.iter().map(|piece| u64::from(piece.tokens)).sum();
        if shown < preview.tokens {
            let _ = writeln!(out, "... and {} more tokens", grouped(preview.tokens - shown));
        }
    }
}

/// Writes pieces, wrapped at the display width; a character is never cut and its columns are counted.
fn pieces(pieces: &[Piece], style: Style, width: usize, out: &mut String) {
    let mut column = 0;
    let mut was_labelled = false;
    for (index, piece) in pieces.iter().enumerate() {
        if style == Style::Plain && piece.labelled != was_labelled {
            out.push(if piece.labelled { '\u{ab}' } else { '\u{bb}' });
            column += 1;
        }
        was_labelled = piece.labelled;
        let (open, close) = match style {
            Style::Plain => (String::new(), ""),
            Style::Ansi => {
                let underline = if index % 2 == 1 { ";4" } else { "" };
                (format!("\x1b[{}{underline}m", if piece.labelled { "32" } else { "2" }), "\x1b[0m")
            }
        };
        out.push_str(&open);
        for c in piece.text.chars() {
            let mut shown = String::new();
            show(c, &mut shown);
            let columns: usize = shown.chars().map(|c| c.width().unwrap_or(0)).sum();
            if column + columns > width {
                // The underline must not run to the end of the line.
                let _ = write!(out, "{close}\n{open}");
                column = 0;
            }
            out.push_str(&shown);
            column += columns;
            if c == '\n' {
                let _ = write!(out, "{close}\n{open}");
                column = 0;
            }
        }
        out.push_str(close);
    }
    if style == Style::Plain && was_labelled {
        out.push('\u{bb}');
        column += 1;
    }
    if column > 0 {
        out.push('\n');
    }
}

/// Makes control and direction characters visible: data must not steer the terminal.
fn show(c: char, out: &mut String) {
    match c {
        '\n' => out.push('\u{21B5}'),
        '\t' => out.push('\u{2192}'),
        '\0'..='\x1f' => out.extend(char::from_u32(0x2400 + u32::from(c))),
        '\x7f' => out.push('\u{2421}'),
        '\u{80}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}'
        | '\u{feff}' => {
            let _ = write!(out, "<U+{:04X}>", u32::from(c));
        }
        _ => out.push(c),
    }
}

fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| show(c, &mut out));
    out
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, labelled: bool) -> Piece {
        Piece { text: text.to_owned(), tokens: 1, labelled }
    }

    fn shown(list: &[Piece], style: Style, width: usize) -> String {
        let mut out = String::new();
        pieces(list, style, width, &mut out);
        out
    }

    #[test]
    fn targets_are_marked_without_colour() {
        let list = [piece("Q", false), piece("A", true), piece("B", true), piece("\n", false)];
        assert_eq!(shown(&list, Style::Plain, 80), "Q\u{ab}AB\u{bb}\u{21B5}\n");
    }

    #[test]
    fn targets_are_green_and_every_second_token_is_underlined() {
        let list = [piece("Q", false), piece("A", true)];
        assert_eq!(shown(&list, Style::Ansi, 80), "\x1b[2mQ\x1b[0m\x1b[32;4mA\x1b[0m\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let list = [piece("天空为什么", false), piece("是蓝色", false)];
        assert_eq!(shown(&list, Style::Plain, 8), "天空为什\n么是蓝色\n");
        assert_eq!(shown(&list, Style::Plain, 9), "天空为什\n么是蓝色\n");
        assert_eq!(shown(&[piece("abcdefgh", false)], Style::Plain, 8), "abcdefgh\n");
    }

    #[test]
    fn data_cannot_steer_the_terminal() {
        let text = shown(&[piece("\x1b[31m\u{202e}x\u{9b}\r", true)], Style::Plain, 80);
        assert_eq!(text, "\u{ab}\u{241b}[31m<U+202E>x<U+009B>\u{240d}\u{bb}\n");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1000), grouped(1234567)],
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
