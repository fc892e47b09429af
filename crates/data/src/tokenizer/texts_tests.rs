use serde_json::Value;

use crate::fixtures::json_of;
use crate::tokenizer::Tokenizer;

const GOLDEN: &str = include_str!("../../golden/encoders.json");

fn folder(files: &Value) -> (tempfile::TempDir, Tokenizer) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files.as_object().unwrap() {
        std::fs::write(folder.path().join(name), text.as_str().unwrap()).unwrap();
    }
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    (folder, tokenizer)
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
}

/// Word indices as transformers gives them, without those of tokens that continue a word.
fn beginnings(of: &Value) -> Vec<Option<u32>> {
    let mut last = None;
    let of = of.as_array().unwrap().iter().map(|v| v.as_u64().map(|v| v as u32));
    of.map(|word| {
        let begins = word.filter(|_| word != last);
        last = word.or(last);
        begins
    })
    .collect()
}

#[test]
fn folders_without_tokenizer_json_read_as_transformers_reads_them() {
    let golden = json_of(GOLDEN);
    let mut seen = 0;
    for (name, part) in golden["folders"].as_object().unwrap() {
        let (_folder, tokenizer) = folder(&part["files"]);
        for case in part["cases"].as_array().unwrap() {
            let limit = case["limit"].as_u64().unwrap() as usize;
            let (encoded, what) = if let Some(words) = case.get("words") {
                let encoded = tokenizer.encode_words(&texts(words), limit).unwrap();
                assert_eq!(encoded.words, beginnings(&case["of"]), "{name}: {words}");
                (encoded, words)
            } else {
                let encoded = tokenizer.encode_texts(&texts(&case["texts"]), limit).unwrap();
                assert_eq!(encoded.types, numbers(&case["types"]), "{name}: {}", case["texts"]);
                (encoded, &case["texts"])
            };
            assert_eq!(encoded.tokens, numbers(&case["ids"]), "{name}: {what}");
            assert!(
                encoded.tokens.len() <= limit && encoded.is_cut == (encoded.whole > limit),
                "{name}: {what}"
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 45);
}

#[test]
fn masks_and_surroundings_are_known() {
    let golden = json_of(GOLDEN);
    let (_a, bert) = folder(&golden["folders"]["uncased"]["files"]);
    assert_eq!((bert.special().mask, bert.around().unwrap()), (Some(4), (vec![2], vec![3])));
    assert!(bert.is_special(2) && bert.is_special(4) && !bert.is_special(5));
    let (_b, roberta) = folder(&golden["folders"]["roberta"]["files"]);
    assert_eq!((roberta.special().mask, roberta.around().unwrap()), (Some(4), (vec![0], vec![2])));
}

#[test]
fn a_decoder_puts_its_bos_before_a_text_to_classify() {
    let llama = crate::fixtures::pieces(None);
    let encoded = llama.encode_texts(&["a b".to_owned()], 64).unwrap();
    assert_eq!(encoded.tokens, [llama.start(), llama.encode("a b").unwrap()].concat());
    let cut = llama.encode_texts(&["a b".to_owned()], 2).unwrap();
    assert!(cut.is_cut && cut.tokens == encoded.tokens[..2]);
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let refused = |files: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Tokenizer::from_folder(folder.path()).unwrap_err().to_string()
    };
    assert!(refused(&[("vocab.txt", "[UNK]\n[CLS]\na\n")]).contains("no line `[SEP]`"));
    assert!(refused(&[("vocab.json", "{}")]).contains("tokenizer.json is missing"));
    assert!(refused(&[("vocab.json", "[]"), ("merges.txt", "")]).contains("not an object"));
    assert!(refused(&[("vocab.json", "{\"a\": 0}"), ("merges.txt", "a b\n")]).contains("needs the token"));
}
