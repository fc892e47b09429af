//! BERT, and what shares its shape: MiniLM, Chinese BERT and whole-word variants.
use super::{Architectures, Family};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Dense, Head, HeadSpec, Takes, no_such_head};
use crate::names::Names;
use crate::spec::{Activation, Dropouts, ModelSpec, Norm, NormPlace, Positions, Wiring};

/// BERT's row.
pub(super) const FAMILY: Family = Family {
    model_type: "bert",
    gguf: None,
    gguf_interleaved: false,
    encoder: true,
    architectures: Architectures {
        lm: "BertForMaskedLM",
        classifier: "BertForSequenceClassification",
        token_classifier: "BertForTokenClassification",
    },
    parse,
};

fn parse(config: &Config, head: Head) -> Result<ModelSpec, Error> {
    if config.flag_or("is_decoder", false)? {
        return Err(Error::Unsupported { key: "is_decoder".into(), got: "a causal BERT".into() });
    }
    encoder(config, FAMILY.model_type, &Names::BERT, head_of(config, head)?)
}

/// BERT's shape, which other families share under other names and with other heads.
pub(super) fn encoder(
    config: &Config,
    family: &'static str,
    names: &'static Names,
    head: HeadSpec,
) -> Result<ModelSpec, Error> {
    if let Ok(kind) = config.text("position_embedding_type")
        && kind != "absolute"
    {
        return Err(Error::Unsupported { key: "position_embedding_type".into(), got: kind.into() });
    }
    let (layers, d_model, heads) = (
        config.count("num_hidden_layers")?,
        config.count("hidden_size")?,
        config.count("num_attention_heads")?,
    );
    if d_model % heads != 0 {
        return Err(Error::Config {
            key: "num_attention_heads".into(),
            expected: format!("a divisor of hidden_size {d_model}"),
            got: heads.to_string(),
        });
    }
    let dropout = config.share_or("hidden_dropout_prob", 0.1)?;
    Ok(ModelSpec {
        family,
        layers,
        d_model,
        d_ff: config.count("intermediate_size")?,
        heads,
        kv_heads: heads,
        head_dim: d_model / heads,
        vocab: config.count("vocab_size")?,
        max_positions: config.count_or("max_position_embeddings", 512)?,
        eps: config.number_or("layer_norm_eps", 1e-12)?,
        positions: Positions::Learned { offset: 0 },
        activation: config.activation_or("hidden_act", "gelu")?,
        tied: config.flag_or("tie_word_embeddings", true)?,
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: false,
        windows: vec![None; layers],
        wiring: Wiring {
            names,
            norm: Norm::Layer,
            place: NormPlace::Post,
            causal: false,
            gated: false,
            token_types: config.whole("type_vocab_size")?.unwrap_or(2),
            embed_norm: true,
            relative: None,
            dropout: Dropouts { embed: dropout, attention: dropout, mlp: dropout },
        },
        head: HeadSpec { std: config.number_or("initializer_range", 0.02)?, ..head },
    })
}

/// Dropout before a classifier: its own, else that of the blocks.
pub(super) fn classifier_dropout(config: &Config) -> Result<f64, Error> {
    config.share_or("classifier_dropout", config.share_or("hidden_dropout_prob", 0.1)?)
}

fn head_of(config: &Config, kind: Head) -> Result<HeadSpec, Error> {
    let dropout = [0.0, classifier_dropout(config)?];
    // transformers ties the decoder's bias along with its weight, or neither.
    let tied = config.flag_or("tie_word_embeddings", true)?;
    let bias = if tied { "cls.predictions.bias" } else { "cls.predictions.decoder.bias" };
    Ok(match kind {
        Head::Lm => return Err(no_such_head(config, kind)),
        Head::MaskedLm => HeadSpec {
            dense: Some(Dense {
                module: "cls.predictions.transform.dense",
                activation: config.activation_or("hidden_act", "gelu")?,
                of_base: true,
            }),
            norm: Some("cls.predictions.transform.LayerNorm"),
            ..HeadSpec::plain(kind, Takes::First, "cls.predictions.decoder", Some(bias))
        },
        Head::Classifier { .. } => HeadSpec {
            dense: Some(Dense { module: "bert.pooler.dense", activation: Activation::Tanh, of_base: true }),
            dropout,
            ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias"))
        },
        Head::TokenClassifier { .. } => {
            HeadSpec { dropout, ..HeadSpec::plain(kind, Takes::First, "classifier", Some("classifier.bias")) }
        }
    })
}
