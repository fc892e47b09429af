//! RoBERTa, and XLM-RoBERTa, which is the same model over another vocabulary: BERT's shape with positions counted from
//! behind the padding's, and heads of its own.
use super::bert::{classifier_dropout, encoder};
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Dense, Head, HeadSpec, Takes, no_such_head};
use crate::names::Names;
use crate::spec::{Activation, ModelSpec, Positions};

/// RoBERTa's row.
pub(super) const FAMILY: Family = Family {
    model_type: "roberta",
    gguf: None,
    gguf_interleaved: false,
    encoder: true,
    architectures: Architectures {
        lm: "RobertaForMaskedLM",
        classifier: "RobertaForSequenceClassification",
        token_classifier: "RobertaForTokenClassification",
    },
    parse: |config, head| parse(config, head, "roberta"),
};

/// XLM-RoBERTa's row.
pub(super) const XLM: Family = Family {
    model_type: "xlm-roberta",
    architectures: Architectures {
        lm: "XLMRobertaForMaskedLM",
        classifier: "XLMRobertaForSequenceClassification",
        token_classifier: "XLMRobertaForTokenClassification",
    },
    parse: |config, head| parse(config, head, "xlm-roberta"),
    ..FAMILY
};

static NAMES: Names = Names { prefix: "roberta.", ..Names::BERT };

fn parse(config: &Config, head: Head, family: &'static str) -> Result<ModelSpec, Error> {
    if config.flag_or("is_decoder", false)? {
        return Err(Error::Unsupported { key: "is_decoder".into(), got: "a causal RoBERTa".into() });
    }
    let spec = encoder(config, family, &NAMES, head_of(config, head)?)?;
    let offset = config.whole("pad_token_id")?.unwrap_or(1) + 1;
    let max_positions = spec.max_positions.checked_sub(offset).filter(|n| *n > 0);
    let max_positions = max_positions.ok_or_else(|| Error::Config {
        key: "max_position_embeddings".into(),
        expected: format!("more than the {offset} rows before the first position"),
        got: spec.max_positions.to_string(),
    })?;
    Ok(ModelSpec { max_positions, positions: Positions::Learned { offset }, ..spec })
}

fn head_of(config: &Config, kind: Head) -> Result<HeadSpec, Error> {
    let p = classifier_dropout(config)?;
    Ok(match kind {
        Head::Lm => return Err(no_such_head(config, kind)),
        Head::MaskedLm => HeadSpec {
            dense: Some(Dense { module: "lm_head.dense", activation: Activation::Gelu, of_base: true }),
            norm: Some("lm_head.layer_norm"),
            ..HeadSpec::plain(kind, Takes::First, "lm_head.decoder", Some("lm_head.bias"))
        },
        Head::Classifier { .. } => HeadSpec {
            dense: Some(Dense { module: "classifier.dense", activation: Activation::Tanh, of_base: false }),
            dropout: [p, p],
            ..HeadSpec::plain(kind, Takes::First, "classifier.out_proj", Some("classifier.out_proj.bias"))
        },
        Head::TokenClassifier { .. } => HeadSpec {
            dropout: [0.0, p],
            ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias"))
        },
    })
}
