//! Every encoder family against transformers: hidden states, masked language model, classifiers and their gradients, of
//! a tiny random model. The golden's values are f32, so that f64 agrees to its rounding and f32 to 1e-4.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::{Base, BaseParam, Context, Master, Training};
use luthier_kernels::elementwise::scale;
use luthier_kernels::linear::{DenseBase, Weight};
use luthier_models::{Error, Head, LoadOptions, Model, Run, Source, parse_for};
use luthier_tensor::{Account, DType, ParamId, Tape, Tensor, Var};
use luthier_testkit::golden::{Golden, config, largest_difference};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn variants(family: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(family);
    let all = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
    let mut all = all.filter(|p| p.join("golden.safetensors").exists()).collect::<Vec<_>>();
    all.sort();
    assert!(!all.is_empty(), "{family} has goldens");
    all
}

/// The folder's tensors under `names`, with a head's own before them.
struct Files<'a> {
    base: &'a Golden,
    golden: &'a Golden,
    head: &'a str,
}

impl Files<'_> {
    fn find(&self, param: &BaseParam) -> Option<&Tensor> {
        self.golden.find(&format!("{}{}", self.head, param.name)).or_else(|| self.base.find(&param.name))
    }
}

impl Source for Files<'_> {
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>> {
        self.find(param).map(|t| t.shape().to_vec())
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, Error> {
        Ok(self.find(param).unwrap().copy(account))
    }

    fn base(&self, param: &BaseParam, storage: Option<DType>) -> Result<Arc<dyn Base>, Error> {
        let own = self.tensor(param, Account::Base)?;
        let dtype = storage.unwrap_or(own.dtype());
        Ok(Arc::new(DenseBase::new(luthier_tensor::to_dtype(&own, dtype, Account::Base))))
    }
}

struct Check<'a> {
    folder: &'a Path,
    golden: &'a Golden,
    dtype: DType,
    tolerance: f64,
}

impl Check<'_> {
    fn near(&self, part: &str, ours: &Tensor, theirs: &Tensor) {
        let (what, difference) = (self.folder.display(), largest_difference(ours, theirs));
        let (dtype, least) = (self.dtype, self.tolerance);
        assert!(difference < least, "{what} {dtype}: {part} differs by {difference:e}");
    }

    fn model(&self, head: Head, prefix: &str) -> Model {
        let base = Golden::open(self.folder);
        let files = Files { base: &base, golden: self.golden, head: prefix };
        let trains = |_: &BaseParam| Training::Trained(Master::F32);
        let options = LoadOptions { compute: self.dtype, storage: None, trains: &trains };
        let spec = parse_for(&config(&self.folder.join("config.json")), head).unwrap();
        let model =
            Model::load(spec, &files, &options).unwrap_or_else(|e| panic!("{}: {e}", self.folder.display()));
        assert_eq!(model.fresh(), Vec::<String>::new(), "{}", self.folder.display());
        model
    }

    fn gradients(&self, model: &Model, tape: Tape, loss: Var, seed: f64, prefix: &str) {
        let mut gradients = BTreeMap::<ParamId, Tensor>::new();
        tape.backward(loss, seed, &mut gradients);
        let mut compared = 0;
        for (name, theirs) in self.golden.with_prefix(prefix) {
            let (_, param) = model.trained().iter().find(|(p, _)| p.name == name).expect(name);
            self.near(name, &gradients[&param.id()], theirs);
            compared += 1;
        }
        assert!(compared >= 6, "the golden has gradients");
    }

    fn run(context: &Context) -> Run {
        Run { context: Arc::new(context.clone()), adapters: Vec::new(), recompute: false }
    }

    fn masked_lm(&self, context: &Context, rows: &[u32], targets: &[u32]) {
        let (model, run) = (self.model(Head::MaskedLm, ""), Self::run(context));
        let hidden = model.hidden(&Tape::off(), &run);
        self.near("hidden", hidden.value(), self.golden.get("hidden.final"));
        self.near("logits", &model.logits(hidden.value(), &run), self.golden.get("logits"));
        let tape = Tape::new();
        let loss = model.loss(&tape, &run, rows, targets);
        let mean = 1.0 / rows.len() as f64;
        assert!((loss.sum.value().item() * mean - self.golden.get("loss").item()).abs() < self.tolerance);
        self.gradients(&model, tape, loss.sum, mean, "grad.");
    }

    fn classifier(&self, context: &Context) {
        let model = self.model(Head::Classifier { labels: 3 }, "classifier.weight.");
        let (tape, run) = (Tape::new(), Self::run(context));
        let logits = model.class_logits(&tape, &run);
        self.near("class logits", logits.value(), self.golden.get("classifier.logits"));
        // Cross-entropy with the script's classes, by a head that is the identity.
        let rows =
            Tensor::from_f64(&[3, 3], &[1., 0., 0., 0., 1., 0., 0., 0., 1.], self.dtype, Account::Base);
        let identity = Weight::Frozen(Arc::new(DenseBase::new(rows)));
        let loss =
            luthier_kernels::head_loss::head_loss(&tape, &logits, &identity, &[], &[0, 1], &[2, 0], None);
        drop(logits);
        let mean = scale(&tape, &loss.sum, 0.5);
        let expected = self.golden.get("classifier.loss").item();
        assert!((mean.value().item() - expected).abs() < self.tolerance);
        self.gradients(&model, tape, mean, 1.0, "classifier.grad.");
    }

    fn token_classifier(&self, context: &Context) {
        let model = self.model(Head::TokenClassifier { labels: 3 }, "token.weight.");
        let run = Self::run(context);
        let all = (0..context.tokens.len() as u32).collect::<Vec<_>>();
        let logits = model.token_logits(&Tape::off(), &run, &all);
        self.near("token logits", logits.value(), self.golden.get("token.logits"));
        let some = model.token_logits(&Tape::off(), &run, &[9, 2]).value().to_f64_vec();
        let all = logits.value().to_f64_vec();
        let want = [&all[27..30], &all[6..9]].concat();
        assert!(some.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

fn check(family: &str) {
    for folder in variants(family) {
        let golden = Golden::open(&folder.join("golden.safetensors"));
        let (mut context, rows, targets) = golden.batch();
        let types = golden.get("token_types").to_f64_vec();
        context.token_types = Some(types.iter().map(|t| *t as u32).collect());
        for (dtype, tolerance) in [(DType::F64, 1e-5), (DType::F32, 1e-4)] {
            let check = Check { folder: &folder, golden: &golden, dtype, tolerance };
            check.masked_lm(&context, &rows, &targets);
            check.classifier(&context);
            check.token_classifier(&context);
        }
    }
}

#[test]
fn bert() {
    check("bert");
}

#[test]
fn roberta() {
    check("roberta");
}

#[test]
fn xlm_roberta() {
    check("xlm-roberta");
}

#[test]
fn deberta_v2() {
    check("deberta-v2");
}

#[test]
fn distilbert() {
    check("distilbert");
}
