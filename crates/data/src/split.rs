//! Train and eval from one set of rows: by seed, equal prompts on one side.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::format::{Record, Role};
use crate::sampler::mix;

/// Identity of a content: equal after lower-casing and joining white space.
pub(crate) type ContentHash = u128;

/// Hash of a whole record.
pub(crate) fn hash_of(record: &Record) -> ContentHash {
    match record {
        Record::Text(text) => hash([("", text.as_str())]),
        Record::Chat { messages, .. } => hash(messages.iter().map(|m| (m.role.name(), m.content.as_str()))),
        Record::Labelled { texts, label } => {
            let label = label.text();
            hash(texts.iter().map(|t| ("text", t.as_str())).chain([("label", label.as_str())]))
        }
        Record::Tagged { words, tags } => hash(words.iter().chain(tags).map(|word| ("word", word.as_str()))),
    }
}

/// Hash of what comes before the last answer; of the whole text where there is none.
pub(crate) fn hash_of_prompt(record: &Record) -> ContentHash {
    match record {
        Record::Text(_) => hash_of(record),
        Record::Labelled { texts, .. } => hash(texts.iter().map(|t| ("text", t.as_str()))),
        Record::Tagged { words, .. } => hash(words.iter().map(|word| ("word", word.as_str()))),
        Record::Chat { messages, .. } => {
            let last = messages.iter().rposition(|m| m.role == Role::Assistant).unwrap_or(messages.len());
            hash(messages[..last].iter().map(|m| (m.role.name(), m.content.as_str())))
        }
    }
}

fn hash<'a>(parts: impl IntoIterator<Item = (&'a str, &'a str)>) -> ContentHash {
    let mut digest = Sha256::new();
    for (role, content) in parts {
        digest.update(role.as_bytes());
        for word in content.split_whitespace() {
            digest.update(b" ");
            digest.update(word.to_lowercase().as_bytes());
        }
        // No text holds this byte, so that parts cannot run into each other.
        digest.update([0xFF]);
    }
    first_bytes(&digest.finalize())
}

/// Hash of token ids.
pub(crate) fn hash_of_tokens(tokens: &[u32]) -> ContentHash {
    let mut digest = Sha256::new();
    for token in tokens {
        digest.update(token.to_le_bytes());
    }
    first_bytes(&digest.finalize())
}

fn first_bytes(digest: &[u8]) -> ContentHash {
    digest.iter().take(16).fold(0, |value, &byte| value << 8 | u128::from(byte))
}

/// Says for each item whether it is for eval. Items of one group stay together; groups are drawn in an order that the
/// seed gives, and one that would overshoot the fraction is passed over.
pub(crate) fn split(groups: &[ContentHash], fraction: f64, seed: u64) -> Result<Vec<bool>, Error> {
    let mut sizes: BTreeMap<ContentHash, usize> = BTreeMap::new();
    for &group in groups {
        *sizes.entry(group).or_default() += 1;
    }
    if sizes.len() < 2 {
        return Err(Error::Split { fraction, groups: sizes.len() });
    }
    let wanted = ((groups.len() as f64 * fraction).round() as usize).clamp(1, groups.len() - 1);
    let mut order: Vec<(u64, ContentHash, usize)> = sizes
        .into_iter()
        .map(|(group, size)| (mix(mix(seed ^ group as u64) ^ (group >> 64) as u64), group, size))
        .collect();
    order.sort_unstable();
    let mut taken: BTreeSet<ContentHash> = BTreeSet::new();
    let mut count = 0;
    for &(_, group, size) in &order {
        if count + size <= wanted {
            count += size;
            taken.insert(group);
        }
    }
    if taken.is_empty() {
        // Every group is larger than the fraction: the smallest one is the nearest.
        if let Some(&(_, group, _)) = order.iter().min_by_key(|(_, _, size)| *size) {
            taken.insert(group);
        }
    }
    Ok(groups.iter().map(|group| taken.contains(group)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::Message;

    fn chat(prompt: &str, answer: &str) -> Record {
        let messages = vec![Message::new(Role::User, prompt), Message::new(Role::Assistant, answer)];
        Record::Chat { messages, tools: None }
    }

    #[test]
    fn case_and_white_space_do_not_make_a_difference() {
        assert_eq!(hash_of(&chat("What  is\n1+1?", "two ")), hash_of(&chat("what is 1+1?", "Two")));
        assert_ne!(hash_of(&chat("a", "b")), hash_of(&chat("a b", "")));
        assert_eq!(hash_of_prompt(&chat("a", "b")), hash_of_prompt(&chat("A", "c")));
    }

    #[test]
    fn one_distinct_row_cannot_be_split() {
        assert!(matches!(split(&[7, 7, 7], 0.5, 0), Err(Error::Split { groups: 1, .. })));
    }

    #[test]
    fn large_groups_still_give_an_eval_set() {
        let taken = split(&[1, 1, 1, 2, 2], 0.1, 0).unwrap();
        assert_eq!(taken, [false, false, false, true, true]);
    }

    proptest! {
        #[test]
        fn groups_stay_together_and_the_fraction_holds(
            groups in prop::collection::vec(0_u128..40, 2..200), fraction in 0.01_f64..0.9, seed: u64,
        ) {
            let Ok(taken) = split(&groups, fraction, seed) else { return Ok(()) };
            for (a, x) in groups.iter().zip(&taken) {
                for (b, y) in groups.iter().zip(&taken) {
                    prop_assert!(a != b || x == y);
                }
            }
            let count = taken.iter().filter(|&&t| t).count();
            prop_assert!(count >= 1 && count < groups.len());
        }

        #[test]
        fn distinct_rows_split_exactly(n in 2_usize..300, fraction in 0.01_f64..0.9, seed: u64) {
            let groups: Vec<u128> = (0..n as u128).collect();
            let count = split(&groups, fraction, seed).unwrap().into_iter().filter(|&t| t).count();
            let wanted = ((n as f64 * fraction).round() as usize).clamp(1, n - 1);
            prop_assert_eq!(count, wanted);
        }
    }
}
