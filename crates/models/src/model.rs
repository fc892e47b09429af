//! A transformer with weights.
use crate::spec::ModelSpec;
use luthier_contract::{Base, BaseParam, Site, Weight};
use luthier_kernels::rope::Rope;
use luthier_tensor::{DType, Param, Tape, Tensor, Var};
use std::collections::BTreeMap;
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

/// A norm: RMSNorm has no bias.
#[derive(Clone, Debug)]
pub(crate) struct NormSlots {
    pub(crate) weight: Slot,
    pub(crate) bias: Option<Slot>,
}

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) index: usize,
    pub(crate) norm1: NormSlots,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) pos_k: Option<Linear>,
    pub(crate) pos_q: Option<Linear>,
    pub(crate) o: Linear,
    pub(crate) q_norm: Option<Slot>,
    pub(crate) k_norm: Option<Slot>,
    pub(crate) norm2: NormSlots,
    pub(crate) gate: Option<Linear>,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) window: Option<usize>,
}

/// What a segment's tokens are looked up in beside the embedding.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) positions: Option<Matrix>,
    pub(crate) token_types: Option<Matrix>,
    pub(crate) norm: Option<NormSlots>,
    pub(crate) relative: Option<Matrix>,
    pub(crate) relative_norm: Option<NormSlots>,
}

/// The head's modules.
#[derive(Clone, Debug)]
pub(crate) struct HeadLayers {
    pub(crate) dense: Option<Linear>,
    pub(crate) norm: Option<NormSlots>,
    pub(crate) out: Linear,
}

/// A tensor of the base, by its path.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    Matrix(Matrix),
    Slot(Slot),
}

/// A transformer with weights.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) spec: Arc<ModelSpec>,
    /// Type of activations: f32, bf16; f64 on the reference path.
    pub(crate) compute: DType,
    pub(crate) embed: Linear,
    pub(crate) tables: Tables,
    pub(crate) layers: Vec<Arc<Layer>>,
    /// After the last block, where norms come before sublayers.
    pub(crate) norm: Option<NormSlots>,
    pub(crate) head: HeadLayers,
    pub(crate) rope: Option<Arc<Rope>>,
    /// Every tensor, by path.
    pub(crate) held: Arc<BTreeMap<String, Held>>,
    pub(crate) trained: Vec<(BaseParam, Arc<Param>)>,
    pub(crate) fresh: Vec<String>,
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

    /// Names of the head's tensors that started at random values, since the base has none of that shape.
    pub fn fresh(&self) -> &[String] {
        &self.fresh
    }

    /// The site's base weight, decoded.
    pub fn weight(&self, site: &Site, dtype: DType) -> Tensor {
        match &self.held[&format!("{}.weight", site.path)] {
            Held::Matrix(matrix) => matrix.values(dtype),
            Held::Slot(_) => unreachable!("a site's weight is a matrix"),
        }
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
        match &self.held[&param.path] {
            Held::Matrix(matrix) => matrix.values(dtype),
            Held::Slot(slot) => {
                luthier_tensor::to_dtype(&slot.values(), dtype, luthier_tensor::Account::Workspace)
            }
        }
    }

    /// Whether the head is the embedding itself: one storage, or one trained tensor.
    pub fn head_is_tied(&self) -> bool {
        match (&self.embed.weight, &self.head.out.weight) {
            (Matrix::Frozen(a), Matrix::Frozen(b)) => Arc::ptr_eq(a, b),
            (Matrix::Trained(a), Matrix::Trained(b)) => a.id() == b.id(),
            _ => false,
        }
    }
}
