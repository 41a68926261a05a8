//! An HTTP origin with faults, for tests from outside: `mod origin;`.
//!
//! [`Origin`] runs on loopback, on a port and a thread of its own, and ends when it is dropped, so that tests
//! with and without a runtime can use it. What it does is said route by route, as a sequence of [`Reply`]s of
//! which the last one repeats. It counts what it is asked.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "every test file takes what it needs of this module"
)]

pub mod dns;
mod reply;
mod serve;
pub mod tls;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gannet::fetch::{Client, Hosts, Settings};
use tokio::sync::Notify;
use url::Url;

pub use reply::{Parting, Reply};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub path: String,
    /// When its head was complete.
    pub at: Instant,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Recorded {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_conditional(&self) -> bool {
        self.header("if-none-match").is_some() || self.header("if-modified-since").is_some()
    }
}

/// A number with the highest that it reached.
#[derive(Debug, Default)]
struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
    ever: AtomicUsize,
}

impl Gauge {
    fn enter(&self) -> Entered<'_> {
        self.ever.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(now, Ordering::SeqCst);
        Entered(self)
    }
}

struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Shared {
    routes: HashMap<String, Vec<Reply>>,
    fallback: Option<Reply>,
    asked: Mutex<Vec<Recorded>>,
    hits: Mutex<HashMap<String, usize>>,
    connections: Gauge,
    requests: Gauge,
    /// Bytes of bodies that the system took.
    sent: AtomicU64,
    /// Whether requests are counted only, and not kept.
    forgetful: bool,
    /// Number of requests that a connection answers, and how it ends upon the next one.
    parting: Option<(usize, Parting)>,
    /// How long a connection stays open between two requests.
    idle: Option<Duration>,
    stop: Notify,
}

/// Says what an origin does.
#[derive(Default)]
pub struct Builder {
    shared: Shared,
    tls: Option<tls::Identity>,
    any_address: bool,
}

impl Builder {
    /// Answers requests for `path` (with its query) with `reply`.
    pub fn route(self, path: &str, reply: Reply) -> Self {
        self.sequence(path, [reply])
    }

    /// Answers the first request for `path` with the first of `replies` and so on; the last one repeats.
    pub fn sequence(mut self, path: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.shared
            .routes
            .insert(path.to_owned(), replies.into_iter().collect());
        self
    }

    /// Answers every path that has no route, in place of 404.
    pub fn otherwise(mut self, reply: Reply) -> Self {
        self.shared.fallback = Some(reply);
        self
    }

    /// Speaks HTTPS by a certificate for `localhost` and 127.0.0.1 of an authority of its own.
    pub fn tls(self) -> Self {
        self.tls_as(tls::Identity::new())
    }

    /// Speaks HTTPS with this certificate.
    pub fn tls_as(mut self, identity: tls::Identity) -> Self {
        self.tls = Some(identity);
        self
    }

    /// Listens on every address of loopback, so that one origin can play many hosts: 127.0.0.2 and so on.
    pub fn on_any_address(mut self) -> Self {
        self.any_address = true;
        self
    }

    /// Answers `requests` requests on each connection, with keep-alive, and ends it by `parting` upon the next one.
    pub fn parts_after(mut self, requests: usize, parting: Parting) -> Self {
        self.shared.parting = Some((requests, parting));
        self
    }

    /// Closes a connection without notice if no request follows an answer for this long.
    pub fn closes_idle_after(mut self, idle: Duration) -> Self {
        self.shared.idle = Some(idle);
        self
    }

    /// Keeps no record of what it is asked, for tests that ask very often.
    pub fn forgetful(mut self) -> Self {
        self.shared.forgetful = true;
        self
    }

    pub fn start(self) -> Origin {
        let address = if self.any_address {
            "0.0.0.0:0"
        } else {
            "127.0.0.1:0"
        };
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (tls, ca_pem) = self.tls.map(|id| (id.acceptor(), id.ca_pem)).unzip();
        let shared = Arc::new(self.shared);
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                // Dropping the runtime ends every connection that is still open.
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    tokio::select! {
                        () = serve::accept(listener, tls, shared.clone()) => {}
                        () = shared.stop.notified() => {}
                    }
                });
            }
        });
        Origin {
            address,
            is_tls: ca_pem.is_some(),
            ca_pem,
            shared,
            thread: Some(thread),
        }
    }
}

/// A running origin.
pub struct Origin {
    pub address: SocketAddr,
    /// The authority of its certificate.
    pub ca_pem: Option<String>,
    is_tls: bool,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// An origin with one route.
    pub fn with(path: &str, reply: Reply) -> Self {
        Self::builder().route(path, reply).start()
    }

    pub fn url(&self, path: &str) -> Url {
        self.url_as("127.0.0.1", path)
    }

    /// The URL of `path` under another name of this machine.
    pub fn url_as(&self, host: &str, path: &str) -> Url {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}", self.address.port())
            .parse()
            .unwrap()
    }

    /// Requests for `path`.
    pub fn hits(&self, path: &str) -> usize {
        self.asked(path).len()
    }

    /// Requests for `path` with a condition.
    pub fn conditional(&self, path: &str) -> usize {
        self.asked(path)
            .iter()
            .filter(|request| request.is_conditional())
            .count()
    }

    /// The requests for `path`, in order.
    pub fn asked(&self, path: &str) -> Vec<Recorded> {
        let asked = self.shared.asked.lock().unwrap();
        asked
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// All requests.
    pub fn total(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// All requests, in the order in which they came.
    pub fn log(&self) -> Vec<Recorded> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Bytes of bodies that were sent, as far as the system took them.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Connections that were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.ever.load(Ordering::SeqCst)
    }

    /// Most connections at one time.
    pub fn peak_connections(&self) -> usize {
        self.shared.connections.peak.load(Ordering::SeqCst)
    }

    /// Most requests in flight at one time.
    pub fn peak_requests(&self) -> usize {
        self.shared.requests.peak.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `[fetch]` as `config/default.toml` has it, with loopback allowed and no proxy, and `changes` on top: TOML
/// lines such as `idle_timeout = "100ms"`.
pub fn settings(changes: &str) -> Settings {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.toml"));
    let mut table: toml::Table = text.unwrap().parse().unwrap();
    let mut fetch = match table.remove("fetch") {
        Some(toml::Value::Table(fetch)) => fetch,
        other => panic!("no [fetch]: {other:?}"),
    };
    fetch.insert("private_networks".to_owned(), true.into());
    fetch.insert("proxy".to_owned(), "direct".into());
    fetch.extend(changes.parse::<toml::Table>().unwrap());
    fetch.try_into().unwrap()
}

/// A client by [`settings`].
pub fn client(changes: &str) -> Client {
    Client::new(&settings(changes), &Hosts::default()).unwrap()
}
