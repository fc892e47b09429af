//! Which sites a method adapts: by kind, by name, or by pattern.
use crate::error::Error;
use crate::site::{Site, SiteKind};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// `targets = "all-linear"`, or a list of names and patterns.
///
/// A name is a short kind (`q`), the end of a module path (`q_proj`, `self_attn.q_proj`) or of a site path
/// (`attn.q`); a pattern has `*`, which stands for any run of characters, and must match a whole path (ours or the
/// base's).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// `"all-linear"`, or one name or pattern.
    One(String),
    /// Several.
    Many(Vec<String>),
    /// `{ regex = ".." }`: a regular expression that must match a whole module path, as PEFT's `target_modules` does
    /// when it is a string.
    Regex {
        /// The expression.
        regex: String,
    },
}

impl Default for Targets {
    fn default() -> Self {
        Self::One("all-linear".into())
    }
}

impl Targets {
    fn items(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
            Self::Regex { .. } => &[],
        }
    }

    /// Whether `site` is meant.
    pub fn matches(&self, site: &Site) -> bool {
        if let Self::Regex { regex } = self {
            return whole(regex).is_ok_and(|r| r.is_match(&site.module));
        }
        self.items().iter().any(|item| matches(item, site))
    }

    /// Every item must match a site.
    pub fn check(&self, method: &'static str, sites: &[Site]) -> Result<(), Error> {
        let known = || {
            let mut kinds = sites.iter().map(|s| s.kind).collect::<Vec<_>>();
            kinds.sort_unstable();
            kinds.dedup();
            kinds.into_iter().map(SiteKind::as_str).collect::<Vec<_>>().join(", ")
        };
        if let Self::Regex { regex } = self {
            let found = whole(regex).is_ok_and(|r| sites.iter().any(|s| r.is_match(&s.module)));
            let missing = || Error::NoSuchTarget { method, target: regex.clone(), sites: known() };
            return if found { Ok(()) } else { Err(missing()) };
        }
        if self.items().is_empty() {
            return Err(Error::NoSuchTarget { method, target: "[]".into(), sites: known() });
        }
        match self.items().iter().find(|item| !sites.iter().any(|s| matches(item, s))) {
            Some(item) => Err(Error::NoSuchTarget { method, target: item.clone(), sites: known() }),
            None => Ok(()),
        }
    }
}

fn whole(regex: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{regex})$"))
}

fn matches(item: &str, site: &Site) -> bool {
    if item == "all-linear" {
        return site.kind.is_inner_linear();
    }
    if item.contains('*') {
        return wildcard(item, &site.path) || wildcard(item, &site.module);
    }
    let ends = |path: &str| path == item || path.strip_suffix(item).is_some_and(|rest| rest.ends_with('.'));
    site.kind.as_str() == item || ends(&site.path) || ends(&site.module)
}

/// Whether `pattern`, in which `*` stands for any characters, matches all of `text`. Linear in both but for stars.
fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(path: &str, module: &str, kind: SiteKind) -> Site {
        Site {
            path: path.into(),
            module: module.into(),
            kind,
            layer: Some(1),
            d_in: 4,
            d_out: 4,
            has_bias: false,
        }
    }

    #[test]
    fn names_kinds_and_patterns() {
        let q = site("layers.1.attn.q", "model.layers.1.self_attn.q_proj", SiteKind::Q);
        let down = site("layers.1.mlp.down", "model.layers.1.mlp.down_proj", SiteKind::Down);
        let head = site("head", "lm_head", SiteKind::Head);
        for (item, on) in [
            ("all-linear", [true, true, false]),
            ("q", [true, false, false]),
            ("q_proj", [true, false, false]),
            ("attn.q", [true, false, false]),
            ("proj", [false, false, false]),
            ("layers.*.mlp.*", [false, true, false]),
            ("model.layers.1.*_proj", [true, true, false]),
            ("*", [true, true, true]),
            ("layers.*.q", [true, false, false]),
            ("lm_head", [false, false, true]),
        ] {
            let targets = Targets::One(item.into());
            assert_eq!([&q, &down, &head].map(|s| targets.matches(s)), on, "{item}");
        }
    }

    #[test]
    fn an_unmatched_item_is_named() {
        let q = site("layers.1.attn.q", "model.layers.1.self_attn.q_proj", SiteKind::Q);
        let error = Targets::Many(vec!["q".into(), "w".into()]).check("lora", &[q]).unwrap_err();
        assert_eq!(error.to_string(), "`w` in lora.targets matches no site of this model; its sites are q");
    }
}
