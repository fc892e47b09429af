//! Entities: runs of tags, as CoNLL's `conlleval` finds them (Tjong Kim Sang and De Meulder 2003), which is what seqeval
//! does by default.
//!
//! A tag is `O`, or a place (B, I; also E, S of other schemes) and after it a type. An entity counts as found if its type, first
//! and last word are all right. An `I` that follows nothing of its type begins an entity.
use super::{ClassScore, f1, share};
use std::collections::BTreeMap;

/// A type, and the first and last word.
pub type Entity<'a> = (&'a str, usize, usize);

/// Place and type of a tag: all before the first hyphen is one letter.
fn split(tag: &str) -> (char, &str) {
    let mut letters = tag.chars();
    let place = letters.next().unwrap_or('O');
    let rest = letters.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (place, if kind.is_empty() { "_" } else { kind })
}

/// The entities of one sentence.
pub fn entities<'a>(tags: &[&'a str]) -> Vec<Entity<'a>> {
    let (mut found, mut begin) = (Vec::new(), 0);
    let (mut before, mut kind_before) = ('O', "");
    for (i, tag) in tags.iter().copied().chain(["O"]).enumerate() {
        let (place, kind) = split(tag);
        let is_new_kind = kind != kind_before;
        let ends = match before {
            'E' | 'S' => true,
            'B' | 'I' => matches!(place, 'B' | 'S' | 'O') || is_new_kind,
            'O' | '.' => false,
            _ => is_new_kind,
        };
        if ends {
            found.push((kind_before, begin, i - 1));
        }
        let begins = match place {
            'B' | 'S' => true,
            'E' | 'I' => matches!(before, 'E' | 'S' | 'O') || is_new_kind,
            'O' | '.' => false,
            _ => is_new_kind,
        };
        if begins {
            begin = i;
        }
        (before, kind_before) = (place, kind);
    }
    found
}

/// Entities found, there and answered, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntityCounts(BTreeMap<String, [u64; 3]>);

impl EntityCounts {
    /// Of one sentence.
    pub fn of(gold: &[&str], answered: &[&str]) -> Self {
        let (gold, answered) = (entities(gold), entities(answered));
        let mut counts = Self::default();
        for entity in &gold {
            let held = counts.0.entry(entity.0.to_owned()).or_default();
            held[0] += u64::from(answered.contains(entity));
            held[1] += 1;
        }
        for entity in &answered {
            counts.0.entry(entity.0.to_owned()).or_default()[2] += 1;
        }
        counts
    }

    /// Adds another sentence's.
    pub fn add(&mut self, other: &Self) {
        for (kind, counts) in &other.0 {
            let held = self.0.entry(kind.clone()).or_default();
            held.iter_mut().zip(counts).for_each(|(held, n)| *held += n);
        }
    }

    /// Found, there, answered: of all types.
    pub fn total(&self) -> [f64; 3] {
        let of = |i: usize| self.0.values().map(|counts| counts[i] as f64).sum();
        [of(0), of(1), of(2)]
    }

    /// Precision, recall and F1 over all entities (micro).
    pub fn scores(&self) -> [f64; 3] {
        let [hits, gold, answered] = self.total();
        [share(hits, answered), share(hits, gold), f1(hits, gold, answered)]
    }

    /// Each type's scores.
    pub fn each(&self) -> Vec<ClassScore> {
        self.0
            .iter()
            .map(|(kind, [hits, gold, answered])| ClassScore::of(kind, *hits, *gold, *answered))
            .collect()
    }
}
