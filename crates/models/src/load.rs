//! From files to a model: collect what is wrong, then report it; nothing half-built.
use crate::error::Error;
use crate::head::HeadSpec;
use crate::model::{HeadLayers, Held, Layer, Linear, Matrix, Model, NormSlots, Slot, Tables};
use crate::spec::{ModelSpec, NormPlace};
use luthier_contract::{Base, BaseParam, Master, Site, Training};
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
    /// Builds a model from its description and weights. What the source lacks of a task's head starts as
    /// [`HeadSpec`](crate::HeadSpec) says.
    pub fn load(spec: ModelSpec, source: &dyn Source, options: &LoadOptions<'_>) -> Result<Self, Error> {
        let params = spec.base_params();
        let fresh = check(&spec, &params, source)?;
        let params = params.into_iter().map(|p| (p.path.clone(), p)).collect();
        let sites = spec.sites().into_iter().map(|s| (s.path.clone(), s)).collect();
        let (held, trained) = (BTreeMap::new(), Vec::new());
        let mut loader = Loader { source, options, spec: &spec, sites, params, fresh, held, trained };
        let embed = loader.linear("embed")?;
        let tables = Tables {
            positions: loader.optional_matrix("positions.weight")?,
            token_types: loader.optional_matrix("token_types.weight")?,
            norm: loader.optional_norm("embed_norm")?,
            relative: loader.optional_matrix("relative.weight")?,
            relative_norm: loader.optional_norm("relative_norm")?,
        };
        let layers = (0..spec.layers).map(|i| loader.layer(i).map(Arc::new)).collect::<Result<_, _>>()?;
        let norm = loader.optional_norm("norm")?;
        let head = loader.head(&embed)?;
        let Loader { held, trained, fresh, .. } = loader;
        let rope = spec.rope().map(|r| Arc::new(Rope::new(r)));
        let (spec, held, compute) = (Arc::new(spec), Arc::new(held), options.compute);
        Ok(Self { spec, compute, embed, tables, layers, norm, head, rope, held, trained, fresh })
    }
}

/// All missing and misshapen tensors, at most twenty by name; those of a task's head are given back instead.
fn check(spec: &ModelSpec, params: &[BaseParam], source: &dyn Source) -> Result<Vec<String>, Error> {
    let (mut wrong, mut fresh) = (Vec::new(), Vec::new());
    for param in params.iter().filter(|p| p.tied_to.is_none()) {
        let shape = source.shape(param);
        if shape.as_ref() == Some(&param.shape) {
            continue;
        }
        if spec.head.may_start_fresh() && param.path.starts_with("head.") {
            fresh.push(param.name.clone());
            continue;
        }
        wrong.push(match shape {
            None => format!("{} is missing", param.name),
            Some(shape) => format!("{} is {shape:?}, expected {:?}", param.name, param.shape),
        });
    }
    if wrong.is_empty() {
        return Ok(fresh);
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
    spec: &'a ModelSpec,
    sites: BTreeMap<String, Site>,
    params: BTreeMap<String, BaseParam>,
    fresh: Vec<String>,
    held: BTreeMap<String, Held>,
    trained: Vec<(BaseParam, Arc<Param>)>,
}

impl Loader<'_> {
    fn param(&self, path: &str) -> &BaseParam {
        self.params.get(path).expect("the spec lists every tensor that it builds")
    }

    fn tensor(&self, param: &BaseParam, account: Account) -> Result<Tensor, Error> {
        if self.fresh.contains(&param.name) {
            return Ok(first_values(&self.spec.head, param, account));
        }
        self.source.tensor(param, account)
    }

    /// A trained tensor in a buffer of its own, since it will change.
    fn train(&mut self, param: &BaseParam, master: Master) -> Result<Arc<Param>, Error> {
        let dtype = match master {
            _ if self.options.compute == DType::F64 => DType::F64,
            Master::F32 => DType::F32,
            Master::Bf16 => DType::Bf16,
        };
        let stored = self.tensor(param, Account::Workspace)?;
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
        let slot = if let Training::Trained(master) = (self.options.trains)(&param) {
            Slot::Trained(self.train(&param, master)?)
        } else {
            // Vectors are small: held in the type of their sums, whatever the storage.
            let stored = self.tensor(&param, Account::Base)?;
            Slot::Frozen(to_dtype(&stored, self.options.compute.accumulator(), Account::Base))
        };
        self.held.insert(path.into(), Held::Slot(slot.clone()));
        Ok(slot)
    }

    fn optional(&mut self, path: &str) -> Result<Option<Slot>, Error> {
        if self.params.contains_key(path) { self.slot(path).map(Some) } else { Ok(None) }
    }

    fn norm(&mut self, path: &str) -> Result<NormSlots, Error> {
        let weight = self.slot(&format!("{path}.weight"))?;
        Ok(NormSlots { weight, bias: self.optional(&format!("{path}.bias"))? })
    }

    fn optional_norm(&mut self, path: &str) -> Result<Option<NormSlots>, Error> {
        let present = self.params.contains_key(&format!("{path}.weight"));
        present.then(|| self.norm(path)).transpose()
    }

    fn matrix(&mut self, path: &str) -> Result<Matrix, Error> {
        let param = self.param(path).clone();
        let storage =
            if self.options.compute == DType::F64 { Some(DType::F64) } else { self.options.storage };
        let matrix = if let Training::Trained(master) = (self.options.trains)(&param) {
            Matrix::Trained(self.train(&param, master)?)
        } else if self.fresh.contains(&param.name) {
            let first = first_values(&self.spec.head, &param, Account::Base);
            Matrix::Frozen(Arc::new(DenseBase::new(to_dtype(
                &first,
                storage.unwrap_or(DType::F32),
                Account::Base,
            ))))
        } else {
            Matrix::Frozen(self.source.base(&param, storage)?)
        };
        self.held.insert(path.into(), Held::Matrix(matrix.clone()));
        Ok(matrix)
    }

    fn optional_matrix(&mut self, path: &str) -> Result<Option<Matrix>, Error> {
        if self.params.contains_key(path) { self.matrix(path).map(Some) } else { Ok(None) }
    }

    fn linear(&mut self, path: &str) -> Result<Linear, Error> {
        let site = self.sites.get(path).expect("the spec lists every site that it builds").clone();
        let weight = self.matrix(&format!("{path}.weight"))?;
        let bias = self.optional(&format!("{path}.bias"))?;
        Ok(Linear { site, weight, bias })
    }

    fn optional_linear(&mut self, path: &str) -> Result<Option<Linear>, Error> {
        if self.sites.contains_key(path) { self.linear(path).map(Some) } else { Ok(None) }
    }

    /// Block `i`, its tensors in the order of the forward run.
    fn layer(&mut self, index: usize) -> Result<Layer, Error> {
        let at = |what: &str| format!("layers.{index}.{what}");
        let pre = self.spec.wiring.place == NormPlace::Pre;
        let first = if pre { Some(self.norm(&at("norm1"))?) } else { None };
        let q = self.linear(&at("attn.q"))?;
        let q_norm = self.optional(&at("attn.q_norm.weight"))?;
        let k = self.linear(&at("attn.k"))?;
        let k_norm = self.optional(&at("attn.k_norm.weight"))?;
        let v = self.linear(&at("attn.v"))?;
        let pos_k = self.optional_linear(&at("attn.pos_k"))?;
        let pos_q = self.optional_linear(&at("attn.pos_q"))?;
        let o = self.linear(&at("attn.o"))?;
        let between = self.norm(&at(if pre { "norm2" } else { "norm1" }))?;
        let gate = self.optional_linear(&at("mlp.gate"))?;
        let (up, down) = (self.linear(&at("mlp.up"))?, self.linear(&at("mlp.down"))?);
        let (norm1, norm2) = match first {
            Some(first) => (first, between),
            None => (between, self.norm(&at("norm2"))?),
        };
        let window = self.spec.windows[index];
        Ok(Layer { index, norm1, q, k, v, pos_k, pos_q, o, q_norm, k_norm, norm2, gate, up, down, window })
    }

    fn head(&mut self, embed: &Linear) -> Result<HeadLayers, Error> {
        let dense = self.optional_linear("head.dense")?;
        let norm = self.optional_norm("head.norm")?;
        let out = if self.spec.tied { self.tied_head(embed)? } else { self.linear("head")? };
        Ok(HeadLayers { dense, norm, out })
    }

    /// A tied head is the embedding, unless exactly one of the two trains: then it starts as a copy.
    fn tied_head(&mut self, embed: &Linear) -> Result<Linear, Error> {
        let (own, first) = (self.param("head.weight").clone(), self.param("embed.weight").clone());
        let trains = (self.options.trains)(&own);
        let weight = match (&embed.weight, trains) {
            (Matrix::Frozen(base), Training::Frozen) => Matrix::Frozen(base.clone()),
            (Matrix::Trained(leaf), Training::Trained(_)) => Matrix::Trained(leaf.clone()),
            (Matrix::Frozen(_), Training::Trained(master)) => {
                let leaf = self.train(&first, master)?;
                self.trained.pop();
                let leaf = Param::new(own.name.clone(), leaf.value());
                self.trained.push((own, leaf.clone()));
                Matrix::Trained(leaf)
            }
            (Matrix::Trained(_), Training::Frozen) => {
                Matrix::Frozen(self.source.base(&first, self.options.storage)?)
            }
        };
        self.held.insert("head.weight".into(), Held::Matrix(weight.clone()));
        let site = self.sites.get("head").expect("every model has a head").clone();
        Ok(Linear { site, weight, bias: self.optional("head.bias")? })
    }
}

/// A head's tensor that the base has not, as transformers starts it: matrices `N(0, initializer_range^2)`, norms one,
/// biases zero. Keyed by seed and name, so that it depends on nothing else.
fn first_values(head: &HeadSpec, param: &BaseParam, account: Account) -> Tensor {
    let key = Key::new(head.seed, Stream::Init).at(&param.name);
    let value = |i: u64| match (param.site, param.is_bias) {
        (_, true) => 0.0,
        (None, false) => 1.0,
        (Some(_), false) => head.std * key.normal(0, i),
    };
    let values = (0..param.numel() as u64).map(value).collect::<Vec<_>>();
    Tensor::from_f64(&param.shape, &values, DType::F32, account)
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
            (None, false) => (1.0, 0.1),
            (_, true) => (0.0, 0.1),
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
