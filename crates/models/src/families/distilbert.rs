//! DistilBERT: BERT's shape without token types and pooler, under names of its own.
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Dense, Head, HeadSpec, Takes, no_such_head};
use crate::names::Names;
use crate::spec::{Activation, Dropouts, ModelSpec, Norm, NormPlace, Positions, Wiring};

/// DistilBERT's row.
pub(super) const FAMILY: Family = Family {
    model_type: "distilbert",
    gguf: None,
    gguf_interleaved: false,
    encoder: true,
    architectures: Architectures {
        lm: "DistilBertForMaskedLM",
        classifier: "DistilBertForSequenceClassification",
        token_classifier: "DistilBertForTokenClassification",
    },
    parse,
};

static NAMES: Names = Names {
    prefix: "distilbert.",
    token_types: "",
    layers: "transformer.layer",
    q: "attention.q_lin",
    k: "attention.k_lin",
    v: "attention.v_lin",
    o: "attention.out_lin",
    norm1: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm2: "output_layer_norm",
    ..Names::BERT
};

fn parse(config: &Config, head: Head) -> Result<ModelSpec, Error> {
    let (layers, d_model, heads) =
        (config.count_or("n_layers", 6)?, config.count_or("dim", 768)?, config.count_or("n_heads", 12)?);
    if d_model % heads != 0 {
        return Err(Error::Config {
            key: "n_heads".into(),
            expected: format!("a divisor of dim {d_model}"),
            got: heads.to_string(),
        });
    }
    let dropout = config.share_or("dropout", 0.1)?;
    Ok(ModelSpec {
        family: FAMILY.model_type,
        layers,
        d_model,
        d_ff: config.count_or("hidden_dim", 3072)?,
        heads,
        kv_heads: heads,
        head_dim: d_model / heads,
        vocab: config.count("vocab_size")?,
        max_positions: config.count_or("max_position_embeddings", 512)?,
        eps: 1e-12, // fixed in the family's code
        positions: Positions::Learned { offset: 0 },
        activation: config.activation_or("activation", "gelu")?,
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: false,
        windows: vec![None; layers],
        wiring: Wiring {
            names: &NAMES,
            norm: Norm::Layer,
            place: NormPlace::Post,
            causal: false,
            gated: false,
            token_types: 0,
            embed_norm: true,
            relative: None,
            dropout: Dropouts { embed: dropout, attention: 0.0, mlp: dropout },
        },
        head: HeadSpec { std: config.number_or("initializer_range", 0.02)?, ..head_of(config, head)? },
    })
}

fn head_of(config: &Config, kind: Head) -> Result<HeadSpec, Error> {
    Ok(match kind {
        Head::Lm => return Err(no_such_head(config, kind)),
        Head::MaskedLm => HeadSpec {
            dense: Some(Dense {
                module: "vocab_transform",
                activation: config.activation_or("activation", "gelu")?,
                of_base: true,
            }),
            norm: Some("vocab_layer_norm"),
            ..HeadSpec::plain(kind, Takes::First, "vocab_projector", Some("vocab_projector.bias"))
        },
        Head::Classifier { .. } => HeadSpec {
            dense: Some(Dense { module: "pre_classifier", activation: Activation::Relu, of_base: false }),
            dropout: [0.0, config.share_or("seq_classif_dropout", 0.2)?],
            ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias"))
        },
        Head::TokenClassifier { .. } => HeadSpec {
            dropout: [0.0, config.share_or("dropout", 0.1)?],
            ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias"))
        },
    })
}
