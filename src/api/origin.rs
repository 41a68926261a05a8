//! Where a request comes from, as browsers say it, and which pages of other sites may ask (CORS, the Fetch standard).

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use tower::{Layer as _, Service as _};
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

use super::access::Access;
use super::{Problem, log};

/// How long a browser may remember what it was allowed.
const REMEMBERED: std::time::Duration = std::time::Duration::from_secs(600);

/// `api.cors_origins`: the sites whose pages may ask, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Origins {
    any: bool,
    sites: Vec<String>,
}

impl TryFrom<Vec<String>> for Origins {
    type Error = String;

    fn try_from(written: Vec<String>) -> Result<Self, String> {
        let mut origins = Self::default();
        for site in written {
            if site == "*" {
                origins.any = true;
                continue;
            }
            let own = Url::parse(&site).map(|url| url.origin());
            let is_one = own.is_ok_and(|own| own.is_tuple() && own.ascii_serialization() == site);
            if !is_one || !site.starts_with("http") {
                return Err(format!(
                    "`{site}` is no origin; expected one such as \"https://gallery.example.org\", or \"*\""
                ));
            }
            origins.sites.push(site);
        }
        Ok(origins)
    }
}

impl Origins {
    /// Whether any site may ask.
    pub(super) fn is_any(&self) -> bool {
        self.any
    }

    fn is_empty(&self) -> bool {
        !self.any && self.sites.is_empty()
    }

    fn has(&self, origin: &str) -> bool {
        self.any || self.sites.iter().any(|site| site == origin)
    }
}

/// Refuses what does not mean this machine (DNS rebinding), or is another site's: a page in a browser may send requests
/// here too. `scheme` is that of the connection.
pub(super) fn is_for_this_machine(
    headers: &HeaderMap,
    scheme: &str,
    method: &Method,
    origins: &Origins,
) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let refuse = |detail: String| Err(Problem::new(StatusCode::FORBIDDEN, detail));
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback(host) || headers.get_all(header::HOST).iter().count() > 1 {
        return refuse(format!(
            "without tokens only this machine may ask, by `localhost` or a loopback address, and not by `{host}`; \
             `[api.tokens]` lets others in"
        ));
    }
    let origin = text(header::ORIGIN);
    if let Some(origin) = origin {
        let is_own = origin
            .strip_prefix(scheme)
            .and_then(|rest| rest.strip_prefix("://"))
            == Some(host);
        return match is_own || origins.has(origin) {
            true => Ok(()),
            false => refuse(format!(
                "without tokens no other site may ask, and `{origin}` is one; `api.cors_origins` lets it"
            )),
        };
    }
    // What a page loads without asking for it to be readable has no `Origin`. To follow a link is no page's doing.
    let is_link = text(SEC_FETCH_MODE) == Some("navigate") && method.is_safe();
    match text(SEC_FETCH_SITE) {
        Some("cross-site" | "same-site") if !is_link => refuse(
            "without tokens no other site may ask; `api.cors_origins` lets it, by requests that say their origin"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

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

/// Tells browsers which pages may ask and read, and answers what they ask before.
pub(super) async fn share(State(access): State<Access>, request: Request, next: Next) -> Response {
    let rules = access.rules();
    if rules.origins.is_empty() {
        return next.run(request).await;
    }
    let allowed = move |origin: &HeaderValue, _: &_| {
        origin
            .to_str()
            .is_ok_and(|origin| rules.origins.has(origin))
    };
    let exposed = [
        header::CONTENT_DISPOSITION,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::ETAG,
        header::LOCATION,
        header::RETRY_AFTER,
        log::REQUEST_ID,
    ];
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(tower_http::cors::AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .max_age(REMEMBERED);
    match layer.layer(next).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        pairs.collect()
    }

    fn is_let_in(pairs: &[(&'static str, &str)], method: Method, origins: &[&str]) -> bool {
        let origins: Vec<_> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let origins = Origins::try_from(origins).unwrap();
        is_for_this_machine(&headers(pairs), "http", &method, &origins).is_ok()
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
        let host = ("host", "localhost:80");
        let own = [host, ("origin", "http://localhost:80")];
        assert!(is_let_in(&own, Method::POST, &[]));
        for origin in [
            "http://localhost:81",
            "https://localhost:80",
            "null",
            "http://a.org",
            "",
        ] {
            let foreign = [host, ("origin", origin)];
            assert!(!is_let_in(&foreign, Method::GET, &[]), "{origin}");
        }
        let named = [host, ("origin", "http://a.org")];
        assert!(is_let_in(&named, Method::POST, &["http://a.org"]));
        assert!(!is_let_in(&named, Method::POST, &["http://b.org"]));
    }

    #[test]
    fn without_tokens_what_a_page_of_another_site_loads_is_refused() {
        let host = ("host", "localhost:80");
        for (site, mode, method, expected) in [
            ("none", "navigate", Method::GET, true),
            ("same-origin", "cors", Method::POST, true),
            ("cross-site", "no-cors", Method::GET, false),
            ("same-site", "no-cors", Method::GET, false),
            ("cross-site", "navigate", Method::GET, true),
            ("cross-site", "navigate", Method::POST, false),
            ("same-site", "navigate", Method::DELETE, false),
        ] {
            let asked = [host, ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            assert_eq!(
                is_let_in(&asked, method.clone(), &[]),
                expected,
                "{site} {mode} {method}"
            );
        }
    }

    #[test]
    fn an_origin_is_a_site_and_nothing_more() {
        for site in [
            "https://a.example.org",
            "http://localhost:3000",
            "*",
            "http://[::1]:80000",
        ] {
            let is_one = Origins::try_from(vec![site.to_owned()]).is_ok();
            assert_eq!(is_one, site != "http://[::1]:80000", "{site}");
        }
        for site in [
            "",
            "a.org",
            "https://a.org/",
            "https://a.org:443",
            "https://A.org",
            "null",
            "file:///a",
            "ftp://a.org",
            "https://*.a.org/",
        ] {
            assert!(Origins::try_from(vec![site.to_owned()]).is_err(), "{site}");
        }
    }
}
