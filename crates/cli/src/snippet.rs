//! How an error looks to a person: what is wrong, the line with the place underlined, the way out.

use crate::error::CliError;
use luthier_config::Place;
use luthier_platform::terminal::{self, Stream};
use std::fmt::Write;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Widest source line that is shown whole, columns.
const WIDEST: usize = 100;

/// The whole report, in colour where standard error shows it.
pub fn report(error: &CliError) -> String {
    let mut text = format!("{} {}\n", paint("error:", "1;31"), error.message);
    if let Some(place) = &error.place {
        underline(&mut text, place);
    } else if let Some(file) = &error.file {
        let line = error.line.map_or(String::new(), |line| format!(":{line}"));
        let _ = writeln!(text, "  {} {file}{line}", paint("-->", "34"));
    }
    if let Some(help) = &error.help {
        let _ = writeln!(text, "  {} {help}", paint("help:", "1;36"));
    }
    text
}

/// File, line and column, then the line itself and marks under the place.
fn underline(text: &mut String, place: &Place) {
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let chars: Vec<char> = place.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let start = (place.column - 1).min(chars.len());
    // A very long line is shown from a little before the place.
    let first = if chars.len() > WIDEST { start.saturating_sub(WIDEST / 4) } else { 0 };
    let shown: String = chars[first..].iter().take(WIDEST).collect();
    let before: String = chars[first..start].iter().collect();
    let marked: String = chars[start..].iter().take(place.width.min(WIDEST)).collect();
    let marks = "^".repeat(marked.width().max(1));
    let _ = writeln!(text, "{gutter}{} {}:{}:{}", paint("-->", "34"), place.file, place.line, place.column);
    let _ = writeln!(text, "{} {} {shown}", paint(&number, "34"), paint("|", "34"));
    let _ = writeln!(
        text,
        "{gutter} {} {}{}",
        paint("|", "34"),
        " ".repeat(before.width()),
        paint(&marks, "1;31")
    );
}

/// Text in a colour of the terminal (an ANSI SGR code), where standard error shows it.
pub fn paint(text: &str, code: &str) -> String {
    if terminal::colour(Stream::Err) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The start of a text that fits into so many columns.
pub fn clip(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, column: usize, width: usize) -> Place {
        Place { file: "run.toml".to_owned(), line: 12, column, width, text: text.to_owned() }
    }

    fn marks(text: &str, column: usize, width: usize) -> String {
        let mut shown = String::new();
        underline(&mut shown, &place(text, column, width));
        shown.lines().last().map(str::to_owned).unwrap_or_default()
    }

    #[test]
    fn wide_characters_push_the_marks() {
        assert_eq!(marks("a = 1", 5, 1), "   |     ^");
        assert_eq!(marks("训练 = 1", 6, 1), "   |        ^");
        assert_eq!(marks("训练 = 1", 1, 2), "   | ^^^^");
        assert_eq!(marks("a =", 4, 1), "   |    ^"); // behind the end
    }

    #[test]
    fn a_very_long_line_is_cut_around_the_place() {
        let mut shown = String::new();
        underline(&mut shown, &place(&"x".repeat(5000), 3001, 4000));
        assert!(shown.lines().all(|line| line.len() <= WIDEST + 30), "{shown}");
    }

    #[test]
    fn clipping_counts_columns() {
        assert_eq!(clip("训练 run", 5), "训练 ");
        assert_eq!(clip("ab", 5), "ab");
    }
}
