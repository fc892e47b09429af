//! A decoder, described. Holds no tensor, so that a planner can read it where the weights would never fit.
use luthier_contract::{BaseParam, Site, SiteKind};
use luthier_kernels::gated_mlp::Activation;
use luthier_kernels::rope::RopeSpec;

/// Shape and wiring of a decoder.
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
    /// RMSNorm's epsilon.
    pub eps: f64,
    /// Rotary positions.
    pub rope: RopeSpec,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether the head is the embedding.
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
}

impl ModelSpec {
    /// Linear sites and the embedding, in the order of the forward run.
    pub fn sites(&self) -> Vec<Site> {
        let (d, q, kv, ff) =
            (self.d_model, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.d_ff);
        let site = |path: String, module: String, kind, layer, d_in, d_out| Site {
            path,
            module,
            kind,
            layer,
            d_in,
            d_out,
            has_bias: self.has_bias(kind),
        };
        let mut sites =
            vec![site("embed".into(), "model.embed_tokens".into(), SiteKind::Embed, None, d, self.vocab)];
        for i in 0..self.layers {
            for (group, module, kind, d_in, d_out) in [
                ("attn", "self_attn.q_proj", SiteKind::Q, d, q),
                ("attn", "self_attn.k_proj", SiteKind::K, d, kv),
                ("attn", "self_attn.v_proj", SiteKind::V, d, kv),
                ("attn", "self_attn.o_proj", SiteKind::O, q, d),
                ("mlp", "mlp.gate_proj", SiteKind::Gate, d, ff),
                ("mlp", "mlp.up_proj", SiteKind::Up, d, ff),
                ("mlp", "mlp.down_proj", SiteKind::Down, ff, d),
            ] {
                let path = format!("layers.{i}.{group}.{}", kind.as_str());
                sites.push(site(path, format!("model.layers.{i}.{module}"), kind, Some(i), d_in, d_out));
            }
        }
        sites.push(site("head".into(), "lm_head".into(), SiteKind::Head, None, d, self.vocab));
        sites
    }

    fn has_bias(&self, kind: SiteKind) -> bool {
        match kind {
            SiteKind::Q | SiteKind::K | SiteKind::V => self.qkv_bias,
            SiteKind::O => self.o_bias,
            SiteKind::Gate | SiteKind::Up | SiteKind::Down => self.mlp_bias,
            SiteKind::Head | SiteKind::Embed => false,
        }
    }

    /// Every tensor of the base, in the order of the forward run. A tied head is listed, and says so.
    pub fn base_params(&self) -> Vec<BaseParam> {
        let mut out = Vec::new();
        let norm = |path: String, name: String, width, layer| BaseParam {
            path,
            name,
            shape: vec![width],
            layer,
            site: None,
            is_bias: false,
            tied_to: None,
        };
        for site in self.sites() {
            if let (SiteKind::Q | SiteKind::Gate, Some(i)) = (site.kind, site.layer) {
                let (ours, theirs) = if site.kind == SiteKind::Q {
                    ("norm1", "input_layernorm")
                } else {
                    ("norm2", "post_attention_layernorm")
                };
                out.push(norm(
                    format!("layers.{i}.{ours}.weight"),
                    format!("model.layers.{i}.{theirs}.weight"),
                    self.d_model,
                    Some(i),
                ));
            }
            if site.kind == SiteKind::Head {
                out.push(norm("norm.weight".into(), "model.norm.weight".into(), self.d_model, None));
            }
            let tied_to =
                (site.kind == SiteKind::Head && self.tied).then(|| "model.embed_tokens.weight".to_string());
            out.push(BaseParam {
                path: format!("{}.weight", site.path),
                name: format!("{}.weight", site.module),
                shape: vec![site.d_out, site.d_in],
                layer: site.layer,
                site: Some(site.kind),
                is_bias: false,
                tied_to,
            });
            if self.has_bias(site.kind) {
                out.push(BaseParam {
                    path: format!("{}.bias", site.path),
                    name: format!("{}.bias", site.module),
                    shape: vec![site.d_out],
                    layer: site.layer,
                    site: Some(site.kind),
                    is_bias: true,
                    tied_to: None,
                });
            }
            if let (true, Some(i), SiteKind::Q | SiteKind::K) = (self.qk_norm, site.layer, site.kind) {
                let which = site.kind.as_str();
                let (path, name) = (
                    format!("layers.{i}.attn.{which}_norm.weight"),
                    format!("model.layers.{i}.self_attn.{which}_norm.weight"),
                );
                out.push(norm(path, name, self.head_dim, Some(i)));
            }
        }
        out
    }

    /// Parameters of the base; a tied head counts once.
    pub fn parameters(&self) -> usize {
        self.base_params().iter().filter(|p| p.tied_to.is_none()).map(BaseParam::numel).sum()
    }
}
