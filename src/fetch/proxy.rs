//! Which proxy a request goes through, if any.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Url;

use super::classify;
use super::error::{Cause, SetupError};
use super::resolver::{LookupError, Resolver};
use super::settings::{ProxySetting, parse_proxy};

/// A target of each scheme. `NO_PROXY` matches a name under `.invalid` only if it matches everything.
const ANY: [&str; 2] = ["http://any.invalid/", "https://any.invalid/"];

/// The proxies of this process.
///
/// Decides by the same rules as the connector does, so that the guard knows what is going to happen.
pub(super) struct Proxies {
    /// `None` if no request goes through a proxy.
    matcher: Option<Matcher>,
    routes: Routes,
}

/// The proxy for each scheme of targets, and the hosts that need none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Routes {
    http: Option<Url>,
    https: Option<Url>,
    /// In the form of `NO_PROXY`.
    direct: String,
}

impl Proxies {
    /// # Errors
    ///
    /// When a variable of the environment holds something else than a proxy. A request that went out without it would
    /// show this machine's own address.
    pub(super) fn new(setting: &ProxySetting) -> Result<Self, SetupError> {
        let routes = match setting {
            ProxySetting::Direct => Routes::default(),
            ProxySetting::Url(url) => Routes {
                http: Some(url.clone()),
                https: Some(url.clone()),
                direct: String::new(),
            },
            ProxySetting::Environment => Routes::from_environment(|name| std::env::var_os(name))?,
        };
        let of = |url: &Option<Url>| url.as_ref().map_or_else(String::new, Url::to_string);
        let matcher = Matcher::builder()
            .http(of(&routes.http))
            .https(of(&routes.https))
            .no(routes.direct.as_str())
            .build();
        let is_used = ANY
            .iter()
            .any(|uri| matcher.intercept(&Uri::from_static(uri)).is_some());
        Ok(Self {
            matcher: is_used.then_some(matcher),
            routes,
        })
    }

    /// Returns the same proxies for the connector.
    ///
    /// # Errors
    ///
    /// When the connector refuses one of them.
    pub(super) fn for_connector(&self) -> Result<Vec<reqwest::Proxy>, SetupError> {
        let direct = || reqwest::NoProxy::from_string(&self.routes.direct);
        let http = self.routes.http.clone().map(reqwest::Proxy::http);
        let https = self.routes.https.clone().map(reqwest::Proxy::https);
        (http.into_iter().chain(https))
            .map(|proxy| {
                let proxy = proxy.map_err(|error| SetupError::Client {
                    source: classify::cause(&error),
                })?;
                Ok(proxy.no_proxy(direct()))
            })
            .collect()
    }

    /// Returns all proxies: at most one per scheme of targets.
    pub(super) fn all(&self) -> Vec<Proxy> {
        let Some(matcher) = &self.matcher else {
            return Vec::new();
        };
        ANY.iter()
            .filter_map(|uri| matcher.intercept(&Uri::from_static(uri)))
            .map(|intercept| Proxy::new(&intercept))
            .collect()
    }

    /// The proxy that a request for `url` goes through.
    pub(super) fn of(&self, url: &Url) -> Option<Proxy> {
        let matcher = self.matcher.as_ref()?;
        let intercept = matcher.intercept(&url.as_str().parse().ok()?)?;
        Some(Proxy::new(&intercept))
    }
}

impl Routes {
    /// Reads the variables that curl reads. Capitals win over small letters, and an empty variable counts as unset.
    fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, SetupError> {
        // A CGI program gets a client's `Proxy` header as `HTTP_PROXY`.
        if get("REQUEST_METHOD").is_some() {
            return Ok(Self::default());
        }
        let first = |names: [&'static str; 2]| {
            let found = names.into_iter().find_map(|name| Some((name, get(name)?)));
            found.filter(|(_, value)| !value.is_empty())
        };
        let proxy = |names| match first(names) {
            Some((variable, value)) => {
                parse_variable(&value)
                    .map(Some)
                    .map_err(|problem| SetupError::ProxyVariable {
                        variable,
                        source: Cause(problem),
                    })
            }
            None => Ok(None),
        };
        let all = proxy(["ALL_PROXY", "all_proxy"])?;
        let direct = first(["NO_PROXY", "no_proxy"]);
        Ok(Self {
            http: proxy(["HTTP_PROXY", "http_proxy"])?.or_else(|| all.clone()),
            https: proxy(["HTTPS_PROXY", "https_proxy"])?.or(all),
            direct: direct.map_or_else(String::new, |(_, value)| {
                value.to_string_lossy().into_owned()
            }),
        })
    }
}

/// Parses a variable's value. Unlike in `--proxy`, a host without a port is a proxy, since nothing else can be meant.
fn parse_variable(value: &OsString) -> Result<Url, String> {
    let value = value.to_str().ok_or("it is no UTF-8 text")?;
    parse_proxy(value).or_else(|problem| match value.contains("://") {
        true => Err(problem.to_string()),
        false => parse_proxy(&format!("http://{value}")).map_err(|_| problem.to_string()),
    })
}

/// One proxy. Prints without credentials, which the matcher keeps apart.
#[derive(Clone)]
pub(super) struct Proxy {
    uri: Uri,
    has_credentials: bool,
}

impl Proxy {
    fn new(intercept: &Intercept) -> Self {
        Self {
            uri: intercept.uri().clone(),
            has_credentials: intercept.raw_auth().is_some() || intercept.basic_auth().is_some(),
        }
    }

    /// The proxy that `url` names; `None`: the connector would go without it, for it reads nothing else in `url`.
    pub(super) fn of_url(url: &Url) -> Option<Self> {
        let matcher = Matcher::builder().all(url.as_str()).build();
        let intercept = matcher.intercept(&Uri::from_static("http://any.invalid/"))?;
        let proxy = Self::new(&intercept);
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
        self.uri.host().unwrap_or_default()
    }

    /// Returns `true` if its URL holds a user name or password.
    pub(super) fn has_credentials(&self) -> bool {
        self.has_credentials
    }

    /// Whether the proxy resolves the target's name, rather than this process.
    pub(super) fn resolves(&self) -> bool {
        !matches!(self.uri.scheme_str(), Some("socks4" | "socks5"))
    }

    /// Returns `true` if `name` is the proxy's own host name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.host().eq_ignore_ascii_case(name)
    }

    /// Returns `true` if the proxy accepts only IPv4 addresses, as SOCKS 4 does.
    fn is_ipv4_only(&self) -> bool {
        self.uri.scheme_str() == Some("socks4")
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
        write!(f, "{}://", self.uri.scheme_str().unwrap_or("http"))?;
        // The authority without what stands before the `@`, should any be left.
        let authority = self.uri.authority().map_or("", |a| a.as_str());
        f.write_str(authority.rsplit('@').next().unwrap_or(authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(variables: &[(&str, &str)]) -> Result<Routes, String> {
        let get = |name: &str| {
            let found = variables.iter().find(|(given, _)| *given == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Routes::from_environment(get).map_err(|error| crate::target::describe(&error))
    }

    #[test]
    fn the_environment_names_proxies_as_for_curl() {
        for (variables, http, https) in [
            (&[][..], None, None),
            (&[("http_proxy", "")], None, None),
            (
                &[("http_proxy", "p.example:3128")],
                Some("http://p.example:3128/"),
                None,
            ),
            (
                &[("http_proxy", "p.example")],
                Some("http://p.example/"),
                None,
            ),
            (
                &[("ALL_PROXY", "socks://p.example:1")],
                Some("socks4://p.example:1"),
                Some("socks4://p.example:1"),
            ),
            (
                &[("all_proxy", "http://a:1"), ("https_proxy", "http://b:2")],
                Some("http://a:1/"),
                Some("http://b:2/"),
            ),
            (
                &[("HTTP_PROXY", "http://a:1"), ("http_proxy", "foo://x")],
                Some("http://a:1/"),
                None,
            ),
            (
                &[("HTTP_PROXY", ""), ("http_proxy", "http://a:1")],
                None,
                None,
            ),
            (
                &[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://a:1")],
                None,
                None,
            ),
        ] {
            let routes = routes(variables).unwrap();
            assert_eq!(routes.http.as_ref().map(Url::as_str), http, "{variables:?}");
            let shown = routes.https.as_ref().map(Url::as_str);
            assert_eq!(shown, https, "{variables:?}");
        }
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_an_error_of_its_name() {
        for value in [
            "foo://x",
            "socks6://127.0.0.1:1",
            "http://",
            "foo://ann:hush@x",
            "ann:hush@:1",
            "http://a{b:3128",
        ] {
            for name in ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "https_proxy"] {
                let error = routes(&[(name, value)]).unwrap_err();
                assert!(error.contains(name), "{error}");
                assert!(!error.contains("hush"), "{error}");
                assert!(error.contains("http://proxy.example:3128"), "{error}");
            }
        }
    }
}
