//! Goldens: reference values in a safetensors file, beside the script that made them.
use luthier_contract::{Base, BaseParam, Context, Segments};
use luthier_kernels::linear::DenseBase;
use luthier_models::{Config, Error, Source};
use luthier_tensor::{Account, DType, Tensor, to_dtype};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Tensors of a safetensors file.
#[derive(Debug)]
pub struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    /// Reads a whole file, or all shards of a folder's model.
    pub fn open(path: &Path) -> Self {
        let mut all = BTreeMap::new();
        for file in files(path) {
            let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let tensors =
                SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            for (name, view) in tensors.tensors() {
                all.insert(name, read(view.dtype(), view.shape(), view.data()));
            }
        }
        Self(all)
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.find(name).unwrap_or_else(|| {
            panic!("no {name} in the golden; it has {:?}", self.0.keys().collect::<Vec<_>>())
        })
    }

    /// The tensor of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// Names that start with `prefix`, with the rest of the name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        self.0.iter().filter_map(move |(name, t)| name.strip_prefix(prefix).map(|rest| (rest, t)))
    }

    /// `tokens`, `offsets` and `targets` as a batch: (context, labelled rows, their targets). A negative target is no
    /// label; `targets[i]` is what token `i` should predict.
    pub fn batch(&self) -> (Context, Vec<u32>, Vec<u32>) {
        let ints = |name: &str| self.get(name).to_f64_vec().iter().map(|v| *v as i64).collect::<Vec<_>>();
        let segments = Segments::new(ints("offsets").iter().map(|v| *v as u32).collect());
        let context = Context::eval(ints("tokens").iter().map(|v| *v as u32).collect(), segments);
        let labelled = ints("targets").into_iter().enumerate().filter(|(_, t)| *t >= 0);
        let (rows, targets) = labelled.map(|(i, t)| (i as u32, t as u32)).unzip();
        (context, rows, targets)
    }
}

fn files(path: &Path) -> Vec<std::path::PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let all = std::fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let named = |p: &std::path::PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("model") && name.ends_with(".safetensors")
    };
    let mut files = all.filter_map(|e| e.ok().map(|e| e.path())).filter(named).collect::<Vec<_>>();
    files.sort();
    files
}

fn read(dtype: Dtype, shape: &[usize], data: &[u8]) -> Tensor {
    let floats = |d| {
        let mut t = Tensor::scratch(shape, d, Account::Workspace);
        t.bytes_mut().copy_from_slice(data);
        t
    };
    let wide = |values: Vec<f64>| Tensor::from_f64(shape, &values, DType::F64, Account::Workspace);
    match dtype {
        Dtype::F32 => floats(DType::F32),
        Dtype::F64 => floats(DType::F64),
        Dtype::BF16 => floats(DType::Bf16),
        Dtype::F16 => floats(DType::F16),
        Dtype::I64 => {
            wide(data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight")) as f64).collect())
        }
        Dtype::I32 => {
            wide(data.chunks(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().expect("four")))).collect())
        }
        other => panic!("goldens hold no {other:?}"),
    }
}

/// A golden's model as a [`Source`], by Hugging Face names.
impl Source for Golden {
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>> {
        self.0.get(&param.name).map(|t| t.shape().to_vec())
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, Error> {
        Ok(self.get(&param.name).copy(account))
    }

    fn base(&self, param: &BaseParam, storage: Option<DType>) -> Result<Arc<dyn Base>, Error> {
        let own = self.tensor(param, Account::Base)?;
        let dtype = storage.unwrap_or(own.dtype());
        Ok(Arc::new(DenseBase::new(to_dtype(&own, dtype, Account::Base))))
    }
}

/// A `config.json`.
pub fn config(path: &Path) -> Config {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Config(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The largest absolute difference of two tensors of one size.
pub fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.numel(), b.numel(), "{a:?} and {b:?}");
    let pairs = a.to_f64_vec().into_iter().zip(b.to_f64_vec());
    // A NaN must not hide behind `max`.
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}
