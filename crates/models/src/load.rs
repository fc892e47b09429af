//! From files to a model: collect what is wrong, then report it; nothing half-built.
use crate::error::Error;
use crate::model::{Layer, Linear, Matrix, Model, Slot};
use crate::spec::ModelSpec;
use luthier_contract::{Base, BaseParam, Master, Site, SiteKind, Training};
use luthier_kernels::linear::DenseBase;
use luthier_kernels::rope::Rope;
use luthier_tensor::{Account, DType, Key, Param, Stream, Tensor, to_dtype};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where weights come from.
pub trait Source {
    /// Shape of the tensor, if there is one.
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>>;
    /// Values in the type they are stored in, in `account`.
    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, Error>;
    /// A matrix as a frozen base, held as `storage` (none: as it is).
    fn base(&self, param: &BaseParam, storage: Option<DType>) -> Result<Arc<dyn Base>, Error>;
}

/// How to hold and compute.
pub struct LoadOptions<'a> {
    /// Type of activations.
    pub compute: DType,
    /// Type in which frozen matrices are held; none keeps the file's.
    pub storage: Option<DType>,
    /// What trains.
    pub trains: &'a dyn Fn(&BaseParam) -> Training,
}

impl LoadOptions<'_> {
    /// Everything frozen, as it is stored.
    pub const fn frozen(compute: DType) -> LoadOptions<'static> {
        LoadOptions { compute, storage: None, trains: &|_| Training::Frozen }
    }
}

impl Model {
    /// Builds a model from its description and weights.
    pub fn load(spec: ModelSpec, source: &dyn Source, options: &LoadOptions<'_>) -> Result<Self, Error> {
        check(&spec, source)?;
        let params = spec.base_params().into_iter().map(|p| (p.path.clone(), p)).collect();
        let mut loader = Loader { source, options, params, trained: Vec::new() };
        let mut sites = spec.sites().into_iter();
        let mut next = || sites.next().expect("sites come in the order of the forward run");
        let embed = loader.linear(next())?;
        let mut layers = Vec::with_capacity(spec.layers);
        for i in 0..spec.layers {
            let at = |what: &str| format!("layers.{i}.{what}.weight");
            let norm1 = loader.slot(&at("norm1"))?;
            let (q, q_norm) = (loader.linear(next())?, loader.optional(&at("attn.q_norm"))?);
            let (k, k_norm) = (loader.linear(next())?, loader.optional(&at("attn.k_norm"))?);
            let (v, o) = (loader.linear(next())?, loader.linear(next())?);
            let norm2 = loader.slot(&at("norm2"))?;
            let (gate, up, down) = (loader.linear(next())?, loader.linear(next())?, loader.linear(next())?);
            let window = spec.windows[i];
            layers.push(Arc::new(Layer { norm1, q, k, v, o, q_norm, k_norm, norm2, gate, up, down, window }));
        }
        let norm = loader.slot("norm.weight")?;
        let head = loader.head(next(), &embed, spec.tied)?;
        let (trained, compute) = (loader.trained, options.compute);
        let rope = Arc::new(Rope::new(&spec.rope));
        Ok(Self { spec: Arc::new(spec), compute, embed, layers, norm, head, rope, trained })
    }
}

/// All missing and misshapen tensors, at most twenty by name.
fn check(spec: &ModelSpec, source: &dyn Source) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for param in spec.base_params().iter().filter(|p| p.tied_to.is_none()) {
        match source.shape(param) {
            None => wrong.push(format!("{} is missing", param.name)),
            Some(shape) if shape != param.shape => {
                wrong.push(format!("{} is {shape:?}, expected {:?}", param.name, param.shape));
            }
            Some(_) => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let rest = wrong.len().saturating_sub(20);
    let mut listed = wrong.into_iter().take(20).collect::<Vec<_>>();
    if rest > 0 {
        listed.push(format!("and {rest} more"));
    }
    let summary = listed.join("; ");
    Err(Error::Weights { summary })
}

struct Loader<'a> {
    source: &'a dyn Source,
    options: &'a LoadOptions<'a>,
    params: BTreeMap<String, BaseParam>,
    trained: Vec<(BaseParam, Arc<Param>)>,
}

impl Loader<'_> {
    fn param(&self, path: &str) -> &BaseParam {
        self.params.get(path).expect("the spec lists every tensor that it builds")
    }

    /// A trained tensor in a buffer of its own, since it will change.
    fn train(&mut self, param: &BaseParam, master: Master) -> Result<Arc<Param>, Error> {
        let dtype = match master {
            _ if self.options.compute == DType::F64 => DType::F64,
            Master::F32 => DType::F32,
            Master::Bf16 => DType::Bf16,
        };
        let stored = self.source.tensor(param, Account::Workspace)?;
        let own = if stored.dtype() == dtype {
            stored.copy(Account::Base)
        } else {
            to_dtype(&stored, dtype, Account::Base)
        };
        let leaf = Param::new(param.name.clone(), own);
        self.trained.push((param.clone(), leaf.clone()));
        Ok(leaf)
    }

    fn slot(&mut self, path: &str) -> Result<Slot, Error> {
        let param = self.param(path).clone();
        if let Training::Trained(master) = (self.options.trains)(&param) {
            return Ok(Slot::Trained(self.train(&param, master)?));
        }
        // Vectors are small: held in the type of their sums, whatever the storage.
        let stored = self.source.tensor(&param, Account::Base)?;
        Ok(Slot::Frozen(to_dtype(&stored, self.options.compute.accumulator(), Account::Base)))
    }

    fn optional(&mut self, path: &str) -> Result<Option<Slot>, Error> {
        if self.params.contains_key(path) { self.slot(path).map(Some) } else { Ok(None) }
    }

    fn matrix(&mut self, path: &str) -> Result<Matrix, Error> {
        let param = self.param(path).clone();
        if let Training::Trained(master) = (self.options.trains)(&param) {
            return Ok(Matrix::Trained(self.train(&param, master)?));
        }
        let storage =
            if self.options.compute == DType::F64 { Some(DType::F64) } else { self.options.storage };
        Ok(Matrix::Frozen(self.source.base(&param, storage)?))
    }

    fn linear(&mut self, site: Site) -> Result<Linear, Error> {
        let weight = self.matrix(&format!("{}.weight", site.path))?;
        let bias = self.optional(&format!("{}.bias", site.path))?;
        Ok(Linear { site, weight, bias })
    }

    /// A tied head is the embedding, unless exactly one of the two trains: then it starts as a copy.
    fn head(&mut self, site: Site, embed: &Linear, tied: bool) -> Result<Linear, Error> {
        if !tied {
            return self.linear(site);
        }
        let own = self.param("head.weight").clone();
        let trains = (self.options.trains)(&own);
        let weight = match (&embed.weight, trains) {
            (Matrix::Frozen(base), Training::Frozen) => Matrix::Frozen(base.clone()),
            (Matrix::Trained(leaf), Training::Trained(_)) => Matrix::Trained(leaf.clone()),
            (Matrix::Frozen(_), Training::Trained(master)) => {
                let first = BaseParam {
                    name: "model.embed_tokens.weight".into(),
                    path: "embed.weight".into(),
                    ..own.clone()
                };
                let leaf = self.train(&first, master)?;
                self.trained.pop();
                let leaf = Param::new(own.name.clone(), leaf.value());
                self.trained.push((own, leaf.clone()));
                Matrix::Trained(leaf)
            }
            (Matrix::Trained(_), Training::Frozen) => {
                let embed = self.param("embed.weight").clone();
                Matrix::Frozen(self.source.base(&embed, self.options.storage)?)
            }
        };
        debug_assert_eq!(site.kind, SiteKind::Head);
        Ok(Linear { site, weight, bias: None })
    }
}

/// Random weights for benchmarks and tests: matrices `N(0, std^2)`, norms near one, biases small.
#[derive(Clone, Copy, Debug)]
pub struct RandomSource {
    /// Seed of the draws.
    pub seed: u64,
    /// Standard deviation of matrices.
    pub std: f64,
    /// Type in which weights are made.
    pub dtype: DType,
}

impl Source for RandomSource {
    fn shape(&self, param: &BaseParam) -> Option<Vec<usize>> {
        Some(param.shape.clone())
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, Error> {
        let key = Key::new(self.seed, Stream::Init).at(&param.name);
        let (mean, std) = match (param.site, param.is_bias) {
            (None, _) => (1.0, 0.1),
            (Some(_), true) => (0.0, 0.1),
            (Some(_), false) => (0.0, self.std),
        };
        let values = (0..param.numel() as u64).map(|i| mean + std * key.normal(0, i)).collect::<Vec<_>>();
        Ok(Tensor::from_f64(&param.shape, &values, self.dtype, account))
    }

    fn base(&self, param: &BaseParam, storage: Option<DType>) -> Result<Arc<dyn Base>, Error> {
        let made = self.tensor(param, Account::Base)?;
        Ok(Arc::new(DenseBase::new(to_dtype(&made, storage.unwrap_or(self.dtype), Account::Base))))
    }
}
