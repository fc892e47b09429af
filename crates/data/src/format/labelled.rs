//! Columns of labelled rows: one or two texts and a label, or words and their tags.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Fault, Fields, Record};
use crate::problem::ProblemKind;
use crate::read::{Row, kind_of};
use crate::task::{Task, Written};

/// Two texts whose relation is asked for, in common data sets.
const PAIRS: [(&str, &str); 10] = [
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("text", "pair"),
    ("text", "text_pair"),
];
/// One text.
const TEXTS: [&str; 8] = ["text", "sentence", "content", "review", "tweet", "headline", "title", "question"];
/// The label.
const LABELS: [&str; 9] =
    ["label", "labels", "class", "category", "target", "gold_label", "sentiment", "intent", "score"];
/// Words of a sentence.
const WORDS: [&str; 2] = ["tokens", "words"];
/// Their tags.
const TAGS: [&str; 5] = ["tags", "ner_tags", "pos_tags", "labels", "ner"];

/// Where a labelled row keeps what.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Labelled {
    /// One or two texts and a label.
    Texts { texts: Vec<String>, label: String },
    /// Words and tags.
    Words { words: String, tags: String },
}

impl Labelled {
    /// The columns of a task's rows, with why; or else what is missing.
    pub(super) fn find(
        columns: &BTreeSet<&str>,
        fields: &Fields,
        task: Task,
    ) -> Result<(Self, String), &'static str> {
        let has = |name: &&str| columns.contains(*name);
        let given = |field: &Option<String>, usual: &[&str]| {
            field.clone().or_else(|| usual.iter().find(|n| has(n)).map(|n| (*n).to_owned()))
        };
        if task == Task::TokenClassification {
            let words = given(&fields.tokens, &WORDS).ok_or("words (`tokens`)")?;
            let tags = given(&fields.tags, &TAGS).ok_or("tags (`tags`)")?;
            let why = format!("columns `{words}` and `{tags}`");
            return Ok((Self::Words { words, tags }, why));
        }
        let label = given(&fields.label, &LABELS).ok_or("a label (`label`)")?;
        let texts = match (&fields.text, &fields.pair) {
            (Some(text), pair) => std::iter::once(text).chain(pair).cloned().collect(),
            (None, Some(pair)) => {
                let first = TEXTS.iter().find(|n| has(n) && **n != *pair).ok_or("a text (`text`)")?;
                vec![(*first).to_owned(), pair.clone()]
            }
            (None, None) => {
                if let Some((a, b)) = PAIRS.iter().find(|(a, b)| has(a) && has(b)) {
                    vec![(*a).to_owned(), (*b).to_owned()]
                } else {
                    let text = TEXTS.iter().find(|n| has(n) && **n != label);
                    vec![(*text.ok_or("a text (`text`)")?).to_owned()]
                }
            }
        };
        let listed = texts.iter().chain([&label]).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        Ok((Self::Texts { texts, label }, format!("columns {listed}")))
    }

    /// Reads one row.
    pub(super) fn record(&self, row: &Row, task: Task) -> Result<Record, Fault> {
        match self {
            Self::Texts { texts, label } => {
                let texts = texts.iter().map(|c| super::required(row, c)).collect::<Result<_, _>>()?;
                Ok(Record::Labelled { texts, label: written(row, label, task)? })
            }
            Self::Words { words, tags } => {
                let (words, found) = (list(row, words)?, list(row, tags)?);
                if words.len() != found.len() {
                    let kind = ProblemKind::Tags { words: words.len(), tags: found.len() };
                    return Err((Some(tags.clone()), kind));
                }
                Ok(Record::Tagged { words, tags: found })
            }
        }
    }
}

fn written(row: &Row, column: &str, task: Task) -> Result<Written, Fault> {
    let at = || Some(column.to_owned());
    let value = match row.fields.get(column) {
        None | Some(Value::Null) => return Err((at(), ProblemKind::Missing)),
        Some(value) => value,
    };
    if task == Task::Regression {
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse::<f64>().ok());
        let wrong = || (at(), ProblemKind::Type { expected: "a number", got: kind_of(value) });
        return number.filter(|n| n.is_finite()).map(Written::Number).ok_or_else(wrong);
    }
    match value {
        Value::Array(items) => {
            let names = items.iter().map(|item| name(item).ok_or(item));
            let names = names.collect::<Result<Vec<_>, _>>();
            names.map(Written::Many).map_err(|item| {
                (at(), ProblemKind::Type { expected: "a list of labels", got: kind_of(item) })
            })
        }
        other => name(other)
            .map(Written::One)
            .ok_or_else(|| (at(), ProblemKind::Type { expected: "a label", got: kind_of(other) })),
    }
}

fn name(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A list of texts; numbers count as their text. Text is words apart by spaces.
fn list(row: &Row, column: &str) -> Result<Vec<String>, Fault> {
    match row.fields.get(column) {
        None | Some(Value::Null) => Err((Some(column.to_owned()), ProblemKind::Missing)),
        Some(Value::String(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Some(Value::Array(items)) => {
            let wrong = |item: &Value| {
                (
                    Some(column.to_owned()),
                    ProblemKind::Type { expected: "a list of texts", got: kind_of(item) },
                )
            };
            items.iter().map(|item| name(item).ok_or_else(|| wrong(item))).collect()
        }
        Some(other) => {
            Err((Some(column.to_owned()), ProblemKind::Type { expected: "a list", got: kind_of(other) }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ONE: Task = Task::Classification { multi_label: false };

    fn row(value: Value) -> Row {
        let Value::Object(fields) = value else { panic!("a row is an object") };
        Row { line: 1, fields }
    }

    fn read(value: Value, fields: &Fields, task: Task) -> Result<Record, Fault> {
        let row = row(value);
        let columns = row.fields.keys().map(String::as_str).collect();
        Labelled::find(&columns, fields, task).unwrap().0.record(&row, task)
    }

    fn texts(record: Record) -> (Vec<String>, Written) {
        match record {
            Record::Labelled { texts, label } => (texts, label),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn usual_columns_are_found() {
        let own = Fields::default();
        for (row, expected) in [
            (json!({"text": "a", "label": 1}), &["a"][..]),
            (json!({"idx": 3, "sentence1": "a", "sentence2": "b", "label": true}), &["a", "b"]),
            (json!({"hypothesis": "b", "premise": "a", "gold_label": "neutral"}), &["a", "b"]),
            (json!({"question": "a", "sentence": "b", "label": "x"}), &["a", "b"]),
            (json!({"sentence": "a", "class": "x"}), &["a"]),
        ] {
            assert_eq!(texts(read(row, &own, ONE).unwrap()).0, expected);
        }
        let (_, label) = texts(read(json!({"text": "a", "label": true}), &own, ONE).unwrap());
        assert_eq!(label, Written::One("true".into()));
    }

    #[test]
    fn fields_name_other_columns() {
        let fields = Fields { text: Some("body".into()), label: Some("kind".into()), ..Fields::default() };
        let (texts, label) =
            texts(read(json!({"body": "a", "text": "no", "kind": ["x", 2]}), &fields, ONE).unwrap());
        assert_eq!((texts, label), (vec!["a".into()], Written::Many(vec!["x".into(), "2".into()])));
    }

    #[test]
    fn numbers_and_tags() {
        let own = Fields::default();
        let (_, label) = texts(read(json!({"text": "a", "score": "2.5"}), &own, Task::Regression).unwrap());
        assert_eq!(label, Written::Number(2.5));
        assert!(read(json!({"text": "a", "label": "x"}), &own, Task::Regression).is_err());
        let tagged = json!({"tokens": ["a", "b"], "ner_tags": ["O", "B-x"]});
        let expected =
            Record::Tagged { words: vec!["a".into(), "b".into()], tags: vec!["O".into(), "B-x".into()] };
        assert_eq!(read(tagged, &own, Task::TokenClassification), Ok(expected));
        let short = json!({"tokens": ["a", "b"], "tags": ["O"]});
        let fault = read(short, &own, Task::TokenClassification).unwrap_err();
        assert_eq!(fault.1, ProblemKind::Tags { words: 2, tags: 1 });
    }

    #[test]
    fn what_is_missing_is_named() {
        let find = |names: &[&str]| Labelled::find(&names.iter().copied().collect(), &Fields::default(), ONE);
        assert_eq!(find(&["text"]).unwrap_err(), "a label (`label`)");
        assert_eq!(find(&["body", "label"]).unwrap_err(), "a text (`text`)");
    }
}
