//! The headers of requests, built once a host, and the rule on where credentials may go.

use std::collections::HashMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;
use url::Url;

use super::error::SetupError;
use super::settings::{HostSettings, Hosts, Settings, is_secret};

/// Headers ready to be sent.
#[derive(Debug)]
pub(super) struct Headers {
    any: Sets,
    /// By the name or pattern in `[hosts]`.
    hosts: HashMap<String, Sets>,
    names: Hosts,
}

#[derive(Debug, Clone)]
struct Sets {
    /// For the origin that a target names.
    origin: HeaderMap,
    /// For an origin that a redirect led to: without the credentials of `fetch.headers`.
    elsewhere: HeaderMap,
}

impl Headers {
    pub(super) fn new(settings: &Settings, hosts: &Hosts) -> Result<Self, SetupError> {
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
        })
    }

    /// The headers of a request for `url`, which the target at `origin` led to.
    ///
    /// Credentials go to the origin (scheme, host and port, RFC 6454) that they were given for. After a
    /// redirect elsewhere, `fetch.headers` lose theirs, and a host's own are added only at a default port,
    /// and never over plain HTTP when the target was asked for by HTTPS.
    pub(super) fn of(&self, url: &Url, origin: &Url) -> HeaderMap {
        let is_origin = is_same_origin(url, origin);
        let is_downgrade = origin.scheme() == "https" && url.scheme() == "http";
        let own = if is_origin || (url.port().is_none() && !is_downgrade) {
            url.host_str()
                .and_then(|host| self.hosts.get(self.names.key(host)?))
        } else {
            None
        };
        let sets = own.unwrap_or(&self.any);
        let mut headers = if is_origin {
            &sets.origin
        } else {
            &sets.elsewhere
        }
        .clone();
        // Those in the URL itself belong to it. `Url::join` keeps them for a relative redirect only, so an
        // absolute one back to the same origin takes the target's.
        let credentials = if has_credentials(url) {
            Some(url)
        } else {
            Some(origin).filter(|origin| is_origin && has_credentials(origin))
        };
        if let Some(from) = credentials
            && let Some(value) = basic(
                &decoded(from.username()),
                &decoded(from.password().unwrap_or_default()),
            )
        {
            headers.insert(AUTHORIZATION, value);
        }
        headers
    }
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
