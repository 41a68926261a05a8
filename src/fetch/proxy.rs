//! Which proxy a request goes through, if any.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::resolver::{LookupError, Resolver};
use super::settings::ProxySetting;

/// A target of each scheme. `NO_PROXY` matches a name under `.invalid` only if it matches everything.
const ANY: [&str; 2] = ["http://any.invalid/", "https://any.invalid/"];

/// The proxies of this process.
///
/// Decides by the same rules as the connector does, so that the guard knows what is going to happen.
pub(super) struct Proxies(Option<Matcher>);

impl Proxies {
    pub(super) fn new(setting: &ProxySetting) -> Self {
        let matcher = match setting {
            ProxySetting::Direct => return Self(None),
            ProxySetting::Url(url) => Matcher::builder().all(url.as_str()).build(),
            ProxySetting::Environment => Matcher::from_env(),
        };
        let is_used = ANY
            .iter()
            .any(|uri| matcher.intercept(&Uri::from_static(uri)).is_some());
        Self(is_used.then_some(matcher))
    }

    /// Returns all proxies: at most one per scheme of targets.
    pub(super) fn all(&self) -> Vec<Proxy> {
        let Some(matcher) = &self.0 else {
            return Vec::new();
        };
        ANY.iter()
            .filter_map(|uri| matcher.intercept(&Uri::from_static(uri)))
            .map(|intercept| Proxy(intercept.uri().clone()))
            .collect()
    }

    /// The proxy that a request for `url` goes through.
    pub(super) fn of(&self, url: &Url) -> Option<Proxy> {
        let matcher = self.0.as_ref()?;
        let intercept = matcher.intercept(&url.as_str().parse().ok()?)?;
        Some(Proxy(intercept.uri().clone()))
    }
}

/// One proxy. Prints without credentials, which the matcher keeps apart.
#[derive(Clone)]
pub(super) struct Proxy(Uri);

impl Proxy {
    /// The proxy that `url` names; `None`: the connector would go without it, for it reads nothing else in `url`.
    pub(super) fn of_url(url: &Url) -> Option<Self> {
        let matcher = Matcher::builder().all(url.as_str()).build();
        let intercept = matcher.intercept(&Uri::from_static("http://any.invalid/"))?;
        let proxy = Self(intercept.uri().clone());
        url.host_str()
            .is_some_and(|host| host.eq_ignore_ascii_case(proxy.host()))
            .then_some(proxy)
    }

    /// Its address, where that is literal.
    pub(super) fn address(&self) -> Option<IpAddr> {
        let host = self.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        bare.unwrap_or(host).parse().ok()
    }

    /// Name or address of the proxy itself.
    pub(super) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// Whether the proxy resolves the target's name, rather than this process.
    pub(super) fn resolves(&self) -> bool {
        !matches!(self.0.scheme_str(), Some("socks4" | "socks5"))
    }

    /// Returns `true` if `name` is the proxy's own host name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.host().eq_ignore_ascii_case(name)
    }

    /// Returns `true` if the proxy accepts only IPv4 addresses, as SOCKS 4 does.
    fn is_ipv4_only(&self) -> bool {
        self.0.scheme_str() == Some("socks4")
    }
}

/// The resolver of a client whose requests all go through `proxies`.
///
/// Names of proxies that the operator chose may resolve to any address. All other names have to pass the guard,
/// including those of targets if a proxy accepts addresses only.
#[derive(Clone)]
pub(super) struct ProxyResolver {
    resolver: Resolver,
    proxies: Vec<Proxy>,
    is_trusted: bool,
}

impl ProxyResolver {
    pub(super) fn new(resolver: &Resolver, proxies: Vec<Proxy>, is_trusted: bool) -> Self {
        Self {
            resolver: resolver.clone(),
            proxies,
            is_trusted,
        }
    }
}

impl Resolve for ProxyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_proxy = self
            .proxies
            .iter()
            .any(|proxy| proxy.is_called(name.as_str()));
        let is_ipv4_only = !is_proxy && self.proxies.iter().any(Proxy::is_ipv4_only);
        let is_free = is_proxy && self.is_trusted;
        if !is_free && !is_ipv4_only {
            return self.resolver.resolve(name);
        }
        let resolver = self.resolver.clone();
        Box::pin(async move {
            let found = match is_free {
                true => resolver.lookup_any(name.as_str()).await.map_err(Into::into),
                false => resolver.lookup_allowed(name.as_str()).await,
            };
            // Unwrapped, so that code that walks the error chain finds it.
            let mut addresses = match found {
                Ok(addresses) => addresses,
                Err(LookupError::Denied(denied)) => return Err(denied.into()),
                Err(LookupError::Unresolved(unresolved)) => return Err(unresolved.into()),
            };
            // If there is no IPv4 address, the handshake reports that.
            if is_ipv4_only && addresses.iter().any(IpAddr::is_ipv4) {
                addresses.retain(IpAddr::is_ipv4);
            }
            // The connector replaces port 0 with the URL's port.
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.0.scheme_str().unwrap_or("http"))?;
        // The authority without what stands before the `@`, should any be left.
        let authority = self.0.authority().map_or("", |a| a.as_str());
        f.write_str(authority.rsplit('@').next().unwrap_or(authority))
    }
}
