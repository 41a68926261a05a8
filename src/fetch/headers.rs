//! The headers of requests, built once a host, and the rule on where credentials may go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, USER_AGENT};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;
use url::Url;

use super::cookies::Jar;
use super::digest::{AUTHENTICATION_INFO, Login, Offer, Session};
use super::error::SetupError;
use super::hosts::{self, Hosts, host_name};
use super::netrc::Netrc;
use super::redirect::{Reply, Trail};
use super::settings::{Auth, HostSettings, Settings, is_secret};
use crate::local_path::LocalPath;

/// Maximum number of remembered answers to challenges.
const MAX_SESSIONS: usize = 1024;

/// Headers ready to be sent.
#[derive(Debug)]
pub(super) struct Headers {
    any: Sets,
    /// By the name or pattern in `[hosts]`.
    hosts: HashMap<String, Sets>,
    names: Hosts,
    netrc: Loaded<Netrc>,
    cookies: Loaded<Jar>,
    sessions: Arc<Sessions>,
}

/// Selects which of the files that settings name are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// All of them.
    Read,
    /// Those that were not read before. The others keep their content.
    Keep,
}

/// The content of a file when it was read. The default if the settings name no file.
#[derive(Debug)]
struct Loaded<T> {
    path: Option<LocalPath>,
    content: Arc<T>,
}

impl<T: Default> Loaded<T> {
    fn new(
        path: Option<&LocalPath>,
        before: Option<&Self>,
        read: impl FnOnce(&Path) -> Result<T, SetupError>,
    ) -> Result<Self, SetupError> {
        let content = match (path, before) {
            (_, Some(before)) if before.path.as_ref() == path => before.content.clone(),
            (Some(path), _) => Arc::new(read(&private(path))?),
            (None, _) => Arc::default(),
        };
        Ok(Self {
            path: path.cloned(),
            content,
        })
    }
}

/// The `Authorization` that a request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Basic,
    Digest,
    /// A token, or a value from the settings.
    Other,
}

impl Sent {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(AUTHORIZATION).map(HeaderValue::as_bytes) {
            None => Self::Nothing,
            Some(value) if value.starts_with(b"Basic ") => Self::Basic,
            Some(value) if value.starts_with(b"Digest ") => Self::Digest,
            Some(_) => Self::Other,
        }
    }
}

/// A user name and password for one request.
struct Credentials {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl Credentials {
    fn of_url(url: &Url) -> Self {
        Self {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
        }
    }

    fn login(&self) -> Login<'_> {
        Login {
            user: &self.user,
            password: &self.password,
        }
    }
}

/// Answers by origin, as RFC 6454 writes it, and user name.
type ByOrigin = HashMap<(String, Vec<u8>), Reply>;

/// Answers to challenges that origins accepted, by origin and user.
#[derive(Debug, Default)]
struct Sessions {
    /// Set once an origin has accepted one. Until then requests skip the lock.
    is_used: AtomicBool,
    by_origin: Mutex<ByOrigin>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, ByOrigin> {
        // A panic cannot leave the map inconsistent.
        self.by_origin
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, url: &Url, credentials: &Credentials) -> Option<Reply> {
        let key = (hosts::origin(url), credentials.user.clone());
        self.lock().get(&key).cloned()
    }

    fn keep(&self, url: &Url, credentials: Credentials, reply: Reply) {
        let key = (hosts::origin(url), credentials.user);
        let mut sessions = self.lock();
        if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(&key) {
            // Each forgotten answer costs its origin one more challenge.
            sessions.clear();
        }
        sessions.insert(key, reply);
        self.is_used.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
struct Sets {
    /// For the origin that a target names.
    origin: HeaderMap,
    /// For an origin that a redirect led to: without the credentials of `fetch.headers`.
    elsewhere: HeaderMap,
}

impl Headers {
    /// Builds the headers from the settings and the files of cookies and credentials. Keeps the nonces of `before`, and
    /// also the content of its files for [`Files::Keep`].
    pub(super) fn new(
        settings: &Settings,
        hosts: &Hosts,
        before: Option<&Self>,
        files: Files,
    ) -> Result<Self, SetupError> {
        let read = before.filter(|_| files == Files::Keep);
        let mut any = Sets {
            origin: settings.headers.0.clone(),
            elsewhere: HeaderMap::new(),
        };
        for (name, value) in any.origin.iter().filter(|(name, _)| !is_secret(name)) {
            any.elsewhere.append(name, value.clone());
        }
        let by_host = hosts.iter().map(|(name, host)| {
            let own = own(name, host)?;
            let mut sets = any.clone();
            for set in [&mut sets.origin, &mut sets.elsewhere] {
                for (name, value) in &own {
                    set.insert(name, value.clone());
                }
            }
            Ok((name.to_owned(), sets))
        });
        Ok(Self {
            hosts: by_host.collect::<Result<_, _>>()?,
            any,
            names: hosts.clone(),
            netrc: Loaded::new(
                settings.netrc_file.as_ref(),
                read.map(|read| &read.netrc),
                Netrc::read,
            )?,
            cookies: Loaded::new(
                settings.cookies_file.as_ref(),
                read.map(|read| &read.cookies),
                |path| Jar::read(path, SystemTime::now()),
            )?,
            sessions: before.map_or_else(Arc::default, |before| before.sessions.clone()),
        })
    }

    /// Cookies of `fetch.cookies_file`. The chain of each target starts with them.
    pub(super) fn cookies(&self) -> &Jar {
        &self.cookies.content
    }

    fn netrc(&self) -> &Netrc {
        &self.netrc.content
    }

    /// Returns the headers for the request of `trail` to `url`: those of [`of`](Self::of), with credentials from the
    /// netrc file, the answer to a challenge, and cookies. `origin` is the target's own URL.
    pub(super) fn of_hop(&self, url: &Url, origin: &Url, trail: Option<&Trail>) -> HeaderMap {
        let mut headers = self.of(url, origin);
        let reply = self.answer(url, origin, trail);
        let is_asked = matches!(reply, Some((Reply::Basic, _)));
        if !self.netrc().is_empty()
            && !headers.contains_key(AUTHORIZATION)
            && let Some(Credentials { user, password }) = self.credentials(url, origin, is_asked)
            && self.auth(url) != Auth::Digest
            && let Some(value) = basic(&user, &password)
        {
            headers.insert(AUTHORIZATION, value);
        }
        if let Some((Reply::Digest(session), credentials)) = reply
            && self.auth(url) != Auth::Basic
            && let Some(answer) = session.answer(&credentials.login(), url)
        {
            headers.insert(AUTHORIZATION, answer);
        }
        let jar = trail.and_then(Trail::jar).unwrap_or(self.cookies());
        if !jar.is_empty()
            && let Some(value) = jar.header(url, headers.get(COOKIE), SystemTime::now())
        {
            headers.insert(COOKIE, value);
        }
        headers
    }

    /// Returns the answer to a challenge of the origin, on this trail or an earlier one, with the credentials for it.
    fn answer(
        &self,
        url: &Url,
        origin: &Url,
        trail: Option<&Trail>,
    ) -> Option<(Reply, Credentials)> {
        let reply = trail.and_then(Trail::reply);
        if reply.is_none() && !self.sessions.is_used.load(Ordering::Relaxed) {
            return None;
        }
        let credentials = self.credentials(url, origin, true)?;
        let reply = match reply {
            Some(reply) => reply.clone(),
            None => self.sessions.get(url, &credentials)?,
        };
        Some((reply, credentials))
    }

    /// Answers a 401 from `url` with these headers. The request carried `sent`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is missing, if another request would bring the same 401.
    pub(super) fn reply(
        &self,
        url: &Url,
        origin: &Url,
        headers: &HeaderMap,
        sent: Sent,
        challenges: u8,
    ) -> Result<Reply, String> {
        let credentials = self.credentials(url, origin, true);
        let auth = credentials.is_some().then(|| self.auth(url));
        decide(Offer::of(headers), auth, sent, challenges)
    }

    /// Remembers the answer of `trail` after the origin has accepted it, and a next nonce in these headers.
    pub(super) fn accepted(&self, url: &Url, origin: &Url, headers: &HeaderMap, trail: &Trail) {
        let is_new = trail.reply().is_some();
        if !is_new && !headers.contains_key(AUTHENTICATION_INFO) {
            return;
        }
        let Some((reply, credentials)) = self.answer(url, origin, Some(trail)) else {
            return;
        };
        let next = match &reply {
            Reply::Digest(session) => session.next(headers),
            Reply::Basic => None,
        };
        match next {
            Some(next) => {
                let reply = Reply::Digest(Arc::new(next));
                self.sessions.keep(url, credentials, reply);
            }
            None if is_new => self.sessions.keep(url, credentials, reply),
            None => {}
        }
    }

    /// Returns how to send user name and password to the host of `url`.
    fn auth(&self, url: &Url) -> Auth {
        let host = url.host_str().and_then(|host| self.names.get(host));
        host.and_then(|host| host.auth).unwrap_or_default()
    }

    /// Returns user name and password for a request to `url`: from the URL, else from `[hosts]`, else from the netrc
    /// file. `None` if there are none, or if a token or header from the settings takes precedence.
    ///
    /// The `default` entry of the netrc file fits any host, and a list may name any. It counts only if the host `is_asking`.
    fn credentials(&self, url: &Url, origin: &Url, is_asking: bool) -> Option<Credentials> {
        let reach = Reach::of(url, origin);
        if let Some(from) = reach.with_credentials(url, origin) {
            return Some(self.in_url(from, reach));
        }
        let host = host_name(url)?;
        if reach != Reach::Foreign
            && let Some(own) = self.names.get(host)
        {
            if own.token.is_some() || own.headers.0.contains_key(AUTHORIZATION) {
                return None;
            }
            if own.user.is_some() || own.password.is_some() {
                let password = own.password.as_ref().map_or("", |it| it.expose_secret());
                return Some(Credentials {
                    user: own.user.clone().unwrap_or_default().into_bytes(),
                    password: password.into(),
                });
            }
        }
        if reach == Reach::Origin && self.any.origin.contains_key(AUTHORIZATION) {
            return None;
        }
        if reach == Reach::Foreign {
            return None;
        }
        let takes_default = is_asking && reach == Reach::Origin;
        let (user, password) = self.netrc().get(host, None, takes_default)?;
        Some(Credentials {
            user: user.into(),
            password: password.into(),
        })
    }

    /// Returns the credentials in `url`. If it has only a user name, the password may come from the netrc file, as far as
    /// credentials reach.
    fn in_url(&self, url: &Url, reach: Reach) -> Credentials {
        let mut credentials = Credentials::of_url(url);
        if reach != Reach::Foreign
            && url.password().is_none()
            && let Some(user) = std::str::from_utf8(&credentials.user).ok()
            && let Some(host) = host_name(url)
            && let Some((_, password)) = self.netrc().get(host, Some(user), false)
        {
            credentials.password = password.into();
        }
        credentials
    }

    /// Returns the `User-Agent` for a request to `url`.
    pub(super) fn user_agent(&self, url: &Url) -> Option<&HeaderValue> {
        let own = url
            .host_str()
            .and_then(|host| self.hosts.get(self.names.key(host)?));
        own.unwrap_or(&self.any).origin.get(USER_AGENT)
    }

    /// The headers of a request for `url`, which the target at `origin` led to.
    ///
    /// Credentials go to the origin (scheme, host and port, RFC 6454) that they were given for. After a
    /// redirect elsewhere, `fetch.headers` lose theirs, and a host's own are added only at a default port,
    /// and never over plain HTTP when the target was asked for by HTTPS.
    pub(super) fn of(&self, url: &Url, origin: &Url) -> HeaderMap {
        let reach = Reach::of(url, origin);
        let own = match reach {
            Reach::Foreign => None,
            _ => url
                .host_str()
                .and_then(|host| self.hosts.get(self.names.key(host)?)),
        };
        let sets = own.unwrap_or(&self.any);
        let mut headers = if reach == Reach::Origin {
            &sets.origin
        } else {
            &sets.elsewhere
        }
        .clone();
        if let Some(from) = reach.with_credentials(url, origin) {
            let Credentials { user, password } = self.in_url(from, reach);
            match basic(&user, &password).filter(|_| self.auth(url) != Auth::Digest) {
                Some(value) => headers.insert(AUTHORIZATION, value),
                None => headers.remove(AUTHORIZATION),
            };
        }
        headers
    }
}

/// How far credentials reach, from the target's own URL to the URL that redirects led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Same origin (scheme, host and port, RFC 6454) as the target's own URL.
    Origin,
    /// Another origin. It gets the credentials that the settings have for its host.
    Other,
    /// Another origin that gets no credentials: it has a port of its own, or is plain HTTP after HTTPS.
    Foreign,
}

impl Reach {
    fn of(url: &Url, origin: &Url) -> Self {
        let is_downgrade = origin.scheme() == "https" && url.scheme() == "http";
        if is_same_origin(url, origin) {
            Self::Origin
        } else if url.port().is_none() && !is_downgrade {
            Self::Other
        } else {
            Self::Foreign
        }
    }

    /// Returns the URL whose credentials apply. `url`'s own come first. `Url::join` keeps credentials only for
    /// relative redirects, so an absolute redirect back to the same origin takes those of the target's URL.
    fn with_credentials<'a>(self, url: &'a Url, origin: &'a Url) -> Option<&'a Url> {
        if has_credentials(url) {
            return Some(url);
        }
        Some(origin).filter(|origin| self == Self::Origin && has_credentials(origin))
    }
}

/// Decides whether another request may cure a 401, and how it authenticates. `auth` is `None` without credentials.
fn decide(offer: Offer, auth: Option<Auth>, sent: Sent, challenges: u8) -> Result<Reply, String> {
    let asks = (!offer.unsupported.is_empty()).then(|| {
        format!(
            "it asks for {}, which is not supported",
            offer.unsupported.join(" or ")
        )
    });
    let Some(auth) = auth else {
        return Err(match asks {
            _ if sent == Sent::Other => "it refused the `Authorization` of the settings".to_owned(),
            Some(asks) if !(offer.basic || offer.bearer || offer.digest.is_some()) => asks,
            _ if offer.bearer && !offer.basic && offer.digest.is_none() => {
                "`[hosts]` takes a token".to_owned()
            }
            _ => "`[hosts]` takes user and password, or a token".to_owned(),
        });
    };
    let refused = || Err("it refused user name and password".to_owned());
    match offer.digest {
        Some(challenge) if auth != Auth::Basic => {
            // An older nonce may have expired even if the origin does not say so. A nonce from the previous answer
            // has not.
            let is_worth_it = match (sent, challenges) {
                (Sent::Digest, 1) => challenge.is_stale,
                (_, challenges) => challenges == 0,
            };
            if is_worth_it {
                return Ok(Reply::Digest(Arc::new(Session::new(challenge))));
            }
            refused()
        }
        Some(_) if !offer.basic => {
            Err("it asks for Digest, and `auth = \"basic\"` rules that out".to_owned())
        }
        _ if offer.basic && auth == Auth::Digest => {
            Err("it takes Basic, and `auth = \"digest\"` sends no password in clear".to_owned())
        }
        _ if offer.basic && matches!(sent, Sent::Digest | Sent::Nothing) && challenges == 0 => {
            Ok(Reply::Basic)
        }
        _ if offer.basic => refused(),
        _ => asks.map_or_else(refused, Err),
    }
}

/// Expands `~/` to the home directory in the path of a file of secrets. Warns if every user may read the file.
fn private(path: &Path) -> PathBuf {
    let path = match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    };
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(&path) {
        use std::os::unix::fs::PermissionsExt as _;
        if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
            let path = path.display();
            tracing::warn!("everybody may read `{path}`; `chmod 600 {path}` keeps it private");
        }
    }
    path
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn decoded(part: &str) -> Vec<u8> {
    percent_decode_str(part).collect()
}

/// What `[hosts]` adds for one host.
fn own(name: &str, host: &HostSettings) -> Result<HeaderMap, SetupError> {
    let mut headers = host.headers.0.clone();
    let authorization = if let Some(token) = &host.token {
        let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
        value.ok().map(|mut value| {
            value.set_sensitive(true);
            value
        })
    } else if host.auth == Some(Auth::Digest) {
        // Sent only in answer to a challenge.
        return Ok(headers);
    } else if host.user.is_some() || host.password.is_some() {
        let user = host.user.as_deref().unwrap_or_default();
        let password = host.password.as_ref().map_or("", |p| p.expose_secret());
        basic(user.as_bytes(), password.as_bytes())
    } else {
        return Ok(headers);
    };
    let value = authorization.ok_or_else(|| SetupError::Credentials {
        host: name.to_owned(),
    })?;
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

/// `Authorization: Basic`, RFC 7617; `None` where there is a control character, which the scheme rules out.
fn basic(user: &[u8], password: &[u8]) -> Option<HeaderValue> {
    if user.iter().chain(password).any(u8::is_ascii_control) {
        return None;
    }
    let pair = BASE64_STANDARD.encode([user, b":", password].concat());
    let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Scheme, host and port are the same.
fn is_same_origin(a: &Url, b: &Url) -> bool {
    std::ptr::eq(a, b)
        || (a.scheme() == b.scheme()
            && a.host_str() == b.host_str()
            && a.port_or_known_default() == b.port_or_known_default())
}

#[cfg(test)]
mod tests {
    use http::header::WWW_AUTHENTICATE;

    use super::*;

    #[test]
    fn a_401_is_answered_where_that_may_help_and_otherwise_explained() {
        use Sent::{Basic, Digest, Nothing, Other};
        const MD5: &str = "Digest realm=\"r\", nonce=\"n\"";
        const STALE: &str = "Digest realm=\"r\", nonce=\"n\", stale=true";
        let (auto, basic, digest) = (Some(Auth::Auto), Some(Auth::Basic), Some(Auth::Digest));
        for (offer, auth, sent, challenges, expected) in [
            (MD5, auto, Basic, 0, "Digest"),
            (MD5, digest, Nothing, 0, "Digest"),
            (
                "Basic realm=\"b\", Digest nonce=\"n\"",
                auto,
                Basic,
                0,
                "Digest",
            ),
            (MD5, auto, Digest, 0, "Digest"),
            (MD5, auto, Digest, 1, "refused user name"),
            (STALE, auto, Digest, 1, "Digest"),
            (STALE, auto, Digest, 2, "refused user name"),
            ("Basic", auto, Digest, 0, "Basic"),
            ("Basic", auto, Digest, 1, "refused user name"),
            ("Basic", auto, Nothing, 0, "Basic"),
            ("Basic", auto, Nothing, 1, "refused user name"),
            ("Basic", auto, Basic, 0, "refused user name"),
            ("Basic", basic, Basic, 0, "refused user name"),
            ("Basic", digest, Nothing, 0, "sends no password in clear"),
            (MD5, basic, Basic, 0, "rules that out"),
            ("", auto, Basic, 0, "refused user name"),
            (
                "Negotiate, NTLM",
                auto,
                Basic,
                0,
                "asks for Negotiate or NTLM, which is not supported",
            ),
            (
                "Negotiate",
                None,
                Nothing,
                0,
                "asks for Negotiate, which is not supported",
            ),
            (
                "Digest nonce=\"n\", qop=\"auth-int\"",
                auto,
                Basic,
                0,
                "`qop=auth-int` only, which is not supported",
            ),
            ("Negotiate, Basic", None, Nothing, 0, "user and password"),
            ("Bearer", None, Nothing, 0, "takes a token"),
            ("Bearer", None, Other, 0, "refused the `Authorization`"),
            (MD5, None, Nothing, 0, "user and password"),
            ("", None, Nothing, 0, "user and password"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(offer));
            let found = match decide(Offer::of(&headers), auth, sent, challenges) {
                Ok(Reply::Basic) => "Basic".to_owned(),
                Ok(Reply::Digest(_)) => "Digest".to_owned(),
                Err(why) => why,
            };
            assert!(
                found.contains(expected),
                "{offer} {auth:?} {sent:?} {challenges}: {found}"
            );
            assert_eq!(found.len() > 6, expected.len() > 6, "{offer}: {found}");
        }
    }

    fn headers(hosts: &str, netrc: &str) -> Headers {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), netrc).unwrap();
        let mut config: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
        let mut settings: Settings = config.remove("fetch").unwrap().try_into().unwrap();
        settings.netrc_file = Some(crate::local_path::LocalPath::new(file.path()).unwrap());
        Headers::new(
            &settings,
            &toml::from_str(hosts).unwrap(),
            None,
            Files::Read,
        )
        .unwrap()
    }

    #[test]
    fn a_netrc_file_comes_last_and_reaches_no_other_host() {
        let headers = headers(
            "[\"hosts.example\"]\nuser = \"h\"\npassword = \"h\"\n[\"token.example\"]\ntoken = \"t\"\n\
             [\"digest.example\"]\nauth = \"digest\"",
            "machine a.example login a password a\nmachine hosts.example login no password no\n\
             machine token.example login no password no\nmachine digest.example login d password d\n\
             machine named.example login n1 password n1\nmachine named.example login n2 password n2\n\
             default login def password def\n",
        );
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        for (url, origin, expected) in [
            ("http://a.example/", "http://a.example/", basic("a:a")),
            ("http://a.example:81/", "http://a.example:81/", basic("a:a")),
            (
                "http://u:p@a.example/",
                "http://u:p@a.example/",
                basic("u:p"),
            ),
            (
                "http://n2@named.example/",
                "http://n2@named.example/",
                basic("n2:n2"),
            ),
            (
                "http://n3@named.example/",
                "http://n3@named.example/",
                basic("n3:"),
            ),
            (
                "http://n1@named.example:81/",
                "http://n1@named.example:81/",
                basic("n1:n1"),
            ),
            (
                "http://hosts.example/",
                "http://hosts.example/",
                basic("h:h"),
            ),
            (
                "http://token.example/",
                "http://token.example/",
                "Bearer t".to_owned(),
            ),
            (
                "http://digest.example/",
                "http://digest.example/",
                String::new(),
            ),
            // The default is for hosts that ask.
            (
                "http://other.example/",
                "http://other.example/",
                String::new(),
            ),
            // After redirects, an entry for the host by name applies, and the default does not.
            ("https://a.example/", "http://b.example/", basic("a:a")),
            ("http://other.example/", "http://a.example/", String::new()),
            ("http://a.example:81/", "http://a.example/", String::new()),
            ("http://a.example/", "https://a.example/", String::new()),
            // Nor does a URL with a user name get the password at another port, or in clear.
            (
                "http://n1@named.example/",
                "http://a.example/",
                basic("n1:n1"),
            ),
            (
                "http://n1@named.example:81/",
                "http://a.example/",
                basic("n1:"),
            ),
            (
                "http://n1@named.example/",
                "https://a.example/",
                basic("n1:"),
            ),
        ] {
            let sent = headers.of_hop(&url.parse().unwrap(), &origin.parse().unwrap(), None);
            let value = sent
                .get(AUTHORIZATION)
                .map_or("", |value| value.to_str().unwrap());
            assert_eq!(value, expected, "{url} after {origin}");
        }
        let url = "http://digest.example/".parse().unwrap();
        assert!(headers.credentials(&url, &url, false).is_some());
        assert!(!format!("{headers:?}").contains("def"));
    }

    #[test]
    fn the_default_of_a_netrc_file_is_for_hosts_that_ask() {
        let headers = headers("", "default login def password def\n");
        let [a, b] = ["http://a.example/", "http://b.example/"].map(|url| url.parse().unwrap());
        let sent = |url: &Url, origin: &Url, trail: Option<&Trail>| {
            let headers = headers.of_hop(url, origin, trail);
            headers.get(AUTHORIZATION).cloned()
        };
        let basic = basic(b"def", b"def");
        assert_eq!(sent(&a, &a, None), None);
        let mut trail = Trail::new(0);
        trail.answer(Reply::Basic);
        assert_eq!(sent(&a, &a, Some(&trail)), basic);
        // Who asked once, and took it, need not ask again.
        headers.accepted(&a, &a, &HeaderMap::new(), &trail);
        assert_eq!(sent(&a, &a, None), basic);
        assert_eq!(sent(&b, &b, None), None);
        assert_eq!(sent(&a, &b, None), None);
    }
}
