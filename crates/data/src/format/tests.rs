use serde_json::json;

use super::*;

fn rows(values: &[Value]) -> Rows {
    let rows = values
        .iter()
        .enumerate()
        .map(|(i, value)| Row { line: i as u64 + 1, fields: value.as_object().unwrap().clone() });
    Rows { rows: rows.collect(), ..Rows::default() }
}

fn auto(values: &[Value]) -> Result<Recognised, Error> {
    recognise(Path::new("a.jsonl"), &rows(values), Format::Auto, &Fields::default(), Task::Lm)
}

fn texts(recognised: &Recognised, value: Value) -> Vec<(Role, String)> {
    match recognised.record(&rows(&[value]).rows[0]).unwrap().unwrap() {
        Record::Chat { messages, .. } => messages.into_iter().map(|m| (m.role, m.content)).collect(),
        Record::Text(text) => vec![(Role::User, text)],
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_format_is_recognised_with_its_reason() {
    for (row, format, why) in [
        (
            json!({"instruction": "i", "input": "", "output": "o"}),
            Format::Alpaca,
            "columns `instruction` and `output`",
        ),
        (
            json!({"prompt": "p", "completion": "c"}),
            Format::PromptCompletion,
            "columns `prompt` and `completion`",
        ),
        (
            json!({"question": "q", "answer": "a"}),
            Format::PromptCompletion,
            "columns `question` and `answer`",
        ),
        (json!({"messages": []}), Format::Messages, "column `messages`"),
        (json!({"conversations": []}), Format::Sharegpt, "column `conversations`"),
        (json!({"text": "t", "id": 3}), Format::Text, "column `text`"),
    ] {
        let found = auto(&[row]).unwrap();
        assert_eq!((found.format, found.why.as_str()), (format, why));
    }
}

#[test]
fn ambiguous_columns_list_their_candidates() {
    let Err(Error::FormatAmbiguous { candidates, .. }) =
        auto(&[json!({"question": 1, "answer": 2, "text": 3})])
    else {
        panic!("must be ambiguous")
    };
    assert_eq!(candidates, "prompt-completion (columns `question` and `answer`), text (column `text`)");
}

#[test]
fn unknown_columns_are_listed() {
    let Err(Error::FormatUnknown { columns, .. }) = auto(&[json!({"b": 1}), json!({"a": 2})]) else {
        panic!("must be unknown")
    };
    assert_eq!(columns, "a, b");
}

#[test]
fn fields_name_the_columns_and_imply_the_format() {
    let fields = Fields { prompt: Some("q".into()), completion: Some("a".into()), ..Fields::default() };
    let rows_ = rows(&[json!({"q": "1+1?", "a": 2, "text": "x"})]);
    let found = recognise(Path::new("a"), &rows_, Format::Auto, &fields, Task::Lm).unwrap();
    assert_eq!(found.format, Format::PromptCompletion);
    let expected = vec![(Role::User, "1+1?".to_owned()), (Role::Assistant, "2".to_owned())];
    assert_eq!(texts(&found, json!({"q": "1+1?", "a": 2})), expected);
}

#[test]
fn fields_of_another_format_are_refused() {
    let fields = Fields { text: Some("q".into()), ..Fields::default() };
    let found = recognise(Path::new("a"), &rows(&[json!({"q": "x"})]), Format::Alpaca, &fields, Task::Lm);
    assert!(matches!(found, Err(Error::FieldName { key: "text", .. })));
}

#[test]
fn alpaca_joins_instruction_and_input() {
    let found = auto(&[json!({"instruction": "", "output": ""})]).unwrap();
    let row = json!({"instruction": "Translate.", "input": "chat", "output": "cat", "system": "Be brief."});
    let expected =
        [(Role::System, "Be brief."), (Role::User, "Translate.\n\nchat"), (Role::Assistant, "cat")];
    assert_eq!(texts(&found, row), expected.map(|(r, t)| (r, t.to_owned())));
    assert_eq!(texts(&found, json!({"instruction": "Go.", "input": "", "output": "k"}))[0].1, "Go.");
}

#[test]
fn sharegpt_roles_are_translated() {
    let found = auto(&[json!({"conversations": []})]).unwrap();
    let row = json!({"system": "s", "conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]});
    let expected = [(Role::System, "s"), (Role::User, "h"), (Role::Assistant, "g")];
    assert_eq!(texts(&found, row), expected.map(|(r, t)| (r, t.to_owned())));
}

#[test]
fn messages_with_parts_tools_and_weight() {
    let found = auto(&[json!({"messages": []})]).unwrap();
    let row = json!({"tools": [{"name": "f"}], "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [1], "weight": 0},
        {"role": "assistant", "content": "done"},
    ]});
    let Record::Chat { messages, tools } = found.record(&rows(&[row]).rows[0]).unwrap().unwrap() else {
        panic!("chat")
    };
    assert_eq!(messages[0].content, "ab");
    assert_eq!(messages[1].extra["tool_calls"], json!([1]));
    assert_eq!([messages[1].is_learnt, messages[2].is_learnt], [false, true]);
    assert_eq!(tools, Some(json!([{"name": "f"}])));
}

#[test]
fn each_fault_names_its_field() {
    let chat = auto(&[json!({"messages": []})]).unwrap();
    let pair = auto(&[json!({"question": "q", "answer": "a"})]).unwrap();
    let fault = |found: &Recognised, value: Value| {
        let (field, kind) = found.record(&rows(&[value]).rows[0]).unwrap_err();
        format!("{}: {kind}", field.unwrap())
    };
    assert_eq!(fault(&pair, json!({"question": "q"})), "answer: missing");
    assert_eq!(fault(&pair, json!({"question": "q", "answer": null})), "answer: missing");
    assert_eq!(
        fault(&pair, json!({"question": ["q"], "answer": "a"})),
        "question: expected a string, got a list"
    );
    assert_eq!(fault(&chat, json!({"messages": "x"})), "messages: expected a list of messages, got a string");
    assert_eq!(
        fault(&chat, json!({"messages": [{"role": "king", "content": ""}]})),
        "messages[0].role: unknown role `king`"
    );
    assert_eq!(fault(&chat, json!({"messages": [{"content": ""}]})), "messages[0].role: missing");
    assert_eq!(
        fault(&chat, json!({"messages": [{"role": "user", "content": "x"}]})),
        "messages: no assistant turn"
    );
    assert_eq!(
        fault(&chat, json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})),
        "messages[0].content: message part of type `image_url`, only text is supported"
    );
}
