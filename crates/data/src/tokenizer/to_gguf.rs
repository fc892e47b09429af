//! A tokenizer as the arrays that a GGUF file holds: the way back of `gguf.rs`.

use serde_json::{Map, Value};

use super::gguf::{GPT2, GgufTokenizer, PREFERRED, pre_tokenizer};
use super::load::refuse;
use super::{SpecialIds, Tokenizer};
use crate::error::Error;

/// Token types, by the GGUF specification.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

impl Tokenizer {
    /// The tokenizer as a GGUF file states it, for an embedding of `rows` rows. Two kinds can be stated: byte-level BPE with
    /// a split that has a name there, and SentencePiece's BPE; others are refused.
    pub fn to_gguf(&self, rows: usize) -> Result<GgufTokenizer, Error> {
        let file = self.files().iter().find(|(name, _)| name == "tokenizer.json");
        let tree: Value = match file.map(|(_, bytes)| serde_json::from_slice(bytes)) {
            Some(Ok(tree)) => tree,
            _ => return refuse("tokenizer.json cannot be read again"),
        };
        let model = &tree["model"];
        let (Some(vocab), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
            return refuse("a GGUF file holds BPE tokenizers only, and this is none");
        };
        let merges = merges.iter().map(pair).collect::<Option<Vec<_>>>();
        let Some(merges) = merges else { return refuse("tokenizer.json: a merge is not a pair") };
        let (tokens, token_types) = self.tokens(&tree, vocab, rows)?;
        let SpecialIds { bos, eos, pad, unk, mask: _ } = self.special();
        let mut gguf = GgufTokenizer {
            tokens,
            token_types,
            bos,
            eos,
            pad,
            unk,
            more_stops: self.stops().iter().copied().filter(|&id| Some(id) != eos).collect(),
            add_bos: Some(self.adds_bos()),
            chat_template: self.template().map(str::to_owned),
            ..GgufTokenizer::default()
        };
        if is_byte_level(&tree) {
            "gpt2".clone_into(&mut gguf.model);
            gguf.pre = Some(pre_name(&tree)?.to_owned());
            gguf.merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        } else if model["byte_fallback"] == true {
            "llama".clone_into(&mut gguf.model);
            gguf.scores = scores(&gguf.tokens, &merges);
            gguf.add_space_prefix = Some(puts_space(&tree));
        } else {
            return refuse(
                "this kind of tokenizer has no name in GGUF: it is neither byte-level nor SentencePiece",
            );
        }
        Ok(gguf)
    }

    fn tokens(
        &self,
        tree: &Value,
        vocab: &Map<String, Value>,
        rows: usize,
    ) -> Result<(Vec<String>, Vec<i32>), Error> {
        let n = self.vocab();
        if n > rows {
            return refuse(format!("the tokenizer has {n} ids for the embedding's {rows} rows"));
        }
        let mut tokens = (0..rows).map(|id| format!("[PAD{id}]")).collect::<Vec<_>>();
        let mut types = vec![UNUSED; rows];
        for (token, id) in vocab {
            let Some(id) = id.as_u64().map(|id| id as usize).filter(|&id| id < n) else { continue };
            tokens[id].clone_from(token);
            let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            types[id] = if is_byte && tree["model"]["byte_fallback"] == true { BYTE } else { NORMAL };
        }
        for added in tree["added_tokens"].as_array().into_iter().flatten() {
            let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) else {
                continue;
            };
            let id = id as usize;
            if id < n {
                content.clone_into(&mut tokens[id]);
                types[id] = if added["special"] == true { CONTROL } else { USER_DEFINED };
            }
        }
        // A byte-level UNK is a control token to llama.cpp: nothing is ever unknown there.
        if let (Some(unk), false) = (self.special().unk, is_byte_level(tree)) {
            types[unk as usize] = UNKNOWN;
        }
        Ok((tokens, types))
    }
}

fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(pair) if pair.len() == 2 => Some((pair[0].as_str()?, pair[1].as_str()?)),
        _ => None,
    }
}

/// The steps of a pre-tokenizer, a sequence or one alone.
fn steps(tree: &Value) -> Vec<&Value> {
    let pre = &tree["pre_tokenizer"];
    match pre["pretokenizers"].as_array() {
        Some(list) => list.iter().collect(),
        None => vec![pre],
    }
}

fn is_byte_level(tree: &Value) -> bool {
    steps(tree).iter().any(|step| step["type"] == "ByteLevel")
}

/// The name of the split: the one whose patterns, normalisation and treatment of whole pieces are these.
fn pre_name(tree: &Value) -> Result<&'static str, Error> {
    let mut patterns = Vec::new();
    for step in steps(tree) {
        let known = match step["type"].as_str() {
            Some("Split") if step["behavior"] == "Isolated" && step["invert"] != true => {
                step["pattern"]["Regex"].as_str().map(|pattern| patterns.push(pattern))
            }
            Some("Digits") if step["individual_digits"] == true => {
                patterns.push(r"\p{N}");
                Some(())
            }
            Some("ByteLevel") if step["add_prefix_space"] != true => {
                if step["use_regex"] != false {
                    patterns.push(GPT2);
                }
                Some(())
            }
            _ => None,
        };
        if known.is_none() {
            return refuse(format!("its way to split text has no name in GGUF: {step}"));
        }
    }
    let normalises = tree["normalizer"]["type"] == "NFC";
    if !normalises && !tree["normalizer"].is_null() {
        return refuse(format!("its normaliser has no name in GGUF: {}", tree["normalizer"]["type"]));
    }
    let ignores = tree["model"]["ignore_merges"] == true;
    let is_this = |name: &&&str| {
        pre_tokenizer(name).is_some_and(|pre| {
            pre.patterns == patterns && pre.normalises == normalises && pre.ignores_merges == ignores
        })
    };
    match PREFERRED.iter().find(is_this) {
        Some(name) => Ok(name),
        None => refuse(format!("its way to split text has no name in GGUF: {patterns:?}")),
    }
}

/// SentencePiece's scores from the order of merges: a token's is its first merge's place, negated.
fn scores(tokens: &[String], merges: &[(&str, &str)]) -> Vec<f32> {
    let mut places = std::collections::BTreeMap::new();
    for (place, (left, right)) in merges.iter().enumerate() {
        places.entry(format!("{left}{right}")).or_insert(place);
    }
    let score = |token: &String| places.get(token).map_or(0.0, |&place| -(place as f32) - 1.0);
    tokens.iter().map(score).collect()
}

fn puts_space(tree: &Value) -> bool {
    let normalizer = &tree["normalizer"];
    let prepends = normalizer["type"] == "Prepend"
        || normalizer["normalizers"]
            .as_array()
            .is_some_and(|list| list.iter().any(|n| n["type"] == "Prepend"));
    let metaspace = |step: &&Value| step["type"] == "Metaspace" && step["prepend_scheme"] != "never";
    prepends || steps(tree).iter().any(metaspace)
}

#[cfg(test)]
mod tests {
    use crate::fixtures::{bytes, bytes_gguf, pieces, pieces_gguf};
    use crate::tokenizer::Tokenizer;

    const TEXTS: [&str; 5] =
        ["Hello, world!", "  two spaces 1234 and\n\nlines", "größe €5 😀", "don't we'll", "<|im_start|>user"];

    fn same(tokenizer: &Tokenizer) {
        let gguf = tokenizer.to_gguf(tokenizer.vocab() + 3).unwrap();
        assert_eq!(gguf.tokens.len(), tokenizer.vocab() + 3);
        let again = Tokenizer::from_gguf(&gguf).unwrap();
        for text in TEXTS {
            assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{text:?}");
        }
        assert_eq!(again.special(), tokenizer.special());
        assert_eq!((again.stops(), again.adds_bos()), (tokenizer.stops(), tokenizer.adds_bos()));
        assert_eq!(again.template(), tokenizer.template());
    }

    #[test]
    fn both_kinds_survive_the_way_into_a_gguf_and_back() {
        for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"] {
            let gguf = bytes_gguf(Some(pre));
            let tokenizer = Tokenizer::from_gguf(&gguf).unwrap();
            assert_eq!(tokenizer.to_gguf(tokenizer.vocab()).unwrap().pre.as_deref(), Some(pre));
            same(&tokenizer);
        }
        same(&bytes(Some("{{ messages }}")));
        same(&pieces(None));
        same(&Tokenizer::from_gguf(&pieces_gguf()).unwrap());
    }

    #[test]
    fn fewer_rows_than_tokens_are_refused() {
        assert!(pieces(None).to_gguf(3).is_err());
    }
}
