//! Tensors that a method adds: declared first, allocated later.
use crate::site::Site;
use luthier_tensor::{DType, Key, Tensor};
use std::fmt;
use std::sync::Arc;

/// Where a tensor belongs.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// One linear layer.
    Site(&'a Site),
    /// One block.
    Layer(usize),
    /// The whole model, all of its sites: factors and budgets that they share.
    Model(&'a [Site]),
}

/// A tensor that a method adds. `init` fills it, the optimizer makes state for it, the checkpoint writes it: there is
/// no second list.
#[derive(Clone, Debug)]
pub struct ParamSpec {
    /// Leaf name within its scope: `lora_A`.
    pub name: &'static str,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// How the first values are made.
    pub init: Init,
    /// Who changes it and who saves it.
    pub role: Role,
}

impl ParamSpec {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The first values of a tensor.
#[derive(Clone)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All the same.
    Constant(f64),
    /// `U(-b, b)` with `b = 1 / sqrt(fan_in)`: PyTorch's `kaiming_uniform_(a = sqrt(5))`.
    KaimingUniform {
        /// Inputs summed per output.
        fan_in: usize,
    },
    /// `N(0, std^2)`.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Taken from the base weight `W [d_out, d_in]` of the tensor's site.
    FromBase(Arc<dyn Fn(&Tensor) -> Tensor + Send + Sync>),
}

impl fmt::Debug for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("Zeros"),
            Self::Ones => f.write_str("Ones"),
            Self::Constant(value) => write!(f, "Constant({value})"),
            Self::KaimingUniform { fan_in } => write!(f, "KaimingUniform({fan_in})"),
            Self::Normal { std } => write!(f, "Normal({std})"),
            Self::FromBase(_) => f.write_str("FromBase(..)"),
        }
    }
}

impl Init {
    /// Values for `shape`, drawn at `key`; `base` is the site's weight, which only [`Init::FromBase`] reads.
    pub fn fill(&self, shape: &[usize], key: Key, base: Option<&Tensor>, dtype: DType) -> Tensor {
        let account = luthier_tensor::Account::Adapter;
        let numel = shape.iter().product::<usize>() as u64;
        let draw = |f: &dyn Fn(u64) -> f64| {
            Tensor::from_f64(shape, &(0..numel).map(f).collect::<Vec<_>>(), dtype, account)
        };
        match self {
            Self::Zeros => Tensor::zeros(shape, dtype, account),
            Self::Ones => draw(&|_| 1.0),
            Self::Constant(value) => draw(&|_| *value),
            Self::KaimingUniform { fan_in } => {
                let bound = 1.0 / (*fan_in as f64).sqrt();
                draw(&|i| bound * (2.0 * key.uniform(0, i) - 1.0))
            }
            Self::Normal { std } => draw(&|i| std * key.normal(0, i)),
            Self::FromBase(make) => {
                let made = make(base.expect("a tensor from the base belongs to a site"));
                luthier_tensor::to_dtype(&made, dtype, account)
            }
        }
    }
}

/// What happens to a tensor during training and in the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gets a gradient and optimizer state; is saved.
    Trainable,
    /// Never changes; is saved (indices, masks).
    Frozen,
    /// Gets no gradient; the method changes it between steps. A checkpoint holds it, the adapter's file does not.
    State,
    /// Never changes; is not saved, since `seed` (or the base) makes it again.
    Derived {
        /// Seed of the generator.
        seed: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use luthier_tensor::Stream;

    /// Laws and goldens load values, so that only moments can see a wrong distribution.
    #[test]
    fn kaiming_uniform_has_pytorch_s_bound_and_moments() {
        let values = Init::KaimingUniform { fan_in: 64 }.fill(
            &[100, 100],
            Key::new(1, Stream::Init),
            None,
            DType::F64,
        );
        let values = values.to_f64_vec();
        let (n, bound) = (values.len() as f64, 1.0 / 8.0);
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| v * v).sum::<f64>() / n;
        let most = values.iter().fold(0f64, |m, v| m.max(v.abs()));
        // Uniform on (-b, b): variance b^2/3; five standard errors of mean and variance.
        assert!(mean.abs() < 5.0 * bound / (3.0 * n).sqrt());
        assert!((variance - bound * bound / 3.0).abs() < 5.0 * bound * bound * (4.0 / 45.0 / n).sqrt());
        assert!(most <= bound && most > 0.99 * bound);
    }
}
