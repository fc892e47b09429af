//! Generated answers against the data's.
use crate::error::Error;
use luthier_data::Example;
use luthier_decode::{Generator, Reason, Settings};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// A number as GSM8K's answers write it: sign, dollar, thousands, decimals.
const NUMBER: &str = r"[-+]?\s?\$?\s?[-+]?\d[\d,]*(?:\.\d+)?";
/// What may follow a number that ends an answer.
const AFTER: &[char] = &['.', '*', '%'];

/// Where in an answer the result stands.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
    is_number: bool,
}

/// A result in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The result, normalised.
    pub value: String,
    /// Whether the answer ends with it.
    pub at_end: bool,
}

impl Pattern {
    /// `gsm8k` (that is `#### n`); a text whose last word is `n`, which stands for a number; or else a regular expression,
    /// whose first group (or whole match) is the result.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let failed = |reason: String| Error::Pattern { pattern: text.into(), reason };
        let text = if text == "gsm8k" { "#### n" } else { text };
        let before = text.strip_suffix('n').filter(|b| b.ends_with(char::is_whitespace));
        let (source, is_number) = match before.map(str::trim) {
            Some(before) if !before.is_empty() => (format!(r"{}\s*({NUMBER})", regex::escape(before)), true),
            _ => (text.to_owned(), false),
        };
        let regex = Regex::new(&source).map_err(|e| failed(e.to_string()))?;
        if regex.is_match("") {
            return Err(failed("it matches an empty text".into()));
        }
        Ok(Self { regex, is_number })
    }

    /// The last result in `text`.
    pub fn find(&self, text: &str) -> Option<Found> {
        let found = self.regex.captures_iter(text).last()?;
        let whole = found.get(0)?;
        let value = found.get(1).unwrap_or(whole).as_str();
        let rest = text[whole.end()..].trim();
        if self.is_number {
            return Some(Found { value: number(value), at_end: rest.trim_matches(AFTER).is_empty() });
        }
        Some(Found { value: value.trim().to_owned(), at_end: rest.is_empty() })
    }
}

/// `$1,234.50` is `1234.5`: one spelling for one number.
fn number(text: &str) -> String {
    let is_negative = text.contains('-');
    let digits = text.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect::<String>();
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let value = if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") };
    if is_negative && value != "0" { format!("-{value}") } else { value }
}

/// One generated answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// The prompt as the model saw it, special tokens spelt out.
    pub prompt: String,
    /// The answer in the data.
    pub reference: String,
    /// The model's answer.
    pub answer: String,
    /// The result in the data's answer; without a pattern, the whole of it, trimmed.
    pub expected: Option<String>,
    /// The result in the model's answer.
    pub got: Option<String>,
    /// Whether both are there and equal.
    pub correct: bool,
    /// Whether the model's answer ends in the pattern; without a pattern, whether the model ended it.
    pub answered: bool,
    /// Why the answer ended.
    pub reason: Reason,
}

/// Answers every example. `on_answers` hears how many have begun to be answered.
pub fn answers(
    generator: &Generator<'_>,
    examples: &[Example],
    pattern: Option<&Pattern>,
    settings: &Settings,
    on_answers: &mut dyn FnMut(usize),
) -> Result<Vec<Prediction>, Error> {
    let Some(tokenizer) = generator.tokenizer else {
        return Err(luthier_decode::Error::NoTokenizer { what: "comparing answers" }.into());
    };
    let prompts = examples.iter().map(|e| e.prompt_tokens.clone()).collect();
    let mut begun = 0;
    let generated = generator.generate(prompts, settings, &mut |index, _| {
        if index >= begun {
            begun = index + 1;
            on_answers(begun);
        }
        ControlFlow::Continue(())
    })?;
    let mut out = Vec::with_capacity(examples.len());
    for (example, generated) in examples.iter().zip(generated) {
        let prompt = tokenizer.decode_raw(&example.prompt_tokens)?;
        out.push(compare(prompt, example.reference.clone(), generated.text, generated.reason, pattern));
    }
    Ok(out)
}

fn compare(
    prompt: String,
    reference: String,
    answer: String,
    reason: Reason,
    pattern: Option<&Pattern>,
) -> Prediction {
    let whole = |text: &str| Some(text.trim().to_owned());
    let (expected, got, answered) = match pattern {
        None => (whole(&reference), whole(&answer), reason != Reason::Length),
        Some(pattern) => {
            let got = pattern.find(&answer);
            let answered = got.as_ref().is_some_and(|f| f.at_end);
            (pattern.find(&reference).map(|f| f.value), got.map(|f| f.value), answered)
        }
    };
    let correct = expected.is_some() && expected == got;
    Prediction { prompt, reference, answer, expected, got, correct, answered, reason }
}

/// One JSON object a line.
pub fn write_predictions(path: &Path, predictions: &[Prediction]) -> Result<(), Error> {
    let write = |file: &mut std::fs::File| {
        let mut out = std::io::BufWriter::new(file);
        for prediction in predictions {
            serde_json::to_writer(&mut out, prediction)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    luthier_platform::fs::atomic_write(path, write)
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gsm8k_takes_the_last_number_and_one_spelling_of_it() {
        let pattern = Pattern::parse("gsm8k").unwrap();
        for (text, value, at_end) in [
            ("5 + 13 = 18\n#### 18", "18", true),
            ("#### 1,234", "1234", true),
            ("#### $1,234.50.", "1234.5", true),
            ("#### -$7.00\n", "-7", true),
            ("#### 18 eggs", "18", false),
            ("#### 3\nno, #### 4", "4", true),
            ("####-0", "0", true),
            ("#### 007%", "7", true),
        ] {
            let expected = Found { value: value.into(), at_end };
            assert_eq!(pattern.find(text), Some(expected), "{text:?}");
        }
        for text in ["18", "####", "#### eighteen", "### 18"] {
            assert_eq!(pattern.find(text), None, "{text:?}");
        }
    }

    #[test]
    fn other_patterns() {
        let answer = Pattern::parse("The answer is n").unwrap();
        assert_eq!(answer.find("The answer is $5.").unwrap(), Found { value: "5".into(), at_end: true });
        let letter = Pattern::parse(r"\(([A-D])\)").unwrap();
        assert_eq!(letter.find("(A) or (C)").unwrap(), Found { value: "C".into(), at_end: true });
        for bad in ["(", "x*"] {
            assert!(matches!(Pattern::parse(bad), Err(Error::Pattern { .. })), "{bad}");
        }
    }

    #[test]
    fn an_answer_is_right_if_both_have_the_same_result() {
        let pattern = Pattern::parse("#### n").unwrap();
        let make = |reference: &str, answer: &str| {
            compare(String::new(), reference.into(), answer.into(), Reason::Eos, Some(&pattern))
        };
        assert!(make("so 2\n#### 2", "#### 2.0").correct);
        assert!(!make("#### 2", "#### 3").correct && make("#### 2", "#### 3").answered);
        assert!(!make("two", "two").correct, "no result is no right result");
        assert!(!make("#### 2", "#### 2 and so on").answered);
        let plain = compare(String::new(), "Yes\n".into(), " Yes".into(), Reason::Length, None);
        assert!(plain.correct && !plain.answered);
    }
}
