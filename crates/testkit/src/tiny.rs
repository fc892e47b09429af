//! A tiny Llama with random weights, and a batch for it.
use luthier_contract::{Adapter, Context, Method, Mode, Scope, Segments};
use luthier_kernels::gated_mlp::Activation;
use luthier_kernels::rope::{RopeScaling, RopeSpec};
use luthier_models::{
    Applied, Dense, Dropouts, Head, HeadSpec, LoadOptions, Model, ModelSpec, Names, Norm, NormPlace,
    Positions, RandomSource, Run, Takes, Wiring,
};
use luthier_tensor::{DType, Key, Param, Stream, Tensor};
use std::sync::Arc;

/// A method on a model.
#[derive(Clone, Debug)]
pub struct Case {
    /// The method, configured.
    pub method: Arc<dyn Method>,
    /// The model.
    pub spec: ModelSpec,
}

impl Case {
    /// `method` on the first of the [shapes](crate::laws::shapes).
    pub fn new(method: impl Method + 'static) -> Self {
        Self { method: Arc::new(method), spec: spec(0) }
    }
}

/// Three shapes: odd sizes, other ratios of heads, with and without tied head, biases, query-key norms.
pub fn spec(which: usize) -> ModelSpec {
    let (d_model, d_ff, heads, kv_heads, head_dim, vocab, layers) =
        [(12, 20, 3, 1, 4, 23, 2), (10, 14, 4, 2, 6, 17, 1), (16, 24, 2, 2, 8, 31, 3)][which];
    ModelSpec {
        family: "llama",
        layers,
        d_model,
        d_ff,
        heads,
        kv_heads,
        head_dim,
        vocab,
        max_positions: 64,
        eps: 1e-5,
        positions: Positions::Rope(RopeSpec {
            theta: 10_000.0,
            rotary_dim: head_dim,
            scaling: RopeScaling::None,
        }),
        activation: Activation::Silu,
        tied: which == 0,
        qkv_bias: which == 1,
        o_bias: false,
        mlp_bias: false,
        qk_norm: which == 2,
        windows: vec![(which == 2).then_some(5); layers],
        wiring: Wiring::DECODER,
        head: HeadSpec::lm(),
    }
}

/// A BERT with a masked language-model head: everything that decoders have not, odd sizes, dropout of its own.
pub fn tiny_bert() -> ModelSpec {
    let (d_model, heads, head_dim, layers) = (12, 3, 4, 2);
    ModelSpec {
        family: "bert",
        layers,
        d_model,
        d_ff: 20,
        heads,
        kv_heads: heads,
        head_dim,
        vocab: 23,
        max_positions: 16,
        eps: 1e-5,
        positions: Positions::Learned { offset: 2 },
        activation: Activation::Gelu,
        tied: true,
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: false,
        windows: vec![None; layers],
        wiring: Wiring {
            names: &Names::BERT,
            norm: Norm::Layer,
            place: NormPlace::Post,
            causal: false,
            gated: false,
            token_types: 2,
            embed_norm: true,
            relative: None,
            dropout: Dropouts { embed: 0.1, attention: 0.2, mlp: 0.1 },
        },
        head: HeadSpec {
            dense: Some(Dense {
                module: "cls.predictions.transform.dense",
                activation: Activation::Gelu,
                of_base: true,
            }),
            norm: Some("cls.predictions.transform.LayerNorm"),
            ..HeadSpec::plain(
                Head::MaskedLm,
                Takes::First,
                "cls.predictions.decoder",
                Some("cls.predictions.bias"),
            )
        },
    }
}

/// A model with an adapter.
pub struct Built {
    /// The model.
    pub model: Model,
    /// The adapter.
    pub adapter: Arc<Adapter>,
}

impl Built {
    /// Everything that trains, in a fixed order.
    pub fn trainable(&self) -> Vec<Arc<Param>> {
        let mut all = self.adapter.trainable();
        all.extend(self.model.trained().iter().map(|(_, p)| p.clone()));
        all
    }

    /// Adds noise to everything that trains, so that zeros hide no error.
    pub fn push(&self, seed: u64) {
        let key = Key::new(seed, Stream::Test);
        for param in self.trainable() {
            let key = key.at(param.name());
            let value = param.value();
            let moved = value
                .to_f64_vec()
                .iter()
                .enumerate()
                .map(|(i, v)| v + 0.1 * key.normal(0, i as u64))
                .collect::<Vec<_>>();
            param.set(Tensor::from_f64(value.shape(), &moved, value.dtype(), value.account()));
        }
    }

    /// A run over `context` under the adapter.
    pub fn run(&self, context: &Context) -> Run {
        Run {
            context: Arc::new(context.clone()),
            adapters: vec![Applied::to_all(self.adapter.clone())],
            recompute: false,
        }
    }
}

/// Builds the case's model with random weights, its adapter with first values, in `dtype`.
pub fn build(case: &Case, dtype: DType) -> Built {
    let (sites, params) = (case.spec.sites(), case.spec.base_params());
    let method = case.method.fitted(&sites, &params).unwrap_or_else(|| case.method.clone());
    let trains = |p: &luthier_contract::BaseParam| method.trains(p);
    // Weights are made in bf16, so that every type holds the same numbers.
    let source = RandomSource { seed: 5, std: 0.3, dtype: DType::Bf16 };
    let options = LoadOptions { compute: dtype, storage: None, trains: &trains };
    let model = Model::load(case.spec.clone(), &source, &options).expect("random weights fit every spec");
    let weight = |site: &luthier_contract::Site| model.weight(site, dtype.accumulator());
    let adapter = Arc::new(Adapter::init(method.clone(), &sites, 7, dtype.accumulator(), &weight));
    Built { model, adapter }
}

/// What `of` gives for every scope of the model, summed.
pub(crate) fn summed(case: &Case, of: impl Fn(Scope<'_>) -> usize) -> usize {
    let sites = case.spec.sites();
    let added = sites.iter().map(|s| of(Scope::Site(s))).sum::<usize>();
    let layers = (0..case.spec.layers).map(|i| of(Scope::Layer(i))).sum::<usize>();
    added + layers + of(Scope::Model(&sites))
}

/// Segments of the given lengths with random tokens: (context, labelled rows, targets). Every row but a segment's last
/// predicts its next token; every third is left out.
pub fn batch(spec: &ModelSpec, lengths: &[usize], seed: u64, mode: Mode) -> (Context, Vec<u32>, Vec<u32>) {
    let key = Key::new(seed, Stream::Test);
    let n = lengths.iter().sum::<usize>();
    let tokens = (0..n as u64).map(|i| key.bits(1, i) % spec.vocab as u32).collect::<Vec<_>>();
    let mut offsets = vec![0u32];
    for length in lengths {
        offsets.push(offsets[offsets.len() - 1] + *length as u32);
    }
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for pair in offsets.windows(2) {
        for row in pair[0]..pair[1].saturating_sub(1) {
            if row % 3 != 2 {
                rows.push(row);
                targets.push(tokens[row as usize + 1]);
            }
        }
    }
    let mut context = Context::eval(tokens, Segments::new(offsets));
    context.mode = mode;
    (context, rows, targets)
}
