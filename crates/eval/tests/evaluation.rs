//! Evaluation of a tiny model with random weights, and of the committed tiny Llama.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_data::{Example, Sample, Tokenizer};
use luthier_decode::{Generator, Settings, Stop};
use luthier_eval::{Error, Options, Pattern, Prediction, evaluate, held_out, write_predictions};
use luthier_models::{LoadOptions, Model, RandomSource, parse};
use luthier_tensor::DType;
use luthier_testkit::{golden, laws};
use std::path::Path;

fn sample(tokens: &[u32], from: usize) -> Sample {
    let labelled = (0..tokens.len()).map(|i| i >= from).collect();
    Sample { tokens: tokens.to_vec(), labelled, ..Sample::default() }
}

fn random() -> Model {
    let source = RandomSource { seed: 5, std: 0.3, dtype: DType::F64 };
    Model::load(laws::shapes().swap_remove(0), &source, &LoadOptions::frozen(DType::F64)).unwrap()
}

#[test]
fn a_row_s_loss_is_that_of_its_labelled_tokens_whatever_its_neighbours() {
    let model = random();
    let samples = [sample(&[1, 2, 3, 4, 5], 2), sample(&[7, 7, 7], 3), sample(&[9, 8, 7, 6], 1)];
    let together = held_out(&model, &[], &samples, &mut |_| {}).unwrap();
    assert_eq!(together.iter().map(|r| r.tokens).collect::<Vec<_>>(), [3, 0, 3]);
    for (sample, row) in samples.iter().zip(&together) {
        let alone = held_out(&model, &[], std::slice::from_ref(sample), &mut |_| {}).unwrap();
        assert!((alone[0].sum - row.sum).abs() < 1e-12);
    }
    // A random model knows nothing: its loss is near the logarithm of the vocabulary.
    let mean = together.iter().map(|r| r.sum).sum::<f64>() / 6.0;
    assert!(mean > 1.0 && mean < 8.0, "{mean}");
    let long = [sample(&[1; 65], 1)];
    assert!(matches!(held_out(&model, &[], &long, &mut |_| {}), Err(Error::TooLong { row: 0, .. })));
}

#[test]
fn a_report_holds_loss_and_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/glass-en");
    let spec = parse(&golden::config(&folder.join("config.json"))).unwrap();
    let options = LoadOptions { storage: Some(DType::F32), ..LoadOptions::frozen(DType::F32) };
    let model = Model::load(spec, &golden::Golden::open(&folder), &options).unwrap();
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let generator = Generator { model: &model, adapters: &[], tokenizer: Some(&tokenizer) };
    let texts = ["Once upon a time there was a king.", "The old man went home.", "She was very happy."];
    let samples = texts.map(|t| sample(&tokenizer.encode(t).unwrap(), 1));
    let settings = Settings { stop: Stop { max_tokens: 6, ..Stop::default() }, ..Settings::default() };
    let prompt = tokenizer.encode("Once upon a time").unwrap();
    let greedy = generator
        .generate(vec![prompt.clone()], &settings, &mut |_, _| std::ops::ControlFlow::Continue(()))
        .unwrap()
        .remove(0)
        .text;
    let example = |reference: &str| Example {
        prompt_tokens: prompt.clone(),
        reference: reference.into(),
        file: 0,
        line: 1,
    };
    let examples = [example(&greedy), example("something else")];
    let mut options = Options { answers: Some(settings), ..Options::default() };
    let (report, predictions) =
        evaluate(&generator, &samples, &examples, &options, &mut |_, _, _| {}).unwrap();
    let tokens = samples.iter().map(Sample::targets).sum::<usize>();
    assert_eq!((report.rows, report.tokens, report.answers), (3, tokens, Some(2)));
    assert!((report.perplexity.ln() - report.loss).abs() < 1e-12);
    assert!(report.loss_interval.low <= report.loss && report.loss <= report.loss_interval.high);
    // An untrained model of this vocabulary would have a loss of ln 1024, that is 6.9.
    assert!(report.loss < 6.0, "{report:?}");
    assert_eq!((report.exact_match, report.answered), (Some(0.5), Some(0.0)));

    options.limit = Some(1);
    options.pattern = Some(Pattern::parse("gsm8k").unwrap());
    let (one, _) = evaluate(&generator, &samples, &examples, &options, &mut |_, _, _| {}).unwrap();
    assert_eq!((one.rows, one.answers, one.exact_match), (1, Some(1), Some(0.0)));

    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("predictions.jsonl");
    write_predictions(&path, &predictions).unwrap();
    let read = std::fs::read_to_string(&path).unwrap();
    let read = read.lines().map(|l| serde_json::from_str::<Prediction>(l).unwrap()).collect::<Vec<_>>();
    assert_eq!(read, predictions);
    assert!(matches!(evaluate(&generator, &[], &[], &options, &mut |_, _, _| {}), Err(Error::Empty)));
}
