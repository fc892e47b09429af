//! DeBERTa's second and third version: BERT's shape with disentangled attention and logarithmic buckets of distances.
//! The convolution of v2-xlarge and v2-xxlarge is refused.
use super::bert::encoder;
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Dense, Head, HeadSpec, Takes, no_such_head};
use crate::names::Names;
use crate::spec::{Distance, ModelSpec, Positions, Relative, Wiring};

/// The row of both.
pub(super) const FAMILY: Family = Family {
    model_type: "deberta-v2",
    gguf: None,
    gguf_interleaved: false,
    encoder: true,
    architectures: Architectures {
        lm: "DebertaV2ForMaskedLM",
        classifier: "DebertaV2ForSequenceClassification",
        token_classifier: "DebertaV2ForTokenClassification",
    },
    parse,
};

static NAMES: Names = Names {
    prefix: "deberta.",
    q: "attention.self.query_proj",
    k: "attention.self.key_proj",
    v: "attention.self.value_proj",
    ..Names::BERT
};

fn parse(config: &Config, head: Head) -> Result<ModelSpec, Error> {
    let refuse = |key: &str, got: &str| Err(Error::Unsupported { key: key.into(), got: got.into() });
    if config.whole("conv_kernel_size")?.unwrap_or(0) > 0 {
        return refuse("conv_kernel_size", "a convolution beside the first block");
    }
    let spec = encoder(config, FAMILY.model_type, &NAMES, head_of(config, head)?)?;
    if config.whole("embedding_size")?.is_some_and(|n| n != spec.d_model) {
        return refuse("embedding_size", "embeddings of another width than the blocks");
    }
    if config.whole("attention_head_size")?.is_some_and(|n| n != spec.head_dim) {
        return refuse("attention_head_size", "heads that do not divide the blocks' width");
    }
    if config.whole("pooler_hidden_size")?.is_some_and(|n| n != spec.d_model) {
        return refuse("pooler_hidden_size", "a pooler of another width than the blocks");
    }
    let positions =
        if config.flag_or("position_biased_input", true)? { spec.positions } else { Positions::None };
    let wiring = Wiring {
        token_types: config.whole("type_vocab_size")?.unwrap_or(0),
        relative: if config.flag_or("relative_attention", false)? {
            Some(relative(config, spec.max_positions)?)
        } else {
            None
        },
        ..spec.wiring
    };
    if wiring.relative.is_none() && !pairs(config)?.is_empty() {
        return refuse("pos_att_type", "scores of relative positions without relative_attention");
    }
    let eps = config.number_or("layer_norm_eps", 1e-7)?;
    Ok(ModelSpec { eps, positions, wiring, ..spec })
}

/// The kinds of `pos_att_type`: a list, or one text with `|` between.
fn pairs(config: &Config) -> Result<Vec<String>, Error> {
    let kinds = config.texts("pos_att_type")?;
    match kinds.iter().find(|k| !["c2p", "p2c"].contains(&k.as_str())) {
        Some(other) => Err(Error::Unsupported { key: "pos_att_type".into(), got: other.clone() }),
        None => Ok(kinds),
    }
}

fn relative(config: &Config, max_positions: usize) -> Result<Relative, Error> {
    // -1 stands for "as many as positions", and for "no buckets".
    let most = if config.is_above_zero("max_relative_positions") {
        config.count("max_relative_positions")?
    } else {
        max_positions
    };
    let buckets =
        config.is_above_zero("position_buckets").then(|| config.count("position_buckets")).transpose()?;
    let kinds = pairs(config)?;
    let has = |kind: &str| kinds.iter().any(|k| k == kind);
    Ok(Relative {
        distance: Distance { span: buckets.unwrap_or(most), log_to: buckets.map(|_| most) },
        keys: has("c2p"),
        queries: has("p2c"),
        shared: config.flag_or("share_att_key", false)?,
        norm: config.texts("norm_rel_ebd")?.iter().any(|k| k == "layer_norm"),
        dropout: config.share_or("hidden_dropout_prob", 0.1)?,
    })
}

fn head_of(config: &Config, kind: Head) -> Result<HeadSpec, Error> {
    let hidden = config.share_or("hidden_dropout_prob", 0.1)?;
    let activation = config.activation_or("hidden_act", "gelu")?;
    Ok(match kind {
        Head::Lm => return Err(no_such_head(config, kind)),
        Head::MaskedLm if config.flag_or("legacy", true)? => {
            let tied = config.flag_or("tie_word_embeddings", true)?;
            let bias = if tied { "cls.predictions.bias" } else { "cls.predictions.decoder.bias" };
            HeadSpec {
                dense: Some(Dense { module: "cls.predictions.transform.dense", activation, of_base: true }),
                norm: Some("cls.predictions.transform.LayerNorm"),
                ..HeadSpec::plain(kind, Takes::First, "cls.predictions.decoder", Some(bias))
            }
        }
        Head::MaskedLm => HeadSpec {
            dense: Some(Dense { module: "lm_predictions.lm_head.dense", activation, of_base: true }),
            norm: Some("lm_predictions.lm_head.LayerNorm"),
            ..HeadSpec::plain(
                kind,
                Takes::First,
                "lm_predictions.lm_head",
                Some("lm_predictions.lm_head.bias"),
            )
        },
        Head::Classifier { .. } => HeadSpec {
            dense: Some(Dense {
                module: "pooler.dense",
                activation: config.activation_or("pooler_hidden_act", "gelu")?,
                of_base: false,
            }),
            dropout: [config.share_or("pooler_dropout", 0.0)?, config.share_or("cls_dropout", hidden)?],
            ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias"))
        },
        Head::TokenClassifier { .. } => HeadSpec {
            dropout: [0.0, hidden],
            ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias"))
        },
    })
}
