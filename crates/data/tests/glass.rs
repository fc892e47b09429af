//! The embedded model's tokenizer, against transformers, and its text through the whole chain.

use std::path::{Path, PathBuf};

use luthier_data::{Batch, BatchSize, DataSpec, EvalSpec, Sampler, Tokenizer, load};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets")
}

#[test]
fn ids_are_those_of_transformers() {
    let tokenizer = Tokenizer::from_folder(&assets().join("glass-en")).unwrap();
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../golden/glass.golden.json")).unwrap();
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_value(golden["ids"].clone()).unwrap();
    assert!(texts.len() > 10);
    for (text, ids) in texts.iter().zip(ids) {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
    }
    assert_eq!((tokenizer.stops(), tokenizer.adds_bos(), tokenizer.vocab()), (&[3][..], false, 1024));
}

#[test]
fn a_novel_becomes_batches_in_which_every_token_is_predicted_once() {
    let tokenizer = Tokenizer::from_folder(&assets().join("glass-en")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter.txt");
    let text = "Emma could not forgive her; but as neither provocation nor resentment were discerned, \
                she said nothing.\n"
        .repeat(40);
    std::fs::write(&path, &text).unwrap();
    let spec = DataSpec { train: vec![path], eval: EvalSpec::None, max_tokens: 64, ..DataSpec::default() };
    let samples = load(&spec, &tokenizer).unwrap().train;
    let mut sampler = Sampler::new(&samples, BatchSize::Tokens(200), 7);
    let mut targets = 0;
    for _ in 0..sampler.steps_in_epoch(0) {
        let batch = Batch::new(sampler.next_step().into_iter().map(|index| &samples[index]));
        assert_eq!(batch.targets.len(), batch.target_rows.len());
        assert!(batch.tokens.len() <= 200 && *batch.segments.last().unwrap() as usize == batch.tokens.len());
        targets += batch.targets.len();
    }
    // The text and its end token; the first token is predicted from nothing.
    assert_eq!(targets, tokenizer.encode(&text).unwrap().len());
}
