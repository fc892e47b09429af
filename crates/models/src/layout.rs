//! Sites and tensors of a spec, in the order of the forward run.
use crate::spec::{ModelSpec, Norm, NormPlace, Positions};
use luthier_contract::{BaseParam, Site, SiteKind};

/// What comes next in the forward run.
enum Part {
    Linear(Site),
    Norm { path: String, module: String, width: usize, layer: Option<usize>, kind: Norm },
    Table { path: String, module: String, rows: usize },
}

impl ModelSpec {
    /// Linear sites and the embedding, in the order of the forward run.
    pub fn sites(&self) -> Vec<Site> {
        let linear = |part| match part {
            Part::Linear(site) => Some(site),
            Part::Norm { .. } | Part::Table { .. } => None,
        };
        self.parts().into_iter().filter_map(linear).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let names = self.wiring.names;
        let mut parts = vec![Part::Linear(Site {
            path: "embed".into(),
            module: format!("{}{}", names.prefix, names.embed),
            kind: SiteKind::Embed,
            layer: None,
            d_in: self.d_model,
            d_out: self.vocab,
            has_bias: false,
        })];
        let table = |path: &str, module: &str, rows| Part::Table {
            path: path.into(),
            module: format!("{}{module}", names.prefix),
            rows,
        };
        if let Positions::Learned { offset } = self.positions {
            parts.push(table("positions", names.positions, self.max_positions + offset));
        }
        if self.wiring.token_types > 0 {
            parts.push(table("token_types", names.token_types, self.wiring.token_types));
        }
        let norm = |path: &str, module: &str| Part::Norm {
            path: path.into(),
            module: format!("{}{module}", names.prefix),
            width: self.d_model,
            layer: None,
            kind: self.wiring.norm,
        };
        if self.wiring.embed_norm {
            parts.push(norm("embed_norm", names.embed_norm));
        }
        if let Some(relative) = &self.wiring.relative {
            parts.push(table("relative", names.relative, 2 * relative.distance.span));
            parts.extend(relative.norm.then(|| norm("relative_norm", names.relative_norm)));
        }
        (0..self.layers).for_each(|i| self.block(i, &mut parts));
        if self.wiring.place == NormPlace::Pre {
            parts.push(norm("norm", names.norm));
        }
        self.head_parts(&mut parts);
        parts
    }

    fn block(&self, i: usize, parts: &mut Vec<Part>) {
        let names = self.wiring.names;
        let (d, q, kv, ff) =
            (self.d_model, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.d_ff);
        let module = |own: &str| format!("{}{}.{i}.{own}", names.prefix, names.layers);
        let norm = |path: &str, own: &str, width, kind| Part::Norm {
            path: format!("layers.{i}.{path}"),
            module: module(own),
            width,
            layer: Some(i),
            kind,
        };
        let linear = |group: &str, own: &str, kind: SiteKind, d_in, d_out| {
            let path = format!("layers.{i}.{group}.{}", kind.as_str());
            let has_bias = self.has_bias(kind);
            Part::Linear(Site { path, module: module(own), kind, layer: Some(i), d_in, d_out, has_bias })
        };
        let pre = self.wiring.place == NormPlace::Pre;
        let (norm1, norm2) = (
            || norm("norm1", names.norm1, d, self.wiring.norm),
            || norm("norm2", names.norm2, d, self.wiring.norm),
        );
        parts.extend(pre.then(norm1));
        for (kind, own, width, normed) in [
            (SiteKind::Q, names.q, q, names.q_norm),
            (SiteKind::K, names.k, kv, names.k_norm),
            (SiteKind::V, names.v, kv, ""),
        ] {
            parts.push(linear("attn", own, kind, d, width));
            if self.qk_norm && kind != SiteKind::V {
                parts.push(norm(&format!("attn.{}_norm", kind.as_str()), normed, self.head_dim, Norm::Rms));
            }
        }
        let own = self.wiring.relative.filter(|r| !r.shared);
        parts.extend(own.filter(|r| r.keys).map(|_| linear("attn", names.pos_k, SiteKind::PosK, d, q)));
        parts.extend(own.filter(|r| r.queries).map(|_| linear("attn", names.pos_q, SiteKind::PosQ, d, q)));
        parts.push(linear("attn", names.o, SiteKind::O, q, d));
        parts.push(if pre { norm2() } else { norm1() });
        if self.wiring.gated {
            parts.push(linear("mlp", names.gate, SiteKind::Gate, d, ff));
        }
        parts.push(linear("mlp", names.up, SiteKind::Up, d, ff));
        parts.push(linear("mlp", names.down, SiteKind::Down, ff, d));
        parts.extend((!pre).then(norm2));
    }

    fn head_parts(&self, parts: &mut Vec<Part>) {
        let linear = |path: &str, module: &str, kind, d_out| {
            let (path, module, has_bias) = (path.into(), module.into(), self.has_bias(kind));
            Part::Linear(Site { path, module, kind, layer: None, d_in: self.d_model, d_out, has_bias })
        };
        if let Some(dense) = &self.head.dense {
            parts.push(linear("head.dense", dense.module, SiteKind::Pool, self.d_model));
        }
        if let Some(module) = self.head.norm {
            let (path, module) = ("head.norm".into(), module.into());
            parts.push(Part::Norm { path, module, width: self.d_model, layer: None, kind: Norm::Layer });
        }
        parts.push(linear("head", self.head.out, SiteKind::Head, self.head.width(self.vocab)));
    }

    fn has_bias(&self, kind: SiteKind) -> bool {
        match kind {
            SiteKind::Q | SiteKind::K | SiteKind::V | SiteKind::PosQ | SiteKind::PosK => self.qkv_bias,
            SiteKind::O => self.o_bias,
            SiteKind::Gate | SiteKind::Up | SiteKind::Down => self.mlp_bias,
            SiteKind::Pool => true,
            SiteKind::Head => self.head.bias.is_some(),
            SiteKind::Embed | SiteKind::Table => false,
        }
    }

    /// Every tensor of the base, in the order of the forward run. A tied head is listed, and says so.
    pub fn base_params(&self) -> Vec<BaseParam> {
        let mut out = Vec::new();
        for part in self.parts() {
            match part {
                Part::Linear(site) => self.linear_params(&site, &mut out),
                Part::Norm { path, module, width, layer, kind } => {
                    let leaves = [("weight", false), ("bias", true)];
                    for (leaf, is_bias) in &leaves[..if kind == Norm::Layer { 2 } else { 1 }] {
                        out.push(BaseParam {
                            path: format!("{path}.{leaf}"),
                            name: format!("{module}.{leaf}"),
                            shape: vec![width],
                            layer,
                            site: None,
                            is_bias: *is_bias,
                            tied_to: None,
                            head: false,
                        });
                    }
                }
                Part::Table { path, module, rows } => out.push(BaseParam {
                    path: format!("{path}.weight"),
                    name: format!("{module}.weight"),
                    shape: vec![rows, self.d_model],
                    layer: None,
                    site: Some(SiteKind::Table),
                    is_bias: false,
                    tied_to: None,
                    head: false,
                }),
            }
        }
        for param in out.iter_mut().filter(|p| p.path.starts_with("head.")) {
            param.head = self.is_of_task(param);
        }
        out
    }

    fn linear_params(&self, site: &Site, out: &mut Vec<BaseParam>) {
        let names = self.wiring.names;
        let tied_to = (site.kind == SiteKind::Head && self.tied)
            .then(|| format!("{}{}.weight", names.prefix, names.embed));
        let weight = BaseParam {
            path: format!("{}.weight", site.path),
            name: format!("{}.weight", site.module),
            shape: vec![site.d_out, site.d_in],
            layer: site.layer,
            site: Some(site.kind),
            is_bias: false,
            tied_to,
            head: false,
        };
        let bias = self.has_bias(site.kind).then(|| {
            let name = match self.head.bias {
                Some(name) if site.kind == SiteKind::Head => name.to_string(),
                _ => format!("{}.bias", site.module),
            };
            let path = format!("{}.bias", site.path);
            BaseParam { path, name, shape: vec![site.d_out], is_bias: true, tied_to: None, ..weight.clone() }
        });
        out.push(weight);
        out.extend(bias);
    }

    /// Whether a tensor of the head belongs to the task and not to the base: a classifier's do, and what the base has not.
    fn is_of_task(&self, param: &BaseParam) -> bool {
        let of_base = param.site == Some(SiteKind::Pool) && self.head.dense.is_some_and(|d| d.of_base);
        let classifies = self.head.kind.labels().is_some();
        (classifies && !of_base) || self.head.missing.contains(&param.name)
    }
}
