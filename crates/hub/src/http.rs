//! GET and HEAD over HTTP, with the hub's rules for redirects and tokens, and the telling of passing trouble from lasting one.
//!
//! The hub answers a large file with a redirect to its store, whose address is signed: the token must not go there.
//! A redirect is therefore followed here, hop by hop, and the token goes to the endpoint's own origin (scheme, host, port) only.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use luthier_platform::tls::SYSTEM_TLS;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Proxy};

use crate::error::{Error, Result};
use crate::settings::{Settings, Token};

const MAX_REDIRECTS: usize = 10; // curl's and browsers' bounds are 20 to 50; the hub needs two
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may be silent, before the answer and within it.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest JSON answer: a listing takes about 250 bytes a file, so this is beyond 100,000 files.
const MAX_JSON: u64 = 32 << 20;

/// A failed attempt.
pub(crate) enum Trouble {
    /// It may pass: the attempt is repeated, after `wait` if the server asked for one.
    Passing {
        /// What to report if it does not pass.
        error: Error,
        /// What the server asked for.
        wait: Option<Duration>,
        /// Whether the attempt got further than any before, so that the count starts again.
        advanced: bool,
    },
    /// It will not pass.
    Final(Error),
}

impl Trouble {
    /// Trouble that may pass, without headway.
    pub(crate) fn passing(error: Error) -> Self {
        Self::Passing { error, wait: None, advanced: false }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// The head of an answer and its body, unread.
pub(crate) struct Reply {
    /// The status of the last hop.
    pub(crate) status: u16,
    /// Host and port of the last hop.
    pub(crate) host: String,
    /// Whether the last hop was the endpoint itself.
    pub(crate) at_endpoint: bool,
    response: ureq::http::Response<ureq::Body>,
}

impl Reply {
    /// A header of the last hop.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The body as it comes. Refuses one that is compressed: it was not asked for, and sizes and ranges would not fit.
    pub(crate) fn into_reader(self) -> Result<impl io::Read> {
        match self.header("content-encoding") {
            None | Some("identity" | "") => Ok(self.response.into_body().into_reader()),
            Some(encoding) => {
                let reason = format!("the content came as `{encoding}`, which was not asked for");
                Err(Error::BadReply { host: self.host, reason })
            }
        }
    }

    /// The whole body of a short answer.
    pub(crate) fn into_json(self) -> Result<Vec<u8>, Trouble> {
        let host = self.host.clone();
        let mut bytes = Vec::new();
        let mut reader = io::Read::take(self.into_reader()?, MAX_JSON + 1);
        match io::Read::read_to_end(&mut reader, &mut bytes) {
            Ok(_) if bytes.len() as u64 > MAX_JSON => {
                Err(Error::BadReply { host, reason: format!("its listing is longer than {MAX_JSON} bytes") }
                    .into())
            }
            Ok(_) => Ok(bytes),
            Err(source) => Err(Trouble::passing(Error::Unreachable { host, attempts: 1, source })),
        }
    }

    /// The server's words about an error, made fit for a terminal: one line, no control characters, not long.
    pub(crate) fn message(&self) -> String {
        let text = self.header("x-error-message").unwrap_or_default();
        text.chars().filter(|letter| !letter.is_control()).take(200).collect()
    }
}

/// A connection to one hub.
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Option<Origin>,
    token: Option<Token>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let origin = settings.endpoint.parse().ok().and_then(|uri| Origin::of(&uri));
        let proxy = Proxy::try_from_env().filter(|_| !origin.as_ref().is_some_and(Origin::is_loopback));
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity") // sizes, ranges and hashes are those of the plain content
            .user_agent(concat!("luthier/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy)
            .tls_config(tls(settings)?)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .build()
            .new_agent();
        Ok(Self { agent, endpoint: settings.endpoint.clone(), origin, token: settings.token.clone() })
    }

    /// The address of a path at the endpoint; `segments` are encoded one by one.
    pub(crate) fn url(&self, segments: &[&str]) -> String {
        let mut url = self.endpoint.clone();
        for segment in segments {
            url.push('/');
            url.push_str(&percent_encode(segment));
        }
        url
    }

    /// Where a token came from, if one is sent.
    pub(crate) fn token_source(&self) -> Option<String> {
        self.token.as_ref().map(|token| token.source().to_owned())
    }

    /// Asks for the content from byte `from` on, following redirects anywhere.
    pub(crate) fn get(&self, url: &str, from: u64) -> Result<Reply, Trouble> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.follow(
            url,
            &|url, token| {
                let mut request = self.agent.get(url);
                for (name, value) in [("Range", range.as_ref()), ("Authorization", token)] {
                    if let Some(value) = value {
                        request = request.header(name, value);
                    }
                }
                request.call()
            },
            false,
        )
    }

    /// Asks for the head, following redirects at the endpoint only: its own answer holds the hash.
    pub(crate) fn head(&self, url: &str) -> Result<Reply, Trouble> {
        self.follow(
            url,
            &|url, token| {
                let request = self.agent.head(url);
                match token {
                    Some(token) => request.header("Authorization", token).call(),
                    None => request.call(),
                }
            },
            true,
        )
    }

    fn follow(&self, url: &str, call: &Call<'_>, stay: bool) -> Result<Reply, Trouble> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let uri: Uri = url.parse().map_err(|_| bad_redirect("", &url, "it is not an address"))?;
            let origin = Origin::of(&uri).ok_or_else(|| bad_redirect("", &url, "it is not an address"))?;
            let at_endpoint = self.origin.as_ref() == Some(&origin);
            let token = self.token.as_ref().filter(|_| at_endpoint).map(Token::to_header);
            let response =
                call(&url, token.as_ref()).map_err(|error| unreachable(&origin.to_string(), error))?;
            let status = response.status().as_u16();
            let reply = Reply { status, host: origin.to_string(), at_endpoint, response };
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(reply);
            }
            let location = reply.header("location").unwrap_or_default();
            let next = join(&uri, location).map_err(|reason| bad_redirect(&reply.host, location, reason))?;
            if stay && next.parse().ok().and_then(|uri| Origin::of(&uri)) != self.origin {
                return Ok(reply);
            }
            url = next;
        }
        Err(bad_redirect(&self.endpoint, &url, "it is the eleventh in a row").into())
    }
}

/// One request: an address and, where it may be seen, the token's header.
type Call<'a> = dyn Fn(&str, Option<&String>) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> + 'a;

/// Scheme, host and port: what a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Self { port: uri.port_u16().unwrap_or(usual), scheme, host })
    }

    /// Whether it is this machine, which no proxy can reach for us.
    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_matches(['[', ']']);
        bare == "localhost" || bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.scheme.as_str(), self.port) {
            ("http", 80) | ("https", 443) => f.write_str(&self.host),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The address that `location` means at `base`. Source: RFC 3986, section 5.2, without dot segments, which servers resolve.
fn join(base: &Uri, location: &str) -> Result<String, &'static str> {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let next = if location.is_empty() {
        return Err("it is empty");
    } else if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = next.parse().map_err(|_| "it is not an address")?;
    match (scheme, Origin::of(&uri)) {
        (_, None) => Err("it is not an http or https address"),
        ("https", Some(origin)) if origin.scheme == "http" => Err("it leaves https for http"),
        _ => Ok(next),
    }
}

fn bad_redirect(host: &str, location: &str, reason: &'static str) -> Error {
    let location = location.chars().filter(|letter| !letter.is_control()).take(200).collect();
    Error::BadRedirect { host: host.to_owned(), location, reason }
}

/// Sorts the failures of a connection: those of the address, of certificates and of the protocol will not pass.
fn unreachable(host: &str, error: ureq::Error) -> Trouble {
    let host = host.to_owned();
    if let ureq::Error::Protocol(error) = error {
        return Error::BadReply { host, reason: error.to_string() }.into();
    }
    let is_address =
        matches!(error, ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl);
    let source = error.into_io();
    let lasting = is_address || source.kind() == io::ErrorKind::InvalidData; // as rustls reports a certificate
    let error = Error::Unreachable { host, attempts: 1, source };
    if lasting { Trouble::Final(error) } else { Trouble::passing(error) }
}

/// Everything but letters, digits and `-._~` as `%XX`. Source: RFC 3986, section 2.3.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
    encoded
}

fn hex_digit(value: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(value)])
}

fn tls(settings: &Settings) -> Result<TlsConfig> {
    let roots = match &settings.certificates {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
            let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(Error::BadCertificates { path: path.clone() });
            }
            RootCerts::Specific(Arc::new(certificates))
        }
        None if SYSTEM_TLS => RootCerts::PlatformVerifier,
        None => RootCerts::WebPki, // Mozilla's list, built in: a bare container has no certificates of its own
    };
    let provider = if SYSTEM_TLS { TlsProvider::NativeTls } else { TlsProvider::Rustls };
    Ok(TlsConfig::builder().provider(provider).root_certs(roots).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined_as_the_standard_says() {
        let base: Uri = "https://hub.example:8443/a/b?x=1".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/f?sig=1", "https://cdn.example/f?sig=1"),
            ("//cdn.example/f", "https://cdn.example/f"),
            ("/c/d?next=http://x", "https://hub.example:8443/c/d?next=http://x"),
            ("e", "https://hub.example:8443/a/e"),
        ] {
            assert_eq!(join(&base, location), Ok(expected.to_owned()));
        }
        for location in
            ["", "ftp://cdn.example/f", "file:///etc/passwd", "https://a b", "http://hub.example:8443/f"]
        {
            assert!(join(&base, location).is_err(), "{location}");
        }
        let plain: Uri = "http://hub.example/a".parse().unwrap();
        assert!(join(&plain, "http://cdn.example/f").is_ok());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse::<Uri>().unwrap());
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b"));
        for other in [
            "http://hub.example/a",
            "https://hub.example:444/a",
            "https://hub.example.evil/a",
            "https://cdn.hub.example/a",
        ] {
            assert_ne!(origin("https://hub.example/a"), origin(other), "{other}");
        }
        // What stands before the `@` is a user's name, not the host.
        assert_ne!(origin("https://hub.example/a"), origin("https://hub.example@evil.example/a"));
        for (address, expected) in [
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://hub", false),
        ] {
            assert_eq!(origin(address).unwrap().is_loopback(), expected, "{address}");
        }
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(percent_encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(percent_encode("a b?#%ü~.-_"), "a%20b%3F%23%25%C3%BC~.-_");
    }

    #[test]
    fn certificates_must_be_readable() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new("https://hub.example", folder.path()).unwrap();
        settings.certificates = Some(folder.path().join("absent.pem"));
        assert!(matches!(Client::new(&settings), Err(Error::Io { .. })));
        std::fs::write(folder.path().join("absent.pem"), "not a certificate").unwrap();
        assert!(matches!(Client::new(&settings), Err(Error::BadCertificates { .. })));
    }
}
