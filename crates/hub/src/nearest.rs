//! The name that someone probably meant: least edit distance (Levenshtein 1966), ignoring case.

/// The closest of `known` to `name`, if it is close enough to be worth saying: at most a third of the letters differ.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .min()
        .filter(|&(distance, _)| distance <= allowed)
        .map(|(_, candidate)| candidate.to_owned())
}

/// Insertions, deletions and replacements of letters that lead from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect(); // distances of a's first i letters to every start of b
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        for (a, b, expected) in
            [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("größe", "grosse", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_a_close_name_is_named() {
        let known = ["HuggingFaceTB/SmolLM2-135M", "Qwen/Qwen3-0.6B"];
        assert_eq!(
            nearest("huggingfacetb/SmolLM2-135", known).as_deref(),
            Some("HuggingFaceTB/SmolLM2-135M")
        );
        assert_eq!(nearest("mistralai/Mistral-7B", known), None);
        assert_eq!(nearest("main", []), None);
    }
}
