//! The only place from which requests leave this process.
//!
//! [`Wire::admit`] is the only maker of [`Admitted`], and [`Wire::execute`] takes nothing else: a request
//! that the guard has not judged does not compile.

use std::cell::Cell;
use std::fmt;
use std::fs;
use std::future::{Future, poll_fn};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::header::CONNECTION;
use http::{HeaderMap, Method, StatusCode};
use hyper_util::client::legacy::connect::Connection;
use reqwest::dns::Resolve;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tower::{Layer, Service};
use url::{Host, Url};

use super::body::Limits;
use super::classify;
use super::digest::Offer;
use super::error::{Cause, FetchError, Phase, SetupError};
use super::guard::Guard;
use super::pool::{Pool, Ride, Settings as ProxySettings};
use super::proxy::{Proxies, Proxy, ProxyResolver};
use super::resolver::{Files, LookupError, Resolver, late, noting_late};
use super::settings::{ProxySetting, Settings};
use super::tls;
use crate::metrics::METRICS;

/// How long an idle connection is kept. Many origins close theirs after 60 s or more; being the first to
/// hang up avoids sending a request into a closing connection.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// The same through a proxy of a pool, where there is a connection for each pair of proxy and host, and each costs a descriptor.
const PROXIED_IDLE: Duration = Duration::from_secs(2);

/// How long an address may be silent before the next one is tried in parallel, RFC 8305 section 8.
const CONNECTION_DELAY: Duration = Duration::from_millis(250);

/// Lines of a response's header that are read over HTTP/1; `fetch.max_header_bytes` is what usually limits them.
pub(super) const MAX_HEADERS: usize = 1024;

/// A URL that the guard let through, without credentials.
pub(super) struct Admitted {
    url: Url,
    proxy: Option<Proxy>,
    /// Through a proxy of the pool.
    ride: Option<Ride>,
}

impl Admitted {
    /// With this query, which changes nothing of where it goes.
    pub(super) fn asking(mut self, query: Option<&str>) -> Self {
        if query.is_some() {
            self.url.set_query(query);
        }
        self
    }
}

/// The connections of this process.
pub(super) struct Wire {
    /// For requests outside of a pool of proxies, with the system's files under which they connect.
    clients: Mutex<(Files, Clients)>,
    /// The version of the files when [`leads_elsewhere`](Self::leads_elsewhere) was last called.
    noted: Mutex<Files>,
    /// Like `clients`, but without idle connections, for [`Route::Own`]. Built on first use; the inner `None` is a
    /// failure.
    unpooled: OnceLock<Option<Clients>>,
    guard: Arc<Guard>,
    resolver: Resolver,
    proxies: Proxies,
    /// `None`: there is no pool, or nothing goes through it.
    pool: Option<Arc<Pool>>,
    /// Whose guard holds for the pool, its lists and its proxies, and who connects to these; `None`: this one.
    base: Option<Arc<Self>>,
    connect_timeout: Duration,
    settings: Settings,
    /// Certificates of `ca_files`, which `tls` trusts.
    certificates: Arc<[CertificateDer<'static>]>,
    /// TLS configuration of all connections.
    tls: rustls::ClientConfig,
    answered: Answered,
}

/// An answer's head, and the timer that waited for it, to be used again for the body.
pub(super) struct Head {
    pub(super) response: reqwest::Response,
    pub(super) sleep: Pin<Box<Sleep>>,
    pub(super) ride: Option<Ride>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: FetchError,
    /// Whether it can be nothing but the proxy's fault.
    pub(super) is_proxys_own: bool,
}

impl Wire {
    /// The connections that `settings` ask for, with the `certificates` of its `ca_files`. What is known of the proxies of
    /// `before` stays known.
    pub(super) fn new(
        settings: &Settings,
        certificates: Arc<[CertificateDer<'static>]>,
        proxies: Option<&ProxySettings>,
        before: Option<&Self>,
    ) -> Result<Self, SetupError> {
        let pool = match proxies.filter(|_| settings.proxy != ProxySetting::Direct) {
            Some(proxies) => {
                let before = before.and_then(|before| before.pool.as_deref());
                Pool::new(proxies, Arc::new(Guard::new(settings)), before)?
            }
            None => None,
        };
        Self::make(settings, certificates, pool, None)
    }

    /// The connections that `settings` ask for, to targets by their guard, with the certificates and the pool of `base`, which
    /// stays as it is.
    pub(super) fn beside(base: &Arc<Self>, settings: &Settings) -> Result<Self, SetupError> {
        let certificates = base.certificates.clone();
        Self::make(
            settings,
            certificates,
            base.pool.clone(),
            Some(base.clone()),
        )
    }

    fn make(
        settings: &Settings,
        certificates: Arc<[CertificateDer<'static>]>,
        pool: Option<Arc<Pool>>,
        base: Option<Arc<Self>>,
    ) -> Result<Self, SetupError> {
        let guard = Arc::new(Guard::new(settings));
        let resolver = Resolver::new(settings, guard.clone());
        let setting = proxy_setting(settings, pool.is_some());
        let proxies = Proxies::new(setting)?;
        let mut tls = tls::client_config(certificates.to_vec());
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.client_auth_cert_resolver = Arc::new(NoteCertificateRequest);
        let clients = Clients::new(settings, setting, &resolver, &proxies, &tls, Route::Pooled)?;
        Ok(Self {
            clients: Mutex::new((resolver.files(), clients)),
            noted: Mutex::new(resolver.files()),
            unpooled: OnceLock::new(),
            guard,
            resolver,
            proxies,
            pool,
            base,
            connect_timeout: settings.connect_timeout,
            settings: settings.clone(),
            certificates,
            tls,
            answered: Answered::new(),
        })
    }

    pub(super) fn pool(&self) -> Option<&Arc<Pool>> {
        self.pool.as_ref()
    }

    /// Certificates of `ca_files`.
    pub(super) fn certificates(&self) -> &Arc<[CertificateDer<'static>]> {
        &self.certificates
    }

    /// The connections whose pool this is, where they are others.
    pub(super) fn base(&self) -> Option<&Arc<Self>> {
        self.base.as_ref()
    }

    /// Judges all of `url` that can be judged before connecting: its scheme, a literal address, and what a
    /// proxy would hide. Names are judged by the resolver, at the moment of connecting.
    ///
    /// It goes through the proxy of `ride`; without, directly or through the one proxy that the settings name.
    pub(super) async fn admit(
        &self,
        url: &Url,
        ride: Option<Ride>,
    ) -> Result<Admitted, FetchError> {
        self.admit_once(url, ride, &mut false).await
    }

    /// The same, without another look at what a proxy resolves by itself where `is_judged` says that it was judged just now.
    pub(super) async fn admit_once(
        &self,
        url: &Url,
        ride: Option<Ride>,
        is_judged: &mut bool,
    ) -> Result<Admitted, FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::UnsupportedScheme { url: url.into() });
        }
        match url.host() {
            Some(Host::Ipv4(address)) => self.judge(url, address.into())?,
            Some(Host::Ipv6(address)) => self.judge(url, address.into())?,
            Some(Host::Domain(name)) => {
                let why = (url.scheme() == "https").then(|| tls::name_problem(name));
                if let Some(why) = why.flatten() {
                    let host = name.to_owned();
                    return Err(FetchError::TlsName { host, why });
                }
            }
            None => {
                return Err(FetchError::InvalidUrl {
                    url: url.into(),
                    why: "it has no host",
                });
            }
        }
        // Proxies from `fetch.proxy` and the environment are the operator's choice.
        let (proxy, is_trusted) = match &ride {
            Some(ride) => (Some(ride.proxy().clone()), ride.is_trusted()),
            None => (self.proxies.of(url), true),
        };
        if let Some(proxy) = &proxy {
            if !is_trusted {
                self.judge_proxy(proxy)?;
            }
            self.judge_proxied(url, proxy, is_judged).await?;
        }
        let mut url = url.clone();
        if !url.username().is_empty() || url.password().is_some() {
            // They go into a header. Neither setter fails for a URL with a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        Ok(Admitted { url, proxy, ride })
    }

    fn judge(&self, url: &Url, address: IpAddr) -> Result<(), FetchError> {
        self.guard
            .judge(address)
            .map_err(|denied| FetchError::Denied {
                host: url.host_str().unwrap_or_default().to_owned(),
                source: Box::new(denied),
            })
    }

    /// Checks the proxy's own address if it is a literal. The resolver checks names, at the time of connecting.
    fn judge_proxy(&self, proxy: &Proxy) -> Result<(), FetchError> {
        let Some(address) = proxy.address() else {
            return Ok(());
        };
        self.guard
            .judge(address)
            .map_err(|denied| FetchError::Denied {
                host: proxy.to_string(),
                source: Box::new(denied),
            })
    }

    /// Checks every address of a target whose name the proxy resolves. The proxy chooses among them, so one denied
    /// address denies the name. A name that does not resolve here may resolve at the proxy, and passes.
    async fn judge_proxied(
        &self,
        url: &Url,
        proxy: &Proxy,
        is_judged: &mut bool,
    ) -> Result<(), FetchError> {
        let Some(Host::Domain(name)) = url.host() else {
            return Ok(());
        };
        if !proxy.resolves() {
            // So that what goes wrong later is about the proxy.
            let lookup = self.resolver.lookup_allowed(name).await;
            lookup.map_err(|error| error.of(name))?;
            if !proxy.is_called(name) {
                return Ok(());
            }
            // The connector's resolver cannot tell this target from the proxy of the same name, which may have any
            // address.
            let lookup = self.resolver.lookup(name).await;
            let addresses = lookup.map_err(|error| LookupError::from(error).of(name))?;
            return addresses
                .into_iter()
                .try_for_each(|address| self.judge(url, address));
        }
        if *is_judged {
            return Ok(());
        }
        let lookup = tokio::time::timeout(self.connect_timeout, self.resolver.lookup(name));
        if let Ok(Ok(addresses)) = lookup.await {
            addresses
                .into_iter()
                .try_for_each(|address| self.judge(url, address))?;
        }
        *is_judged = true;
        Ok(())
    }

    /// Connects to a port of `host`, a name or address, without a proxy. The guard has to allow the address, unless
    /// `is_trusted`.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
        is_trusted: bool,
    ) -> Result<TcpStream, FetchError> {
        let lookup = async || {
            let addresses = match is_trusted {
                true => self.resolver.lookup_any(host).await.map_err(Into::into),
                false => self.resolver.lookup_allowed(host).await,
            };
            addresses.map_err(|error: LookupError| error.of(host))
        };
        let connect = noting_late(false, async {
            let mut stream = Box::pin(connect_any(lookup().await?, port));
            let connected = match late() {
                None => stream.await,
                Some(late) => match timeout(CONNECTION_DELAY, &mut stream).await {
                    Ok(Ok(stream)) => Ok(stream),
                    Ok(failed) if !late.more().await => failed,
                    Ok(_) => connect_any(noting_late(true, lookup()).await?, port).await,
                    Err(_) => tokio::select! {
                        connected = &mut stream => connected,
                        true = late.more() => {
                            connect_any(noting_late(true, lookup()).await?, port).await
                        }
                    },
                },
            };
            connected.map_err(|error| FetchError::Connect {
                host: host.to_owned(),
                source: Cause(error.to_string()),
            })
        });
        let connected = tokio::time::timeout(self.connect_timeout, connect).await;
        connected.unwrap_or_else(|_| {
            let limit = humantime::format_duration(self.connect_timeout);
            Err(FetchError::Connect {
                host: host.to_owned(),
                source: Cause(format!("no answer within {limit}")),
            })
        })
    }

    /// Sends a GET, or a POST of `body`, and waits for the answer's head, as long as `limits` allow.
    ///
    /// If the connection is lost before the answer, the request is sent again at once as [`resend`] allows.
    ///
    /// `url` is the request's URL as messages name it.
    pub(super) async fn execute(
        &self,
        admitted: Admitted,
        url: &Url,
        headers: &HeaderMap,
        body: Option<&Bytes>,
        limits: Limits,
    ) -> Result<Head, Unanswered> {
        let Admitted {
            url: bare,
            proxy,
            ride,
        } = admitted;
        let (mut http, connect_timeout) = match &ride {
            Some(ride) => match ride.client(|| self.client_through(ride, Route::Pooled)) {
                Ok(client) => (client, self.timeout_through().min(limits.idle)),
                Err(error) => {
                    let host = url.host_str().unwrap_or_default().to_owned();
                    return Err(Unanswered {
                        error: FetchError::Proxy {
                            proxy: ride.url().to_string(),
                            host,
                            source: classify::cause(&error),
                        },
                        is_proxys_own: true,
                    });
                }
            },
            None => (self.pooled(proxy.as_ref()), self.connect_timeout),
        };
        let method = match body {
            Some(_) => Method::POST,
            None => Method::GET,
        };
        // Events posted to receivers do not count as downloads.
        let is_download = method == Method::GET;
        let start = Instant::now();
        let mut sleep = Box::pin(sleep_until((start + limits.idle).min(limits.deadline.at)));
        let mut route = Route::Pooled;
        let mut sends = 0;
        let mut is_again = false;
        let (answer, connect) = loop {
            let mut request = reqwest::Request::new(method.clone(), bare.clone());
            *request.headers_mut() = headers.clone();
            *request.body_mut() = body.cloned().map(Into::into);
            let sending = send(
                &http,
                request,
                connect_timeout,
                limits,
                &mut sleep,
                is_again,
            );
            let (answer, connect) = match sending.await {
                (Sent::LateAddresses, _) => {
                    is_again = true;
                    continue;
                }
                (Sent::Answer(answer), connect) => (Ok(answer), connect),
                (Sent::Nothing(phase, limit), connect) => (Err((phase, limit)), connect),
            };
            sends += 1;
            let lost = match &answer {
                Ok(Ok(response)) => is_idle_timeout(response).then_some(Lost::Unknown),
                Ok(Err(error)) => classify::lost(error),
                Err(_) => None,
            };
            let is_reused = self.answered.contains(&bare);
            let next = lost.and_then(|lost| resend(lost, route, connect, is_reused, sends));
            let client = match next {
                Some(Route::Own) => self.own_connection(ride.as_ref(), proxy.as_ref()),
                Some(Route::Pooled) => Some(http.clone()),
                None => None,
            };
            let (Some(next), Some(client)) = (next, client) else {
                break (answer, connect);
            };
            tracing::debug!(
                url.host = url.host_str(),
                sends,
                "the connection was closed before an answer came; the request is sent again"
            );
            (route, http) = (next, client);
        };
        let (error, is_proxys_own) = match answer {
            Ok(Ok(response)) => match proxy {
                // Over plain HTTP the proxy's own refusal comes as an answer; in a tunnel it is an error.
                Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                    let error = FetchError::Proxy {
                        proxy: proxy.to_string(),
                        host: url.host_str().unwrap_or_default().to_owned(),
                        source: Cause(Offer::refusal_of_proxy(response.headers())),
                    };
                    (error, true)
                }
                _ => {
                    self.answered.insert(&bare);
                    if is_download {
                        METRICS.first_byte(start.elapsed());
                    }
                    return Ok(Head {
                        response,
                        sleep,
                        ride,
                    });
                }
            },
            Ok(Err(error)) => {
                // Which may have more in it than `url`.
                let error = error.without_url();
                (
                    classify::head(
                        &error,
                        url,
                        proxy.as_ref(),
                        connect_timeout,
                        connect.asks_for_certificate(),
                    ),
                    classify::is_proxys_own(&error),
                )
            }
            Err((phase, limit)) => {
                let url = url.into();
                (FetchError::Timeout { url, phase, limit }, false)
            }
        };
        Err(Unanswered {
            error,
            is_proxys_own,
        })
    }

    /// Returns a client whose connections serve one request each, through `ride`, else through `proxy`, else
    /// directly. `None` if it cannot be built.
    fn own_connection(
        &self,
        ride: Option<&Ride>,
        proxy: Option<&Proxy>,
    ) -> Option<reqwest::Client> {
        if let Some(ride) = ride {
            return self.client_through(ride, Route::Own).ok();
        }
        let clients = self
            .unpooled
            .get_or_init(|| self.connect_anew(Route::Own).ok());
        Some(clients.as_ref()?.of(proxy).clone())
    }

    /// Returns `true` once after each change of the files that say where names lead.
    pub(super) fn leads_elsewhere(&self) -> bool {
        let files = self.resolver.files();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *noted != files;
        *noted = files;
        is_new
    }

    /// Returns a client whose connections are shared, through `proxy` or directly.
    ///
    /// Connections that were made before the hosts file or resolv.conf changed are not used again, since the same name
    /// may lead elsewhere now.
    fn pooled(&self, proxy: Option<&Proxy>) -> reqwest::Client {
        let files = self.resolver.files();
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.0 != files
            && let Ok(anew) = self.connect_anew(Route::Pooled)
        {
            *clients = (files, anew);
        }
        clients.1.of(proxy).clone()
    }

    fn connect_anew(&self, route: Route) -> Result<Clients, SetupError> {
        let setting = proxy_setting(&self.settings, self.pool.is_some());
        let (resolver, proxies) = (&self.resolver, &self.proxies);
        Clients::new(&self.settings, setting, resolver, proxies, &self.tls, route)
    }

    /// How long connecting through a proxy of the pool may take: another one may be quicker.
    fn timeout_through(&self) -> Duration {
        let patience = self.pool.as_ref().map(|pool| pool.settings().patience);
        patience.map_or(self.connect_timeout, |patience| {
            patience.min(self.connect_timeout)
        })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the guard is built in"
    )]
    fn client_through(&self, ride: &Ride, route: Route) -> Result<reqwest::Client, reqwest::Error> {
        let base = self.base.as_deref().unwrap_or(self);
        // In a large pool hardly any connection is wanted again in time.
        let proxies = base.pool.as_ref().map_or(0, |pool| pool.len());
        let idle = match route {
            Route::Pooled if proxies <= base.settings.concurrency.get() => {
                base.settings.concurrency.get()
            }
            _ => 0,
        };
        let proxy = vec![ride.proxy().clone()];
        let resolver = ProxyResolver::new(&base.resolver, proxy, ride.is_trusted());
        builder(&base.settings, Arc::new(resolver), &base.tls)
            .connect_timeout(base.timeout_through())
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(PROXIED_IDLE)
            .no_proxy()
            .proxy(reqwest::Proxy::all(ride.url().as_url().clone())?)
            .build()
    }
}

/// Clients for requests that go out directly, or through the proxies of `fetch.proxy` or the environment.
struct Clients {
    direct: reqwest::Client,
    /// For requests through a proxy, whose name may resolve to any address. `None` without a proxy.
    proxied: Option<reqwest::Client>,
}

impl Clients {
    fn new(
        settings: &Settings,
        setting: &ProxySetting,
        resolver: &Resolver,
        proxies: &Proxies,
        tls: &rustls::ClientConfig,
        route: Route,
    ) -> Result<Self, SetupError> {
        let named = proxies.all();
        let proxied = if named.is_empty() {
            None
        } else {
            let resolver = ProxyResolver::new(resolver, named, true);
            let given = proxies.for_connector()?;
            Some(build(settings, given, Arc::new(resolver), tls, route)?)
        };
        let direct = match (&proxied, setting) {
            // `fetch.proxy` covers every target, so nothing goes out directly.
            (Some(proxied), ProxySetting::Url(_)) => proxied.clone(),
            _ => {
                let resolver = Arc::new(resolver.clone());
                build(settings, Vec::new(), resolver, tls, route)?
            }
        };
        Ok(Self { direct, proxied })
    }

    /// Returns the client for a request through `proxy`, or directly.
    fn of(&self, proxy: Option<&Proxy>) -> &reqwest::Client {
        let proxied = self.proxied.as_ref().filter(|_| proxy.is_some());
        proxied.unwrap_or(&self.direct)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

/// Connects to the address that answers first. The next address is tried when the previous one has failed, or has
/// been silent for [`CONNECTION_DELAY`]. Address families alternate. RFC 8305, sections 4 and 5.
async fn connect_any(addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let mut addresses = interleave(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        if let Some(address) = addresses.next() {
            #[expect(clippy::disallowed_methods, reason = "the guard has judged it")]
            attempts.push(TcpStream::connect((address, port)));
        }
        let ended = match addresses.len() {
            0 => attempts.next().await.map(Some),
            _ => match timeout(CONNECTION_DELAY, attempts.next()).await {
                Ok(ended) => ended.map(Some),
                Err(_) => Some(None),
            },
        };
        match ended {
            Some(Some(Ok(stream))) => return Ok(stream),
            Some(Some(Err(error))) => {
                first_error.get_or_insert(error);
            }
            Some(None) => {}
            None => {
                return Err(first_error.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
        }
    }
}

/// Alternates the address families, starting with that of the first address.
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv4() == is_v4);
    let count = first.len().max(second.len());
    let turns = (0..count).flat_map(|at| [first.get(at), second.get(at)]);
    turns.flatten().copied().collect()
}

/// When one attempt has to be complete, and the limit that says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) limit: Duration,
}

/// The end of one send of a request.
enum Sent {
    Answer(Result<reqwest::Response, reqwest::Error>),
    /// This limit ran out.
    Nothing(Phase, Duration),
    /// There is no connection yet, and addresses of the other family have been found since it was begun (RFC 8305,
    /// section 3). The next send tries those of both families.
    LateAddresses,
}

/// Sends `request` once. Also returns the state of the request's own connection.
///
/// `is_again` after late addresses: name resolution waits for both families then.
async fn send(
    http: &reqwest::Client,
    request: reqwest::Request,
    connect_timeout: Duration,
    Limits { idle, deadline, .. }: Limits,
    sleep: &mut Pin<Box<Sleep>>,
    is_again: bool,
) -> (Sent, Connect) {
    let start = Instant::now();
    let sending = noting_late(is_again, async {
        let mut pending = pin!(http.execute(request));
        let mut more = None;
        let sent = poll_fn(|cx| {
            if let Poll::Ready(answer) = pending.as_mut().poll(cx) {
                return Poll::Ready(Sent::Answer(answer));
            }
            if more.is_none() {
                more = late().map(|late| {
                    let connecting_since = Instant::now();
                    Box::pin(async move {
                        let has_more = late.more().await;
                        sleep_until(connecting_since + CONNECTION_DELAY).await;
                        has_more
                    })
                });
            }
            if let Some(waiting) = &mut more
                && matches!(CONNECT.with(Cell::get), Connect::Running)
                && waiting.as_mut().poll(cx) == Poll::Ready(true)
            {
                return Poll::Ready(Sent::LateAddresses);
            }
            loop {
                ready!(sleep.as_mut().poll(cx));
                let silent_since = match CONNECT.with(Cell::get) {
                    Connect::Pooled => start,
                    // The connector has its own limit. This one also bounds a request that went out on a pooled
                    // connection which became free meanwhile.
                    Connect::Running => start + connect_timeout,
                    Connect::Done { at, .. } => at,
                };
                let silent_until = silent_since + idle;
                let now = Instant::now();
                if now >= deadline.at {
                    return Poll::Ready(Sent::Nothing(Phase::Total, deadline.limit));
                }
                if now >= silent_until {
                    return Poll::Ready(Sent::Nothing(Phase::Head, idle));
                }
                sleep.as_mut().reset(silent_until.min(deadline.at));
            }
        });
        let sent = sent.await;
        // The addresses there are lead nowhere. Others may be on their way.
        let is_unconnected = matches!(&sent, Sent::Answer(Err(error)) if error.is_connect());
        if is_unconnected
            && let Some(late) = late()
            && timeout_at(start + connect_timeout, late.more()).await == Ok(true)
        {
            return (Sent::LateAddresses, CONNECT.with(Cell::get));
        }
        (sent, CONNECT.with(Cell::get))
    });
    CONNECT.scope(Cell::new(Connect::Pooled), sending).await
}

/// The kind of connection that a request goes out on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// A pooled connection, idle or shared, or a new one that the pool keeps.
    Pooled,
    /// A new connection for this request alone.
    Own,
}

/// How a connection ended before the head of the answer was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The origin has not processed the request. It was never sent, or HTTP/2 says so (RFC 9113, sections 6.8 and
    /// 8.7).
    Unprocessed,
    /// The origin may have processed the request.
    Unknown,
}

/// Most times that a request is sent on shared connections. With many requests in flight and few allowed per
/// connection, several connections in a row may refuse the same request.
const SHARED_SENDS: u32 = 5;

/// Decides how to send a request again after its connection was [`Lost`]. `None` if the loss is the origin's fault.
///
/// An origin may close a connection that has served other requests at any time (RFC 9112, section 9.3.1). Only the
/// loss of a connection that was made for the request is a fault, so a request is sent at most [`SHARED_SENDS`] + 1
/// times. All requests may be repeated: a GET is idempotent, and receivers drop events that they have by their id.
///
/// The pool hands a request the connection that is free first, even when the request's own has just been made. So
/// once the origin has answered on any connection (`is_reused`), a made connection does not tell which one was lost.
///
/// A connection that ends within the head of an answer is treated like one that ends before it, because hyper's
/// errors do not distinguish them.
fn resend(
    lost: Lost,
    route: Route,
    connect: Connect,
    is_reused: bool,
    sends: u32,
) -> Option<Route> {
    if route == Route::Own {
        return None;
    }
    // Over HTTP/2, other requests may have used it first.
    let is_made_for_it = matches!(
        connect,
        Connect::Done {
            is_http2: false,
            ..
        }
    ) && !is_reused;
    match lost {
        Lost::Unprocessed if sends < SHARED_SENDS => Some(Route::Pooled),
        Lost::Unprocessed => Some(Route::Own),
        Lost::Unknown => (!is_made_for_it).then_some(Route::Own),
    }
}

/// Origins that have answered a request, as a set of hashes of a fixed size.
///
/// It may contain an origin that has not answered. [`resend`] then sends one request too many.
struct Answered([AtomicU64; 64]);

impl Answered {
    fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 64])
    }

    fn insert(&self, url: &Url) {
        let (word, bit) = self.place(url);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn contains(&self, url: &Url) -> bool {
        let (word, bit) = self.place(url);
        word.load(Ordering::Relaxed) & bit != 0
    }

    fn place(&self, url: &Url) -> (&AtomicU64, u64) {
        let mut hasher = DefaultHasher::new();
        (url.scheme(), url.host_str(), url.port_or_known_default()).hash(&mut hasher);
        let [word, bit, ..] = hasher.finish().to_ne_bytes();
        (&self.0[usize::from(word % 64)], 1 << (bit % 64))
    }
}

/// Returns `true` for the 408 that some origins send on an idle connection before they close it (RFC 9110, section
/// 15.5.9).
fn is_idle_timeout(response: &reqwest::Response) -> bool {
    let closes = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
    response.status() == StatusCode::REQUEST_TIMEOUT
        && response.version() <= http::Version::HTTP_11
        && response.headers().get(CONNECTION).is_some_and(closes)
}

/// Returns the proxy for requests outside of a pool. If there is a pool, these go out directly.
fn proxy_setting(settings: &Settings, has_pool: bool) -> &ProxySetting {
    match has_pool {
        true => &ProxySetting::Direct,
        false => &settings.proxy,
    }
}

/// What all clients have in common.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where the guard is built in"
)]
fn builder(
    settings: &Settings,
    resolver: Arc<dyn Resolve>,
    tls: &rustls::ClientConfig,
) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .user_agent(settings.user_agent.clone())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // `Wire::execute` decides what is sent again, and the worker what is attempted again.
        .retry(reqwest::retry::never().max_retries_per_request(0))
        .dns_resolver(resolver)
        .connect_timeout(settings.connect_timeout)
        .connector_layer(NoteConnect)
        .pool_max_idle_per_host(settings.concurrency.get())
        .pool_idle_timeout(POOL_IDLE)
        .tcp_nodelay(true)
        // As browsers do (RFC 9112, section 5.2): one bad line, such as a file name with a control
        // character, costs its header and not the file.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(
            settings
                .max_header_bytes
                .as_u64()
                .try_into()
                .unwrap_or(u32::MAX),
        )
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is where the guard is built in"
)]
fn build(
    settings: &Settings,
    proxies: Vec<reqwest::Proxy>,
    resolver: Arc<dyn Resolve>,
    tls: &rustls::ClientConfig,
    route: Route,
) -> Result<reqwest::Client, SetupError> {
    // Without `no_proxy`, reqwest reads the environment.
    let mut builder = builder(settings, resolver, tls).no_proxy();
    if route == Route::Own {
        builder = builder.pool_max_idle_per_host(0);
    }
    let builder = proxies.into_iter().fold(builder, |b, proxy| b.proxy(proxy));
    builder.build().map_err(|error| SetupError::Client {
        source: classify::cause(&error),
    })
}

/// Reads the certificates of `ca_files`, which are trusted beside the system's authorities.
pub(super) fn read_ca_files(
    settings: &Settings,
) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let mut certificates = Vec::new();
    for path in &settings.ca_files {
        certificates.extend(read_certificates(path)?);
    }
    Ok(certificates)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let pem = fs::read(path).map_err(|source| SetupError::ReadCa {
        path: path.to_owned(),
        source,
    })?;
    let bad = |error: &(dyn std::error::Error + 'static)| SetupError::BadCa {
        path: path.to_owned(),
        source: classify::cause(error),
    };
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| bad(&e))?;
        tls::check(&certificate).map_err(|e| bad(&e))?;
        certificates.push(certificate);
    }
    match certificates.is_empty() {
        true => Err(SetupError::NoCa {
            path: path.to_owned(),
        }),
        false => Ok(certificates),
    }
}

/// How far the connection is that a request may be waiting for.
#[derive(Debug, Clone, Copy)]
enum Connect {
    /// No connection was begun for it: it is on one of the pool.
    Pooled,
    /// Resolving, connecting or shaking hands.
    Running,
    /// Established then, or failed.
    Done {
        at: Instant,
        is_http2: bool,
        /// The server asked for a client certificate, and got none.
        asks_for_certificate: bool,
    },
}

impl Connect {
    fn asks_for_certificate(self) -> bool {
        matches!(
            self,
            Self::Done {
                asks_for_certificate: true,
                ..
            }
        )
    }
}

tokio::task_local! {
    // The connector is polled within the request that made it necessary, and so finds that request's cell.
    static CONNECT: Cell<Connect>;
    // So is the handshake polled within the connector.
    static ASKS_FOR_CERTIFICATE: Cell<bool>;
}

fn note(connect: Connect) {
    // Outside of a request there is nobody to tell: a connection that lost its race against a pooled one
    // is finished in the background.
    let _ = CONNECT.try_with(|cell| cell.set(connect));
}

/// Tells a request when its connection begins and when it is there, so that `idle_timeout` counts from then.
#[derive(Debug, Clone, Copy)]
struct NoteConnect;

impl<S> Layer<S> for NoteConnect {
    type Service = Noted<S>;

    fn layer(&self, connector: S) -> Noted<S> {
        Noted(connector)
    }
}

#[derive(Debug, Clone)]
struct Noted<S>(S);

impl<S, R> Service<R> for Noted<S>
where
    S: Service<R>,
    S::Response: Connection,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move {
            note(Connect::Running);
            let connecting = async {
                let connected = connecting.await;
                (connected, ASKS_FOR_CERTIFICATE.with(Cell::get))
            };
            let (connected, asks_for_certificate) = ASKS_FOR_CERTIFICATE
                .scope(Cell::new(false), connecting)
                .await;
            let is_http2 = |connection: &S::Response| connection.connected().is_negotiated_h2();
            note(Connect::Done {
                at: Instant::now(),
                is_http2: connected.as_ref().is_ok_and(is_http2),
                asks_for_certificate,
            });
            connected
        })
    }
}

/// Has no certificate for a server that asks for one, and tells the connector that it did.
#[derive(Debug)]
struct NoteCertificateRequest;

impl ResolvesClientCert for NoteCertificateRequest {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let _ = ASKS_FOR_CERTIFICATE.try_with(|cell| cell.set(true));
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_of_a_connection_made_for_the_request_is_a_fault() {
        let made = |is_http2| Connect::Done {
            at: Instant::now(),
            is_http2,
            asks_for_certificate: false,
        };
        let (http1, http2) = (made(false), made(true));
        let (pooled, own) = (Some(Route::Pooled), Some(Route::Own));
        for (lost, route, connect, is_reused, sends, expected) in [
            (Lost::Unknown, Route::Pooled, Connect::Pooled, true, 1, own),
            (Lost::Unknown, Route::Pooled, Connect::Running, true, 1, own),
            (Lost::Unknown, Route::Pooled, http1, false, 1, None),
            (Lost::Unknown, Route::Pooled, http1, true, 1, own),
            (Lost::Unknown, Route::Pooled, http2, false, 1, own),
            (Lost::Unknown, Route::Own, http1, true, 2, None),
            (Lost::Unknown, Route::Own, http2, true, 2, None),
            (Lost::Unprocessed, Route::Pooled, http2, true, 1, pooled),
            (Lost::Unprocessed, Route::Pooled, http1, false, 4, pooled),
            (
                Lost::Unprocessed,
                Route::Pooled,
                http1,
                true,
                SHARED_SENDS,
                own,
            ),
            (
                Lost::Unprocessed,
                Route::Own,
                http2,
                true,
                SHARED_SENDS + 1,
                None,
            ),
        ] {
            let next = resend(lost, route, connect, is_reused, sends);
            let case = (lost, route, connect, is_reused, sends);
            assert_eq!(next, expected, "{case:?}");
        }
    }

    #[test]
    fn kinds_of_addresses_take_turns() {
        for (addresses, expected) in [
            (vec![], vec![]),
            (vec!["1.0.0.1", "1.0.0.2"], vec!["1.0.0.1", "1.0.0.2"]),
            (
                vec!["1.0.0.1", "1.0.0.2", "1.0.0.3", "::1"],
                vec!["1.0.0.1", "::1", "1.0.0.2", "1.0.0.3"],
            ),
            (
                vec!["::1", "::2", "1.0.0.1", "1.0.0.2"],
                vec!["::1", "1.0.0.1", "::2", "1.0.0.2"],
            ),
        ] {
            let parse = |texts: Vec<&str>| texts.iter().map(|a| a.parse().unwrap()).collect();
            let expected: Vec<IpAddr> = parse(expected);
            assert_eq!(interleave(parse(addresses)), expected);
        }
    }

    #[tokio::test]
    async fn an_address_that_refuses_leaves_it_to_the_next() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.2", "::1", "127.0.0.1"].map(|a| a.parse().unwrap());
        let stream = connect_any(addresses.to_vec(), port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        drop(listener);
        let error = connect_any(addresses.to_vec(), port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = connect_any(Vec::new(), port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
