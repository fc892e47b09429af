//! Which files of a repository are brought.

use std::path::Path;

use crate::error::{Error, Result};
use crate::listing::Remote;
use crate::names;
use crate::nearest::nearest;
use crate::repo::Repo;

/// Configuration, tokenizers and templates, by name. All are data; `tokenizer.model` is a protobuf, not a pickle.
const BY_NAME: [&str; 16] = [
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Where transformers saves the chat templates of a tokenizer that has several.
const TEMPLATES: &str = "additional_chat_templates/";

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files of `listing` that make the model, or the one named GGUF file. Their names are safe.
pub(crate) fn wanted(repo: &Repo, listing: Vec<Remote>, gguf: Option<&str>) -> Result<Vec<Remote>> {
    if let Some(remote) = listing.iter().find(|remote| names::escapes(&remote.name)) {
        return Err(Error::UnsafeName { repo: repo.id().to_owned(), name: remote.name.clone() });
    }
    let chosen = match gguf {
        Some(name) => vec![find_gguf(repo, listing, name)?],
        None => find_model(repo, listing)?,
    };
    match chosen.iter().find(|remote| !names::is_portable(&remote.name)) {
        Some(remote) => Err(Error::UnsafeName { repo: repo.id().to_owned(), name: remote.name.clone() }),
        None => Ok(chosen),
    }
}

fn find_gguf(repo: &Repo, listing: Vec<Remote>, name: &str) -> Result<Remote> {
    let ggufs = names_that(&listing, is_gguf);
    listing.into_iter().find(|remote| remote.name == name && is_gguf(name)).ok_or_else(|| Error::NoFile {
        repo: repo.to_string(),
        file: name.to_owned(),
        nearest: nearest(name, ggufs.iter().map(String::as_str)),
        ggufs,
    })
}

fn find_model(repo: &Repo, listing: Vec<Remote>) -> Result<Vec<Remote>> {
    let has_single = listing.iter().any(|remote| remote.name == SINGLE);
    let has_shards = listing.iter().any(|remote| is_shard(&remote.name));
    let is_weight = |name: &str| match name {
        // transformers reads the single file where there are both; a second copy of the weights is not brought.
        _ if has_single => name == SINGLE,
        // Mistral's repositories hold the same weights once more as `consolidated.safetensors`.
        _ if has_shards => is_shard(name) || name == INDEX,
        _ => in_root(name) && name.ends_with(".safetensors"),
    };
    let is_adapter = |name: &str| name == "adapter_model.safetensors";
    if !listing.iter().any(|remote| is_weight(&remote.name) || is_adapter(&remote.name)) {
        return Err(Error::NoWeights {
            repo: repo.to_string(),
            ggufs: names_that(&listing, is_gguf),
            pickles: names_that(&listing, is_pickle),
        });
    }
    let keep = |name: &str| is_weight(name) || is_adapter(name) || is_description(name);
    Ok(listing.into_iter().filter(|remote| keep(&remote.name)).collect())
}

fn names_that(listing: &[Remote], is: fn(&str) -> bool) -> Vec<String> {
    listing.iter().filter(|remote| is(&remote.name)).map(|remote| remote.name.clone()).collect()
}

fn in_root(name: &str) -> bool {
    !name.contains('/')
}

fn is_description(name: &str) -> bool {
    BY_NAME.contains(&name)
        || name.strip_prefix(TEMPLATES).is_some_and(|rest| in_root(rest) && has_ending(rest, "jinja"))
}

/// `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|rest| rest.split_once("-of-"))
        .is_some_and(|(part, parts)| is_number(part) && is_number(parts))
}

pub(crate) fn is_gguf(name: &str) -> bool {
    has_ending(name, "gguf")
}

fn has_ending(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
}

fn is_pickle(name: &str) -> bool {
    in_root(name) && ["bin", "pt", "pth", "ckpt"].iter().any(|ending| has_ending(name, ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], gguf: Option<&str>) -> Result<Vec<String>> {
        let listing =
            names.iter().map(|name| Remote { name: (*name).to_owned(), bytes: None, hash: None }).collect();
        let chosen = wanted(&Repo::parse("org/name").unwrap(), listing, gguf)?;
        Ok(chosen.into_iter().map(|remote| remote.name).collect())
    }

    #[test]
    fn data_is_brought_and_code_and_pickles_are_not() {
        let listing = [
            ".gitattributes",
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "modeling_x.py",
            "onnx/model.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "additional_chat_templates/tool_use.jinja",
            "additional_chat_templates/run.py",
            "training_args.pt",
            "model-q8.gguf",
        ];
        assert_eq!(
            chosen(&listing, None).unwrap(),
            [
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
                "additional_chat_templates/tool_use.jinja"
            ]
        );
        assert_eq!(chosen(&listing, Some("model-q8.gguf")).unwrap(), ["model-q8.gguf"]);
    }

    #[test]
    fn weights_are_brought_once() {
        let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        assert_eq!(chosen(&["consolidated.safetensors", one, two, INDEX], None).unwrap(), [one, two, INDEX]);
        assert_eq!(chosen(&[SINGLE, one, two, INDEX], None).unwrap(), [SINGLE]);
        assert_eq!(chosen(&["weights.safetensors"], None).unwrap(), ["weights.safetensors"]);
        assert_eq!(chosen(&["adapter_config.json", "adapter_model.safetensors"], None).unwrap().len(), 2);
    }

    #[test]
    fn a_repository_without_readable_weights_is_named_with_what_it_has() {
        let error = chosen(&["config.json", "pytorch_model.bin", "q4.gguf"], None).unwrap_err();
        assert!(error.help().is_some_and(|help| help.contains("--file q4.gguf")));
        assert!(
            matches!(error, Error::NoWeights { ggufs, pickles, .. } if ggufs == ["q4.gguf"] && pickles == ["pytorch_model.bin"])
        );
    }

    #[test]
    fn a_missing_gguf_names_the_nearest() {
        let error = chosen(&["model-q4_0.gguf", "model-q8_0.gguf"], Some("model-q8.gguf")).unwrap_err();
        assert!(matches!(error, Error::NoFile { nearest: Some(name), .. } if name == "model-q8_0.gguf"));
        // Only weights can be asked for by name.
        assert!(matches!(chosen(&["run.py"], Some("run.py")), Err(Error::NoFile { .. })));
    }

    #[test]
    fn an_escape_anywhere_condemns_the_listing() {
        for name in ["../x.py", "/etc/x", "a\\b", "x\0"] {
            let result = chosen(&["model.safetensors", name], None);
            assert!(matches!(result, Err(Error::UnsafeName { .. })), "{name:?}");
        }
        // A file that is left out may have a name that Windows cannot hold; one that is brought may not.
        assert!(chosen(&["model.safetensors", "docs/what?.md"], None).is_ok());
        assert!(matches!(chosen(&["NUL.safetensors"], None), Err(Error::UnsafeName { .. })));
    }
}
