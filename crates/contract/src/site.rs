//! Named places of the model where a method may step in.
use std::fmt;

/// What a linear site is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteKind {
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Output projection of attention.
    O,
    /// Gate projection of a gated MLP.
    Gate,
    /// Up projection of an MLP.
    Up,
    /// Down projection of an MLP.
    Down,
    /// Query projection of relative positions, where they have their own.
    PosQ,
    /// Key projection of relative positions, likewise.
    PosK,
    /// The last linear of the head: scores of tokens or of labels.
    Head,
    /// The linear before it, where the head has one: a pooler, a classifier's or masked language model's dense layer.
    Pool,
    /// The token embedding: a lookup, `W [vocab, d_model]`.
    Embed,
    /// A further table of embeddings: positions, token types, relative positions. Listed among a base's tensors, no
    /// site of methods.
    Table,
}

impl SiteKind {
    /// The short target name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::O => "o",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
            Self::PosQ => "pos_q",
            Self::PosK => "pos_k",
            Self::Head => "head",
            Self::Pool => "pool",
            Self::Embed => "embed",
            Self::Table => "table",
        }
    }

    /// Whether `all-linear` means it: every linear of the blocks, not the head, not the embedding (as PEFT does).
    pub const fn is_inner_linear(self) -> bool {
        !matches!(self, Self::Head | Self::Pool | Self::Embed | Self::Table)
    }
}

/// A linear layer (or the embedding), as methods see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Our name: `layers.3.attn.q`, `layers.3.mlp.down`, `head`, `embed`.
    pub path: String,
    /// The base's own module path: `model.layers.3.self_attn.q_proj`.
    pub module: String,
    /// What it is for.
    pub kind: SiteKind,
    /// Its block, unless it is outside of all.
    pub layer: Option<usize>,
    /// Length of an input row.
    pub d_in: usize,
    /// Length of an output row.
    pub d_out: usize,
    /// Whether the base has a bias there.
    pub has_bias: bool,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Whether `module` is one whose path ends in `name`, or lies within one: what PEFT's `modules_to_save` means. The end need
/// not begin at a dot, so that `classifier` takes DistilBERT's `pre_classifier` along.
pub fn is_in(module: &str, name: &str) -> bool {
    let ancestors = module.match_indices('.').map(|(at, _)| &module[..at]);
    ancestors.chain([module]).any(|path| path.ends_with(name))
}

/// A tensor of the base model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseParam {
    /// Our path: the site's or norm's, with `.weight` or `.bias`.
    pub path: String,
    /// The tensor's name in a Hugging Face folder: `model.layers.3.self_attn.q_proj.weight`.
    pub name: String,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Its block, unless it is outside of all.
    pub layer: Option<usize>,
    /// The site that it is weight or bias of; none for norms.
    pub site: Option<SiteKind>,
    /// Whether it is a bias.
    pub is_bias: bool,
    /// Name of the tensor that it is the same as: a head tied to the embedding.
    pub tied_to: Option<String>,
    /// Whether it belongs to a task's head, which a pretrained base may lack: it then starts at random values, and
    /// training it is part of learning the task.
    pub head: bool,
}

impl BaseParam {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor belongs to the module named by the end of its path, or to one within it.
    pub fn is_in(&self, name: &str) -> bool {
        is_in(self.module(), name)
    }

    /// The base's module path: the name without `.weight` or `.bias`.
    pub fn module(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(module, _)| module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_in_itself_and_in_what_holds_it() {
        for (module, name, within) in [
            ("classifier", "classifier", true),
            ("classifier.out_proj", "classifier", true),
            ("bert.pooler.dense", "pooler", true),
            ("bert.pooler.dense", "pooler.dense", true),
            ("pre_classifier", "classifier", true),
            ("classifier", "pre_classifier", false),
            ("model.layers.1.self_attn.q_proj", "layers.1", true),
            ("model.layers.11.self_attn.q_proj", "layers.1", false),
        ] {
            assert_eq!(is_in(module, name), within, "{module} in {name}");
        }
    }
}
