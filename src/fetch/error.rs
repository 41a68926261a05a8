//! Why a request brought no acceptable answer.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::target::{Reason, SafeUrl};

use super::guard::Denied;

/// Why a request brought no acceptable body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// A URL that cannot stand in a request.
    #[error("`{url}` cannot be requested: {why}")]
    InvalidUrl {
        /// The URL.
        url: SafeUrl,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A URL of a scheme other than `http` and `https`.
    #[error("`{url}` is neither http nor https")]
    UnsupportedScheme {
        /// The URL.
        url: SafeUrl,
    },
    /// The egress guard denies the host's address, or all of its addresses.
    #[error("`{host}` is denied")]
    Denied {
        /// The host: of the URL, or of the proxy.
        host: String,
        /// Which address, why, and how to allow it.
        source: Box<Denied>,
    },
    /// The name does not resolve.
    #[error("cannot resolve `{host}`")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver said.
        source: Cause,
        /// Whether a name server answered that there is no such name or no address, rather than not at all.
        is_final: bool,
    },
    /// No connection to the host.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// What the system said.
        source: Cause,
    },
    /// The TLS handshake failed, or the certificate is not trusted.
    #[error("no TLS with `{host}`{}", if *.is_untrusted { "; `fetch.ca_files` adds certificates to trust" } else { "" })]
    Tls {
        /// The host.
        host: String,
        /// What the handshake stopped at.
        source: Cause,
        /// Whether the connection was lost in the handshake, rather than refused for a reason that stays.
        is_transient: bool,
        /// Set if no trusted authority vouches for the server's certificate.
        is_untrusted: bool,
    },
    /// An https URL with a host name that TLS does not take.
    #[error("no TLS with `{host}`: {why}, which TLS does not allow")]
    TlsName {
        /// The host.
        host: String,
        /// What is wrong with its name.
        why: &'static str,
    },
    /// The host wants a client certificate.
    #[error("`{host}` asks for a client certificate, which is not supported")]
    ClientCertificate {
        /// The host.
        host: String,
    },
    /// The proxy refused or failed.
    #[error("the proxy `{proxy}` gave no connection to `{host}`; see `fetch.proxy`")]
    Proxy {
        /// The proxy's URL, masked.
        proxy: String,
        /// The host behind it.
        host: String,
        /// What happened.
        source: Cause,
    },
    /// No proxy of the pool gave an answer. Says nothing of the host.
    #[error(
        "no proxy gave an answer of `{host}`: of {count}, {tried} were asked and {aside} are set aside; `gannet proxies check` tells of each"
    )]
    Proxies {
        /// The host.
        host: String,
        /// Proxies in the pool.
        count: usize,
        /// Those that this request was sent through.
        tried: usize,
        /// Those that nothing is sent through for now.
        aside: usize,
        /// When the first of these comes back.
        back_in: Option<Duration>,
        /// What is wrong with one of them.
        source: Cause,
    },
    /// A limit of time ran out.
    #[error("`{url}` {phase} within {}; `{}` sets the limit", humantime::format_duration(*.limit), phase.setting())]
    Timeout {
        /// The URL.
        url: SafeUrl,
        /// What was waited for.
        phase: Phase,
        /// The limit.
        limit: Duration,
    },
    /// The body came too slowly.
    #[error("`{url}` sent less than {min_speed} bytes a second over {}; `fetch.min_speed` sets the limit", humantime::format_duration(*.window))]
    TooSlow {
        /// The URL.
        url: SafeUrl,
        /// Bytes a second that were asked for.
        min_speed: u64,
        /// The time over which it was averaged.
        window: Duration,
    },
    /// The connection was lost before or within the answer.
    #[error("`{url}` broke the connection off")]
    Reset {
        /// The URL.
        url: SafeUrl,
        /// What the system or the protocol said.
        source: Cause,
    },
    /// The body is shorter than the answer promised.
    #[error("`{url}` ended after {got} bytes{}", expected.map_or_else(String::new, |n| format!(" of {n}")))]
    Truncated {
        /// The URL.
        url: SafeUrl,
        /// Bytes that arrived, after content decoding; with the part before for a resumed body.
        got: u64,
        /// Bytes that were promised, if known.
        expected: Option<u64>,
    },
    /// The answer breaks the protocol, or cannot be decoded.
    #[error("`{url}` sent an answer that cannot be read")]
    BadResponse {
        /// The URL.
        url: SafeUrl,
        /// Its status, where the head could be read and does not fit.
        status: Option<u16>,
        /// What is wrong with it.
        source: Cause,
    },
    /// The origin does not continue the body that was begun; it has to be asked for from its start.
    #[error("`{url}` does not continue the body from byte {offset}")]
    NotResumed {
        /// The URL.
        url: SafeUrl,
        /// Where it was to continue.
        offset: u64,
        /// 416, or 206 with another part than was asked for.
        status: u16,
    },
    /// Nobody knows what the origin's robots.txt allows.
    #[error("cannot get robots.txt of `{host}`; `fetch.robots = false` does without")]
    NoRules {
        /// The host.
        host: String,
        /// Why not; shared by all that waited for it.
        source: Arc<FetchError>,
    },
    /// Too many redirects, a loop, or one that leads nowhere.
    #[error("`{url}` {problem}")]
    Redirects {
        /// The URL that redirects.
        url: SafeUrl,
        /// The status by which it does.
        status: u16,
        /// What is wrong with it.
        problem: RedirectProblem,
    },
    /// A status that brings no body.
    #[error("`{url}` answered {status}{}", status_words(*.status, advice.as_ref().map(|advice| advice.0.as_str())))]
    Status {
        /// The URL.
        url: SafeUrl,
        /// The status.
        status: u16,
        /// How long the origin asks to wait.
        retry_after: Option<Duration>,
        /// The missing part of the request, if known. `None` falls back to the usual advice for the status.
        advice: Option<Box<Cause>>,
    },
    /// The body is larger than allowed.
    #[error(
        "`{url}` {}; raise `fetch.max_bytes` (or the host's or the kind's `max_bytes`) to accept it",
        announced.map_or_else(
            || format!("sent more than {limit} bytes"),
            |length| format!("announces {length} bytes, more than {limit}"),
        )
    )]
    TooLarge {
        /// The URL.
        url: SafeUrl,
        /// The status.
        status: u16,
        /// Its length as the head has it; `None`: the body came to pass the limit.
        announced: Option<u64>,
        /// The limit.
        limit: u64,
    },
}

impl FetchError {
    /// Returns the error for a 304 from `url` to a request without validators.
    pub fn unasked_not_modified(url: &Url) -> Self {
        Self::BadResponse {
            url: url.into(),
            status: Some(304),
            source: Cause("304 to a request without a condition".to_owned()),
        }
    }

    /// The stable code that reports and the API carry.
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidUrl { .. } => Reason::InvalidUrl,
            Self::UnsupportedScheme { .. } => Reason::UnsupportedScheme,
            Self::Denied { .. } => Reason::DeniedAddress,
            Self::Dns { .. } => Reason::Dns,
            Self::Connect { .. } => Reason::Connect,
            Self::Tls { .. } | Self::TlsName { .. } | Self::ClientCertificate { .. } => Reason::Tls,
            Self::Proxy { .. } | Self::Proxies { .. } => Reason::Proxy,
            Self::Timeout { .. } => Reason::Timeout,
            Self::TooSlow { .. } => Reason::TooSlow,
            Self::Reset { .. } => Reason::Reset,
            Self::Truncated { .. } => Reason::Truncated,
            Self::BadResponse { .. } | Self::NotResumed { .. } => Reason::BadResponse,
            Self::NoRules { source, .. } => source.reason(),
            Self::Redirects { .. } => Reason::Redirects,
            Self::Status { .. } => Reason::Status,
            Self::TooLarge { .. } => Reason::TooLarge,
        }
    }

    /// Whether another attempt may cure it: lost or refused connections, limits of time, and the statuses
    /// 408 and 5xx (RFC 9110), 425 (RFC 8470) and 429 (RFC 6585).
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Proxies { .. }
            | Self::Timeout { .. }
            | Self::TooSlow { .. }
            | Self::Reset { .. }
            | Self::Truncated { .. }
            | Self::NotResumed { .. } => true,
            Self::Dns { is_final, .. } => !is_final,
            Self::Tls { is_transient, .. } => *is_transient,
            Self::NoRules { source, .. } => source.is_retriable(),
            Self::Status { status, .. } => is_retriable_status(*status),
            Self::InvalidUrl { .. }
            | Self::UnsupportedScheme { .. }
            | Self::Denied { .. }
            | Self::TlsName { .. }
            | Self::ClientCertificate { .. }
            | Self::BadResponse { .. }
            | Self::Redirects { .. }
            | Self::TooLarge { .. } => false,
        }
    }

    /// How long the origin asks to wait before another attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::NoRules { source, .. } => source.retry_after(),
            _ => None,
        }
    }

    /// When there may be a proxy again.
    pub fn proxies_back_in(&self) -> Option<Duration> {
        match self {
            Self::Proxies { back_in, .. } => *back_in,
            Self::NoRules { source, .. } => source.proxies_back_in(),
            _ => None,
        }
    }

    /// Whether no connection came about, or no rules, which says something of the host rather than of the URL.
    pub fn is_connect(&self) -> bool {
        match self {
            Self::NoRules { source, .. } => !matches!(
                **source,
                Self::Denied { .. }
                    | Self::TlsName { .. }
                    | Self::ClientCertificate { .. }
                    | Self::Proxies { .. }
            ),
            Self::Dns { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Proxy { .. }
            | Self::Timeout {
                phase: Phase::Connect,
                ..
            } => true,
            _ => false,
        }
    }

    /// Whether the part of the body that arrived is good, so that another attempt may continue it.
    pub fn keeps_part(&self) -> bool {
        !matches!(
            self,
            Self::NotResumed { .. } | Self::BadResponse { .. } | Self::TooLarge { .. }
        )
    }

    /// The status of the answer, where it or its head is the problem.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. }
            | Self::NotResumed { status, .. }
            | Self::Redirects { status, .. }
            | Self::TooLarge { status, .. } => Some(*status),
            Self::BadResponse { status, .. } => *status,
            Self::NoRules { source, .. } => source.status(),
            _ => None,
        }
    }
}

/// Whether a request that was answered with `status` may do better later.
pub fn is_retriable_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

fn status_words(status: u16, advice: Option<&str>) -> String {
    let words = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason());
    let usual = match status {
        401 => Some("`[hosts]` takes user and password, or a token"),
        403 => Some("it may want credentials (`[hosts]`) or another `fetch.user_agent`"),
        429 => Some("lower `fetch.rate` or `fetch.per_host`"),
        _ => None,
    };
    let words = words.map_or_else(String::new, |words| format!(" ({words})"));
    match advice.or(usual) {
        Some(advice) => format!("{words}; {advice}"),
        None => words,
    }
}

/// What was waited for when a limit of time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Name resolution, TCP and TLS.
    Connect,
    /// The first byte of the answer.
    Head,
    /// The next piece of the body.
    Body,
    /// The whole attempt.
    Total,
}

impl Phase {
    fn setting(self) -> &'static str {
        match self {
            Self::Connect => "fetch.connect_timeout",
            Self::Head | Self::Body => "fetch.idle_timeout",
            Self::Total => "fetch.total_timeout",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "gave no connection",
            Self::Head => "did not answer",
            Self::Body => "sent nothing more",
            Self::Total => "was not complete",
        })
    }
}

/// What is wrong with a redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedirectProblem {
    /// More than allowed.
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// To a URL that redirected before.
    Loop,
    /// A loop after a refused cookie; the source names the cookie and the reason.
    CookieRefused(Box<Cause>),
    /// A redirect status without `Location`.
    NoLocation,
    /// `Location` is no URL.
    BadLocation,
}

impl fmt::Display for RedirectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit } => {
                write!(
                    f,
                    "is one redirect more than {limit}; `fetch.redirects` sets the limit"
                )
            }
            Self::Loop => f.write_str("redirects in a circle"),
            Self::CookieRefused(cookie) => write!(f, "redirects in a circle; its cookie {cookie}"),
            Self::NoLocation => f.write_str("redirects without saying where to"),
            Self::BadLocation => f.write_str("redirects to something that is no URL"),
        }
    }
}

/// The root of a chain of errors, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub(super) String);

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A file of `fetch.ca_files` cannot be read.
    #[error("cannot read `{}` of `fetch.ca_files`", path.display())]
    ReadCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of `fetch.ca_files` holds no certificates.
    #[error("`{}` of `fetch.ca_files` holds no certificate in PEM form", path.display())]
    NoCa {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of `fetch.ca_files` is damaged.
    #[error("`{}` of `fetch.ca_files` holds a certificate that cannot be used", path.display())]
    BadCa {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// `fetch.cookies_file` cannot be read.
    #[error("cannot read `{}` of `fetch.cookies_file`", path.display())]
    ReadCookies {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of `fetch.cookies_file` is not a valid cookie.
    #[error("line {line} of `{}` is no cookie in Netscape's format", path.display())]
    BadCookies {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The problem with the line.
        source: Cause,
    },
    /// `fetch.netrc_file` cannot be read.
    #[error("cannot read `{}` of `fetch.netrc_file`", path.display())]
    ReadNetrc {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of `fetch.netrc_file` does not parse.
    #[error("line {line} of `{}` of `fetch.netrc_file` cannot be understood", path.display())]
    BadNetrc {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// The problem with the line.
        source: Cause,
    },
    /// `proxies.file` cannot be read.
    #[error("cannot read `{}` of `proxies.file`", path.display())]
    ReadProxies {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A variable of the environment that names no usable proxy.
    #[error("the variable `{variable}` of the environment names no proxy")]
    ProxyVariable {
        /// Its name.
        variable: &'static str,
        /// The problem with its value.
        source: Cause,
    },
    /// A user name, password or token that cannot stand in a header.
    #[error("the credentials of `hosts.\"{host}\"` hold control characters")]
    Credentials {
        /// The host or pattern.
        host: String,
    },
    /// TLS or the proxy cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client {
        /// Why.
        source: Cause,
    },
}
