use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fixtures;

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn make(tokenizer: &Tokenizer, template: &Template, loss: Loss, record: &Record) -> Made {
    Maker { tokenizer, template, loss, max_tokens: 1000, task: Task::Lm, labels: &LabelSet::default() }
        .make(record, 0, 1)
        .unwrap()
}

fn chat(messages: Vec<Message>) -> Record {
    Record::Chat { messages, tools: None }
}

/// A sample as text with its targets in brackets.
fn shown(tokenizer: &Tokenizer, sample: &Sample) -> String {
    let mut text = String::new();
    let mut at = 0;
    for run in sample.labelled.chunk_by(|a, b| a == b) {
        let piece = tokenizer.decode_raw(&sample.tokens[at..at + run.len()]).unwrap();
        text.extend(if run[0] { ["[", &piece, "]"] } else { ["", &piece, ""] });
        at += run.len();
    }
    text
}

const CONVERSATION: [(&str, &str); 2] = [("a", "b"), ("c", "d")];

fn conversation() -> Record {
    chat(CONVERSATION.iter().flat_map(|(q, a)| [user(q), assistant(a)]).collect())
}

#[test]
fn each_loss_labels_its_tokens() {
    let tokenizer = fixtures::bytes(None);
    let template = Template::chatml(&tokenizer).unwrap();
    let of = |loss| shown(&tokenizer, &make(&tokenizer, &template, loss, &conversation()).samples[0]);
    let turn = |q, a| format!("<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}\n");
    assert_eq!(of(Loss::Assistant), turn("a", "[b<|im_end|>]") + &turn("c", "[d<|im_end|>]"));
    assert_eq!(of(Loss::Last), turn("a", "b<|im_end|>") + &turn("c", "[d<|im_end|>]"));
    let all = turn("a", "b<|im_end|>") + &turn("c", "d<|im_end|>");
    assert_eq!(of(Loss::All), format!("<|im_start|>[{}]", all.strip_prefix("<|im_start|>").unwrap()));
}

#[test]
fn a_turn_of_weight_zero_is_not_learnt() {
    let tokenizer = fixtures::bytes(None);
    let template = Template::chatml(&tokenizer).unwrap();
    let mut messages = vec![user("a"), assistant("b"), user("c"), assistant("d")];
    messages[1].is_learnt = false;
    let made = make(&tokenizer, &template, Loss::Assistant, &chat(messages));
    let text = shown(&tokenizer, &made.samples[0]);
    assert!(text.contains("b<|im_end|>") && !text.contains("[b") && text.contains("[d"), "{text}");
}

#[test]
fn eos_is_learnt_where_the_template_has_none() {
    let tokenizer = fixtures::bytes(None);
    let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let template = Template::given(source, &tokenizer).unwrap();
    let made = make(&tokenizer, &template, Loss::Assistant, &chat(vec![user("a"), assistant("b")]));
    assert_eq!(shown(&tokenizer, &made.samples[0]), "user: a\nassistant: [b\n<|im_end|>]");
    assert_eq!((made.ended, made.endless), (1, 0));
    let made = make(&tokenizer, &template, Loss::Assistant, &conversation());
    assert_eq!((made.ended, made.endless), (1, 1));
}

#[test]
fn eos_is_learnt_without_a_template() {
    let tokenizer = fixtures::bytes(None);
    let made =
        make(&tokenizer, &Template::none(), Loss::Assistant, &chat(vec![user("1+1="), assistant("2")]));
    assert_eq!(shown(&tokenizer, &made.samples[0]), "1+1=[2<|im_end|>]");
}

#[test]
fn bos_is_put_once() {
    let record = chat(vec![user("a"), assistant("b")]);
    let source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}";
    let tokenizer = fixtures::pieces(Some(source));
    assert!(tokenizer.adds_bos());
    // The template writes it, so the tokenizer does not.
    let own = make(&tokenizer, &Template::of_model(&tokenizer).unwrap(), Loss::Assistant, &record);
    // The built-in template leaves it to the tokenizer.
    let plain = make(&tokenizer, &Template::plain(&tokenizer).unwrap(), Loss::Assistant, &record);
    let text = make(&tokenizer, &Template::none(), Loss::Assistant, &Record::Text("a b".into()));
    for made in [own, plain, text] {
        let tokens = &made.samples[0].tokens;
        assert_eq!((tokens[0], tokens.iter().filter(|&&id| id == 1).count()), (1, 1), "{tokens:?}");
        assert_eq!(made.double_bos, 0);
    }
    let doubles = Template::given(&format!("{{{{ bos_token }}}}{source}"), &tokenizer).unwrap();
    assert_eq!(make(&tokenizer, &doubles, Loss::Assistant, &record).double_bos, 1);
}

#[test]
fn a_sentence_piece_answer_gets_no_second_space() {
    let tokenizer = fixtures::pieces(None);
    let record = chat(vec![user("The top"), assistant("the back")]);
    let made = make(&tokenizer, &Template::plain(&tokenizer).unwrap(), Loss::Assistant, &record);
    assert_eq!(
        tokenizer.decode_raw(&made.samples[0].tokens).unwrap(),
        "<s> ### Instruction:\nThe top\n\n### Response:\nthe back</s>"
    );
}

#[test]
fn a_rewriting_template_gives_one_sample_a_turn() {
    let source = "{% for m in messages %}[{{ m.role }}]{{ m.content if loop.last else m.content | upper }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
    let tokenizer = fixtures::bytes(None);
    let template = Template::given(source, &tokenizer).unwrap();
    // The user's last turn is rendered as the last one in the prompt, and as an earlier one before the answer.
    let record = chat(vec![user("A"), assistant("b"), user("C"), assistant("d")]);
    let made = make(&tokenizer, &template, Loss::Assistant, &record);
    let texts: Vec<String> = made.samples.iter().map(|s| shown(&tokenizer, s)).collect();
    assert!(made.is_split);
    assert_eq!(texts[0], "[user]A<|im_end|>[assistant][b<|im_end|>]");
    assert_eq!(texts[1], "[user]A<|im_end|>[assistant]B<|im_end|>[user]C<|im_end|>[assistant][d<|im_end|>]");
    assert_eq!(make(&tokenizer, &template, Loss::Last, &record).samples.len(), 1);
}

#[test]
fn long_samples_are_cut_and_empty_ones_dropped() {
    let tokenizer = fixtures::bytes(None);
    let template = Template::chatml(&tokenizer).unwrap();
    let record = chat(vec![user("What is 48 + 24?"), assistant("48 + 24 = 72.")]);
    let whole = make(&tokenizer, &template, Loss::Assistant, &record).samples.remove(0);
    let at = |max_tokens| {
        Maker {
            tokenizer: &tokenizer,
            template: &template,
            loss: Loss::Assistant,
            max_tokens,
            task: Task::Lm,
            labels: &LabelSet::default(),
        }
        .make(&record, 0, 1)
        .unwrap()
    };
    let first = whole.labelled.iter().position(|&l| l).unwrap();
    let made = at(first + 2);
    assert_eq!((made.samples[0].targets(), made.truncated, made.dropped), (2, 1, 0));
    assert_eq!(made.samples[0].tokens, whole.tokens[..first + 2]);
    let made = at(first);
    assert_eq!((made.samples.len(), made.truncated, made.dropped), (0, 1, 1));
    assert_eq!(at(whole.tokens.len()).truncated, 0);
}

#[test]
fn a_long_text_becomes_chunks_that_predict_each_token_once() {
    let tokenizer = fixtures::pieces(None);
    let text = "The luthier carves the top plate from spruce and the back from maple. ".repeat(9);
    let template = Template::none();
    let labels = LabelSet::default();
    let maker = Maker {
        tokenizer: &tokenizer,
        template: &template,
        loss: Loss::Assistant,
        max_tokens: 16,
        task: Task::Lm,
        labels: &labels,
    };
    let made = maker.make(&Record::Text(text.clone()), 0, 1).unwrap();
    assert!(made.samples.len() > 3 && made.samples.iter().all(|s| s.tokens.len() <= 16));
    let mut tokens = vec![made.samples[0].tokens[0]];
    for sample in &made.samples {
        let targets = sample.tokens.iter().zip(&sample.labelled).filter(|(_, l)| **l).map(|(&t, _)| t);
        tokens.extend(targets);
    }
    let mut whole = tokenizer.start();
    whole.extend(tokenizer.encode(&text).unwrap());
    whole.push(2);
    assert_eq!(tokens, whole);
}

#[test]
fn examples_begin_as_training_does() {
    let tokenizer = fixtures::pieces(None);
    let template = Template::plain(&tokenizer).unwrap();
    let messages = vec![user("a"), assistant("b"), user("c"), assistant("d")];
    let made = make(&tokenizer, &template, Loss::Assistant, &chat(messages.clone()));
    let example = made.example.unwrap();
    assert_eq!(example.reference, "d");
    assert_eq!(example.prompt_tokens, made.samples[0].tokens[..example.prompt_tokens.len()]);
    assert!(made.samples[0].labelled[example.prompt_tokens.len()]);
    let prompt = prompt_tokens(&tokenizer, &template, &messages[..3], None).unwrap();
    assert_eq!(prompt, example.prompt_tokens);
    let first = prompt_tokens(&tokenizer, &template, &messages[..1], None).unwrap();
    assert_eq!(first, made.samples[0].tokens[..first.len()]);
}

#[test]
fn loss_all_needs_no_spans() {
    let tokenizer = fixtures::bytes(None);
    let source = "{% for m in messages %}<{{ m.content | reverse }}>{% endfor %}{% if add_generation_prompt %}?{% endif %}";
    let template = Template::given(source, &tokenizer).unwrap();
    let record = chat(vec![user("ab"), assistant("cd")]);
    let made = make(&tokenizer, &template, Loss::All, &record);
    assert_eq!(shown(&tokenizer, &made.samples[0]), "<[ba><dc>]");
    let labels = LabelSet::default();
    let maker = Maker {
        tokenizer: &tokenizer,
        template: &template,
        loss: Loss::Last,
        max_tokens: 100,
        task: Task::Lm,
        labels: &labels,
    };
    assert!(matches!(maker.make(&record, 0, 1), Err(Error::TemplateSpans { .. })));
}

#[test]
fn unknown_tokens_are_counted() {
    let tree: Value = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "added_tokens": [{"id": 0, "content": "?", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "model": {"type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"?": 0, "a": 1}, "merges": []},
    });
    let files = crate::TokenizerFiles { tokenizer: tree.to_string().into_bytes(), ..Default::default() };
    let tokenizer = Tokenizer::from_files(files).unwrap();
    let made = make(&tokenizer, &Template::none(), Loss::All, &Record::Text("axax".into()));
    assert_eq!((made.tokens, made.unknown), (4, 2));
}

proptest! {
    #[test]
    fn tokens_rejoin_to_the_rendering(turns in prop::collection::vec(("\\PC{0,20}", "\\PC{0,20}"), 1..4), is_plain: bool) {
        let tokenizer = fixtures::bytes(None);
        let template = if is_plain { Template::plain(&tokenizer) } else { Template::chatml(&tokenizer) }.unwrap();
        let messages: Vec<Message> = turns.iter().flat_map(|(q, a)| [user(q), assistant(a)]).collect();
        let made = make(&tokenizer, &template, Loss::Assistant, &chat(messages.clone()));
        let text = tokenizer.decode_raw(&made.samples[0].tokens).unwrap();
        prop_assert_eq!(text, template.render(&messages, None).unwrap());
    }

    #[test]
    fn the_prompt_of_generation_is_a_prefix_of_training(question in "\\PC{0,30}", answer in "\\PC{0,30}", is_bytes: bool) {
        let tokenizer = if is_bytes { fixtures::bytes(None) } else { fixtures::pieces(None) };
        let template = Template::of_model(&tokenizer).unwrap();
        let messages = [user(&question), assistant(&answer)];
        let made = make(&tokenizer, &template, Loss::Assistant, &chat(messages.to_vec()));
        let prompt = prompt_tokens(&tokenizer, &template, &messages[..1], None).unwrap();
        prop_assert!(made.samples[0].tokens.starts_with(&prompt));
        prop_assert!(!made.samples[0].labelled[..prompt.len()].contains(&true));
        prop_assert!(made.samples[0].labelled[prompt.len()]);
    }
}
