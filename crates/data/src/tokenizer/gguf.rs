//! A tokenizer from the arrays of a GGUF file, as the same tokenizer.json tree that Hugging Face folders hold.
//!
//! Two kinds: `gpt2` is byte-level BPE with merges, split first by the pattern that `tokenizer.ggml.pre` names; `llama`
//! is SentencePiece BPE: a merge exists where two tokens join to a third, and goes by the third's score.
//!
//! Sources: the GGUF specification (ggml/docs/gguf.md, "Tokenizer"); the patterns are those that the models' own
//! tokenizer.json files state.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::load::{build, check_template_size, distinct, refuse, without_prefix_space};
use super::{SpecialIds, Tokenizer};
use crate::error::Error;

/// Most tokens of a file; ids index tables.
const TOKENS_LIMIT: usize = 1 << 22;
/// Longest token in bytes; the longest known are some hundred spaces.
const TOKEN_BYTES_LIMIT: usize = 4096;

/// `tokenizer.ggml.token_type`, by the GGUF specification.
const TYPE_UNKNOWN: i32 = 2;
const TYPE_CONTROL: i32 = 3;
const TYPE_USER_DEFINED: i32 = 4;
const TYPE_BYTE: i32 = 6;

/// The tokenizer keys of a GGUF file, named as in `tokenizer.ggml.*`.
#[derive(Clone, Debug, Default)]
pub struct GgufTokenizer {
    /// `model`: `gpt2` or `llama`.
    pub model: String,
    /// `pre`: the name of the pre-tokenizer of a `gpt2` model.
    pub pre: Option<String>,
    /// `tokens`.
    pub tokens: Vec<String>,
    /// `scores`: needed by `llama`.
    pub scores: Vec<f32>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; may be empty.
    pub token_types: Vec<i32>,
    /// `merges`: needed by `gpt2`, left and right joined by a space.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `eot_token_id`, `eom_token_id`: further ids that end generation.
    pub more_stops: Vec<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_space_prefix`, of `llama` models.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(gguf: &GgufTokenizer) -> Result<Self, Error> {
        check(gguf)?;
        let adds_bos = gguf.add_bos.unwrap_or_else(|| match gguf.model.as_str() {
            "llama" => true,
            _ => gguf.pre.as_deref().and_then(pre_tokenizer).is_some_and(|pre| pre.adds_bos),
        }) && gguf.bos.is_some();
        let mut tree = match gguf.model.as_str() {
            "gpt2" => byte_level(gguf)?,
            "llama" => sentence_piece(gguf)?,
            other => return refuse(format!("tokenizer.ggml.model is `{other}`, known are gpt2 and llama")),
        };
        tree["added_tokens"] = added_tokens(gguf);
        if let (true, Some(bos)) = (adds_bos, gguf.bos) {
            tree["post_processor"] = starts_with(&gguf.tokens[bos as usize], bos);
        }
        let bytes = tree.to_string().into_bytes();
        let main = build(&tree, &bytes)?;
        let continuation = match without_prefix_space(&tree) {
            Some(tree) => Some(build(&tree, &[])?),
            None => None,
        };
        let special = SpecialIds { bos: gguf.bos, eos: gguf.eos, pad: gguf.pad, unk: gguf.unk, mask: None };
        let template = check_template_size(gguf.chat_template.clone())?;
        let files = vec![
            ("tokenizer.json".to_owned(), bytes),
            ("tokenizer_config.json".to_owned(), config(gguf, adds_bos).to_string().into_bytes()),
        ];
        let mut tokenizer = Self::assemble(main, continuation, special, template, files);
        tokenizer.vocab = tokenizer.vocab.max(gguf.tokens.len());
        tokenizer.stops.extend(&gguf.more_stops);
        tokenizer.stops = distinct(&tokenizer.stops, tokenizer.vocab);
        tokenizer.adds_bos = adds_bos;
        Ok(tokenizer)
    }
}

fn check(gguf: &GgufTokenizer) -> Result<(), Error> {
    let n = gguf.tokens.len();
    if n == 0 || n > TOKENS_LIMIT {
        return refuse(format!("tokenizer.ggml.tokens has {n} entries, expected 1 to {TOKENS_LIMIT}"));
    }
    if let Some(id) = gguf.tokens.iter().position(|token| token.len() > TOKEN_BYTES_LIMIT) {
        return refuse(format!("token {id} has {} bytes, limit {TOKEN_BYTES_LIMIT}", gguf.tokens[id].len()));
    }
    for (key, len) in [("scores", gguf.scores.len()), ("token_type", gguf.token_types.len())] {
        if len != 0 && len != n {
            return refuse(format!("tokenizer.ggml.{key} has {len} entries for {n} tokens"));
        }
    }
    if gguf.merges.len() > TOKENS_LIMIT {
        return refuse(format!(
            "tokenizer.ggml.merges has {} entries, limit {TOKENS_LIMIT}",
            gguf.merges.len()
        ));
    }
    for (key, id) in [("bos", gguf.bos), ("eos", gguf.eos), ("unknown", gguf.unk), ("padding", gguf.pad)] {
        if id.is_some_and(|id| id as usize >= n) {
            return refuse(format!("tokenizer.ggml.{key}_token_id is {id:?} for {n} tokens"));
        }
    }
    Ok(())
}

/// Token to id; the first of equal tokens keeps the name.
fn vocabulary(tokens: &[String]) -> BTreeMap<&str, u32> {
    let mut vocabulary = BTreeMap::new();
    for (id, token) in tokens.iter().enumerate() {
        vocabulary.entry(token.as_str()).or_insert(id as u32);
    }
    vocabulary
}

fn type_of(gguf: &GgufTokenizer, id: usize) -> i32 {
    gguf.token_types.get(id).copied().unwrap_or(1)
}

fn added_tokens(gguf: &GgufTokenizer) -> Value {
    let vocabulary = vocabulary(&gguf.tokens);
    let mut added = Vec::new();
    for (id, token) in gguf.tokens.iter().enumerate() {
        let kind = type_of(gguf, id);
        let is_named = [gguf.bos, gguf.eos, gguf.unk, gguf.pad].contains(&Some(id as u32));
        let is_special = kind == TYPE_CONTROL || kind == TYPE_UNKNOWN || is_named;
        if (is_special || kind == TYPE_USER_DEFINED)
            && !token.is_empty()
            && vocabulary[token.as_str()] == id as u32
        {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": is_special,
            }));
        }
    }
    Value::Array(added)
}

fn starts_with(token: &str, id: u32) -> Value {
    let bos = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
    json!({
        "type": "TemplateProcessing",
        "single": [bos, sequence("A", 0)],
        "pair": [bos, sequence("A", 0), sequence("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}

fn config(gguf: &GgufTokenizer, adds_bos: bool) -> Value {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "add_bos_token": adds_bos,
    });
    let tokens =
        [("bos_token", gguf.bos), ("eos_token", gguf.eos), ("unk_token", gguf.unk), ("pad_token", gguf.pad)];
    for (key, id) in tokens {
        if let Some(id) = id {
            config[key] = json!(gguf.tokens[id as usize]);
        }
    }
    if let Some(template) = &gguf.chat_template {
        config["chat_template"] = json!(template);
    }
    config
}

// ---- byte-level BPE ---------------------------------------------------------------------------------------------

/// GPT-2: words with one leading space, runs of digits, runs of other characters.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3: contractions of either case, digits by three, line breaks kept with what is before them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2: as Llama 3 with single digits.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Tekken (Mistral NeMo): words split where lower case turns upper, single digits.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

// Differs from transformers' GGUF loader: it splits every `gpt2` model as GPT-2 does, whatever `pre` says, so that two
// spaces before a digit become other ids than the model was trained on. Here, as in llama.cpp, `pre` decides.

/// How a `pre` name splits text before BPE.
pub(super) struct PreTokenizer {
    /// Applied one after the other, each to the pieces of the one before.
    pub(super) patterns: &'static [&'static str],
    /// Unicode NFC first.
    pub(super) normalises: bool,
    /// A piece that is a token is taken whole, merges or not.
    pub(super) ignores_merges: bool,
    /// BOS before the text, where the file does not say.
    adds_bos: bool,
}

const KNOWN: [&str; 9] =
    ["default", "gpt-2", "llama-bpe", "llama3", "qwen2", "smollm", "starcoder", "tekken", "deepseek-r1-qwen"];

/// Names in the order in which a split that has several is called.
pub(super) const PREFERRED: [&str; 6] = ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "default"];

pub(super) fn pre_tokenizer(name: &str) -> Option<PreTokenizer> {
    let plain =
        |patterns| PreTokenizer { patterns, normalises: false, ignores_merges: false, adds_bos: false };
    Some(match name {
        // llama.cpp's own rule for files that name none.
        "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"]),
        "gpt-2" => plain(&[GPT2]),
        "smollm" | "starcoder" => plain(&[r"\p{N}", GPT2]),
        "llama-bpe" | "llama3" => PreTokenizer { ignores_merges: true, adds_bos: true, ..plain(&[LLAMA3]) },
        "qwen2" | "deepseek-r1-qwen" => PreTokenizer { normalises: true, ..plain(&[QWEN2]) },
        "tekken" => PreTokenizer { ignores_merges: true, adds_bos: true, ..plain(&[TEKKEN]) },
        _ => return None,
    })
}

fn byte_level(gguf: &GgufTokenizer) -> Result<Value, Error> {
    let name = gguf.pre.as_deref().unwrap_or("default");
    let pre = pre_tokenizer(name)
        .ok_or_else(|| Error::PreTokenizer { name: name.to_owned(), known: KNOWN.join(", ") })?;
    let vocabulary = vocabulary(&gguf.tokens);
    let mut merges = Vec::with_capacity(gguf.merges.len());
    for (rank, merge) in gguf.merges.iter().enumerate() {
        let pair = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let Some((left, right)) = pair else {
            return refuse(format!("merge {rank} is not a pair: `{merge}`"));
        };
        let merged = format!("{left}{right}");
        if let Some(missing) =
            [left, right, &merged].into_iter().find(|token| !vocabulary.contains_key(token))
        {
            return refuse(format!("merge {rank} needs the token `{missing}`, not in the vocabulary"));
        }
        merges.push(json!([left, right]));
    }
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut steps: Vec<Value> = pre.patterns.iter().map(split).collect();
    steps.push(
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}),
    );
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": if pre.normalises { json!({"type": "NFC"}) } else { Value::Null },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignores_merges, "vocab": vocabulary, "merges": merges,
        },
    }))
}

// ---- SentencePiece BPE ------------------------------------------------------------------------------------------

fn sentence_piece(gguf: &GgufTokenizer) -> Result<Value, Error> {
    if gguf.scores.is_empty() {
        return refuse("tokenizer.ggml.scores is missing, a llama tokenizer needs it");
    }
    let vocabulary = vocabulary(&gguf.tokens);
    let merges = scored_merges(gguf, &vocabulary);
    let unk = gguf.unk.map(|id| gguf.tokens[id as usize].clone());
    let space = "\u{2581}";
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": space})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": space}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if gguf.add_space_prefix.unwrap_or(true) {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": space}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unk, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    }))
}

/// Every way to join two tokens to a third, best score first. Among equal scores the longer left part goes first, as
/// transformers orders them; SentencePiece itself takes the leftmost in the text.
fn scored_merges(gguf: &GgufTokenizer, vocabulary: &BTreeMap<&str, u32>) -> Vec<Value> {
    let mut merges: Vec<(f32, usize, usize, &str, &str)> = Vec::new();
    for (id, token) in gguf.tokens.iter().enumerate() {
        if matches!(type_of(gguf, id), TYPE_UNKNOWN | TYPE_CONTROL | TYPE_BYTE) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                merges.push((gguf.scores[id], left.chars().count(), right.chars().count(), left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    merges.into_iter().map(|(_, _, _, left, right)| json!([left, right])).collect()
}
