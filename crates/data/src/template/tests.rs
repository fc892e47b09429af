use serde_json::json;

use super::*;
use crate::fixtures;

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn template(source: &str) -> Template {
    Template::given(source, &fixtures::bytes(None)).unwrap()
}

fn answers(layout: Layout) -> Vec<Vec<String>> {
    let of = |r: Rendering| r.answers.iter().map(|(range, _)| r.text[range.clone()].to_owned()).collect();
    match layout {
        Layout::Whole(rendering) => vec![of(rendering)],
        Layout::Split(list) => list.into_iter().map(of).collect(),
    }
}

const CHATML: &str = builtin::CHATML;

#[test]
fn renderings_are_those_of_transformers() {
    let golden = fixtures::json_of(include_str!("../../golden/templates.golden.json"));
    for case in golden["cases"].as_array().unwrap() {
        let engine = Engine::new(case["template"].as_str().unwrap()).unwrap();
        let mut context = case["context"].clone();
        if context["tools"].is_null() {
            context.as_object_mut().unwrap().shift_remove("tools");
        }
        let (text, spans) = engine::unmarked(engine.render(&context).unwrap());
        assert_eq!(text, case["text"].as_str().unwrap(), "{}", case["name"]);
        if let Some(expected) = case.get("spans") {
            let spans: Vec<&str> = spans.iter().map(|s| &text[s.clone()]).collect();
            assert_eq!(&json!(spans), expected);
        }
    }
}

#[test]
fn answers_are_found_by_prefixes() {
    let messages = [user("a"), assistant("b"), user("c"), assistant("d")];
    let found = answers(template(CHATML).layout(&messages, None).unwrap());
    assert_eq!(found, [["b<|im_end|>\n", "d<|im_end|>\n"]]);
}

#[test]
fn the_plain_template_ends_each_answer() {
    let tokenizer = fixtures::bytes(None);
    let template = Template::plain(&tokenizer).unwrap();
    let messages = [Message::new(Role::System, "s"), user("a"), assistant("b"), user("c"), assistant("d")];
    let Layout::Whole(rendering) = template.layout(&messages, None).unwrap() else { panic!("whole") };
    assert_eq!(
        rendering.text,
        "s\n\n### Instruction:\na\n\n### Response:\nb<|im_end|>\n\n### Instruction:\nc\n\n### Response:\nd<|im_end|>"
    );
    assert_eq!(answers(Layout::Whole(rendering)), [["b<|im_end|>", "d<|im_end|>"]]);
}

#[test]
fn an_opened_thinking_tag_in_the_generation_prompt_is_handled() {
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}\
                  {% if add_generation_prompt %}[assistant]<think>\n{% endif %}";
    // The answer begins as the tag does: a common prefix would cut it.
    let found = answers(template(source).layout(&[user("a"), assistant("<thing>")], None).unwrap());
    assert_eq!(found, [["<thing></s>"]]);
}

const FORGETS_THINKING: &str = "{% for m in messages %}[{{ m.role }}]\
    {{ m.content if loop.last else m.content.split('</think>')[-1] }}</s>{% endfor %}\
    {% if add_generation_prompt %}[assistant]{% endif %}";

#[test]
fn a_template_that_rewrites_earlier_turns_gives_one_rendering_a_turn() {
    let messages = [user("a"), assistant("<think>x</think>b"), user("c"), assistant("<think>y</think>d")];
    let layout = template(FORGETS_THINKING).layout(&messages, None).unwrap();
    let Layout::Split(list) = &layout else { panic!("split") };
    assert_eq!(list[0].text, "[user]a</s>[assistant]<think>x</think>b</s>");
    assert_eq!(list[1].text, "[user]a</s>[assistant]b</s>[user]c</s>[assistant]<think>y</think>d</s>");
    assert_eq!(answers(layout), [["<think>x</think>b</s>"], ["<think>y</think>d</s>"]]);
    let same = [user("a"), assistant("b"), user("c"), assistant("d")];
    assert!(matches!(template(FORGETS_THINKING).layout(&same, None).unwrap(), Layout::Whole(_)));
}

#[test]
fn generation_tags_give_the_spans() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}!{% endgeneration %}\
                  {% else %}{{ m.content }}{% endif %}{% endfor %}";
    let messages = [user("a"), assistant("b"), user("c"), assistant("d")];
    assert_eq!(answers(template(source).layout(&messages, None).unwrap()), [["b!", "d!"]]);
}

#[test]
fn a_template_that_hides_its_answers_is_refused_by_name() {
    // The content is reversed, and the generation prompt is not the turn's header.
    let source = "{% for m in messages %}<{{ m.content | reverse }}>{% endfor %}{% if add_generation_prompt %}?{% endif %}";
    let error = template(source).layout(&[user("ab"), assistant("cd")], None).unwrap_err();
    assert!(matches!(error, Error::TemplateSpans { turn: 1, .. }), "{error}");
    assert!(error.to_string().contains("the run's own"));
}

#[test]
fn no_template_joins_the_contents() {
    let found = answers(Template::none().layout(&[user("Q: 1+1\nA:"), assistant(" 2")], None).unwrap());
    assert_eq!(found, [[" 2"]]);
}

#[test]
fn the_choice_depends_on_the_model() {
    let source = |tokenizer: &Tokenizer| Template::of_model(tokenizer).unwrap().source().clone();
    assert_eq!(source(&fixtures::bytes(Some("{{ 1 }}"))), TemplateSource::Model);
    assert_eq!(source(&fixtures::bytes(None)), TemplateSource::Chatml);
    assert_eq!(source(&fixtures::pieces(None)), TemplateSource::Plain);
}

#[test]
fn tools_and_extra_keys_reach_the_template() {
    let mut call = assistant("");
    call.extra.insert("tool_calls".into(), json!([{"name": "f"}]));
    let source =
        "{{ tools | tojson }}{% for m in messages %}{{ m.tool_calls | tojson if m.tool_calls }}{% endfor %}";
    let text = template(source).render(&[user("x"), call], Some(&json!([1]))).unwrap();
    assert_eq!(text, "[1][{\"name\": \"f\"}]");
}

fn conversation() -> impl proptest::strategy::Strategy<Value = Vec<(String, String)>> {
    use proptest::prelude::*;
    prop::collection::vec(("\\PC{0,20}", "\\PC{0,20}"), 1..4)
}

proptest::proptest! {
    #[test]
    fn pieces_rejoin_to_the_full_rendering(turns in conversation(), which in 0..4_usize) {
        let source = [CHATML, builtin::PLAIN, FORGETS_THINKING, "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"][which];
        let template = if which == 1 { Template::plain(&fixtures::bytes(None)).unwrap() } else { template(source) };
        let messages: Vec<Message> = turns.iter().flat_map(|(q, a)| [user(q), assistant(a)]).collect();
        let full = template.render(&messages, None).unwrap();
        match template.layout(&messages, None) {
            Ok(Layout::Whole(rendering)) => {
                proptest::prop_assert_eq!(&rendering.text, &full);
                let mut rejoined = String::new();
                let mut at = 0;
                for (range, _) in &rendering.answers {
                    rejoined.push_str(&rendering.text[at..range.start]);
                    rejoined.push_str(&rendering.text[range.clone()]);
                    at = range.end;
                }
                rejoined.push_str(&rendering.text[at..]);
                proptest::prop_assert_eq!(rejoined, full);
            }
            Ok(Layout::Split(list)) => {
                proptest::prop_assert_eq!(&list.last().unwrap().text, &full);
            }
            Err(error) => proptest::prop_assert!(matches!(error, Error::TemplateSpans { .. }), "{}", error),
        }
    }
}

#[test]
fn headings_use_only_signs_that_the_vocabulary_has() {
    let files = crate::TokenizerFiles {
        tokenizer: json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"?": 0, "a": 1}, "merges": []},
        })
        .to_string()
        .into_bytes(),
        ..Default::default()
    };
    let small = Template::plain(&Tokenizer::from_files(files).unwrap()).unwrap();
    assert_eq!(small.render_prompt(&[user("a")], None).unwrap(), "Instruction:\na\n\nResponse:\n");
}
