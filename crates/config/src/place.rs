//! Where in a file (or in a `--set`) something stands.

/// Bytes of one source of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index of the source: 0 is the file, then the overrides in their order.
    pub(crate) source: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// One text that settings come from.
#[derive(Debug)]
pub(crate) struct Source {
    /// What a message calls it: the file's path, or `--set`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A place to show a user: a line with a part to underline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file's path as it was given, or `--set` for an override.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// First character to underline, from 1, counted in characters.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub width: usize,
    /// The whole line, without its end.
    pub text: String,
}

impl Source {
    /// The place of some bytes of this source. What goes on after the line's end is not underlined.
    pub(crate) fn place(&self, start: usize, end: usize) -> Place {
        let start = floor_char(&self.text, start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let end = floor_char(&self.text, end.clamp(start, line_end));
        Place {
            file: self.name.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            width: self.text[start..end].trim_end().chars().count().max(1),
            text: self.text[line_start..line_end].trim_end().to_owned(),
        }
    }
}

/// The nearest place at or before `at` where a character starts.
fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { name: "run.toml".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn characters_are_counted_and_not_bytes() {
        let place = source("a = 1\nb = \"é\", oops").place(14, 18);
        assert_eq!((place.line, place.column, place.width), (2, 8, 4));
        assert_eq!(place.text, "b = \"é\", oops");
    }

    #[test]
    fn a_span_over_lines_ends_with_its_first() {
        let place = source("x = [1,\n2]\r\ny = 3").place(4, 10);
        assert_eq!((place.line, place.column, place.width), (1, 5, 3));
    }

    #[test]
    fn the_end_of_the_text_is_a_place() {
        let place = source("x =").place(99, 99);
        assert_eq!((place.line, place.column, place.width), (1, 4, 1));
    }
}
