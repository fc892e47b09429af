//! When a sequence ends, and what of its text may be shown.
use serde::{Deserialize, Serialize};

/// What ends a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stop {
    /// Ids that end an answer beside the tokenizer's own; neither they nor those are part of the text.
    pub ids: Vec<u32>,
    /// Texts that end an answer; not part of it.
    pub strings: Vec<String>,
    /// Most new tokens.
    pub max_tokens: usize,
}

impl Default for Stop {
    fn default() -> Self {
        Self { ids: Vec::new(), strings: Vec::new(), max_tokens: 256 }
    }
}

/// Text on its way out: what may be the beginning of a stop string waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    held: String,
}

impl Gate {
    /// Takes whole characters; gives the text that can no longer be part of a stop string, and whether one came.
    pub(crate) fn push(&mut self, text: &str, stops: &[String]) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |from: usize| stops.iter().any(|stop| stop.starts_with(&self.held[from..]));
        let waits = self.held.char_indices().map(|(at, _)| at).find(|&at| begins(at));
        let rest = self.held.split_off(waits.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The text that waited for a stop string which does not come any more.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&str], stops: &[&str]) -> (Vec<String>, bool) {
        let stops = stops.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut gate = Gate::default();
        let mut out = Vec::new();
        for piece in pieces {
            let (text, stopped) = gate.push(piece, &stops);
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        out.push(gate.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_never_shown() {
        assert_eq!(
            run(&["Hi.\n", "#", "## Q", "x"], &["\n###"]),
            (vec!["Hi.".into(), String::new(), String::new()], true)
        );
    }

    #[test]
    fn text_after_a_stop_string_in_one_piece_is_cut() {
        assert_eq!(run(&["one STOP two STOP"], &["STOP"]), (vec!["one ".into()], true));
        assert_eq!(run(&["a b c"], &["c", "b"]), (vec!["a ".into()], true));
    }

    #[test]
    fn a_false_beginning_is_released_whole() {
        let (pieces, stopped) = run(&["a\n", "\n", "b"], &["\n\n\n"]);
        assert_eq!(
            (pieces, stopped),
            (vec!["a".into(), String::new(), "\n\nb".into(), String::new()], false)
        );
        // The longest beginning waits: of `aab`, after `aaa` two letters.
        assert_eq!(run(&["aaa", "b"], &["aab"]), (vec!["a".into(), String::new()], true));
    }

    #[test]
    fn what_waits_at_the_end_is_given() {
        assert_eq!(run(&["cost: #"], &["####"]), (vec!["cost: ".into(), "#".into()], false));
        assert_eq!(run(&["große Maß"], &["ßig"]).0.concat(), "große Maß");
    }
}
