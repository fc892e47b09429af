//! What the terminal can show.

use std::io::IsTerminal;

/// Columns where no terminal says otherwise: a page of plain text.
const DEFAULT_WIDTH: usize = 80;

/// One of the process's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Results.
    Out,
    /// Progress and errors.
    Err,
}

/// Whether a person reads the stream, and not a file or a program.
pub fn is_tty(stream: Stream) -> bool {
    match stream {
        Stream::Out => std::io::stdout().is_terminal(),
        Stream::Err => std::io::stderr().is_terminal(),
    }
}

/// Columns of the stream's terminal; 80 where there is none.
pub fn width(stream: Stream) -> usize {
    let size = match stream {
        Stream::Out => terminal_size::terminal_size_of(std::io::stdout()),
        Stream::Err => terminal_size::terminal_size_of(std::io::stderr()),
    };
    size.map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0).max(1))
}

/// Whether to colour: on a terminal that can, unless `NO_COLOR` is set and not empty (no-color.org).
/// `CLICOLOR_FORCE` set to other than `0` colours anywhere.
pub fn colour(stream: Stream) -> bool {
    let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    decide_colour(is_tty(stream), variable("NO_COLOR"), variable("CLICOLOR_FORCE"), variable("TERM"))
}

fn decide_colour(tty: bool, no_color: Option<String>, force: Option<String>, term: Option<String>) -> bool {
    if no_color.is_some_and(|value| !value.is_empty()) {
        return false;
    }
    force.is_some_and(|value| value != "0") || (tty && term.is_none_or(|term| term != "dumb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_the_conventions() {
        let text = |value: &str| Some(value.to_owned());
        assert!(decide_colour(true, None, None, text("xterm")));
        assert!(!decide_colour(false, None, None, text("xterm")));
        assert!(!decide_colour(true, None, None, text("dumb")));
        assert!(!decide_colour(true, text("1"), text("1"), None));
        assert!(decide_colour(true, text(""), None, None));
        assert!(decide_colour(false, None, text("1"), None));
        assert!(!decide_colour(false, None, text("0"), None));
    }

    #[test]
    fn a_width_is_never_zero() {
        assert!(width(Stream::Out) > 0 && width(Stream::Err) > 0);
    }
}
