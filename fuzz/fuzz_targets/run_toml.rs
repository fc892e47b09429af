//! Any text is a configuration or an error whose place can be shown.
#![no_main]
use luthier_config::RawConfig;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = RawConfig::parse("run.toml", text, &[], &["lora", "full-ft"]) {
        let _ = (error.to_string(), error.help(), error.code());
    }
});
