//! Resolves names as the system does, with a cache, and returns only addresses that the guard allows.
//!
//! The hosts file and the name servers of resolv.conf are asked in the order of nsswitch.conf, as with getaddrinfo.
//! Unlike getaddrinfo, a look-up holds no thread, does not wait for one address family when the other is there (RFC
//! 8305), and accepts any label that fits into a query.
//!
//! - `system`: the three files, read again when they change;
//! - `hosts`, `conf`, `services`: parsers of these files;
//! - `servers`: queries to name servers;
//! - `lookup`: look-ups of both families for one name, shared by concurrent callers.

mod conf;
mod hosts;
mod lookup;
mod servers;
mod services;
mod system;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_net::proto::rr::Name;
use reqwest::dns::{Addrs, Name as HostName, Resolve, Resolving};
use tokio::time::Instant;

use super::error::{Cause, FetchError};
use super::guard::{Denied, Guard};
use super::settings::Settings;
use lookup::Outcome;
pub(super) use lookup::{late, noting_late};
use services::Service;
use system::{Snapshot, System};

/// A failure that took longer than this is due to silent servers. They are not asked for the rest of the search list.
const SILENCE: Duration = Duration::from_millis(500);

const NO_NAME: &str = "there is no such name";

/// One version of the hosts file, resolv.conf and nsswitch.conf.
#[derive(Clone)]
pub(super) struct Files(Arc<Snapshot>);

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The resolver that every connection of this process goes through.
#[derive(Clone)]
pub(super) struct Resolver {
    guard: Arc<Guard>,
    system: Arc<System>,
}

impl Resolver {
    pub(super) fn new(settings: &Settings, guard: Arc<Guard>) -> Self {
        let system = System::new(&settings.name_servers, settings.connect_timeout);
        Self {
            guard,
            system: Arc::new(system),
        }
    }

    /// Returns the current version of the files. Looks at them once a second at most.
    pub(super) fn files(&self) -> Files {
        Files(self.system.current())
    }

    /// Returns all addresses of `host`, which is a name or an address in URL notation. Waits for both families.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        self.resolve_where(host, None).await
    }

    /// Returns the addresses to connect to for a host that may have any address. Like
    /// [`lookup_allowed`](Self::lookup_allowed), but without the guard.
    pub(super) async fn lookup_any(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        self.resolve_where(host, Some(&|_| true)).await
    }

    /// Returns the addresses of `host` that the guard allows, for the connector.
    ///
    /// Once there is one, the other address family gets only a short time.
    pub(super) async fn lookup_allowed(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let is_allowed = |address| self.guard.judge(address).is_ok();
        let mut addresses = self.resolve_where(host, Some(&is_allowed)).await?;
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

    /// With `None` for `is_enough`, waits for both families; see [`Lookups::resolve`](lookup::Lookups::resolve).
    async fn resolve_where(
        &self,
        host: &str,
        is_enough: Option<&(dyn Fn(IpAddr) -> bool + Sync)>,
    ) -> Result<Vec<IpAddr>, Unresolved> {
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        // Always this host, regardless of name servers, RFC 6761 section 6.3.
        if is_within(host, "localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let system = self.system.current();
        let (mut missing, mut failed) = (None, None);
        for step in system.services.iter() {
            let found = match step.service {
                Service::Files => {
                    let addresses = system.hosts.get(&host.to_ascii_lowercase());
                    if let Some(addresses) = addresses {
                        return Ok(addresses.to_vec());
                    }
                    None
                }
                Service::Dns => match ask_servers(&system, host, is_enough).await {
                    Ok(addresses) => return Ok(addresses),
                    Err(unresolved) => Some(unresolved),
                },
            };
            let is_failure = found.as_ref().is_some_and(|why| !why.is_final);
            match is_failure {
                true => failed = failed.or(found),
                false => missing = missing.or(found),
            }
            if is_failure && step.ends_on_failure || !is_failure && step.ends_without_name {
                break;
            }
        }
        Err(failed.or(missing).unwrap_or_else(|| Unresolved {
            host: host.to_owned(),
            why: format!(
                "{NO_NAME} in `/etc/hosts`, and `/etc/nsswitch.conf` lets no name server be asked"
            ),
            is_final: true,
        }))
    }
}

/// Asks the name servers.
async fn ask_servers(
    system: &Snapshot,
    host: &str,
    is_enough: Option<&(dyn Fn(IpAddr) -> bool + Sync)>,
) -> Result<Vec<IpAddr>, Unresolved> {
    let unresolved = |why: String, is_final| Unresolved {
        host: host.to_owned(),
        why,
        is_final,
    };
    let host = host.to_ascii_lowercase();
    // Never sent to name servers, RFC 6761 section 6.4 and RFC 7686 section 2.
    if is_within(&host, "invalid") || is_within(&host, "onion") {
        return Err(unresolved(NO_NAME.to_owned(), true));
    }
    query_name(host.strip_suffix('.').unwrap_or(&host)).map_err(|why| unresolved(why, true))?;
    let begun = Instant::now();
    let (mut has_name, mut failure) = (false, None);
    for candidate in system.conf().candidates(&host) {
        // A domain of the search list may make the name too long.
        let Ok(name) = query_name(&candidate) else {
            continue;
        };
        match system.lookups.resolve(&candidate, name, is_enough).await {
            Outcome::Addresses(addresses) => return Ok(addresses),
            Outcome::NoData => has_name = true,
            Outcome::NoName => {}
            Outcome::Failed(why) => {
                failure.get_or_insert(why);
                if begun.elapsed() > SILENCE {
                    break;
                }
            }
        }
    }
    if let Some(why) = failure {
        return Err(unresolved(why, false));
    }
    let why = match has_name {
        true => "the name has no address",
        false => NO_NAME,
    };
    Err(unresolved(why.to_owned(), true))
}

/// Converts `name` to a query name with its labels unchanged. DNS allows more than the host names of RFC 952 (RFC
/// 2181, section 11), and such hosts exist.
fn query_name(name: &str) -> Result<Name, String> {
    let labels = name.split('.').map(str::as_bytes);
    Name::from_labels(labels).map_err(|error| {
        let why = match name
            .split('.')
            .find(|label| label.is_empty() || label.len() > 63)
        {
            Some("") => "one of its parts is empty".to_owned(),
            Some(label) => format!("`{label}` is longer than 63 characters"),
            None => error.to_string(),
        };
        format!("no name server can be asked for such a name: {why}")
    })
}

impl Resolve for Resolver {
    fn resolve(&self, name: HostName) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = match resolver.lookup_allowed(name.as_str()).await {
                Ok(addresses) => addresses,
                // Unwrapped, so that code that walks the error chain finds it.
                Err(LookupError::Denied(denied)) => return Err(denied.into()),
                Err(LookupError::Unresolved(unresolved)) => return Err(unresolved.into()),
            };
            // The connector replaces port 0 with the URL's port.
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Returns `true` if `name` is `domain` or a name below it. Ignores case.
fn is_within(name: &str, domain: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let head = name.len().checked_sub(domain.len());
    head.and_then(|at| name.split_at_checked(at))
        .is_some_and(|(head, tail)| {
            tail.eq_ignore_ascii_case(domain) && (head.is_empty() || head.ends_with('.'))
        })
}

pub(super) enum LookupError {
    Denied(Denied),
    Unresolved(Unresolved),
}

impl LookupError {
    /// Converts this to the error of a connection to `host`.
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

/// The error for a name that has no address, or whose name servers do not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(super) struct Unresolved {
    pub(super) host: String,
    pub(super) why: String,
    /// Set if asking again will not help: a name server denied the name, or the name cannot be asked for.
    pub(super) is_final: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_fits_into_a_query_is_a_name() {
        for name in [
            "a.test",
            "my_bucket.pics.test",
            "-a.test",
            "a-.test",
            "_x._y.test",
            "single",
            "xn--bcher-kva.test",
            "123.test",
            "*.test",
            "a b.test",
            "b\u{fc}cher.test",
            &format!("{}.test", "a".repeat(63)),
        ] {
            let expected: Vec<_> = name.split('.').map(str::as_bytes).collect();
            let found = query_name(name).unwrap();
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn a_domain_has_names_below_it() {
        for (name, expected) in [
            ("localhost", true),
            ("LocalHost.", true),
            ("a.localhost", true),
            ("a.b.localhost.", true),
            ("alocalhost", false),
            ("localhost.test", false),
            ("host", false),
            ("b\u{fc}localhost", false),
            ("", false),
        ] {
            assert_eq!(is_within(name, "localhost"), expected, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_explained() {
        for (name, why) in [
            ("a..test".to_owned(), "empty"),
            (".test".to_owned(), "empty"),
            (format!("{}.test", "a".repeat(64)), "longer than 63"),
            (vec!["a".repeat(60); 5].join("."), "exceed 255"),
        ] {
            let text = query_name(&name).unwrap_err();
            assert!(text.contains(why), "{text}");
        }
    }
}
