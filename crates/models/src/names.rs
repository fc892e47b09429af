//! A family's names of its modules, as its Hugging Face folders have them.

/// Module paths below [`prefix`](Self::prefix), or below a block's number; empty where the family has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// What stands before the base's modules in a model with a head: `model.`, `bert.`.
    pub prefix: &'static str,
    /// Token embedding.
    pub embed: &'static str,
    /// Table of positions.
    pub positions: &'static str,
    /// Table of token types.
    pub token_types: &'static str,
    /// Norm of the embeddings' sum.
    pub embed_norm: &'static str,
    /// What stands before a block's number.
    pub layers: &'static str,
    /// Query projection.
    pub q: &'static str,
    /// Key projection.
    pub k: &'static str,
    /// Value projection.
    pub v: &'static str,
    /// Output projection of attention.
    pub o: &'static str,
    /// Norm of each head's query.
    pub q_norm: &'static str,
    /// Norm of each head's key.
    pub k_norm: &'static str,
    /// Attention's norm.
    pub norm1: &'static str,
    /// Gate projection.
    pub gate: &'static str,
    /// Up projection.
    pub up: &'static str,
    /// Down projection.
    pub down: &'static str,
    /// The MLP's norm.
    pub norm2: &'static str,
    /// Norm after the last block.
    pub norm: &'static str,
    /// Table of relative positions.
    pub relative: &'static str,
    /// Its norm.
    pub relative_norm: &'static str,
    /// Query projection of relative positions.
    pub pos_q: &'static str,
    /// Key projection of relative positions.
    pub pos_k: &'static str,
}

impl Names {
    /// Llama's, and of all decoders of its shape.
    pub const LLAMA: Self = Self {
        prefix: "model.",
        embed: "embed_tokens",
        positions: "",
        token_types: "",
        embed_norm: "",
        layers: "layers",
        q: "self_attn.q_proj",
        k: "self_attn.k_proj",
        v: "self_attn.v_proj",
        o: "self_attn.o_proj",
        q_norm: "self_attn.q_norm",
        k_norm: "self_attn.k_norm",
        norm1: "input_layernorm",
        gate: "mlp.gate_proj",
        up: "mlp.up_proj",
        down: "mlp.down_proj",
        norm2: "post_attention_layernorm",
        norm: "norm",
        relative: "",
        relative_norm: "",
        pos_q: "",
        pos_k: "",
    };

    /// BERT's, and with another prefix RoBERTa's and DeBERTa's.
    pub const BERT: Self = Self {
        prefix: "bert.",
        embed: "embeddings.word_embeddings",
        positions: "embeddings.position_embeddings",
        token_types: "embeddings.token_type_embeddings",
        embed_norm: "embeddings.LayerNorm",
        layers: "encoder.layer",
        q: "attention.self.query",
        k: "attention.self.key",
        v: "attention.self.value",
        o: "attention.output.dense",
        q_norm: "",
        k_norm: "",
        norm1: "attention.output.LayerNorm",
        gate: "",
        up: "intermediate.dense",
        down: "output.dense",
        norm2: "output.LayerNorm",
        norm: "",
        relative: "encoder.rel_embeddings",
        relative_norm: "encoder.LayerNorm",
        pos_q: "attention.self.pos_query_proj",
        pos_k: "attention.self.pos_key_proj",
    };

    /// Names under which a file may hold the tensor `name`: its own; without the prefix, where the base was saved without
    /// a head; with a norm's `gamma` and `beta`, as the first BERTs were converted.
    pub fn in_files(&self, name: &str) -> Vec<String> {
        let mut all = vec![name.to_string()];
        all.extend(name.strip_prefix(self.prefix).map(str::to_string));
        for own in all.clone() {
            if let Some(module) = own.strip_suffix("LayerNorm.weight") {
                all.push(format!("{module}LayerNorm.gamma"));
            } else if let Some(module) = own.strip_suffix("LayerNorm.bias") {
                all.push(format!("{module}LayerNorm.beta"));
            }
        }
        all
    }
}
