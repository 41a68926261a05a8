//! From the chains of errors of the libraries below to [`FetchError`].

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use url::Url;

use super::coding::ZSTD_WINDOW_LOG;
use super::error::{Cause, FetchError, Phase};
use super::guard::Denied;
use super::proxy::Proxy;
use super::resolver::Unresolved;
use super::tls;
use super::wire::{Lost, MAX_HEADERS};

/// The errors below `error`, itself included, from the outside in.
///
/// An [`io::Error`] that wraps another error is followed by that one, which its `source` skips.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|e| e.downcast_ref())
}

/// The kind of the innermost I/O error.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    chain(error)
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .last()
        .map(io::Error::kind)
}

/// The innermost error in its own words. The outer ones only say that a request failed.
pub(super) fn root(error: &(dyn Error + 'static)) -> String {
    chain(error).last().unwrap_or(error).to_string()
}

pub(super) fn cause(error: &(dyn Error + 'static)) -> Cause {
    Cause(root(error))
}

fn is_lost(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

/// Returns `true` if the system gave up on a connection because the peer does not respond.
fn is_out_of_reach(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// How the connection was lost, if that is why a request has no answer.
pub(super) fn lost(error: &reqwest::Error) -> Option<Lost> {
    // Errors of the client's pool. They have no public types, so their text is compared.
    const NEVER_SENT: [&str; 3] = [
        "checked out connection was closed",
        "request was canceled",
        "ALPN upgraded to HTTP/2",
    ];
    if chain(error).any(|error| NEVER_SENT.contains(&error.to_string().as_str())) {
        return Some(Lost::Unprocessed);
    }
    if error.is_connect() {
        return None;
    }
    if let Some(http2) = find::<h2::Error>(error) {
        // On GOAWAY, h2 fails only the requests beyond the last stream that the origin processed.
        let is_refused = http2.is_go_away()
            || http2.is_reset() && http2.reason() == Some(h2::Reason::REFUSED_STREAM);
        return (http2.is_remote() && is_refused).then_some(Lost::Unprocessed);
    }
    let is_ended = find::<hyper::Error>(error).is_some_and(|hyper| {
        hyper.is_incomplete_message() || hyper.is_canceled() || hyper.is_closed()
    });
    let is_broken = find::<rustls::Error>(error).is_some()
        || io_kind(error).is_some_and(|kind| is_lost(kind) || is_out_of_reach(kind));
    (is_ended || is_broken).then_some(Lost::Unknown)
}

/// Why there is no answer to a request. `asks_for_certificate`: in the handshake, the server asked for a client certificate.
pub(super) fn head(
    error: &reqwest::Error,
    url: &Url,
    proxy: Option<&Proxy>,
    connect_timeout: Duration,
    asks_for_certificate: bool,
) -> FetchError {
    let host = || url.host_str().unwrap_or_default().to_owned();
    if let Some(denied) = find::<Denied>(error) {
        let host = match proxy {
            Some(proxy) if proxy.resolves() => proxy.to_string(),
            _ => host(),
        };
        return FetchError::Denied {
            host,
            source: Box::new(*denied),
        };
    }
    if let Some(rustls::Error::AlertReceived(alert)) = find(error)
        && means_certificate(*alert, asks_for_certificate)
    {
        return FetchError::ClientCertificate { host: host() };
    }
    if error.is_builder() {
        return FetchError::InvalidUrl {
            url: url.into(),
            why: "it does not fit into a request",
        };
    }
    if error.is_connect() {
        return connect(error, url, proxy, connect_timeout);
    }
    let source = cause(error);
    let url = url.into();
    if let Some(hyper) = find::<hyper::Error>(error) {
        if hyper.is_parse_too_large() {
            return FetchError::BadResponse {
                url,
                status: None,
                source: Cause(format!(
                    "more than {MAX_HEADERS} headers, or 400 KiB of them; no more can be read"
                )),
            };
        }
        if hyper.is_parse() {
            return FetchError::BadResponse {
                url,
                status: None,
                source,
            };
        }
        if hyper.is_timeout() {
            return FetchError::Reset { url, source };
        }
    }
    match io_kind(error) {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            if find::<rustls::Error>(error).is_none() =>
        {
            FetchError::BadResponse {
                url,
                status: None,
                source,
            }
        }
        _ => FetchError::Reset { url, source },
    }
}

/// Returns `true` if a server ends the connection with `alert` because it got no client certificate. TLS 1.3 has an alert for that;
/// before, servers that asked for one send what they like (RFC 5246, section 7.4.6).
fn means_certificate(alert: AlertDescription, asks_for_certificate: bool) -> bool {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateRequired, CertificateUnknown, HandshakeFailure,
        NoCertificate,
    };
    match alert {
        CertificateRequired => true,
        HandshakeFailure | NoCertificate | BadCertificate | CertificateUnknown | AccessDenied => {
            asks_for_certificate
        }
        _ => false,
    }
}

/// The connector's words if a SOCKS proxy accepts none of the ways to sign in that were offered.
const NO_METHOD: &str = "does not support user/pass authentication";

/// Whether it can be nothing but the proxy's fault that there is no answer: it is not there, must not be asked, or wants credentials.
/// Whatever else a proxy reports may be true of the target.
pub(super) fn is_proxys_own(error: &reqwest::Error) -> bool {
    // In the words of the connector, whose errors have no types that can be named.
    const OWN: [&str; 6] = [
        "failed to create underlying connection",
        "proxy authorization required",
        "failed parsing server response",
        NO_METHOD,
        "implements authentication incorrectly",
        "credentials not accepted",
    ];
    let is_said = |error: &(dyn Error + 'static)| {
        let text = error.to_string();
        OWN.iter().any(|own| text.contains(own))
    };
    let is_any = |kinds: &[io::ErrorKind]| {
        chain(error)
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .any(|error| error.raw_os_error().is_some() && kinds.contains(&error.kind()))
    };
    let unresolved = find::<Unresolved>(error);
    // What may as well be the network that this machine is in, or its name servers, is found out by comparison.
    let is_here = unresolved.is_some_and(|unresolved| !unresolved.is_final)
        || is_any(&[
            io::ErrorKind::HostUnreachable,
            io::ErrorKind::NetworkUnreachable,
            io::ErrorKind::NetworkDown,
        ]);
    error.is_connect()
        && !is_here
        && (find::<Denied>(error).is_some()
            || unresolved.is_some()
            || is_any(&[io::ErrorKind::ConnectionRefused])
            || chain(error).any(is_said))
}

fn connect(
    error: &reqwest::Error,
    url: &Url,
    proxy: Option<&Proxy>,
    connect_timeout: Duration,
) -> FetchError {
    let host = url.host_str().unwrap_or_default().to_owned();
    let source = cause(error);
    if error.is_timeout() {
        return FetchError::Timeout {
            url: url.into(),
            phase: Phase::Connect,
            limit: connect_timeout,
        };
    }
    let tls_fault = find::<rustls::Error>(error);
    if let Some(proxy) = proxy
        && tls_fault.is_none()
    {
        // The connector says the reverse: it offered no password, and the proxy accepts nothing else.
        let wants_password = !proxy.has_credentials() && source.0.contains(NO_METHOD);
        let source = match wants_password {
            true => Cause("the proxy wants a user name and password".to_owned()),
            false => source,
        };
        return FetchError::Proxy {
            proxy: proxy.to_string(),
            host,
            source,
        };
    }
    if let Some(unresolved) = find::<Unresolved>(error) {
        return FetchError::Dns {
            host: unresolved.host.clone(),
            source,
            is_final: unresolved.is_final,
        };
    }
    if let Some(fault) = tls_fault {
        return FetchError::Tls {
            host,
            source,
            is_transient: false,
            is_untrusted: tls::is_untrusted(fault),
        };
    }
    // TCP alone ends in a refusal or a time-out; a connection that is lost while it is made was lost in
    // the handshake.
    if url.scheme() == "https" && io_kind(error).is_some_and(is_lost) {
        return FetchError::Tls {
            host,
            source,
            is_transient: true,
            is_untrusted: false,
        };
    }
    FetchError::Connect { host, source }
}

/// Why a body ends before its end. `got` and `expected` count its bytes.
pub(super) fn body(
    error: &(dyn Error + 'static),
    url: &Url,
    got: u64,
    expected: Option<u64>,
) -> FetchError {
    let url = url.into();
    if find::<hyper::Error>(error).is_some_and(hyper::Error::is_incomplete_message) {
        return FetchError::Truncated { url, got, expected };
    }
    let is_tls_fault = find::<rustls::Error>(error).is_some();
    match io_kind(error) {
        Some(io::ErrorKind::UnexpectedEof) => FetchError::Truncated { url, got, expected },
        Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) if !is_tls_fault => {
            FetchError::BadResponse {
                url,
                status: None,
                source: cause(error),
            }
        }
        _ => FetchError::Reset {
            url,
            source: cause(error),
        },
    }
}

/// Why a body cannot be decoded: what its decoder said, or what cut the bytes off below it.
pub(super) fn decode(error: &io::Error, url: &Url, got: u64) -> FetchError {
    if find::<reqwest::Error>(error).is_some() {
        return body(error, url, got, None);
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return FetchError::Truncated {
            url: url.into(),
            got,
            expected: None,
        };
    }
    let cause = match root(error) {
        // zstd's name for `ZSTD_error_frameParameter_windowTooLarge`.
        text if text == "Frame requires too much memory for decoding" => format!(
            "content encoding: its zstd window is larger than the {} MiB that RFC 9659 allows",
            1 << (ZSTD_WINDOW_LOG - 20)
        ),
        text => format!("content encoding: {text}"),
    };
    FetchError::BadResponse {
        url: url.into(),
        status: None,
        source: Cause(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_about_a_client_certificate_only_where_one_was_asked_for() {
        use AlertDescription::{
            BadCertificate, CertificateRequired, HandshakeFailure, InternalError, UnrecognisedName,
        };
        for (alert, asked, otherwise) in [
            (CertificateRequired, true, true),
            (HandshakeFailure, true, false),
            (BadCertificate, true, false),
            (InternalError, false, false),
            (UnrecognisedName, false, false),
        ] {
            assert_eq!(means_certificate(alert, true), asked, "{alert:?}");
            assert_eq!(means_certificate(alert, false), otherwise, "{alert:?}");
        }
    }
}
