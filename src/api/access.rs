//! Who may do what.
//!
//! With tokens, a request has to bring one of them (RFC 6750). Without, only this machine is listened to, and then only
//! requests that mean this machine: a page in a browser may send some as well, under a name of its own (`Host`), or for
//! itself (`Origin`). Whoever comes by the socket has been let in by its rights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::origin::{Origins, is_for_this_machine};
use super::rate::Rates;
use super::{Problem, Settings};
use crate::local_path::LocalPath;
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
    digest: Digest,
    scopes: BTreeSet<Scope>,
}

/// What a token is known by.
#[derive(Clone)]
enum Digest {
    Is(Sha256),
    /// That of the token in a file, which only the daemon needs to be able to read.
    Of(LocalPath),
}

/// As it stands in the settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    token: Option<SecretString>,
    token_file: Option<LocalPath>,
    #[serde(default)]
    sha256: Option<Sha256>,
    scopes: BTreeSet<Scope>,
}

/// A shorter token can be guessed.
const SHORTEST: usize = 16;

impl TryFrom<Written> for Token {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let digest = match (written.token, written.token_file, written.sha256) {
            (Some(token), None, None) => Digest::Is(digest_of(token.expose_secret(), "`token`")?),
            (None, Some(path), None) => Digest::Of(path),
            (None, None, Some(sha256)) => Digest::Is(sha256),
            _ => {
                let expected =
                    "expected one of `token`, `token_file` and `sha256`, the digest of the token";
                return Err(expected.to_owned());
            }
        };
        if written.scopes.is_empty() {
            let expected = "`scopes` is empty; expected some of \"read\", \"write\", \"admin\"";
            return Err(expected.to_owned());
        }
        let scopes = written.scopes;
        Ok(Self { digest, scopes })
    }
}

fn digest_of(token: &str, name: &str) -> Result<Sha256, String> {
    if token.len() < SHORTEST {
        return Err(format!(
            "{name} is shorter than {SHORTEST} characters; `openssl rand -hex 32` makes one"
        ));
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{name} holds what no header can; use letters and digits"
        ));
    }
    Ok(Sha256::of(token.as_bytes()))
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

    /// The same once the files are read.
    fn read(&self) -> anyhow::Result<Self> {
        let mut tokens = self.clone();
        for (name, token) in &mut tokens.0 {
            if let Digest::Of(path) = &token.digest {
                let named = || {
                    format!(
                        "cannot use `api.tokens.{name}.token_file`, `{}`",
                        path.display()
                    )
                };
                let text = std::fs::read_to_string(path).with_context(named)?;
                let sha256 = digest_of(text.trim_end_matches(['\r', '\n']), "the token");
                token.digest = Digest::Is(sha256.map_err(anyhow::Error::msg).with_context(named)?);
            }
        }
        Ok(tokens)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The name and the scopes of a token. Takes as long for a wrong one as for a right one.
    fn find(&self, token: &str) -> Option<(&str, &BTreeSet<Scope>)> {
        let sha256 = Sha256::of(token.as_bytes());
        let mut found = None;
        for (name, Token { digest, scopes }) in &self.0 {
            let Digest::Is(known) = digest else { continue };
            let pairs = known.0.iter().zip(&sha256.0);
            if pairs.fold(0, |differ, (a, b)| differ | (a ^ b)) == 0 {
                found = Some((name.as_str(), scopes));
            }
        }
        found
    }
}

/// Who may do what at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access(Arc<RwLock<Arc<Rules>>>);

/// What `[api]` says of requests.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    tokens: Tokens,
    pub(super) origins: Origins,
    pub(super) rates: Rates,
    pub(super) access_log: bool,
    /// Whether connections are by TLS.
    is_secure: bool,
}

/// The name of the token that a request brought.
#[derive(Debug, Clone)]
pub(super) struct Name(pub(super) String);

impl Access {
    /// Goes by other rules from now on.
    pub(crate) fn set(&self, rules: Rules) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Rules {
    /// Reads the files of tokens.
    ///
    /// # Errors
    ///
    /// When one cannot be used.
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            tokens: settings.tokens.read()?,
            origins: settings.cors_origins.clone(),
            rates: Rates::new(settings),
            access_log: settings.access_log,
            is_secure: settings.tls.is_on(),
        })
    }

    /// The name of the token that lets it in; `None`: it takes none.
    fn judge(&self, request: &Request, scope: Scope) -> Result<Option<Name>, Problem> {
        let headers = request.headers();
        if self.tokens.is_empty() {
            let scheme = if self.is_secure { "https" } else { "http" };
            is_for_this_machine(headers, scheme, request.method(), &self.origins)?;
            return Ok(None);
        }
        let Some(token) = bearer(headers) else {
            let detail = "this takes a token: `Authorization: Bearer …`";
            return Err(unauthorised(detail, ""));
        };
        let Some((name, scopes)) = self.tokens.find(token) else {
            return Err(unauthorised(
                "nobody has this token",
                ", error=\"invalid_token\"",
            ));
        };
        if scopes.contains(&scope) {
            return Ok(Some(Name(name.to_owned())));
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
    if request.extensions().get() == Some(&Way::Socket) {
        return next.run(request).await;
    }
    let rules = access.rules();
    let judged = rules.judge(&request, scope).and_then(|name| {
        let counted = rules
            .rates
            .count(name.as_ref().map(|Name(name)| name.as_str()));
        counted.map(|()| name)
    });
    match judged {
        Ok(name) => {
            let mut response = next.run(request).await;
            if let Some(name) = name {
                response.extensions_mut().insert(name);
            }
            response
        }
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("scopes = [\"read\"]".to_owned(), "one of"),
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
