//! "Did you mean": the known name nearest to one that is not.
//!
//! Distance: optimal string alignment (Damerau-Levenshtein without overlapping edits), Boytsov 2011, section 2.1.

/// Names of other tools for what is called otherwise here, each with ours.
const OTHERS_SAY: [(&str, &str); 22] = [
    ("r", "rank"),
    ("lora_r", "rank"),
    ("lora_rank", "rank"),
    ("lora_alpha", "alpha"),
    ("lora_dropout", "dropout"),
    ("target_modules", "targets"),
    ("learning_rate", "lr"),
    ("max_grad_norm", "clip"),
    ("gradient_clipping", "clip"),
    ("max_seq_length", "max_tokens"),
    ("max_length", "max_tokens"),
    ("max_steps", "steps"),
    ("num_train_epochs", "epochs"),
    ("num_epochs", "epochs"),
    ("batch_size", "batch"),
    ("per_device_train_batch_size", "micro_batch"),
    ("micro_batch_size", "micro_batch"),
    ("gradient_checkpointing", "recompute"),
    ("warmup_ratio", "warmup"),
    ("warmup_steps", "warmup"),
    ("output_dir", "output"),
    ("model", "base"),
];

/// The known name that a user most likely meant: another tool's word for it, or one within a third of its letters.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = name.to_lowercase().replace('-', "_");
    let ours = OTHERS_SAY.iter().find(|(theirs, _)| *theirs == plain).map(|(_, ours)| *ours);
    let limit = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| {
            let near = distance(&plain, &candidate.to_lowercase().replace('-', "_"));
            (if ours == Some(candidate) { 0 } else { near }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_known_pairs() {
        for (a, b, expected) in [("", "abc", 3), ("rank", "rnak", 1), ("kitten", "sitting", 3), ("x", "x", 0)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_none() {
        let known = ["rank", "alpha", "dropout", "targets"];
        assert_eq!(nearest("rnak", known), Some("rank"));
        assert_eq!(nearest("target", known), Some("targets"));
        assert_eq!(nearest("Alpha", known), Some("alpha"));
        assert_eq!(nearest("moon", known), None);
        assert_eq!(nearest("full_ft", ["lora", "full-ft"]), Some("full-ft"));
    }

    #[test]
    fn other_tools_words_are_known() {
        assert_eq!(nearest("lora_r", ["alpha", "rank"]), Some("rank"));
        assert_eq!(nearest("learning-rate", ["clip", "lr"]), Some("lr"));
        assert_eq!(nearest("learning_rate", ["steps"]), None);
    }
}
