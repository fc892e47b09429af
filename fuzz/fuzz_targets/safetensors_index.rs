//! Any bytes are an index of shards or a named fault; no shard leaves its folder.
#![no_main]
use luthier_storage::safetensors::Index;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok(index) = Index::parse(json) {
        for shard in index.shards().keys() {
            assert!(*shard != ".." && !shard.contains('/') && !shard.contains('\\'), "{shard}");
        }
    }
});
