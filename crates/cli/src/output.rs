//! The two streams: results go to standard output, progress and errors to standard error.

use crate::error::CliError;
use crate::snippet;
use luthier_platform::terminal::{self, Stream};
use serde_json::Value;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Least time between two updates of a line that a person watches.
const REFRESH: Duration = Duration::from_millis(100);
/// Least time between two lines of progress in a log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Where a command prints.
///
/// Printing never fails: a reader that closes its end has read what it wanted.
#[expect(clippy::struct_excessive_bools, reason = "independent facts: two flags, the stream, the command")]
pub struct Output {
    json: bool,
    quiet: bool,
    tty: bool,
    /// When progress was last shown, and whether its line still stands on the terminal.
    progress: Mutex<(Option<Instant>, bool)>,
    /// Whether events are told as they come.
    streams: bool,
}

impl Output {
    /// For the two global flags.
    pub fn new(json: bool, quiet: bool) -> Self {
        Self {
            json,
            quiet,
            tty: terminal::is_tty(Stream::Err),
            progress: Mutex::new((None, false)),
            streams: true,
        }
    }

    /// Whether programs read the result.
    pub fn json(&self) -> bool {
        self.json
    }

    /// The command's result: JSON for programs, text for people.
    pub fn result(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        self.clear();
        if self.json { line_out(&json().to_string()) } else { line_out(text().trim_end_matches('\n')) }
    }

    /// One event of a stream; only programs read it.
    pub fn event(&self, event: &Value) {
        if self.json && self.streams {
            line_out(&event.to_string());
        }
    }

    /// The same without events: for a command whose result is one object.
    pub fn without_events(&self) -> Self {
        Self { streams: false, ..Self::new(self.json, self.quiet) }
    }

    fn line(&self) -> MutexGuard<'_, (Option<Instant>, bool)> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Part of a text result, without a line's end: what a model says, as it says it.
    pub fn stream(&self, text: &str) {
        if !self.json {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(text.as_bytes());
            let _ = out.flush();
        }
    }

    /// Something worth knowing on the way.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.clear();
            line_err(text);
        }
    }

    /// Something that may make the result wrong: shown even when quiet.
    pub fn warn(&self, text: &str) {
        self.clear();
        line_err(&format!("{} {text}", snippet::paint("warning:", "1;33")));
    }

    /// Where long work stands: a line that is overwritten on a terminal, now and then a line in a log.
    pub fn progress(&self, text: impl FnOnce() -> String) {
        if self.quiet {
            return;
        }
        let mut progress = self.line();
        let pause = if self.tty { REFRESH } else { LOG_EVERY };
        if progress.0.is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        progress.0 = Some(Instant::now());
        if self.tty {
            let width = terminal::width(Stream::Err).saturating_sub(1);
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K{}", snippet::clip(&text(), width));
            let _ = err.flush();
            progress.1 = true;
        } else {
            line_err(&text());
        }
    }

    /// The command's failure: the last line of standard output for programs, a report for people.
    pub fn failure(&self, error: &CliError) {
        self.clear();
        if self.json {
            line_out(&error.to_json().to_string());
        } else {
            line_err(snippet::report(error).trim_end());
        }
    }

    /// Takes the line of progress away.
    fn clear(&self) {
        let mut progress = self.line();
        if std::mem::take(&mut progress.1) {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

fn line_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

fn line_err(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Seconds as people say them: `42 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 if seconds < 10.0 => format!("{:.1} s", seconds.max(0.0)),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes as people say them, in powers of 1,000: `1.2 GB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A count with its thousands apart: `134,515,008`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words() {
        for (seconds, expected) in [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (12.6, "13 s"),
            (200.0, "3 min 20 s"),
            (7500.0, "2 h 5 min"),
            (-1.0, "0.0 s"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn bytes_in_words() {
        for (count, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (123_456, "123 kB"),
            (999_700, "1.0 MB"),
            (2_200_000_000, "2.2 GB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (134_515_008, "134,515,008")] {
            assert_eq!(count(number), expected);
        }
    }
}
