use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixtures;

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

fn ids(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn byte_level_ids_are_the_references() {
    let (tokenizer, golden) = (fixtures::bytes(None), fixtures::json_of(fixtures::BYTES_GOLDEN));
    for (text, ids) in strings(&golden["texts"]).iter().zip(ids(&golden["ids"]["smollm"])) {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.decode_raw(&ids).unwrap(), text);
    }
    let chat = golden["chat"].as_str().unwrap();
    assert_eq!(json!(tokenizer.encode(chat).unwrap()), golden["chat_ids"]);
}

#[test]
fn gguf_byte_level_ids_are_the_references_for_each_pre_tokenizer() {
    let golden = fixtures::json_of(fixtures::BYTES_GOLDEN);
    for (pre, expected) in golden["ids"].as_object().unwrap() {
        let tokenizer = Tokenizer::from_gguf(&fixtures::bytes_gguf(Some(pre))).unwrap();
        for (text, ids) in strings(&golden["texts"]).iter().zip(ids(expected)) {
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{pre} {text:?}");
        }
        let chat = golden["chat"].as_str().unwrap();
        assert_eq!(json!(tokenizer.encode(chat).unwrap()), golden["chat_ids"]);
    }
}

#[test]
fn sentence_piece_ids_are_the_references_from_json_and_gguf() {
    let golden = fixtures::json_of(fixtures::PIECES_GOLDEN);
    let gguf = Tokenizer::from_gguf(&fixtures::pieces_gguf()).unwrap();
    for tokenizer in [&fixtures::pieces(None), &gguf] {
        let decoded = strings(&golden["decoded"]);
        for ((text, ids), decoded) in strings(&golden["texts"]).iter().zip(ids(&golden["ids"])).zip(decoded) {
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), decoded);
        }
        assert!(tokenizer.adds_bos());
        assert_eq!(tokenizer.start(), [1]);
        assert_eq!(tokenizer.special().unk, Some(0));
    }
}

#[test]
fn the_files_of_a_gguf_tokenizer_load_as_the_same_tokenizer() {
    for gguf in [fixtures::bytes_gguf(Some("llama-bpe")), fixtures::pieces_gguf()] {
        let gguf = GgufTokenizer { chat_template: Some("{{ 1 }}".into()), add_bos: Some(true), ..gguf };
        let first = Tokenizer::from_gguf(&gguf).unwrap();
        let file = |name: &str| first.files().iter().find(|(n, _)| n == name).map(|(_, bytes)| bytes.clone());
        let second = Tokenizer::from_files(TokenizerFiles {
            tokenizer: file("tokenizer.json").unwrap(),
            config: file("tokenizer_config.json"),
            ..TokenizerFiles::default()
        })
        .unwrap();
        assert_eq!(
            (first.special(), first.stops(), first.adds_bos()),
            (second.special(), second.stops(), true)
        );
        assert_eq!((first.template(), first.vocab()), (second.template(), second.vocab()));
        let text = "It's 2024: naïve 琴 <s>x</s>";
        assert_eq!(first.encode(text).unwrap(), second.encode(text).unwrap());
        assert!(second.post_processor_starts_with_bos());
    }
}

#[test]
fn defaults_of_add_bos_depend_on_the_kind() {
    let adds = |gguf: GgufTokenizer| {
        Tokenizer::from_gguf(&GgufTokenizer { add_bos: None, ..gguf }).unwrap().adds_bos()
    };
    assert!(adds(fixtures::pieces_gguf()));
    assert!(adds(fixtures::bytes_gguf(Some("llama-bpe"))));
    assert!(!adds(fixtures::bytes_gguf(Some("smollm"))));
    assert!(!adds(fixtures::bytes_gguf(None)));
}

#[test]
fn a_continuation_has_no_space_before_it() {
    let tokenizer = fixtures::pieces(None);
    let whole = tokenizer.encode("The string").unwrap();
    let mut parts = tokenizer.encode("The").unwrap();
    parts.extend(tokenizer.encode_continuation(" string").unwrap());
    assert_eq!(parts, whole);
    let after_special = tokenizer.encode_continuation("a</s>The").unwrap();
    assert_eq!(
        tokenizer.decode_raw(&after_special).unwrap(),
        tokenizer.decode_raw(&tokenizer.encode("a</s>The").unwrap()).unwrap()
    );
}

#[test]
fn stop_ids_come_from_all_files_once() {
    let generation = json!({"eos_token_id": [2, 0, 2, 99999]}).to_string().into_bytes();
    let config = json!({"eos_token": "<|im_end|>"}).to_string().into_bytes();
    let files = TokenizerFiles {
        tokenizer: fixtures::BYTES.to_vec(),
        config: Some(config),
        generation: Some(generation),
        ..TokenizerFiles::default()
    };
    assert_eq!(Tokenizer::from_files(files).unwrap().stops(), [2, 0]);
}

#[test]
fn templates_are_found_in_every_place() {
    let with = |template: Value| {
        fixtures::bytes_with(&json!({"chat_template": template})).template().map(str::to_owned)
    };
    assert_eq!(with(json!("a")).as_deref(), Some("a"));
    assert_eq!(
        with(json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}])).as_deref(),
        Some("d")
    );
    assert_eq!(with(json!("  ")), None);
    assert_eq!(with(Value::Null), None);
    let files = TokenizerFiles {
        tokenizer: fixtures::BYTES.to_vec(),
        config: Some(b"{\"chat_template\": \"old\"}".to_vec()),
        template: Some(b"new".to_vec()),
        ..TokenizerFiles::default()
    };
    assert_eq!(Tokenizer::from_files(files).unwrap().template(), Some("new"));
}

#[test]
fn a_folder_without_a_tokenizer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::from_folder(folder.path()), Err(Error::TokenizerMissing { .. })));
    std::fs::write(folder.path().join("tokenizer.json"), fixtures::BYTES).unwrap();
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().vocab(), 580);
}

/// The tokenizer with its tree changed; the reason of the refusal.
fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let mut tree: Value = serde_json::from_slice(fixtures::BYTES).unwrap();
    change(&mut tree);
    let files = TokenizerFiles { tokenizer: tree.to_string().into_bytes(), ..TokenizerFiles::default() };
    Tokenizer::from_files(files).unwrap_err().to_string()
}

#[test]
fn a_merge_longer_than_every_token_is_refused() {
    let long = "x".repeat(5000);
    let said = refusal(|tree| tree["model"]["merges"] = json!([[long, "y"]]));
    assert!(said.contains("merge 0 needs the token"), "{}", &said[..80]);
    let said = refusal(|tree| tree["model"]["merges"] = json!([["a", "b"]]));
    assert!(said.contains("merge 0 needs the token `ab`"), "{said}");
    assert!(refusal(|tree| tree["model"]["merges"] = json!(["ab"])).contains("merge 0 is not a pair"));
}

#[test]
fn a_huge_token_id_is_refused() {
    assert!(
        refusal(|tree| tree["model"]["vocab"]["a"] = json!(4_000_000_000_u64)).contains("has id 4000000000")
    );
    assert!(refusal(|tree| tree["model"]["vocab"]["a"] = json!(-1)).contains("has id -1"));
    assert!(refusal(|tree| tree["added_tokens"][0]["id"] = json!(4_000_000_000_u64)).contains("added token"));
}

#[test]
fn a_pattern_of_a_megabyte_is_refused() {
    let pattern = "(a+)+".repeat(200_000);
    let said = refusal(|tree| {
        tree["pre_tokenizer"] =
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    });
    assert!(said.contains("pre_tokenizer.pattern.Regex has 1000000 bytes"), "{said}");
}

#[test]
fn a_pattern_that_backtracks_without_end_stops() {
    let mut tree: Value = serde_json::from_slice(fixtures::BYTES).unwrap();
    tree["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "(?=(a+)+b)(a+)+b"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    ]});
    let files = TokenizerFiles { tokenizer: tree.to_string().into_bytes(), ..TokenizerFiles::default() };
    // A refusal, or ids: what counts is that it ends.
    if let Ok(tokenizer) = Tokenizer::from_files(files) {
        let _ = tokenizer.encode(&"a".repeat(200));
    }
}

#[test]
fn a_million_equal_characters_are_encoded() {
    for tokenizer in [fixtures::bytes(None), fixtures::pieces(None)] {
        let text = "^".repeat(1_000_000);
        let ids = tokenizer.encode(&text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
}

#[test]
fn files_that_are_no_tokenizer_are_refused() {
    for bytes in [&b""[..], b"[]", b"{}", b"{\"model\": 3}", b"\xFF", b"{\"model\": {\"type\": \"BPE\"}}"] {
        let files = TokenizerFiles { tokenizer: bytes.to_vec(), ..TokenizerFiles::default() };
        assert!(matches!(Tokenizer::from_files(files), Err(Error::Tokenizer { .. })));
    }
    let deep = "[".repeat(100_000).into_bytes();
    let files = TokenizerFiles { tokenizer: deep, ..TokenizerFiles::default() };
    assert!(matches!(Tokenizer::from_files(files), Err(Error::Tokenizer { .. })));
}

#[test]
fn dropout_truncation_and_padding_of_the_file_are_off() {
    let mut tree: Value = serde_json::from_slice(fixtures::BYTES).unwrap();
    tree["model"]["dropout"] = json!(0.9);
    tree["truncation"] =
        json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    tree["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    let files = TokenizerFiles { tokenizer: tree.to_string().into_bytes(), ..TokenizerFiles::default() };
    let changed = Tokenizer::from_files(files).unwrap();
    let text = "The luthier carves the top plate from spruce and the back from maple.";
    assert_eq!(changed.encode(text).unwrap(), fixtures::bytes(None).encode(text).unwrap());
}

#[test]
fn wrong_gguf_arrays_are_refused() {
    let refused = |gguf: GgufTokenizer| Tokenizer::from_gguf(&gguf).unwrap_err().to_string();
    let base = || fixtures::bytes_gguf(Some("smollm"));
    assert!(refused(GgufTokenizer { model: "bert".into(), ..base() }).contains("`bert`"));
    assert!(refused(GgufTokenizer { tokens: vec![], ..base() }).contains("has 0 entries"));
    assert!(refused(GgufTokenizer { token_types: vec![1], ..base() }).contains("token_type has 1 entries"));
    assert!(refused(GgufTokenizer { scores: vec![0.0], ..base() }).contains("scores has 1 entries"));
    assert!(refused(GgufTokenizer { eos: Some(580), ..base() }).contains("eos_token_id"));
    assert!(refused(GgufTokenizer { merges: vec!["ab".into()], ..base() }).contains("merge 0 is not a pair"));
    assert!(
        refused(GgufTokenizer { merges: vec!["a zz".into()], ..base() })
            .contains("merge 0 needs the token `zz`")
    );
    assert!(
        refused(GgufTokenizer { pre: Some("dbrx".into()), ..base() }).contains("known are: default, gpt-2")
    );
    let long = GgufTokenizer { tokens: vec!["x".repeat(5000)], token_types: vec![], ..base() };
    assert!(refused(long).contains("token 0 has 5000 bytes"));
    assert!(
        refused(GgufTokenizer { scores: vec![], ..fixtures::pieces_gguf() }).contains("scores is missing")
    );
}

#[test]
fn scores_that_are_no_numbers_do_not_panic() {
    let mut gguf = fixtures::pieces_gguf();
    gguf.scores.fill(f32::NAN);
    assert!(Tokenizer::from_gguf(&gguf).is_ok());
}

#[test]
fn unknown_text_is_seen() {
    let drops: Value = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": {"a": 0, "b": 1}, "merges": []},
    });
    let files = TokenizerFiles { tokenizer: drops.to_string().into_bytes(), ..TokenizerFiles::default() };
    let tokenizer = Tokenizer::from_files(files).unwrap();
    assert_eq!(tokenizer.dropped_characters("abc da", &mut BTreeMap::new()), 2);
    assert_eq!(fixtures::bytes(None).dropped_characters("琴", &mut BTreeMap::new()), 0);
    // UNK that is also EOS is not unknown text.
    let both = fixtures::bytes_with(&json!({"eos_token": "<|im_end|>", "unk_token": "<|im_end|>"}));
    assert!(!both.is_unknown(2) && fixtures::pieces(None).is_unknown(0));
}

fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream();
    let mut parts: Vec<String> = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
    parts.push(stream.finish().unwrap());
    parts
}

#[test]
fn streaming_never_emits_half_a_character() {
    for tokenizer in [fixtures::bytes(None), fixtures::pieces(None)] {
        for text in ["琴匠 🎻🎶 hört", "👨‍👩‍👧 family", "plain text"] {
            let ids = tokenizer.encode(text).unwrap();
            let parts = streamed(&tokenizer, &ids);
            assert!(parts.iter().all(|part| !part.contains('\u{FFFD}')), "{parts:?}");
            assert_eq!(parts.concat(), text);
        }
    }
}

#[test]
fn a_stream_cut_inside_a_character_ends_with_a_replacement() {
    let tokenizer = fixtures::bytes(None);
    let ids = tokenizer.encode("a🎻").unwrap();
    assert_eq!(streamed(&tokenizer, &ids[..ids.len() - 1]).concat(), "a\u{FFFD}");
}

#[test]
fn a_stream_of_broken_bytes_flows_on() {
    let tokenizer = fixtures::bytes(None);
    let half = tokenizer.encode("🎻").unwrap()[0];
    let parts = streamed(&tokenizer, &[half; 40]);
    assert!(parts.len() > 5, "{parts:?}");
    let text = parts.concat();
    assert!(text.chars().all(|c| c == '\u{FFFD}') && text.chars().count() >= 38, "{text}");
}

#[test]
fn special_tokens_are_left_out_of_streams_and_kept_in_runs() {
    let tokenizer = fixtures::bytes(None);
    let ids = tokenizer.encode("<|im_start|>琴<|im_end|>").unwrap();
    assert_eq!(streamed(&tokenizer, &ids).concat(), "琴");
    let runs = tokenizer.whole_characters(&ids).unwrap();
    let texts: Vec<&str> = runs.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["<|im_start|>", "琴", "<|im_end|>"]);
    assert_eq!(runs[1].0, 1..ids.len() - 1);
}

proptest! {
    #[test]
    fn streams_and_runs_rejoin_to_the_text(text in "\\PC{0,40}") {
        let tokenizer = fixtures::bytes(None);
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(streamed(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
        let runs = tokenizer.whole_characters(&ids).unwrap();
        prop_assert_eq!(runs.iter().map(|(_, text)| text.as_str()).collect::<String>(), text);
        prop_assert!(runs.windows(2).all(|pair| pair[0].0.end == pair[1].0.start));
    }

    #[test]
    fn any_ids_stream_to_what_they_decode_to(ids in prop::collection::vec(3_u32..580, 0..40)) {
        let tokenizer = fixtures::bytes(None);
        prop_assert_eq!(streamed(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
    }

    #[test]
    fn any_json_is_refused_without_a_panic(text in "[\\[\\]{}\",:a0-9]{0,60}") {
        let files = TokenizerFiles { tokenizer: text.into_bytes(), ..TokenizerFiles::default() };
        let _ = Tokenizer::from_files(files);
    }
}
