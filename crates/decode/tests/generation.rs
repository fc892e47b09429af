//! Generation on tiny models with random weights, and on the committed tiny Llama.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::{Context, Segments};
use luthier_data::{Message, Role, Template, Tokenizer, prompt_tokens};
use luthier_decode::{Chat, Error, Generated, Generator, Reason, Sampling, Settings, Stop};
use luthier_models::{LoadOptions, Model, RandomSource, Run, parse};
use luthier_tensor::{DType, Tape};
use luthier_testkit::{golden, laws};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn random(which: usize) -> Model {
    let source = RandomSource { seed: 5, std: 0.3, dtype: DType::F32 };
    Model::load(laws::shapes().swap_remove(which), &source, &LoadOptions::frozen(DType::F32)).unwrap()
}

fn glass() -> (Model, Tokenizer) {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/glass-en");
    let spec = parse(&golden::config(&folder.join("config.json"))).unwrap();
    let options = LoadOptions { storage: Some(DType::F32), ..LoadOptions::frozen(DType::F32) };
    let model = Model::load(spec, &golden::Golden::open(&folder), &options).unwrap();
    (model, Tokenizer::from_folder(&folder).unwrap())
}

fn settings(max_tokens: usize) -> Settings {
    Settings { stop: Stop { max_tokens, ..Stop::default() }, ..Settings::default() }
}

fn silent(generator: &Generator<'_>, prompts: &[Vec<u32>], settings: &Settings) -> Vec<Generated> {
    generator.generate(prompts.to_vec(), settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// The token with the highest score after `tokens`, by one forward pass.
fn next(model: &Model, tokens: &[u32]) -> u32 {
    let context = Context::eval(tokens.to_vec(), Segments::one(tokens.len()));
    let run = Run { context: Arc::new(context), adapters: Vec::new(), recompute: false };
    let hidden = model.hidden(&Tape::off(), &run);
    let n = tokens.len();
    let scores = model.logits(&hidden.value().narrow(n - 1..n), &last_row(&run)).to_f64_vec();
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a))).unwrap() as u32
}

fn last_row(run: &Run) -> Run {
    Run { context: Arc::new(Context::eval(vec![0], Segments::one(1))), ..run.clone() }
}

#[test]
fn greedy_is_the_argmax_of_the_full_forward_pass() {
    for which in 0..3 {
        let model = random(which);
        let generator = Generator { model: &model, adapters: &[], tokenizer: None };
        let mut tokens = vec![1, 2, 3];
        let answer = silent(&generator, &[tokens.clone()], &settings(12)).pop().unwrap();
        assert_eq!((answer.tokens.len(), answer.reason), (12, Reason::Length));
        for &token in &answer.tokens {
            assert_eq!(token, next(&model, &tokens), "shape {which} after {tokens:?}");
            tokens.push(token);
        }
    }
}

#[test]
fn a_batch_of_sequences_equals_each_alone() {
    let (model, tokenizer) = glass();
    let generator = Generator { model: &model, adapters: &[], tokenizer: Some(&tokenizer) };
    let prompts = ["The ", "Once upon a time there was", "He said", "A", "When the old man"];
    let prompts = prompts.map(|p| [tokenizer.start(), tokenizer.encode(p).unwrap()].concat());
    for sampling in [
        Sampling::greedy(),
        Sampling { temperature: 0.9, top_p: 0.95, top_k: 50, seed: 4, ..Sampling::default() },
    ] {
        let mut settings = Settings { sampling, ..settings(15) };
        let together = silent(&generator, &prompts, &settings);
        for batch in [1, 2] {
            settings.batch = batch;
            assert_eq!(silent(&generator, &prompts, &settings), together, "batch {batch}");
        }
    }
}

#[test]
fn a_long_prompt_is_fed_in_parts() {
    let mut spec = laws::shapes().swap_remove(0);
    spec.max_positions = 4096;
    let source = RandomSource { seed: 5, std: 0.3, dtype: DType::F32 };
    let model = Model::load(spec, &source, &LoadOptions::frozen(DType::F32)).unwrap();
    let generator = Generator { model: &model, adapters: &[], tokenizer: None };
    let prompts = [1500, 3, 900].map(|n| (0..n).map(|i| i * 7 % 23).collect::<Vec<u32>>());
    for (prompt, answer) in prompts.iter().zip(silent(&generator, &prompts, &settings(2))) {
        assert_eq!(answer.tokens[0], next(&model, prompt));
    }
}

#[test]
fn stop_strings_cut_the_text_wherever_tokens_end() {
    let (model, tokenizer) = glass();
    let generator = Generator { model: &model, adapters: &[], tokenizer: Some(&tokenizer) };
    let prompts = [tokenizer.encode("Once upon a time").unwrap()];
    let whole = silent(&generator, &prompts, &settings(24)).pop().unwrap();
    let chars = whole.text.chars().count();
    assert!(chars > 20, "{whole:?}");
    let starts = whole.text.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
    for from in (2..chars - 6).step_by(3) {
        let stop = &whole.text[starts[from]..starts[from + 5]];
        let mut settings = settings(24);
        settings.stop.strings = vec![stop.to_string()];
        let mut streamed = String::new();
        let answer = generator.generate(prompts.to_vec(), &settings, &mut |_, text| {
            streamed.push_str(text);
            ControlFlow::Continue(())
        });
        let answer = answer.unwrap().pop().unwrap();
        let expected = &whole.text[..whole.text.find(stop).unwrap()];
        assert_eq!((answer.text.as_str(), answer.reason), (expected, Reason::Stop), "stop {stop:?}");
        assert_eq!(streamed, expected);
    }
}

#[test]
fn a_stop_id_ends_the_answer_and_is_not_part_of_it() {
    let model = random(0);
    let generator = Generator { model: &model, adapters: &[], tokenizer: None };
    let whole = silent(&generator, &[vec![1, 2, 3]], &settings(8)).pop().unwrap();
    let (at, id) = (whole.tokens.iter().position(|t| *t == whole.tokens[5]).unwrap(), whole.tokens[5]);
    let mut settings = settings(8);
    settings.stop.ids = vec![id];
    let cut = silent(&generator, &[vec![1, 2, 3]], &settings).pop().unwrap();
    assert_eq!((cut.tokens.as_slice(), cut.reason), (&whole.tokens[..at], Reason::Eos));
}

#[test]
fn the_last_position_ends_an_answer_and_longer_prompts_are_refused() {
    let model = random(0);
    let limit = model.spec().max_positions;
    let generator = Generator { model: &model, adapters: &[], tokenizer: None };
    let fits = silent(&generator, &[vec![1; limit - 3]], &settings(100)).pop().unwrap();
    assert_eq!((fits.tokens.len(), fits.reason), (3, Reason::Length));
    let refused = |prompt: Vec<u32>| {
        generator
            .generate(vec![vec![1], prompt], &settings(1), &mut |_, _| panic!("work was done"))
            .unwrap_err()
    };
    assert!(matches!(refused(vec![1; limit]), Error::PromptTooLong { index: 1, .. }));
    assert!(matches!(refused(Vec::new()), Error::EmptyPrompt { index: 1 }));
    assert!(matches!(refused(vec![23]), Error::UnknownToken { index: 1, token: 23, vocab: 23 }));
}

#[test]
fn the_caller_can_break_off() {
    let (model, tokenizer) = glass();
    let generator = Generator { model: &model, adapters: &[], tokenizer: Some(&tokenizer) };
    let prompts = ["Once", "The"].map(|p| tokenizer.encode(p).unwrap());
    let mut calls = 0;
    let broken = generator.generate(prompts.to_vec(), &settings(20), &mut |_, _| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let broken = broken.unwrap();
    assert!(broken.iter().all(|g| g.reason == Reason::Interrupted && g.tokens.len() < 5), "{broken:?}");
}

#[test]
fn a_conversation_reuses_its_cache_and_answers_as_without_it() {
    let (model, tokenizer) = glass();
    let generator = Generator { model: &model, adapters: &[], tokenizer: Some(&tokenizer) };
    let template = || Template::plain(&tokenizer).unwrap();
    let mut chat = Chat::new(generator, template(), Some("a tale")).unwrap();
    let mut give = |_: &str| ControlFlow::Continue(());
    assert_eq!(chat.tokens("Once").unwrap().1, 0);
    chat.say("Once", &settings(8), &mut give).unwrap();
    let (all, cached) = chat.tokens("And then").unwrap();
    assert!(cached * 2 > all && cached < all, "{cached} of {all} tokens are cached");
    let answer = chat.say("And then", &settings(8), &mut give).unwrap();
    let messages = chat.messages();
    assert_eq!(messages.len(), 5);
    assert_eq!((messages[4].role, messages[4].content.as_str()), (Role::Assistant, answer.text.as_str()));
    let prompt = prompt_tokens(&tokenizer, &template(), &messages[..4], None).unwrap();
    assert_eq!(prompt.len(), all);
    assert_eq!(silent(&generator, &[prompt], &settings(8)), [answer]);
    let long = "word ".repeat(300);
    assert!(matches!(chat.say(&long, &settings(8), &mut give), Err(Error::PromptTooLong { .. })));
    assert_eq!(chat.messages().len(), 5, "a failed turn leaves the conversation as it was");
    chat.reset();
    assert_eq!(chat.messages(), [Message::new(Role::System, "a tale")]);
}
