//! Names to addresses, cached, and only those that the guard allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::error::{Cause, FetchError};
use super::guard::{Denied, Guard};
use super::settings::Settings;

/// Names kept in the cache, each with its addresses; some 200 bytes an entry.
const CACHE_NAMES: u64 = 8192;

/// How long a name that did not resolve is taken not to. A list of a dead host's URLs then costs few
/// queries, and a name that just came up is not missed for long.
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// The resolver that every connection of this process goes through.
#[derive(Clone)]
pub(super) struct Resolver {
    guard: Arc<Guard>,
    dns: TokioResolver,
}

impl Resolver {
    /// # Errors
    ///
    /// When the system's resolver configuration cannot be read.
    pub(super) fn new(settings: &Settings, guard: Arc<Guard>) -> Result<Self, ResolverSetup> {
        let mut builder = if settings.name_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|e| ResolverSetup(e.to_string()))?
        } else {
            let servers = settings.name_servers.iter().map(|server| {
                let connection = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                NameServerConfig::new(
                    server.ip(),
                    true,
                    vec![
                        connection(ConnectionConfig::udp()),
                        connection(ConnectionConfig::tcp()),
                    ],
                )
            });
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(servers.collect()),
                TokioRuntimeProvider::default(),
            )
        };
        let options = builder.options_mut();
        options.cache_size = CACHE_NAMES;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.negative_max_ttl = Some(NEGATIVE_TTL);
        // Two rounds have to fit into the limit for connecting as a whole.
        options.timeout = options.timeout.min(settings.connect_timeout / 2);
        options.attempts = 2;
        let dns = builder.build().map_err(|e| ResolverSetup(e.to_string()))?;
        Ok(Self { guard, dns })
    }

    /// All addresses of `host`: a name, or an address in the notation of URLs.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if is_localhost(name) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let unresolved = |why: String, is_final| Unresolved {
            host: host.to_owned(),
            why,
            is_final,
        };
        let answer = self.dns.lookup_ip(host).await.map_err(|error| {
            if error.is_nx_domain() {
                unresolved("there is no such name".to_owned(), true)
            } else if error.is_no_records_found() {
                unresolved("the name has no address".to_owned(), true)
            } else {
                unresolved(error.to_string(), false)
            }
        })?;
        let addresses: Vec<_> = answer.iter().collect();
        if addresses.is_empty() {
            return Err(unresolved("the name has no address".to_owned(), true));
        }
        Ok(addresses)
    }

    /// The addresses of `host` that may be connected to, as the connector asks for them.
    pub(super) async fn lookup_allowed(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let mut addresses = self.lookup(host).await?;
        let mut denied = None;
        addresses.retain(|&address| match self.guard.judge(address) {
            Ok(()) => true,
            Err(why) => {
                denied.get_or_insert(why);
                false
            }
        });
        match denied {
            Some(denied) if addresses.is_empty() => Err(denied.into()),
            _ => Ok(addresses),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = match resolver.lookup_allowed(name.as_str()).await {
                Ok(addresses) => addresses,
                // The bare error, so that whoever walks the chain finds it.
                Err(LookupError::Denied(denied)) => return Err(denied.into()),
                Err(LookupError::Unresolved(unresolved)) => return Err(unresolved.into()),
            };
            // Port 0 lets the connector put in the URL's.
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Whether a name means this host whatever a name server says, RFC 6761 section 6.3.
fn is_localhost(name: &str) -> bool {
    let tail = name.len().checked_sub("localhost".len());
    tail.and_then(|at| name.get(at..).map(|end| (at, end)))
        .is_some_and(|(at, end)| {
            end.eq_ignore_ascii_case("localhost") && (at == 0 || name.as_bytes()[at - 1] == b'.')
        })
}

pub(super) enum LookupError {
    Denied(Denied),
    Unresolved(Unresolved),
}

impl LookupError {
    /// What it means to whoever wants to connect to `host`.
    pub(super) fn of(self, host: &str) -> FetchError {
        let host = host.to_owned();
        match self {
            Self::Denied(denied) => FetchError::Denied {
                host,
                source: Box::new(denied),
            },
            Self::Unresolved(unresolved) => FetchError::Dns {
                host,
                is_final: unresolved.is_final,
                source: Cause(unresolved.why),
            },
        }
    }
}

impl From<Denied> for LookupError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Unresolved> for LookupError {
    fn from(unresolved: Unresolved) -> Self {
        Self::Unresolved(unresolved)
    }
}

/// A name that has no addresses, or whose name servers do not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(super) struct Unresolved {
    pub(super) host: String,
    pub(super) why: String,
    /// Whether a name server said so, rather than none saying anything.
    pub(super) is_final: bool,
}

/// The resolver cannot be set up.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct ResolverSetup(String);
