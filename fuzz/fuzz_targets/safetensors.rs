//! Any bytes are a safetensors file or a named fault; what is accepted lies inside the file.
#![no_main]
use luthier_storage::safetensors::Header;

libfuzzer_sys::fuzz_target!(|file: &[u8]| {
    if let Ok(header) = Header::parse(file) {
        for entry in header.tensors.values() {
            let _ = &file[entry.range.clone()];
        }
    }
});
