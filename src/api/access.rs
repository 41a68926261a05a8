//! Who may do what.
//!
//! With tokens, a request has to bring one of them (RFC 6750). Without, only this machine is listened to, and then only
//! requests that mean this machine: a page in a browser may send some as well, under a name of its own (`Host`), or for
//! itself (`Origin`). Whoever comes by the socket has been let in by its rights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use super::Problem;
use crate::target::Sha256;

/// What a token is good for. Each stands for itself: none comes with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To see jobs, schedules, albums and files.
    Read,
    /// To have jobs run.
    Write,
    /// To change what runs on its own, and when.
    Admin,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// The tokens by their names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Tokens(BTreeMap<String, Token>);

/// A token, which is known by its digest only.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Written")]
struct Token {
    sha256: Sha256,
    scopes: BTreeSet<Scope>,
}

/// As it stands in the settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    token: Option<SecretString>,
    #[serde(default, deserialize_with = "digest")]
    sha256: Option<Sha256>,
    scopes: BTreeSet<Scope>,
}

/// A shorter token can be guessed.
const SHORTEST: usize = 16;

impl TryFrom<Written> for Token {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let sha256 = match (written.token, written.sha256) {
            (Some(token), None) => {
                let token = token.expose_secret();
                if token.len() < SHORTEST {
                    return Err(
                        "`token` is shorter than 16 characters; `openssl rand -hex 32` makes one",
                    );
                }
                if !token.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err("`token` holds what no header can; use letters and digits");
                }
                Sha256::of(token.as_bytes())
            }
            (None, Some(sha256)) => sha256,
            _ => {
                return Err("expected either `token` or `sha256`, the digest of the token");
            }
        };
        if written.scopes.is_empty() {
            return Err("`scopes` is empty; expected some of \"read\", \"write\", \"admin\"");
        }
        let scopes = written.scopes;
        Ok(Self { sha256, scopes })
    }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Sha256>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name and the scopes of a token. Takes as long for a wrong one as for a right one.
    fn find(&self, token: &str) -> Option<(&str, &BTreeSet<Scope>)> {
        let sha256 = Sha256::of(token.as_bytes());
        let mut found = None;
        for (name, known) in &self.0 {
            let pairs = known.sha256.0.iter().zip(&sha256.0);
            if pairs.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0 {
                found = Some((name.as_str(), &known.scopes));
            }
        }
        found
    }
}

/// Who may do what at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access(Arc<RwLock<Arc<Tokens>>>);

impl Access {
    /// Goes by other tokens from now on.
    pub(crate) fn set(&self, tokens: &Tokens) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens.clone());
    }

    fn tokens(&self) -> Arc<Tokens> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn judge(&self, headers: &HeaderMap, scope: Scope) -> Result<(), Problem> {
        let tokens = self.tokens();
        if tokens.is_empty() {
            return is_for_this_machine(headers);
        }
        let Some(token) = bearer(headers) else {
            let detail = "this takes a token: `Authorization: Bearer …`";
            return Err(unauthorised(detail, ""));
        };
        let Some((name, scopes)) = tokens.find(token) else {
            return Err(unauthorised(
                "nobody has this token",
                ", error=\"invalid_token\"",
            ));
        };
        if scopes.contains(&scope) {
            return Ok(());
        }
        let scope = scope.as_str();
        let has: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let detail = format!(
            "this takes the scope `{scope}`; the token `{name}` has: {}",
            has.join(", ")
        );
        let challenge =
            format!("Bearer realm=\"gannet\", error=\"insufficient_scope\", scope=\"{scope}\"");
        Err(Problem::new(StatusCode::FORBIDDEN, detail).with(header::WWW_AUTHENTICATE, &challenge))
    }
}

fn unauthorised(detail: &str, why: &str) -> Problem {
    let challenge = format!("Bearer realm=\"gannet\"{why}");
    Problem::new(StatusCode::UNAUTHORIZED, detail).with(header::WWW_AUTHENTICATE, &challenge)
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| token.trim())
}

fn is_for_this_machine(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "without tokens only this machine may ask, by `localhost` or a loopback address, and not by `{host}`; \
                 `[api.tokens]` lets others in"
            ),
        ));
    }
    match text(header::ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("without tokens no other site may ask, and `{origin}` is one"),
        )),
        _ => Ok(()),
    }
}

/// Whether a `Host` (RFC 9110, section 7.2) can only mean this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match bare.unwrap_or(name).parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// By which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the network.
    Network,
    /// By the socket in the store.
    Socket,
}

/// Lets a request pass that may do what takes `scope`.
pub(super) async fn guard(
    State((access, scope)): State<(Access, Scope)>,
    request: Request,
    next: Next,
) -> Response {
    let is_inside = request.extensions().get() == Some(&Way::Socket);
    if !is_inside && let Err(problem) = access.judge(request.headers(), scope) {
        return problem.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn only_loopback_is_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:1",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org:80",
            "192.168.0.1",
            "[::]:80",
            "0.0.0.0",
            "127.0.0.1.example.org",
            "127.0.0.1@example.org",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn without_tokens_a_page_of_another_site_is_refused() {
        let own = [("host", "localhost:80"), ("origin", "http://localhost:80")];
        assert!(is_for_this_machine(&headers(&own)).is_ok());
        for origin in ["http://localhost:81", "https://localhost:80", "null"] {
            let foreign = [("host", "localhost:80"), ("origin", origin)];
            assert!(is_for_this_machine(&headers(&foreign)).is_err(), "{origin}");
        }
    }

    #[test]
    fn a_token_says_neither_itself_nor_its_digest() {
        let toml = "a = { token = \"0123456789abcdef\", scopes = [\"read\"] }";
        let tokens: Tokens = toml::from_str(toml).unwrap();
        assert!(tokens.find("0123456789abcdef").is_some());
        assert!(tokens.find("0123456789abcdeF").is_none());
        let shown = format!("{tokens:?}");
        let digest = Sha256::of(b"0123456789abcdef").to_string();
        assert!(
            !shown.contains("0123456789") && !shown.contains(&digest),
            "{shown}"
        );
    }

    #[test]
    fn a_token_that_is_none_is_refused_with_the_reason() {
        let long = "0123456789abcdef";
        for (token, why) in [
            ("token = \"short\", scopes = [\"read\"]".to_owned(), "16"),
            (format!("token = \"{long}\", scopes = []"), "empty"),
            ("scopes = [\"read\"]".to_owned(), "either"),
            (
                format!("token = \"{long} {long}\", scopes = [\"read\"]"),
                "header",
            ),
            (
                "sha256 = \"12\", scopes = [\"read\"]".to_owned(),
                "64 hexadecimal",
            ),
            (
                format!("token = \"{long}\", scopes = [\"all\"]"),
                "unknown variant",
            ),
        ] {
            let error = toml::from_str::<Tokens>(&format!("a = {{ {token} }}")).unwrap_err();
            assert!(error.message().contains(why), "{token}: {error}");
        }
    }
}
