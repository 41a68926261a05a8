//! Which proxy a request goes through, if any.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use url::Url;

use super::settings::ProxySetting;

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
        // `NO_PROXY` cannot matter for a name under `.invalid` unless it holds for all.
        let is_used = ["http://any.invalid/", "https://any.invalid/"]
            .into_iter()
            .any(|uri| matcher.intercept(&Uri::from_static(uri)).is_some());
        Self(is_used.then_some(matcher))
    }

    /// Whether there is any.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
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
        self.0.scheme_str() != Some("socks5")
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
