//! The committed tokenizers, for tests.

use serde_json::{Value, json};

use crate::tokenizer::{GgufTokenizer, Tokenizer, TokenizerFiles};

pub(crate) const BYTES: &[u8] = include_bytes!("../golden/bytes.tokenizer.json");
pub(crate) const BYTES_GOLDEN: &str = include_str!("../golden/bytes.golden.json");
pub(crate) const PIECES: &[u8] = include_bytes!("../golden/pieces.tokenizer.json");
pub(crate) const PIECES_GOLDEN: &str = include_str!("../golden/pieces.golden.json");

pub(crate) fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Byte-level BPE with the ChatML tokens; EOS is `<|im_end|>`.
pub(crate) fn bytes(template: Option<&str>) -> Tokenizer {
    bytes_with(&json!({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "chat_template": template,
    }))
}

pub(crate) fn bytes_with(config: &Value) -> Tokenizer {
    let config = Some(config.to_string().into_bytes());
    Tokenizer::from_files(TokenizerFiles { tokenizer: BYTES.to_vec(), config, ..TokenizerFiles::default() })
        .unwrap()
}

/// SentencePiece-like BPE that puts BOS and a space before a text.
pub(crate) fn pieces(template: Option<&str>) -> Tokenizer {
    let config = json!({
        "bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>", "chat_template": template,
    });
    let config = Some(config.to_string().into_bytes());
    Tokenizer::from_files(TokenizerFiles { tokenizer: PIECES.to_vec(), config, ..TokenizerFiles::default() })
        .unwrap()
}

/// The byte-level tokenizer as a GGUF file would state it.
pub(crate) fn bytes_gguf(pre: Option<&str>) -> GgufTokenizer {
    let tree: Value = serde_json::from_slice(BYTES).unwrap();
    let vocab = tree["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize].clone_from(token);
    }
    let merge = |pair: &Value| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    GgufTokenizer {
        model: "gpt2".to_owned(),
        pre: pre.map(str::to_owned),
        token_types: (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 }).collect(),
        tokens,
        merges: tree["model"]["merges"].as_array().unwrap().iter().map(merge).collect(),
        bos: Some(1),
        eos: Some(2),
        add_bos: Some(false),
        ..GgufTokenizer::default()
    }
}

/// The SentencePiece-like tokenizer as a GGUF file would state it.
pub(crate) fn pieces_gguf() -> GgufTokenizer {
    let golden = json_of(PIECES_GOLDEN);
    GgufTokenizer {
        model: "llama".to_owned(),
        tokens: serde_json::from_value(golden["tokens"].clone()).unwrap(),
        scores: serde_json::from_value(golden["scores"].clone()).unwrap(),
        token_types: serde_json::from_value(golden["types"].clone()).unwrap(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufTokenizer::default()
    }
}
