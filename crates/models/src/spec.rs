//! A transformer, described. Holds no tensor, so that a planner can read it where the weights would never fit.
use crate::head::HeadSpec;
use crate::names::Names;
use luthier_contract::BaseParam;
pub use luthier_kernels::activation::Activation;
pub use luthier_kernels::disentangled::Distance;
use luthier_kernels::rope::RopeSpec;

/// Shape and wiring of a transformer.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that config.json states of its own")]
pub struct ModelSpec {
    /// Key of the family's row.
    pub family: &'static str,
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the MLP.
    pub d_ff: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Longest sequence that the model was made for.
    pub max_positions: usize,
    /// The norms' epsilon.
    pub eps: f64,
    /// How a token knows its place.
    pub positions: Positions,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether the head's last linear is the embedding.
    pub tied: bool,
    /// Biases of q, k, v.
    pub qkv_bias: bool,
    /// Bias of attention's output projection.
    pub o_bias: bool,
    /// Biases of the MLP.
    pub mlp_bias: bool,
    /// RMSNorm of each head's query and key before rotation.
    pub qk_norm: bool,
    /// Sliding window of each block: a token sees itself and the `w - 1` before it.
    pub windows: Vec<Option<usize>>,
    /// How blocks are put together.
    pub wiring: Wiring,
    /// What is above the blocks.
    pub head: HeadSpec,
}

/// How blocks are put together: what decoders and encoders differ in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wiring {
    /// The family's names of its modules.
    pub names: &'static Names,
    /// Kind of the norms.
    pub norm: Norm,
    /// Where they are.
    pub place: NormPlace,
    /// Whether a token sees none after it.
    pub causal: bool,
    /// Whether the MLP has a gate: `down(act(gate(x)) up(x))`, else `down(act(up(x)))`.
    pub gated: bool,
    /// Rows of the table of token types; none if 0.
    pub token_types: usize,
    /// Whether the sum of the embeddings is normed.
    pub embed_norm: bool,
    /// Relative positions in attention's scores: DeBERTa's.
    pub relative: Option<Relative>,
    /// Dropout in training.
    pub dropout: Dropouts,
}

impl Wiring {
    /// Llama's: RMSNorm before each sublayer, a gated MLP, causal.
    pub const DECODER: Self = Self {
        names: &Names::LLAMA,
        norm: Norm::Rms,
        place: NormPlace::Pre,
        causal: true,
        gated: true,
        token_types: 0,
        embed_norm: false,
        relative: None,
        dropout: Dropouts { embed: 0.0, attention: 0.0, mlp: 0.0 },
    };
}

/// Kind of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// RMSNorm: a weight.
    Rms,
    /// LayerNorm: a weight and a bias.
    Layer,
}

/// Where a block's two norms are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// Before each sublayer, and one after the last block.
    Pre,
    /// After each sublayer's residual addition: the residual stream itself is normed.
    Post,
}

/// How a token knows its place.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Rotated queries and keys.
    Rope(RopeSpec),
    /// A table added to the embedding.
    Learned {
        /// Row of the first position.
        offset: usize,
    },
    /// Only in attention's scores, if at all.
    None,
}

/// Disentangled attention: see [`luthier_kernels::disentangled`].
#[expect(clippy::struct_excessive_bools, reason = "each is a fact that config.json states of its own")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relative {
    /// Rows of distances.
    pub distance: Distance,
    /// Whether queries meet keys of positions.
    pub keys: bool,
    /// Whether keys meet queries of positions.
    pub queries: bool,
    /// Whether the block's own query and key projections serve positions too.
    pub shared: bool,
    /// Whether the table is normed.
    pub norm: bool,
    /// Dropout of the table, in each block.
    pub dropout: f64,
}

/// Probabilities of dropout in training, as the family's own. What transformers drops of attention's probabilities is
/// not dropped here: they never exist as a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropouts {
    /// Of the embeddings.
    pub embed: f64,
    /// Of attention's output, before its residual.
    pub attention: f64,
    /// Of the MLP's output, before its residual.
    pub mlp: f64,
}

impl ModelSpec {
    /// Rotary positions, where the model has them.
    pub const fn rope(&self) -> Option<&RopeSpec> {
        match &self.positions {
            Positions::Rope(rope) => Some(rope),
            Positions::Learned { .. } | Positions::None => None,
        }
    }

    /// Tokens of the longest segment that the model can run; none where any length runs.
    pub const fn position_limit(&self) -> Option<usize> {
        match &self.positions {
            Positions::Learned { .. } => Some(self.max_positions),
            Positions::Rope(_) | Positions::None => None,
        }
    }

    /// Row of the first position in the table of positions.
    pub const fn position_offset(&self) -> usize {
        match &self.positions {
            Positions::Learned { offset } => *offset,
            Positions::Rope(_) | Positions::None => 0,
        }
    }

    /// Whether the model can generate: a causal one with a language-model head.
    pub fn generates(&self) -> bool {
        self.wiring.causal && self.head.kind == crate::head::Head::Lm
    }

    /// Parameters of the base; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.base_params().iter().filter(|p| p.tied_to.is_none()).map(BaseParam::numel).sum()
    }
}
