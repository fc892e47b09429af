//! A `tokenizer.json` for folders that have none: WordPiece from `vocab.txt`, byte-level BPE from `vocab.json` and
//! `merges.txt`. Settings are those of `tokenizer_config.json`, with the defaults of BERT's and RoBERTa's own tokenizers.

use serde_json::{Map, Value, json};

use super::load::refuse;
use crate::error::Error;

/// WordPiece (Wu 2016, arXiv 1609.08144) as BERT has it: `vocab` holds one token a line, its line is its id.
pub(super) fn word_piece(vocab: &str, config: &Value) -> Result<Value, Error> {
    let mut ids = Map::new();
    let lines = vocab.strip_suffix('\n').unwrap_or(vocab).split('\n');
    for (id, token) in lines.map(|line| line.trim_end_matches('\r')).enumerate() {
        ids.insert(token.to_owned(), json!(id));
    }
    let (cls, sep) = (name(config, "cls_token", "[CLS]"), name(config, "sep_token", "[SEP]"));
    let unk = name(config, "unk_token", "[UNK]");
    for token in [&cls, &sep, &unk] {
        if !ids.contains_key(token) {
            return refuse(format!("vocab.txt has no line `{token}`"));
        }
    }
    let special =
        [&unk, &sep, &name(config, "pad_token", "[PAD]"), &cls, &name(config, "mask_token", "[MASK]")];
    let flag = |key: &str, default: bool| config.get(key).and_then(Value::as_bool).unwrap_or(default);
    let post = surround(&cls, &sep, &[(&sep, 1)], &ids);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added(&special, &ids, ""),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", true),
            "strip_accents": config.get("strip_accents").cloned().unwrap_or_default(),
            "lowercase": flag("do_lower_case", true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": post,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }))
}

/// Byte-level BPE (Radford 2019) as RoBERTa has it; one with `<|endoftext|>` and without `<s>` is GPT-2's, which puts nothing
/// around a text.
pub(super) fn byte_level(vocab: Value, merges: &str, config: &Value) -> Result<Value, Error> {
    let Value::Object(ids) = vocab else { return refuse("vocab.json is not an object") };
    let merges = merges
        .split('\n')
        .map(|line| line.trim_end_matches('\r'))
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .collect::<Vec<_>>();
    let is_roberta = ids.contains_key("<s>");
    let default = |roberta: &'static str| if is_roberta { roberta } else { "<|endoftext|>" };
    let cls = name(config, "cls_token", default("<s>"));
    let sep = name(config, "sep_token", default("</s>"));
    let space = config.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(false);
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true });
    let (post, special) = if is_roberta {
        let mask = name(config, "mask_token", "<mask>");
        let rest = [name(config, "pad_token", "<pad>"), name(config, "unk_token", "<unk>"), mask.clone()];
        let special = [&cls, &rest[0], &sep, &rest[1], &rest[2]];
        (surround(&cls, &sep, &[(&sep, 0), (&sep, 0)], &ids), added(&special, &ids, &mask))
    } else {
        (bytes.clone(), added(&[&cls], &ids, ""))
    };
    Ok(json!({
        "version": "1.0",
        "added_tokens": special,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": post,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": ids, "merges": merges },
    }))
}

/// `cls a sep`, and for a pair `cls a` the separators `b sep`: BERT has one between the texts, RoBERTa two. The second
/// text's type is that of its separators.
fn surround(cls: &str, sep: &str, between: &[(&String, u32)], ids: &Map<String, Value>) -> Value {
    let token = |name: &str, kind: u32| json!({ "SpecialToken": { "id": name, "type_id": kind } });
    let text = |which: &str, kind: u32| json!({ "Sequence": { "id": which, "type_id": kind } });
    let kind = between.last().map_or(0, |(_, kind)| *kind);
    let mut pair = vec![token(cls, 0), text("A", 0)];
    pair.extend(between.iter().map(|(name, _)| token(name, 0)));
    pair.extend([text("B", kind), token(sep, kind)]);
    let special = |name: &str| json!({ "id": name, "ids": [ids.get(name)], "tokens": [name] });
    json!({
        "type": "TemplateProcessing",
        "single": [token(cls, 0), text("A", 0), token(sep, 0)],
        "pair": pair,
        "special_tokens": { cls: special(cls), sep: special(sep) },
    })
}

/// The special tokens that the vocabulary has. A mask takes the space before it along, as RoBERTa's does.
fn added(names: &[&String], ids: &Map<String, Value>, mask: &str) -> Vec<Value> {
    let mut tokens = names
        .iter()
        .filter_map(|name| ids.get(name.as_str()).map(|id| (id, name.as_str())))
        .map(|(id, name)| {
            json!({
                "id": id, "content": name, "single_word": false, "lstrip": name == mask, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect::<Vec<_>>();
    tokens.sort_by_key(|token| token["id"].as_u64());
    tokens
}

fn name(config: &Value, key: &str, default: &str) -> String {
    let value = config.get(key);
    let content = value.and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
    content.unwrap_or(default).to_owned()
}
