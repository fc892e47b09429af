//! Any text is a template or an error; one that compiles renders within its bounds, and its pieces rejoin.
#![no_main]
use luthier_data::{Layout, Message, Role, Template, Tokenizer, TokenizerFiles};
use std::sync::LazyLock;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
    let tokenizer = include_bytes!("../../crates/data/golden/bytes.tokenizer.json").to_vec();
    Tokenizer::from_files(TokenizerFiles { tokenizer, ..TokenizerFiles::default() }).expect("the committed tokenizer")
});

libfuzzer_sys::fuzz_target!(|source: &str| {
    let Ok(template) = Template::given(source, &TOKENIZER) else { return };
    let messages = [Message::new(Role::User, "a <b>"), Message::new(Role::Assistant, "c\nd")];
    if let Ok(Layout::Whole(rendering)) = template.layout(&messages, None) {
        assert_eq!(template.render(&messages, None).expect("rendered before"), rendering.text);
        for (range, _) in rendering.answers {
            assert!(rendering.text.get(range).is_some());
        }
    }
});
