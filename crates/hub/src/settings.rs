//! Where the hub and the cache are and who asks, by the variables that every tool of the field reads.
//!
//! Source: huggingface_hub, "Environment variables".

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How the hub is reached and where its files are kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// `HF_ENDPOINT`: `http://HOST` or `https://HOST`, perhaps with a path; no slash at the end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`: the folder that holds `models--ORG--NAME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or the file that signing in has left in `HF_HOME`.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: nothing may use the network.
    pub offline: bool,
    /// `SSL_CERT_FILE`: the certificates to trust in place of the usual ones, in PEM.
    pub certificates: Option<PathBuf>,
    /// How often something is tried without headway before it counts as failed; at least 1.
    pub attempts: u32,
    /// The wait after the first failed attempt; it doubles with each, up to [`Settings::longest_wait`].
    pub first_wait: Duration,
    /// The longest wait between two attempts, also when the server asks for a longer one.
    pub longest_wait: Duration,
}

impl Settings {
    /// A hub and a cache, with no token.
    pub fn new(endpoint: &str, cache: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self {
            endpoint: checked_endpoint(endpoint)?,
            cache: cache.into(),
            token: None,
            offline: false,
            certificates: None,
            attempts: 5, // with the waits below: 7.5 s until "no connection"
            first_wait: Duration::from_millis(500), // a router's hiccup
            longest_wait: Duration::from_secs(60), // the hub's rate limits are counted over 5 minutes
        })
    }

    /// As the environment says.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var_os(name), std::env::home_dir().as_deref())
    }

    /// As the environment says, given by a function. An empty variable counts as none.
    fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let folder = |name: &str| variable(name).map(|value| expand_home(PathBuf::from(value), home));
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let hf_home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache/huggingface")));
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
            .ok_or(Error::NoHome)?;
        let mut settings =
            Self::new(&text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()), cache)?;
        settings.offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| is_true(text(name)));
        settings.certificates = folder("SSL_CERT_FILE").or_else(|| folder("REQUESTS_CA_BUNDLE"));
        let token_file = folder("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")));
        settings.token =
            match ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|name| Some((name, text(name)?))) {
                Some((name, token)) => Token::new(&token, name)?,
                None if is_true(text("HF_HUB_DISABLE_IMPLICIT_TOKEN")) => None,
                None => token_file.map_or(Ok(None), |path| match std::fs::read_to_string(&path) {
                    Ok(token) => Token::new(&token, &path.display().to_string()),
                    Err(_) => Ok(None), // not signed in
                })?,
            };
        Ok(settings)
    }
}

/// A secret that says who asks. It shows itself to the hub's own address and nowhere else, also not in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    source: String,
}

impl Token {
    /// Reads a token, `None` if there is only white space; `source` is the variable or file that it came from.
    pub fn new(text: &str, source: &str) -> Result<Option<Self>> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::BadToken { source_name: source.to_owned() });
        }
        Ok((!text.is_empty()).then(|| Self { text: text.to_owned(), source: source.to_owned() }))
    }

    /// The variable or file that it came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The `Authorization` header.
    pub(crate) fn to_header(&self) -> String {
        format!("Bearer {}", self.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.source)
    }
}

fn checked_endpoint(endpoint: &str) -> Result<String> {
    let trimmed = endpoint.trim().trim_end_matches('/');
    let scheme_end = trimmed.strip_prefix("https://").or_else(|| trimmed.strip_prefix("http://"));
    let plain = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        // A user or password in the address would go into messages and logs.
        !host.is_empty()
            && !host.contains('@')
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\'))
    };
    match scheme_end {
        Some(rest) if plain(rest) => Ok(trimmed.to_owned()),
        _ => Err(Error::BadEndpoint { endpoint: endpoint.to_owned() }),
    }
}

/// The values that huggingface_hub takes for yes.
fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
}

/// `~/x` as the shells read it: huggingface_hub expands it in these variables.
fn expand_home(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(variables: &[(&str, &str)]) -> Result<Settings> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let home = Some(Path::new("/ada"));
        Settings::from_variables(&|name| variables.get(name).map(OsString::from), home)
    }

    #[test]
    fn the_cache_is_the_shared_one() {
        for (variables, cache) in [
            (&[][..], "/ada/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/ada/h/hub"),
            (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HF_HOME", "")], "/ada/.cache/huggingface/hub"),
        ] {
            assert_eq!(read(variables).unwrap().cache, PathBuf::from(cache), "{variables:?}");
        }
        assert!(matches!(Settings::from_variables(&|_| None, None), Err(Error::NoHome)));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file() {
        let home = tempfile::tempdir().unwrap();
        let home_text = home.path().to_str().unwrap();
        assert_eq!(read(&[("HF_HOME", home_text)]).unwrap().token, None);
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let header =
            |variables: &[(&str, &str)]| read(variables).unwrap().token.map(|token| token.to_header());
        assert_eq!(header(&[("HF_HOME", home_text)]).as_deref(), Some("Bearer hf_file"));
        assert_eq!(
            header(&[("HF_HOME", home_text), ("HF_TOKEN", " hf_env ")]).as_deref(),
            Some("Bearer hf_env")
        );
        assert_eq!(header(&[("HF_HOME", home_text), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert!(
            matches!(read(&[("HF_TOKEN", "a\nb")]), Err(Error::BadToken { source_name }) if source_name == "HF_TOKEN")
        );
    }

    #[test]
    fn a_token_does_not_show_in_debug() {
        let settings = read(&[("HF_TOKEN", "hf_secret")]).unwrap();
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn offline_takes_the_words_for_yes() {
        for (value, expected) in
            [("1", true), ("true", true), ("ON", true), ("0", false), ("no", false), ("", false)]
        {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, expected, "{value}");
        }
        assert!(read(&[("TRANSFORMERS_OFFLINE", "yes")]).unwrap().offline);
    }

    #[test]
    fn the_endpoint_is_checked() {
        assert_eq!(read(&[]).unwrap().endpoint, DEFAULT_ENDPOINT);
        assert_eq!(
            read(&[("HF_ENDPOINT", "http://mirror:8080/hub/")]).unwrap().endpoint,
            "http://mirror:8080/hub"
        );
        for endpoint in [
            "mirror",
            "ftp://mirror",
            "https://",
            "https://a b",
            "https://user:secret@mirror",
            "https://m?x=1",
        ] {
            assert!(
                matches!(read(&[("HF_ENDPOINT", endpoint)]), Err(Error::BadEndpoint { .. })),
                "{endpoint}"
            );
        }
    }
}
