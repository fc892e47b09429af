//! Names of files that came over the network, checked before they become paths.

/// Whether a name can leave its folder on any system: absolute, `..`, a drive, a backslash, NUL and other control characters.
/// No honest repository has one, so a single such name condemns the listing.
pub(crate) fn escapes(name: &str) -> bool {
    name.is_empty()
        || name.contains('\\')
        || name.chars().any(char::is_control)
        || name.as_bytes().get(1) == Some(&b':')
        || name.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// Whether a name that does not escape is also the name of an ordinary file on every system.
///
/// Windows reserves the names of its devices, with any ending, reads `:` as a stream of a file and drops dots and spaces at
/// the end; every system bounds the length. Source: Microsoft, "Naming Files, Paths, and Namespaces".
pub(crate) fn is_portable(name: &str) -> bool {
    name.split('/').all(|part| {
        let stem = part.split('.').next().unwrap_or(part).to_ascii_uppercase();
        let numbered = |prefix: &str| {
            stem.strip_prefix(prefix)
                .is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_digit())
        };
        let device =
            matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT");
        part.len() <= 255
            && !part.contains([':', '<', '>', '"', '|', '?', '*'])
            && !part.ends_with(['.', ' '])
            && !device
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_out_of_the_folder_is_seen() {
        for name in [
            "",
            "..",
            "../config.json",
            "a/../../b",
            "/etc/passwd",
            "//host/share",
            "a//b",
            "./a",
            "a/.",
            "C:\\x",
            "C:/x",
            "c:x",
            "..\\x",
            "a\\b",
            "config.json\0.safetensors",
            "a\nb",
            "\u{7f}",
        ] {
            assert!(escapes(name), "{name:?}");
        }
        for name in
            ["config.json", "a/b/c.safetensors", "..config.json", "model..safetensors", "größe.json", "ab:c"]
        {
            assert!(!escapes(name), "{name:?}");
        }
    }

    #[test]
    fn names_that_only_some_systems_can_hold_are_seen() {
        let long = "x".repeat(256);
        for name in [
            "NUL.safetensors",
            "con",
            "aux.json",
            "COM1.gguf",
            "lpt9",
            "a:b.gguf",
            "x.",
            "x ",
            "a?.gguf",
            long.as_str(),
        ] {
            assert!(!is_portable(name), "{name:?}");
        }
        for name in
            ["config.json", "console.json", "null.gguf", "com.gguf", "model-00001-of-00002.safetensors"]
        {
            assert!(is_portable(name), "{name:?}");
        }
    }
}
