//! Loading a tokenizer from the files of a model folder.
//!
//! A tokenizer is an untrusted file. Sizes and ids are checked, and every merge is looked up, before the library sees
//! it: the library indexes past a buffer when a merge is longer than every token.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{SpecialIds, Tokenizer, parts};
use crate::error::Error;

/// Largest file: the largest known vocabularies (262k tokens) take 33 MiB.
const FILE_LIMIT: usize = 256 << 20;
/// Largest id: sixteen times the largest known vocabulary. Ids index tables.
const ID_LIMIT: u64 = 1 << 22;
/// Longest pattern of a pre-tokenizer or normalizer; known ones have some 200 characters.
const PATTERN_LIMIT: usize = 8 << 10;
/// Largest chat template; the longest known ones (tool calling) have some 30 KiB.
pub(crate) const TEMPLATE_LIMIT: usize = 1 << 20;

/// The files of a tokenizer, as bytes.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`: special tokens, `add_bos_token`, chat template.
    pub config: Option<Vec<u8>>,
    /// `special_tokens_map.json`: special tokens where `tokenizer_config.json` has none.
    pub special_tokens: Option<Vec<u8>>,
    /// `generation_config.json`: ids that end generation.
    pub generation: Option<Vec<u8>>,
    /// `chat_template.jinja`: goes before the template in `tokenizer_config.json`.
    pub template: Option<Vec<u8>>,
}

impl TokenizerFiles {
    /// Reads the files of a model folder; only `tokenizer.json` must be there.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let read = |name: &str| -> Result<Option<Vec<u8>>, Error> {
            let path = folder.join(name);
            match std::fs::metadata(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(Error::Io { path, source }),
                Ok(facts) if facts.len() > FILE_LIMIT as u64 => {
                    return refuse(format!("{name} has {} bytes, limit {FILE_LIMIT}", facts.len()));
                }
                Ok(_) => {}
            }
            std::fs::read(&path).map(Some).map_err(|source| Error::Io { path, source })
        };
        let config = read("tokenizer_config.json")?;
        let tokenizer = match read("tokenizer.json")? {
            Some(bytes) => bytes,
            None => from_parts(&read, config.as_deref())?.ok_or_else(|| Error::TokenizerMissing {
                folder: folder.to_owned(),
                missing: "tokenizer.json",
            })?,
        };
        Ok(Self {
            tokenizer,
            config,
            special_tokens: read("special_tokens_map.json")?,
            generation: read("generation_config.json")?,
            template: read("chat_template.jinja")?,
        })
    }
}

type Read<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, Error>;

/// A tokenizer.json made of the files that older models have in its place; none if they are not there either.
fn from_parts(read: Read<'_>, config: Option<&[u8]>) -> Result<Option<Vec<u8>>, Error> {
    let config = config.map_or(Ok(Value::Null), |bytes| parse("tokenizer_config.json", bytes))?;
    let text = |name: &str, bytes: Vec<u8>| {
        String::from_utf8(bytes).or_else(|_| refuse(format!("{name} is not UTF-8")))
    };
    if let Some(vocab) = read("vocab.txt")? {
        let tree = parts::word_piece(&text("vocab.txt", vocab)?, &config)?;
        return Ok(Some(tree.to_string().into_bytes()));
    }
    let (Some(vocab), Some(merges)) = (read("vocab.json")?, read("merges.txt")?) else { return Ok(None) };
    let tree = parts::byte_level(parse("vocab.json", &vocab)?, &text("merges.txt", merges)?, &config)?;
    Ok(Some(tree.to_string().into_bytes()))
}

impl Tokenizer {
    /// Loads the tokenizer of a Hugging Face folder.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        Self::from_files(TokenizerFiles::read(folder)?)
    }

    /// Loads a tokenizer from its files' bytes.
    pub fn from_files(files: TokenizerFiles) -> Result<Self, Error> {
        let tree = parse("tokenizer.json", &files.tokenizer)?;
        check(&tree)?;
        let main = build(&tree, &files.tokenizer)?;
        let continuation = match without_prefix_space(&tree) {
            Some(tree) => Some(build(&tree, &[])?),
            None => None,
        };
        let config = match &files.config {
            Some(bytes) => parse("tokenizer_config.json", bytes)?,
            None => Value::Null,
        };
        let map = match &files.special_tokens {
            Some(bytes) => parse("special_tokens_map.json", bytes)?,
            None => Value::Null,
        };
        let generation = match &files.generation {
            Some(bytes) => parse("generation_config.json", bytes)?,
            None => Value::Null,
        };
        let named = |key: &str| named_token(&main, &config, &map, key);
        let first_id = |key: &str| ids_of(&generation, key).first().copied();
        let special = SpecialIds {
            bos: named("bos_token").or_else(|| first_id("bos_token_id")),
            eos: named("eos_token").or_else(|| first_id("eos_token_id")),
            pad: named("pad_token").or_else(|| first_id("pad_token_id")),
            unk: named("unk_token").or_else(|| unk_of_model(&main, &tree)),
            // A folder that names none may still have been trained with one.
            mask: named("mask_token")
                .or_else(|| ["[MASK]", "<mask>"].into_iter().find_map(|t| main.token_to_id(t))),
        };
        let template = template_of(&files, &config)?;
        let mut kept = vec![("tokenizer.json".to_owned(), files.tokenizer)];
        for (name, bytes) in [
            ("tokenizer_config.json", files.config),
            ("special_tokens_map.json", files.special_tokens),
            ("generation_config.json", files.generation),
            ("chat_template.jinja", files.template),
        ] {
            kept.extend(bytes.map(|bytes| (name.to_owned(), bytes)));
        }
        let mut tokenizer = Self::assemble(main, continuation, special, template, kept);
        tokenizer.spaces_words = is_byte_level(&tree) && tokenizer.continuation.is_none();
        tokenizer.stops.extend(ids_of(&generation, "eos_token_id"));
        tokenizer.stops = distinct(&tokenizer.stops, tokenizer.vocab);
        tokenizer.adds_bos = match config.get("add_bos_token").and_then(Value::as_bool) {
            Some(says) => says,
            None => tokenizer.post_processor_starts_with_bos(),
        };
        Ok(tokenizer)
    }

    /// Puts the parts together; `adds_bos` is off.
    pub(super) fn assemble(
        main: tokenizers::Tokenizer,
        continuation: Option<tokenizers::Tokenizer>,
        special: SpecialIds,
        template: Option<String>,
        files: Vec<(String, Vec<u8>)>,
    ) -> Self {
        let mut specials: Vec<(String, u32)> = main
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (token.content, id))
            .collect();
        specials.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.1.cmp(&b.1)));
        let vocab = main.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let mut tokenizer = Self {
            main,
            continuation,
            special,
            stops: special.eos.into_iter().collect(),
            adds_bos: false,
            drops_unknown: false,
            spaces_words: false,
            template,
            vocab,
            specials,
            files,
        };
        // A private-use character that no vocabulary has: it becomes bytes, UNK, or nothing.
        tokenizer.drops_unknown = tokenizer.encode("\u{10FFFD}").is_ok_and(|ids| ids.is_empty());
        tokenizer
    }

    pub(super) fn post_processor_starts_with_bos(&self) -> bool {
        let Some(bos) = self.special.bos else { return false };
        let encoding = super::guarded("encode", || self.main.encode_fast("", true));
        encoding.is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos))
    }
}

pub(super) fn refuse<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Tokenizer { what: what.into() })
}

fn parse(name: &str, bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > FILE_LIMIT {
        return refuse(format!("{name} has {} bytes, limit {FILE_LIMIT}", bytes.len()));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    serde_json::from_slice(bytes).or_else(|e| refuse(format!("{name} is not JSON: {e}")))
}

/// Gives the checked tree to the library. `bytes` are the tree's own, if it was not changed.
pub(super) fn build(tree: &Value, bytes: &[u8]) -> Result<tokenizers::Tokenizer, Error> {
    let has_dropout = tree.pointer("/model/dropout").is_some_and(|d| !d.is_null());
    let written;
    let bytes = if has_dropout {
        let mut tree = tree.clone();
        // BPE dropout would give the same text other ids at each reading.
        tree["model"]["dropout"] = Value::Null;
        written = tree.to_string().into_bytes();
        &written
    } else if bytes.is_empty() {
        written = tree.to_string().into_bytes();
        &written
    } else {
        bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
    };
    let mut tokenizer = match catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(bytes))) {
        Ok(Ok(tokenizer)) => tokenizer,
        Ok(Err(e)) => return refuse(format!("tokenizer.json: {e}")),
        Err(_) => return refuse("tokenizer.json is inconsistent"),
    };
    // Settings of whoever saved the file; a cut would hide text from the truncation count.
    if tokenizer.with_truncation(None).is_err() {
        return refuse("tokenizer.json: its truncation cannot be removed");
    }
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Checks ids, merges and patterns.
fn check(tree: &Value) -> Result<(), Error> {
    if !tree.is_object() {
        return refuse("tokenizer.json is not an object");
    }
    for key in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        check_patterns(tree.get(key).unwrap_or(&Value::Null), key)?;
    }
    for token in tree.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let id = token.get("id").and_then(Value::as_u64);
        let content = token.get("content").and_then(Value::as_str).unwrap_or_default();
        if id.is_none_or(|id| id >= ID_LIMIT) || content.is_empty() {
            return refuse(format!(
                "tokenizer.json: added token `{content}` has id {id:?}, limit {ID_LIMIT}"
            ));
        }
    }
    let Some(model) = tree.get("model") else { return refuse("tokenizer.json has no model") };
    if let Some(vocab) = model.get("vocab").and_then(Value::as_object) {
        for (token, id) in vocab {
            if id.as_u64().is_none_or(|id| id >= ID_LIMIT) {
                return refuse(format!("tokenizer.json: token `{token}` has id {id}, limit {ID_LIMIT}"));
            }
        }
        check_merges(model, vocab)?;
    }
    Ok(())
}

fn check_merges(model: &Value, vocab: &Map<String, Value>) -> Result<(), Error> {
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    let mut merged = String::new();
    for (rank, merge) in model.get("merges").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
            _ => None,
        };
        let Some((left, right)) = pair else {
            return refuse(format!("tokenizer.json: merge {rank} is not a pair: {merge}"));
        };
        merged.clear();
        merged.push_str(left);
        merged.push_str(right.strip_prefix(prefix).unwrap_or(right));
        if let Some(missing) =
            [left, right, merged.as_str()].into_iter().find(|token| !vocab.contains_key(*token))
        {
            return refuse(format!(
                "tokenizer.json: merge {rank} needs the token `{missing}`, not in the vocabulary"
            ));
        }
    }
    Ok(())
}

/// Bounds every pattern below a value; the parser has bounded the depth.
fn check_patterns(value: &Value, place: &str) -> Result<(), Error> {
    match value {
        Value::String(text) if text.len() > PATTERN_LIMIT && !place.ends_with("precompiled_charsmap") => {
            refuse(format!("tokenizer.json: {place} has {} bytes, limit {PATTERN_LIMIT}", text.len()))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_patterns(item, place)),
        Value::Object(items) => {
            items.iter().try_for_each(|(key, item)| check_patterns(item, &format!("{place}.{key}")))
        }
        _ => Ok(()),
    }
}

/// The same tokenizer without the space that it puts before a text; none if it puts none.
pub(super) fn without_prefix_space(tree: &Value) -> Option<Value> {
    // The vocabulary is large and stays as it is: look at copies of the small parts first.
    let part = |key: &str| json!({key: tree.get(key).cloned().unwrap_or_default()});
    if !drop_prefixes(&mut part("normalizer")) && !drop_prefixes(&mut part("pre_tokenizer")) {
        return None;
    }
    let mut changed = tree.clone();
    drop_prefixes(&mut changed);
    Some(changed)
}

/// Takes away what puts a space before a text; false if nothing does.
fn drop_prefixes(changed: &mut Value) -> bool {
    let mut found = false;
    if let Some(normalizer) = changed.get_mut("normalizer") {
        if normalizer["type"] == "Prepend" {
            *normalizer = Value::Null;
            found = true;
        } else if let Some(list) = normalizer.get_mut("normalizers").and_then(Value::as_array_mut) {
            let before = list.len();
            list.retain(|item| item["type"] != "Prepend");
            found |= list.len() < before;
        }
    }
    if let Some(pre_tokenizer) = changed.get_mut("pre_tokenizer") {
        found |= drop_prefix(pre_tokenizer);
    }
    found
}

fn drop_prefix(pre_tokenizer: &mut Value) -> bool {
    let mut found = false;
    match pre_tokenizer["type"].as_str() {
        Some("Metaspace") => {
            found = pre_tokenizer["prepend_scheme"] != "never" && pre_tokenizer["add_prefix_space"] != false;
            pre_tokenizer["prepend_scheme"] = json!("never");
            pre_tokenizer["add_prefix_space"] = json!(false);
        }
        Some("ByteLevel") => {
            found = pre_tokenizer["add_prefix_space"] == true;
            pre_tokenizer["add_prefix_space"] = json!(false);
        }
        Some("Sequence") => {
            for item in
                pre_tokenizer.get_mut("pretokenizers").and_then(Value::as_array_mut).into_iter().flatten()
            {
                found |= drop_prefix(item);
            }
        }
        _ => {}
    }
    found
}

/// Whether words become the bytes that they are written in, as GPT-2's do.
fn is_byte_level(tree: &Value) -> bool {
    let is_it = |part: &Value| part["type"] == "ByteLevel";
    let part = &tree["pre_tokenizer"];
    is_it(part) || part["pretokenizers"].as_array().is_some_and(|all| all.iter().any(is_it))
}

fn named_token(tokenizer: &tokenizers::Tokenizer, config: &Value, map: &Value, key: &str) -> Option<u32> {
    [config, map].into_iter().find_map(|file| {
        let value = file.get(key)?;
        let content = value.as_str().or_else(|| value.get("content")?.as_str())?;
        tokenizer.token_to_id(content)
    })
}

/// A model's own UNK: a name for BPE and WordPiece, an id for Unigram.
fn unk_of_model(tokenizer: &tokenizers::Tokenizer, tree: &Value) -> Option<u32> {
    let model = tree.get("model")?;
    match model.get("unk_token").and_then(Value::as_str) {
        Some(token) => tokenizer.token_to_id(token),
        None => model.get("unk_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()),
    }
}

fn ids_of(generation: &Value, key: &str) -> Vec<u32> {
    let as_id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match generation.get(key) {
        Some(Value::Array(ids)) => ids.iter().filter_map(as_id).collect(),
        Some(value) => as_id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Ids in their order, each once, those beyond the vocabulary left out.
pub(super) fn distinct(ids: &[u32], vocab: usize) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    ids.iter().copied().filter(|&id| (id as usize) < vocab && seen.insert(id)).collect()
}

fn template_of(files: &TokenizerFiles, config: &Value) -> Result<Option<String>, Error> {
    let template = match (&files.template, config.get("chat_template")) {
        (Some(bytes), _) => match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(_) => return Err(Error::Template { what: "chat_template.jinja is not UTF-8".to_owned() }),
        },
        (None, Some(Value::String(text))) => Some(text.clone()),
        // Named templates: `default`, or else the first.
        (None, Some(Value::Array(list))) => {
            let default = list.iter().find(|item| item["name"] == "default").or(list.first());
            default.and_then(|item| item.get("template")).and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    };
    check_template_size(template)
}

pub(super) fn check_template_size(template: Option<String>) -> Result<Option<String>, Error> {
    match template {
        Some(text) if text.len() > TEMPLATE_LIMIT => {
            Err(Error::Template { what: format!("{} bytes, limit {TEMPLATE_LIMIT}", text.len()) })
        }
        // GGUF converters and some repositories write an empty one for none.
        other => Ok(other.filter(|text| !text.trim().is_empty())),
    }
}
