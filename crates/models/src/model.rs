//! A decoder with weights.
use crate::spec::ModelSpec;
use luthier_contract::{Base, BaseParam, Site, Weight};
use luthier_kernels::rope::Rope;
use luthier_tensor::{DType, Param, Tape, Tensor, Var};
use std::sync::Arc;

/// A weight matrix: frozen in some storage, or trained.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// Never changes.
    Frozen(Arc<dyn Base>),
    /// Trains.
    Trained(Arc<Param>),
}

impl Matrix {
    /// For the linear op.
    pub fn on(&self, tape: &Tape) -> Weight {
        match self {
            Self::Frozen(base) => Weight::Frozen(base.clone()),
            Self::Trained(param) => Weight::Trained(tape.leaf(param)),
        }
    }

    /// The values `[d_out, d_in]`, decoded.
    pub fn values(&self, dtype: DType) -> Tensor {
        match self {
            Self::Frozen(base) => base.weight(dtype),
            Self::Trained(param) => {
                luthier_tensor::to_dtype(&param.value(), dtype, luthier_tensor::Account::Workspace)
            }
        }
    }
}

/// A vector of the base (a norm's weight, a bias): frozen, or trained.
#[derive(Clone, Debug)]
pub enum Slot {
    /// Never changes.
    Frozen(Tensor),
    /// Trains.
    Trained(Arc<Param>),
}

impl Slot {
    /// For an op.
    pub fn on(&self, tape: &Tape) -> Var {
        match self {
            Self::Frozen(value) => Var::constant(value.clone()),
            Self::Trained(param) => tape.leaf(param),
        }
    }

    /// The values.
    pub fn values(&self) -> Tensor {
        match self {
            Self::Frozen(value) => value.clone(),
            Self::Trained(param) => param.value(),
        }
    }
}

/// A linear site with its weight.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    pub(crate) site: Site,
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Slot>,
}

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) norm1: Slot,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) q_norm: Option<Slot>,
    pub(crate) k_norm: Option<Slot>,
    pub(crate) norm2: Slot,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) window: Option<usize>,
}

/// A decoder with weights.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) spec: Arc<ModelSpec>,
    /// Type of activations: f32, bf16; f64 on the reference path.
    pub(crate) compute: DType,
    pub(crate) embed: Linear,
    pub(crate) layers: Vec<Arc<Layer>>,
    pub(crate) norm: Slot,
    pub(crate) head: Linear,
    pub(crate) rope: Arc<Rope>,
    pub(crate) trained: Vec<(BaseParam, Arc<Param>)>,
}

impl Model {
    /// The description that it was built from.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Type of activations.
    pub fn compute(&self) -> DType {
        self.compute
    }

    /// Tensors of the base that train, each once, in the order of the forward run.
    pub fn trained(&self) -> &[(BaseParam, Arc<Param>)] {
        &self.trained
    }

    /// The site's base weight, decoded.
    pub fn weight(&self, site: &Site, dtype: DType) -> Tensor {
        self.linears().find(|l| l.site.path == site.path).expect("a site of this model").weight.values(dtype)
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        let inner = self.layers.iter().flat_map(|l| [&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down]);
        std::iter::once(&self.embed).chain(inner).chain(std::iter::once(&self.head))
    }

    /// Every tensor of the base with its present values, in `dtype`, one at a time; a tied head is left out.
    pub fn each_tensor<E>(
        &self,
        dtype: DType,
        visit: &mut dyn FnMut(&BaseParam, &Tensor) -> Result<(), E>,
    ) -> Result<(), E> {
        for param in self.spec.base_params() {
            if param.tied_to.is_some() && self.head_is_tied() {
                continue;
            }
            visit(&param, &self.values(&param, dtype))?;
        }
        Ok(())
    }

    /// The present values of one tensor of the base, in `dtype`.
    pub fn values(&self, param: &BaseParam, dtype: DType) -> Tensor {
        let path = param.path.as_str();
        if let Some(linear) =
            self.linears().find(|l| path.strip_prefix(l.site.path.as_str()) == Some(".weight"))
        {
            return linear.weight.values(dtype);
        }
        let bias = |l: &&Linear| path.strip_prefix(l.site.path.as_str()) == Some(".bias");
        let slot = match self.linears().find(bias) {
            Some(linear) => linear.bias.as_ref().expect("listed because present"),
            None => self.vector(param),
        };
        luthier_tensor::to_dtype(&slot.values(), dtype, luthier_tensor::Account::Workspace)
    }

    fn vector(&self, param: &BaseParam) -> &Slot {
        let Some(i) = param.layer else { return &self.norm };
        let layer = &self.layers[i];
        let name = param.path.trim_end_matches(".weight");
        match name.rsplit('.').next() {
            Some("norm1") => &layer.norm1,
            Some("norm2") => &layer.norm2,
            Some("q_norm") => layer.q_norm.as_ref().expect("listed because present"),
            _ => layer.k_norm.as_ref().expect("listed because present"),
        }
    }

    /// Whether the head is the embedding itself: one storage, or one trained tensor.
    pub fn head_is_tied(&self) -> bool {
        match (&self.embed.weight, &self.head.weight) {
            (Matrix::Frozen(a), Matrix::Frozen(b)) => Arc::ptr_eq(a, b),
            (Matrix::Trained(a), Matrix::Trained(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}
