//! The resolver's configuration: resolv.conf(5), as glibc reads it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use resolv_conf::ScopedIp;

const PORT: u16 = 53;

// Limits of glibc.
const MAX_SERVERS: usize = 3;
const MAX_NDOTS: u32 = 15;
const MAX_TIMEOUT: u32 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// Configuration of name resolution: which servers to ask, and for which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conf {
    /// Name servers in the order in which they are asked. Never empty.
    pub(super) servers: Vec<SocketAddr>,
    /// Set if the system names no server, so that `servers` is the default.
    pub(super) is_default: bool,
    /// Domains of the search list, in lower case, without the final dot.
    pub(super) search: Vec<String>,
    /// Number of dots from which on a name is tried as it is before the search list.
    pub(super) ndots: usize,
    /// Timeout for one server.
    pub(super) timeout: Duration,
    /// Number of times that a silent server is asked.
    pub(super) attempts: u32,
    /// Set if each query starts with the next server.
    pub(super) rotate: bool,
    /// Set to ask over TCP only.
    pub(super) use_tcp: bool,
    pub(super) edns: bool,
    /// Set to ask for IPv4 addresses only.
    pub(super) no_aaaa: bool,
}

impl Conf {
    /// Returns a configuration with these servers and otherwise glibc's defaults.
    pub(super) fn with_servers(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            is_default: false,
            ..Self::parse(b"", &Environment::default())
        }
    }

    /// Parses resolv.conf. Lines that do not parse are ignored. The default server is this host, as in glibc.
    pub(super) fn parse(text: &[u8], environment: &Environment) -> Self {
        let mut text: Vec<u8> = text
            .split(|&byte| byte == b'\n')
            // glibc accepts a keyword only at the very start of a line.
            .filter(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"))
            .flat_map(|line| line.iter().chain(b"\n"))
            .copied()
            .collect();
        for (keyword, value) in [
            ("search", &environment.local_domain),
            ("options", &environment.options),
        ] {
            if let Some(value) = value {
                text.extend(format!("{keyword} {}\n", value.replace('\n', " ")).bytes());
            }
        }
        let (conf, errors) = resolv_conf::Config::parse_with_errors(&text);
        for error in errors {
            tracing::debug!("resolv.conf: {error}");
        }
        let mut servers: Vec<_> = conf.nameservers.iter().filter_map(server).collect();
        servers.truncate(MAX_SERVERS);
        let is_default = servers.is_empty();
        if is_default {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT));
        }
        let mut search: Vec<_> = conf.get_last_search_or_domain().cloned().collect();
        if search.is_empty() {
            let domain = environment.host_name.split_once('.');
            search.extend(domain.map(|(_, domain)| domain.to_owned()));
        }
        let search = search.into_iter().map(|domain| {
            let domain = domain.strip_suffix('.').unwrap_or(&domain);
            domain.to_ascii_lowercase()
        });
        Self {
            servers,
            is_default,
            search: search.filter(|domain| !domain.is_empty()).collect(),
            ndots: conf.ndots.min(MAX_NDOTS) as usize,
            timeout: Duration::from_secs(conf.timeout.clamp(1, MAX_TIMEOUT).into()),
            attempts: conf.attempts.clamp(1, MAX_ATTEMPTS),
            rotate: conf.rotate,
            use_tcp: conf.use_vc,
            edns: conf.edns0,
            no_aaaa: conf.no_aaaa,
        }
    }

    /// Returns the names to try for `name`, in order, without their final dot.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let completed = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let mut candidates: Vec<_> = completed.collect();
        let is_first = name.matches('.').count() >= self.ndots;
        let at = if is_first { 0 } else { candidates.len() };
        candidates.insert(at, name.to_owned());
        candidates
    }
}

/// Other inputs to the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    /// `LOCALDOMAIN`, which overrides `search`.
    local_domain: Option<String>,
    /// `RES_OPTIONS`, which is added to `options`.
    options: Option<String>,
    host_name: String,
}

impl Environment {
    pub(super) fn of_this_process() -> Self {
        Self {
            local_domain: std::env::var("LOCALDOMAIN").ok(),
            options: std::env::var("RES_OPTIONS").ok(),
            host_name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        }
    }
}

fn server(address: &ScopedIp) -> Option<SocketAddr> {
    match address {
        ScopedIp::V6(address, Some(scope)) => {
            let scope = scope.parse().ok().or_else(|| interface(scope))?;
            Some(SocketAddrV6::new(*address, PORT, 0, scope).into())
        }
        address => Some(SocketAddr::new(IpAddr::from(address), PORT)),
    }
}

/// Returns the index of a network interface.
fn interface(name: &str) -> Option<u32> {
    if name.contains('/') {
        return None;
    }
    let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    index.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Conf {
        Conf::parse(text.as_bytes(), &Environment::default())
    }

    fn servers(text: &str) -> Vec<String> {
        let servers = parse(text).servers;
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_those_of_readable_lines_in_their_order() {
        for (text, expected) in [
            ("", vec!["127.0.0.1:53"]),
            (
                "# nameserver 10.0.0.1\n; nameserver 10.0.0.2\n",
                vec!["127.0.0.1:53"],
            ),
            (
                "nameserver 10.0.0.2\nnameserver 10.0.0.1",
                vec!["10.0.0.2:53", "10.0.0.1:53"],
            ),
            ("nameserver\t10.0.0.1 # here\r\n", vec!["10.0.0.1:53"]),
            (
                "nameserver dns.test\nnameserver 10.0.0\nnameserver\n",
                vec!["127.0.0.1:53"],
            ),
            (
                " nameserver 10.0.0.1\nnameserver 10.0.0.2",
                vec!["10.0.0.2:53"],
            ),
            (
                "nameserver ::1\nnameserver fe80::1%1",
                vec!["[::1]:53", "[fe80::1%1]:53"],
            ),
            (
                "nameserver fe80::1%no-such\nnameserver 10.0.0.1",
                vec!["10.0.0.1:53"],
            ),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4",
                vec!["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
            ),
            ("<html>\nnameserver 10.0.0.1", vec!["10.0.0.1:53"]),
        ] {
            assert_eq!(servers(text), expected, "{text:?}");
        }
        let odd = b"search \xff\xfe\nnameserver 10.0.0.1\n";
        let conf = Conf::parse(odd, &Environment::default());
        assert_eq!(conf.servers, ["10.0.0.1:53".parse().unwrap()]);
        assert!(!conf.is_default && parse("").is_default);
    }

    #[test]
    fn options_keep_within_glibcs_limits() {
        let conf = parse("options ndots:99 timeout:99 attempts:99 rotate use-vc edns0 no-aaaa x:y");
        assert_eq!(
            (conf.ndots, conf.timeout, conf.attempts),
            (15, Duration::from_secs(30), 5)
        );
        assert!(conf.rotate && conf.use_tcp && conf.edns && conf.no_aaaa);
        let conf = parse("options timeout:0 attempts:0 ndots:-1");
        assert_eq!(
            (conf.ndots, conf.timeout, conf.attempts),
            (1, Duration::from_secs(1), 1)
        );
        assert!(!conf.rotate && !conf.use_tcp && !conf.edns && !conf.no_aaaa);
    }

    #[test]
    fn names_are_completed_by_the_search_list() {
        for (text, name, expected) in [
            ("", "single", vec!["single"]),
            ("", "a.test", vec!["a.test"]),
            (
                "search one.test Two.test.",
                "single",
                vec!["single.one.test", "single.two.test", "single"],
            ),
            ("search one.test", "a.b", vec!["a.b", "a.b.one.test"]),
            ("search one.test", "a.b.", vec!["a.b"]),
            ("search one.test", "single.", vec!["single"]),
            (
                "search one.test\noptions ndots:2",
                "a.b",
                vec!["a.b.one.test", "a.b"],
            ),
            (
                "search one.test\noptions ndots:0",
                "single",
                vec!["single", "single.one.test"],
            ),
            (
                "domain one.test",
                "single",
                vec!["single.one.test", "single"],
            ),
            (
                "domain one.test\nsearch two.test",
                "single",
                vec!["single.two.test", "single"],
            ),
            (
                "search two.test\ndomain one.test",
                "single",
                vec!["single.one.test", "single"],
            ),
            ("search .", "single", vec!["single"]),
        ] {
            assert_eq!(parse(text).candidates(name), expected, "{text:?} {name}");
        }
    }

    #[test]
    fn the_environment_amends_the_file() {
        let mut environment = Environment {
            local_domain: None,
            options: Some("ndots:3\nattempts:1".to_owned()),
            host_name: "box.corp.test".to_owned(),
        };
        let conf = Conf::parse(b"options ndots:2", &environment);
        assert_eq!((conf.ndots, conf.attempts), (3, 1));
        assert_eq!(conf.search, ["corp.test"]);
        environment.local_domain = Some("a.test b.test".to_owned());
        let conf = Conf::parse(b"search c.test", &environment);
        assert_eq!(conf.search, ["a.test", "b.test"]);
    }
}
