//! The client: one request, or one with the redirects after it.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue, USER_AGENT};
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::Url;

use super::agent::product_token;
use super::bandwidth::Bandwidth;
use super::body::{Body, Limits};
use super::caching::{self, Resume, StoredValidators, Validators};
use super::coding;
use super::error::{Cause, FetchError, SetupError};
use super::headers::{Files, Headers, Sent};
use super::hosts::Hosts;
use super::pool::{Checked, Member, Pool, Settings as ProxySettings, Via};
use super::redirect::{Next, Trail};
use super::response::Response;
use super::settings::{Effective, Settings};
use super::wire::{self, Deadline, Head, Wire};
use crate::target::SafeUrl;

/// The content codings that are taken off.
const ENCODINGS: &str = "gzip, br, zstd";

/// The process's one HTTP client: its connections, its names, its limits. Shared behind an `Arc`.
#[derive(Debug)]
pub struct Client {
    pub(super) wire: Arc<Wire>,
    /// Shared by all clients of the process.
    bandwidth: Arc<Bandwidth>,
    headers: Arc<Headers>,
    settings: Settings,
    hosts: Hosts,
    proxies: Option<ProxySettings>,
    way: Way,
}

/// Which way requests go.
#[derive(Debug, Clone)]
enum Way {
    /// As the settings say.
    Usual,
    /// Not through the pool.
    Direct,
    /// Through this proxy of the pool.
    Through(Arc<Member>),
}

/// A client that ends with those that others hold.
pub(super) struct WeakClient {
    wire: Weak<Wire>,
    bandwidth: Arc<Bandwidth>,
    headers: Arc<Headers>,
    settings: Settings,
    hosts: Hosts,
}

impl WeakClient {
    pub(super) fn upgrade(&self) -> Option<Client> {
        Some(Client {
            wire: self.wire.upgrade()?,
            bandwidth: self.bandwidth.clone(),
            headers: self.headers.clone(),
            settings: self.settings.clone(),
            hosts: self.hosts.clone(),
            proxies: None,
            way: Way::Direct,
        })
    }
}

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The URL of this hop.
    pub url: &'a Url,
    /// The target's own URL: credentials that were given for it go to its origin and nowhere else.
    /// The same as `url` until a redirect was followed.
    pub origin: &'a Url,
    /// The `Accept` header.
    pub accept: &'a str,
    /// What is known of the body already: an origin where it is still the same answers 304.
    pub validators: Option<&'a Validators>,
    /// Where to continue a body that was cut off. Leaves `validators` unused.
    pub resume: Option<&'a Resume>,
    /// Earlier requests of the same chain. This request sends their cookies and answers their challenge. `None` for a
    /// request on its own.
    pub trail: Option<&'a Trail>,
    /// Proxies of the pool that it had better not go through.
    pub avoid: &'a [Via],
    /// Largest body that is accepted, in bytes after decoding.
    pub max_bytes: u64,
}

/// The answer to a POST.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Its status.
    pub status: u16,
    /// When to come back, if it says so.
    pub retry_after: Option<Duration>,
    /// How its body begins.
    pub text: String,
}

/// The head of an answer, with the limits for what follows.
pub(super) struct Arrived {
    pub(super) head: Head,
    pub(super) limits: Limits,
    /// The proxy of the pool that it came through, where that may answer for it.
    pub(super) via: Option<Via>,
}

/// The whole answer to a GET of [`Client::ask`].
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its status, whatever it is.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, decoded.
    pub body: Bytes,
}

impl Client {
    /// A client by `[fetch]` and `[hosts]`, without a pool of proxies. Needs a Tokio runtime around it only once it is used.
    ///
    /// # Errors
    ///
    /// When `ca_files` cannot be read, or TLS or name resolution cannot be set up.
    pub fn new(settings: &Settings, hosts: &Hosts) -> Result<Self, SetupError> {
        Self::make(settings, hosts, None)
    }

    /// The same with the pool that `[proxies]` asks for, if it asks for one.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new), and when the file of proxies cannot be read.
    pub fn with_proxies(
        settings: &Settings,
        hosts: &Hosts,
        proxies: &ProxySettings,
    ) -> Result<Self, SetupError> {
        Self::make(settings, hosts, Some(proxies))
    }

    fn make(
        settings: &Settings,
        hosts: &Hosts,
        proxies: Option<&ProxySettings>,
    ) -> Result<Self, SetupError> {
        let certificates = wire::read_ca_files(settings)?.into();
        Ok(Self {
            wire: Arc::new(Wire::new(settings, certificates, proxies, None)?),
            bandwidth: Arc::new(Bandwidth::new(settings, hosts)),
            headers: Arc::new(Headers::new(settings, hosts, None, Files::Read)?),
            settings: settings.clone(),
            hosts: hosts.clone(),
            proxies: proxies.cloned(),
            way: Way::Usual,
        })
    }

    /// Returns a client with other settings. It shares connections, cached names, certificates and proxies with this
    /// one, unless the settings change how it connects. Health of proxies carries over. Bandwidth limits stay those
    /// of the process until [`apply_bandwidth`](Self::apply_bandwidth) is called.
    ///
    /// Files of cookies, credentials and certificates that this client has read are not read again.
    ///
    /// # Errors
    ///
    /// As for [`with_proxies`](Self::with_proxies).
    pub fn with_settings(
        &self,
        settings: &Settings,
        hosts: &Hosts,
        proxies: &ProxySettings,
    ) -> Result<Self, SetupError> {
        self.again(settings, hosts, proxies, Files::Keep)
    }

    /// The same, but reads all files of cookies, credentials and certificates. Connections are not shared where the
    /// certificates have changed.
    ///
    /// # Errors
    ///
    /// As for [`with_proxies`](Self::with_proxies).
    pub fn reloaded(
        &self,
        settings: &Settings,
        hosts: &Hosts,
        proxies: &ProxySettings,
    ) -> Result<Self, SetupError> {
        self.again(settings, hosts, proxies, Files::Read)
    }

    fn again(
        &self,
        settings: &Settings,
        hosts: &Hosts,
        proxies: &ProxySettings,
        files: Files,
    ) -> Result<Self, SetupError> {
        let known = self.wire.certificates();
        let keeps = files == Files::Keep && self.settings.ca_files == settings.ca_files;
        let certificates: Arc<[_]> = match keeps {
            true => known.clone(),
            false => wire::read_ca_files(settings)?.into(),
        };
        let is_same = self.settings.connects_like(settings)
            && *known == certificates
            && self.proxies.as_ref() == Some(proxies);
        let wire = match is_same {
            true => self.wire.clone(),
            false => Arc::new(Wire::new(
                settings,
                certificates,
                Some(proxies),
                Some(&self.wire),
            )?),
        };
        Ok(Self {
            wire,
            bandwidth: self.bandwidth.clone(),
            headers: Arc::new(Headers::new(settings, hosts, Some(&self.headers), files)?),
            settings: settings.clone(),
            hosts: hosts.clone(),
            proxies: Some(proxies.clone()),
            way: Way::Usual,
        })
    }

    /// A client by other settings for hosts that these say where they are, so that its guard may let more pass. The pool of
    /// this client is its own as well, and keeps its guard: where proxies are, lists may say. Shares connections with `before`
    /// where it may.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn beside(&self, settings: &Settings, before: Option<&Self>) -> Result<Self, SetupError> {
        let same = before.filter(|before| {
            let base = before.wire.base();
            base.is_some_and(|base| Arc::ptr_eq(base, &self.wire))
                && before.settings.connects_like(settings)
        });
        let wire = match same {
            Some(before) => before.wire.clone(),
            None => Arc::new(Wire::beside(&self.wire, settings)?),
        };
        Ok(Self {
            wire,
            bandwidth: self.bandwidth.clone(),
            headers: Arc::new(Headers::new(
                settings,
                &self.hosts,
                Some(&self.headers),
                Files::Keep,
            )?),
            settings: settings.clone(),
            hosts: self.hosts.clone(),
            proxies: self.proxies.clone(),
            way: Way::Usual,
        })
    }

    /// Applies the bandwidth limits of this client's settings to the whole process, also to bodies in flight.
    pub fn apply_bandwidth(&self) {
        self.bandwidth.set(&self.settings, &self.hosts);
    }

    /// Returns `true` once after each change of the files that say where names lead. Looks at them once a second at most.
    pub fn leads_elsewhere(&self) -> bool {
        self.wire.leads_elsewhere()
    }

    /// The pool of proxies, where there is one.
    pub(super) fn pool(&self) -> Option<&Arc<Pool>> {
        self.wire.pool()
    }

    /// This client, going another way.
    fn by(&self, way: Way) -> Self {
        Self {
            wire: self.wire.clone(),
            bandwidth: self.bandwidth.clone(),
            headers: self.headers.clone(),
            settings: self.settings.clone(),
            hosts: self.hosts.clone(),
            proxies: self.proxies.clone(),
            way,
        }
    }

    /// This client without the pool.
    pub(super) fn direct(&self) -> Self {
        self.by(Way::Direct)
    }

    /// This client through one proxy of the pool.
    pub(super) fn through(&self, member: &Arc<Member>) -> Self {
        self.by(Way::Through(member.clone()))
    }

    pub(super) fn downgrade(&self) -> WeakClient {
        WeakClient {
            bandwidth: self.bandwidth.clone(),
            wire: Arc::downgrade(self.wire.base().unwrap_or(&self.wire)),
            headers: self.headers.clone(),
            settings: self.settings.clone(),
            hosts: self.hosts.clone(),
        }
    }

    /// Reads all lists of proxies and tries each proxy; `None`: there is no pool.
    pub async fn check_proxies(&self) -> Option<Vec<Checked>> {
        Some(self.pool()?.check(self).await)
    }

    /// `[fetch]`, as the client was made by it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The `[hosts]` settings of this client.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The settings for requests to `host`, as [`Url::host_str`] prints it.
    pub fn settings_of_host(&self, host: &str) -> Effective<'_> {
        self.settings.of_host(&self.hosts, host)
    }

    /// The settings for requests to the host of `url`.
    pub fn settings_of(&self, url: &Url) -> Effective<'_> {
        self.settings.of(&self.hosts, url)
    }

    /// Sends one GET and waits for the head of its answer, whatever the status. No redirect is followed.
    ///
    /// # Errors
    ///
    /// When no answer comes, or one that breaks the protocol or cannot be an answer to this request.
    /// A status is none: see [`Response::status_error`].
    pub async fn send(&self, request: Request<'_>) -> Result<Response, FetchError> {
        let settings = self.settings_of(request.url);
        let limits = Limits::of(&settings, request.max_bytes);
        let mut headers = (self.headers).of_hop(request.url, request.origin, request.trail);
        let accept =
            HeaderValue::from_str(request.accept).unwrap_or(HeaderValue::from_static("*/*"));
        headers.insert(ACCEPT, accept);
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, settings.user_agent().clone());
        }
        // A part of an encoded body could not be put behind the decoded one that is there.
        let encodings = if request.resume.is_some() {
            "identity"
        } else {
            ENCODINGS
        };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encodings));
        match (request.resume, request.validators) {
            (Some(resume), _) => resume.apply(&mut headers),
            (None, Some(validators)) => validators.apply(&mut headers),
            (None, None) => {}
        }
        let sent = Sent::of(&headers);
        let arrived = self.head(request.url, None, request.avoid, headers, limits);
        let Arrived { head, limits, via } = arrived.await?;
        let max_header_bytes = self.settings.max_header_bytes.as_u64();
        let bandwidth = self.bandwidth.clone();
        let mut response = Response::new(head, &request, limits, max_header_bytes, bandwidth, via)?;
        response.sent = sent;
        Ok(response)
    }

    /// Returns what to do after `response`, the answer to a request of `trail`, and updates `trail`. `origin` is the
    /// target's own URL.
    ///
    /// # Errors
    ///
    /// When the answer redirects once too often, in a circle, or to no usable URL.
    pub fn next(
        &self,
        trail: &mut Trail,
        origin: &Url,
        response: &mut Response,
    ) -> Result<Next, FetchError> {
        let url = &response.url;
        if response.status == 401 {
            let (headers, sent) = (&response.headers, response.sent);
            let reply = (self.headers).reply(url, origin, headers, sent, trail.challenges());
            return Ok(match reply {
                Ok(reply) => {
                    trail.take_cookies(url, headers, self.headers.cookies());
                    trail.answer(reply);
                    Next::Again
                }
                Err(advice) => {
                    response.advice = Some(Box::new(Cause(advice)));
                    Next::Nothing
                }
            });
        }
        (self.headers).accepted(url, origin, &response.headers, trail);
        let Some(next) = response.redirect() else {
            return Ok(Next::Nothing);
        };
        let next = next?;
        let changes = trail.changes();
        trail.take_cookies(url, &response.headers, self.headers.cookies());
        trail.follow(url, changes, response.status, &next)?;
        trail.note_freshness(response.status, response.freshness(SystemTime::now()));
        Ok(Next::Redirect(next))
    }

    /// Sends a GET on its way, with `query` in place of that of `url` where there is one, through none of the proxies in
    /// `avoid` if there is a choice, and waits for the head of its answer.
    async fn head(
        &self,
        url: &Url,
        query: Option<&str>,
        avoid: &[Via],
        headers: HeaderMap,
        limits: Limits,
    ) -> Result<Arrived, FetchError> {
        let ride = match (&self.way, self.pool()) {
            (Way::Usual, Some(pool)) => {
                let sent = self.send_through(pool, url, query, avoid, headers, limits);
                return sent.await;
            }
            (Way::Through(member), Some(pool)) => Some(pool.ride_on(member)),
            _ => None,
        };
        let admitted = self.wire.admit(url, ride).await?.asking(query);
        let head = self.wire.execute(admitted, url, &headers, None, limits);
        match head.await {
            Ok(head) => Ok(Arrived {
                head,
                limits,
                via: None,
            }),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    /// Sends one GET with these headers over those of the settings, and reads the answer, of whatever status, to its
    /// end. No redirect is followed. A `query` goes out in place of that of `url`, and no message names it: it may hold
    /// secrets.
    ///
    /// # Errors
    ///
    /// When no answer comes, or no whole one, or one of more than `max_bytes`.
    pub async fn ask(
        &self,
        url: &Url,
        query: Option<&str>,
        headers: HeaderMap,
        max_bytes: u64,
    ) -> Result<Asked, FetchError> {
        let settings = self.settings_of(url);
        let limits = Limits::of(&settings, max_bytes);
        let mut all = self.headers.of(url, url);
        all.entry(USER_AGENT)
            .or_insert(settings.user_agent().clone());
        all.insert(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
        all.extend(headers);
        let arrived = self.head(url, query, &[], all, limits).await?;
        let Arrived {
            mut head,
            limits,
            via,
        } = arrived;
        let ride = head.ride.take();
        let status = head.response.status().as_u16();
        let headers = std::mem::take(head.response.headers_mut());
        let length = head.response.content_length();
        let length = length.filter(|_| !coding::is_encoded(&headers));
        let bandwidth = self.bandwidth.clone();
        let body = Body::new(head, &headers, limits, bandwidth, 0, length);
        let mut body = body.map_err(|source| FetchError::BadResponse {
            url: url.into(),
            status: Some(status),
            source,
        })?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = body.chunk(url).await? {
            bytes.extend_from_slice(&chunk);
        }
        if let Some(ride) = ride {
            ride.arrived(bytes.len() as u64, body.held_up());
        }
        // What nobody can alter is as good as it can be.
        if let Some(via) = via.filter(|via| status == 200 && !via.is_plain()) {
            via.accept();
        }
        Ok(Asked {
            status,
            headers,
            body: bytes.freeze(),
        })
    }

    /// Posts `body` to `url`, with these headers and none of the settings, and waits for the status of the answer. No
    /// redirect is followed, and it does not go through the pool.
    ///
    /// # Errors
    ///
    /// When no answer comes within `limit`.
    pub async fn post(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
        limit: Duration,
    ) -> Result<Posted, FetchError> {
        let settings = self.settings_of(url);
        let limits = Limits {
            idle: limit,
            deadline: Deadline {
                at: Instant::now() + limit,
                limit,
            },
            min_speed: 0,
            window: limit,
            max_bytes: u64::MAX,
        };
        let admitted = self.wire.admit(url, None).await?;
        headers
            .entry(USER_AGENT)
            .or_insert(settings.user_agent().clone());
        let head = self
            .wire
            .execute(admitted, url, &headers, Some(&body), limits);
        let head = head.await.map_err(|unanswered| unanswered.error)?;
        let mut response = head.response;
        let status = response.status().as_u16();
        let retry_after = caching::retry_after(response.headers(), SystemTime::now());
        // What it says is for people. Taken off the wire, it leaves the connection to the next request.
        let text = tokio::time::timeout_at(limits.deadline.at, response.chunk()).await;
        let text = text.ok().and_then(Result::ok).flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text).chars().take(200).collect();
        Ok(Posted {
            status,
            retry_after,
            text,
        })
    }

    /// A connection to a port of `host` for another protocol than HTTP. It passes the guard, and no proxy.
    ///
    /// # Errors
    ///
    /// When the guard denies all addresses of the host, or none of them answers within `connect_timeout`.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        self.wire.connect(host, port, false).await
    }

    /// Gets `url`, following redirects, for what is no target: lists, robots.txt.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); and any status whose body is not the document.
    pub async fn get(
        &self,
        url: &Url,
        accept: &str,
        max_bytes: u64,
    ) -> Result<Response, FetchError> {
        let redirects = self.settings_of(url).redirects();
        self.follow(url, accept, max_bytes, redirects, None).await
    }

    /// Like [`get`](Self::get), but with retries as targets have: a list that is briefly unreachable must not cost a
    /// whole job. The validators in `known` go to the URL that sent them, even if only redirects lead there, so that
    /// the answer may be a 304 without a body.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get), for the last attempt.
    pub async fn get_patiently(
        &self,
        url: &Url,
        accept: &str,
        max_bytes: u64,
        known: Option<&StoredValidators>,
    ) -> Result<Response, FetchError> {
        let redirects = self.settings_of(url).redirects();
        let mut failures = 0;
        loop {
            let error = match self.follow(url, accept, max_bytes, redirects, known).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            failures += 1;
            let retry_after = error.retry_after();
            if !error.is_retriable()
                || failures > self.settings_of(url).retries()
                || retry_after.is_some_and(|wait| wait > self.settings.retry_after_max)
            {
                return Err(error);
            }
            let wait = super::backoff(&self.settings, failures, retry_after);
            tracing::debug!(url = %SafeUrl::new(url), attempts = failures, "another attempt follows: {error}");
            tokio::time::sleep(wait).await;
        }
    }

    pub(super) async fn follow(
        &self,
        origin: &Url,
        accept: &str,
        max_bytes: u64,
        redirects: u32,
        known: Option<&StoredValidators>,
    ) -> Result<Response, FetchError> {
        let mut trail = Trail::new(redirects);
        let mut url = origin.clone();
        loop {
            let request = Request {
                url: &url,
                origin,
                accept,
                validators: known.and_then(|known| known.for_request(&url)),
                resume: None,
                trail: Some(&trail),
                avoid: &[],
                max_bytes,
            };
            let mut response = self.send(request).await?;
            response.is_document = true;
            match self.next(&mut trail, origin, &mut response)? {
                Next::Redirect(next) => url = next,
                Next::Again => {}
                // One that nobody asked for is no answer to `send`.
                Next::Nothing if response.has_body() || response.status == 304 => {
                    return Ok(response);
                }
                Next::Nothing => return Err(response.status_error()),
            }
        }
    }

    /// Returns the product token by which robots.txt and `X-Robots-Tag` of the host of `url` address this client:
    /// `robots_agent`, or else the product in the `User-Agent` header sent to that host.
    pub fn agent(&self, url: &Url) -> &str {
        let settings = self.settings_of(url);
        if let Some(agent) = settings.robots_agent() {
            return agent;
        }
        let sent = self.headers.user_agent(url);
        let sent = sent.unwrap_or_else(|| settings.user_agent());
        product_token(sent.to_str().unwrap_or_default())
    }
}
