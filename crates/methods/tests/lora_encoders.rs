//! LoRA on classifying encoders against PEFT: adapters that PEFT saved, the task's head among their tensors, give PEFT's
//! scores and gradients.
#![allow(clippy::unwrap_used)] // this file is tests only
use luthier_contract::{Adapter, Base, BaseParam};
use luthier_kernels::elementwise::scale;
use luthier_kernels::head_loss::head_loss;
use luthier_kernels::linear::{DenseBase, Weight};
use luthier_models::{Applied, Error, Head, LoadOptions, Model, Run, Source, parse_for};
use luthier_tensor::{Account, DType, ParamId, Tape, Tensor, to_dtype};
use luthier_testkit::golden::{Golden, config, largest_difference};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The base's folder, and what it lacks.
struct Files {
    base: Golden,
    golden: Golden,
}

impl Files {
    fn find(&self, param: &BaseParam) -> Option<&Tensor> {
        self.golden.find(&format!("base.{}", param.name)).or_else(|| self.base.find(&param.name))
    }
}

impl Source for Files {
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>> {
        self.find(param).map(|t| t.shape().to_vec())
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, Error> {
        Ok(self.find(param).unwrap().copy(account))
    }

    fn base(&self, param: &BaseParam, storage: Option<DType>) -> Result<Arc<dyn Base>, Error> {
        let own = self.tensor(param, Account::Base)?;
        Ok(Arc::new(DenseBase::new(to_dtype(&own, storage.unwrap_or(own.dtype()), Account::Base))))
    }
}

fn base_of(folder: &Path) -> PathBuf {
    let variant = match folder.file_name().and_then(|n| n.to_str()).unwrap() {
        "deberta-v2" => "deberta-v2/v3".into(),
        other => format!("{}/default", other.trim_end_matches("-paths")),
    };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/golden").join(variant)
}

fn compare(folder: &Path, dtype: DType, tolerance: f64) {
    let near = |part: &str, ours: &Tensor, theirs: &Tensor| {
        let difference = largest_difference(ours, theirs);
        assert!(difference < tolerance, "{} {dtype}: {part} differs by {difference:e}", folder.display());
    };
    let text = std::fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let method = luthier_methods::read_config(&serde_json::from_str(&text).unwrap()).unwrap().method;
    let tensors = Golden::open(&folder.join("adapter_model.safetensors"));
    let base = base_of(folder);
    let files = Files { base: Golden::open(&base), golden: Golden::open(&folder.join("golden.safetensors")) };
    let spec = parse_for(&config(&base.join("config.json")), Head::Classifier { labels: 3 }).unwrap();
    method.check(&spec.sites(), &spec.base_params()).unwrap();
    let trains = |p: &BaseParam| method.trains(p);
    let options = LoadOptions { compute: dtype, storage: None, trains: &trains };
    let model = Model::load(spec.clone(), &files, &options).unwrap();
    let weight = |_: &luthier_contract::Site| -> Tensor { unreachable!("LoRA reads no base") };
    let adapter = Arc::new(Adapter::init(method.clone(), &spec.sites(), 0, dtype.accumulator(), &weight));

    let mut slots = adapter.saved();
    slots.extend(model.trained().iter().map(|(p, param)| (method.base_key(p), param.clone())));
    let mut ours = slots.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    ours.sort();
    let theirs = tensors.with_prefix("").map(|(name, _)| name.to_string()).collect::<Vec<_>>();
    assert_eq!(ours, theirs, "{}: keys", folder.display());
    assert!(model.trained().iter().all(|(p, _)| p.head), "only the head trains in full");
    for (key, param) in &slots {
        let value = param.value();
        param.set(to_dtype(tensors.get(key), value.dtype(), value.account()).reshape(value.shape()));
    }

    let (mut context, ..) = files.golden.batch();
    let types = files.golden.get("token_types").to_f64_vec();
    context.token_types = Some(types.iter().map(|t| *t as u32).collect());
    let run = Run {
        context: Arc::new(context),
        adapters: vec![Applied::to_all(adapter.clone())],
        recompute: false,
    };
    let tape = Tape::new();
    let logits = model.class_logits(&tape, &run);
    near("logits", logits.value(), files.golden.get("logits"));
    let rows = Tensor::from_f64(&[3, 3], &[1., 0., 0., 0., 1., 0., 0., 0., 1.], dtype, Account::Base);
    let identity = Weight::Frozen(Arc::new(DenseBase::new(rows)));
    let loss = head_loss(&tape, &logits, &identity, &[], &[0, 1], &[2, 0], None);
    drop(logits);
    let mean = scale(&tape, &loss.sum, 0.5);
    assert!((mean.value().item() - files.golden.get("loss").item()).abs() < tolerance);
    let mut gradients = BTreeMap::<ParamId, Tensor>::new();
    tape.backward(mean, 1.0, &mut gradients);
    for (key, param) in &slots {
        near(key, &gradients[&param.id()], files.golden.get(&format!("grad.{key}")));
    }
}

#[test]
fn heads_are_saved_as_peft_saves_them() {
    let goldens: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/lora-encoders");
    let mut folders = std::fs::read_dir(goldens).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    folders.retain(|p| p.join("adapter_config.json").exists());
    folders.sort();
    assert!(folders.len() >= 5);
    for folder in folders {
        compare(&folder, DType::F64, 1e-5);
        compare(&folder, DType::F32, 1e-4);
    }
}
