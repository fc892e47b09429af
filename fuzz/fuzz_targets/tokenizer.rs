//! Any bytes are a tokenizer or an error; a tokenizer that loads encodes and decodes without a panic.
#![no_main]
use luthier_data::{Tokenizer, TokenizerFiles};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let files = TokenizerFiles { tokenizer: bytes.to_vec(), ..TokenizerFiles::default() };
    if let Ok(tokenizer) = Tokenizer::from_files(files) {
        for text in ["", "It's 2024: na\u{ef}ve \u{7434} <s>", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            if let Ok(ids) = tokenizer.encode(text) {
                let _ = (tokenizer.decode(&ids), tokenizer.whole_characters(&ids));
            }
        }
    }
});
