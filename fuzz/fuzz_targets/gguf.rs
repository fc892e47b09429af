//! Any bytes are a GGUF file or a named fault; what is accepted lies inside the file.
#![no_main]
use luthier_storage::gguf::Gguf;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(gguf) = Gguf::parse(file) {
        for tensor in &gguf.tensors {
            let _ = &file[tensor.range.clone()];
        }
    }
});
