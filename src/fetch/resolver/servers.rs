//! Queries to name servers: which servers to ask, and how to read their answers.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hickory_net::NetError;
use hickory_net::proto::op::{DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_net::proto::rr::{Name, RData, RecordType};
use hickory_net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsHandle as _, DnsRequestSender as _, FirstAnswer as _};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::conf::Conf;

/// How long to wait before a datagram is sent again. Long enough for a server to resolve a name, and shorter than
/// `timeout`, so that one lost datagram does not cost the whole query.
const RESEND: Duration = Duration::from_secs(1);

/// How long a server that answers nothing is asked last. glibc waits for it anew each time.
const DOWN: Duration = Duration::from_secs(10);

/// Most aliases followed if the server does not follow them itself.
const MAX_ALIASES: usize = 8;

/// Longest time that an answer is cached, whatever its TTL.
pub(super) const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest time that a failed look-up is cached. A list of a dead host's URLs then costs few queries, and a name that
/// has just been created is soon found.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Most addresses kept of one answer. An answer over TCP may have thousands.
const MAX_ADDRESSES: usize = 32;

/// The servers' answer for one address family of a name. Durations are TTLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// At least one address.
    Addresses(Vec<IpAddr>, Duration),
    /// The name exists, but has no address of this family.
    NoData(Duration),
    /// The name does not exist.
    NoName(Duration),
    /// No server answered; the text has the reasons.
    Failed(String),
}

/// The name servers of a configuration.
#[derive(Debug)]
pub(super) struct Servers {
    servers: Vec<Server>,
    conf: Conf,
    /// Timeout for one server in one attempt.
    patience: Duration,
    /// Timeout for a query to all servers.
    limit: Duration,
    /// Number of queries so far, for `rotate`.
    queries: AtomicUsize,
}

impl Servers {
    /// Chooses timeouts such that silence of all servers ends within `limit`, with some time left.
    pub(super) fn new(conf: Conf, limit: Duration) -> Self {
        let share = u32::try_from(conf.servers.len() + 1).unwrap_or(u32::MAX);
        Self {
            patience: conf.timeout.min(limit / share),
            limit: limit / 10 * 9,
            servers: conf.servers.iter().copied().map(Server::new).collect(),
            queries: AtomicUsize::new(0),
            conf,
        }
    }

    pub(super) fn conf(&self) -> &Conf {
        &self.conf
    }

    /// Asks for the addresses of `name` of one family, [`RecordType::A`] or [`RecordType::AAAA`].
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Answer {
        let mut name = name.clone();
        let mut alias_ttl = MAX_TTL;
        for _ in 0..MAX_ALIASES {
            let response = match self.exchange(&name, kind).await {
                Ok(response) => response,
                Err(why) => return Answer::Failed(why),
            };
            let ttl = |limit: Duration| {
                let ttl = response.negative_ttl().unwrap_or(0);
                limit.min(Duration::from_secs(ttl.into())).min(alias_ttl)
            };
            if response.response_code == ResponseCode::NXDomain {
                return Answer::NoName(ttl(MAX_NEGATIVE_TTL));
            }
            let found = addresses(&response, name.clone(), kind);
            let found_ttl = alias_ttl.min(found.ttl);
            if !found.addresses.is_empty() {
                return Answer::Addresses(found.addresses, found_ttl);
            }
            if found.name == name {
                return Answer::NoData(ttl(MAX_NEGATIVE_TTL));
            }
            (name, alias_ttl) = (found.name, found_ttl);
        }
        Answer::Failed(format!("more than {MAX_ALIASES} aliases"))
    }

    /// Returns the first usable answer. Servers are asked in order, one at a time. Silent ones are asked again while
    /// attempts and time remain.
    async fn exchange(&self, name: &Name, kind: RecordType) -> Result<DnsResponse, String> {
        let end = Instant::now() + self.limit;
        let mut order = self.order();
        let mut reasons = vec![String::new(); self.servers.len()];
        for _ in 0..self.conf.attempts {
            let mut silent = Vec::new();
            for at in order {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                let patience = self.patience.min(left);
                match self.servers[at].ask(name, kind, &self.conf, patience).await {
                    Ok(response) => return Ok(response),
                    Err(Refusal { why, is_silence }) => {
                        reasons[at] = why;
                        if is_silence {
                            silent.push(at);
                        }
                    }
                }
            }
            if silent.is_empty() {
                break;
            }
            order = silent;
        }
        Err(self.explain(&reasons))
    }

    /// Returns the order in which to ask the servers. Those known to be down come last.
    fn order(&self) -> Vec<usize> {
        let count = self.servers.len();
        let first = match self.conf.rotate {
            true => self.queries.fetch_add(1, Ordering::Relaxed) % count,
            false => 0,
        };
        let mut order: Vec<_> = (0..count).map(|at| (first + at) % count).collect();
        let now = Instant::now();
        // The sort is stable, so the configured order holds otherwise.
        order.sort_by_key(|&at| self.servers[at].health().is_down(now));
        order
    }

    fn explain(&self, reasons: &[String]) -> String {
        let mut text = String::new();
        for (server, reason) in self.servers.iter().zip(reasons) {
            if !reason.is_empty() {
                let separator = if text.is_empty() { "" } else { ", " };
                let address = ShortAddress(server.address);
                let _ = write!(text, "{separator}name server `{address}` {reason}");
            }
        }
        if self.conf.is_default {
            text += "; `/etc/resolv.conf` names no server";
        }
        text + "; `fetch.name_servers` may name others"
    }
}

/// Displays an address without the default port.
struct ShortAddress(SocketAddr);

impl std::fmt::Display for ShortAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.port() {
            53 => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

/// Why a server gave no usable answer.
#[derive(Debug)]
struct Refusal {
    why: String,
    /// Set if nothing came in time, so that asking again may help.
    is_silence: bool,
}

impl Refusal {
    fn because(why: impl Into<String>) -> Self {
        let (why, is_silence) = (why.into(), false);
        Self { why, is_silence }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Health {
    /// Time of the last answer.
    answered: Option<Instant>,
    /// End of the time in which the server is asked last.
    down_until: Option<Instant>,
}

impl Health {
    fn is_down(&self, now: Instant) -> bool {
        self.down_until.is_some_and(|until| now < until)
    }

    fn note_answer(&mut self, now: Instant) {
        (self.answered, self.down_until) = (Some(now), None);
    }

    /// Records that a query sent at `since` got no answer. The name alone may cause that, because many resolvers wait
    /// long for the servers of a lame delegation. So a server counts as down only if it has answered no other query
    /// since.
    fn note_silence(&mut self, since: Instant, now: Instant) {
        if self.answered.is_none_or(|answered| answered < since) {
            self.down_until = Some(now + DOWN);
        }
    }
}

struct Server {
    address: SocketAddr,
    transport: Transport,
    /// Held for short sections only.
    health: Mutex<Health>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

impl Server {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            transport: Transport::default(),
            health: Mutex::default(),
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        conf: &Conf,
        patience: Duration,
    ) -> Result<DnsResponse, Refusal> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = conf.edns;
        options.retry_interval = RESEND;
        let query = Query::query(name.clone(), kind);
        let request = DnsRequest::from_query(query, options);
        let begun = Instant::now();
        let exchange = async {
            if !conf.use_tcp {
                let response = self.exchange_udp(request.clone(), patience).await?;
                if !response.truncation {
                    return Ok(response);
                }
            }
            self.exchange_tcp(request, patience).await
        };
        let response = match timeout(patience, exchange).await {
            Ok(Ok(response)) => response,
            Ok(Err(NetError::Timeout)) | Err(_) => {
                self.health().note_silence(begun, Instant::now());
                let why = format!("did not answer within {}", in_words(patience));
                return Err(Refusal {
                    why,
                    is_silence: true,
                });
            }
            Ok(Err(NetError::Io(error))) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(Refusal::because("refused the connection"));
            }
            Ok(Err(error)) => return Err(Refusal::because(format!("cannot be asked: {error}"))),
        };
        self.health().note_answer(Instant::now());
        judge(response)
    }

    async fn exchange_udp(
        &self,
        request: DnsRequest,
        patience: Duration,
    ) -> Result<DnsResponse, NetError> {
        let mut stream = UdpClientStream::builder(self.address, self.transport.clone())
            .with_timeout(Some(patience))
            .build();
        stream.send_message(request).first_answer().await
    }

    async fn exchange_tcp(
        &self,
        request: DnsRequest,
        patience: Duration,
    ) -> Result<DnsResponse, NetError> {
        let transport = self.transport.clone();
        let stream =
            TcpClientStream::exchange(self.address, None, patience, None, transport).await?;
        stream.send(request).first_answer().await
    }
}

fn in_words(time: Duration) -> humantime::FormattedDuration {
    let whole = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    humantime::format_duration(whole)
}

/// Rejects an answer after which glibc would ask the next server.
fn judge(response: DnsResponse) -> Result<DnsResponse, Refusal> {
    match response.response_code {
        ResponseCode::NXDomain => Ok(response),
        ResponseCode::NoError => {
            let is_referral = response.answers.is_empty()
                && !response.authoritative
                && !response.recursion_available;
            match is_referral {
                true => Err(Refusal::because("does not resolve names for others")),
                false => Ok(response),
            }
        }
        code => Err(Refusal::because(format!("answered \"{code}\""))),
    }
}

struct Found {
    /// The name at the end of the chain of aliases in the answer.
    name: Name,
    addresses: Vec<IpAddr>,
    ttl: Duration,
}

/// Extracts the addresses of `name` from an answer.
fn addresses(response: &DnsResponse, mut name: Name, kind: RecordType) -> Found {
    let mut ttl = MAX_TTL;
    let mut note_ttl = |seconds: u32| ttl = ttl.min(Duration::from_secs(seconds.into()));
    for _ in 0..=response.answers.len() {
        let alias = response
            .answers
            .iter()
            .find_map(|record| match &record.data {
                RData::CNAME(alias) if record.name == name => Some((&alias.0, record.ttl)),
                _ => None,
            });
        let Some((alias, seconds)) = alias else { break };
        note_ttl(seconds);
        name = alias.clone();
    }
    let mut addresses = Vec::new();
    for record in &response.answers {
        if record.name == name && record.record_type() == kind {
            note_ttl(record.ttl);
            let has_room = addresses.len() < MAX_ADDRESSES;
            addresses.extend(record.data.ip_addr().filter(|_| has_room));
        }
    }
    Found {
        name,
        addresses,
        ttl,
    }
}

/// Tokio's sockets, with [`Connected`] for UDP.
#[derive(Clone, Default)]
struct Transport(TokioRuntimeProvider);

type Connecting<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for Transport {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = Connected;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.0.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        local: Option<SocketAddr>,
        wait_for: Option<Duration>,
    ) -> Connecting<Self::Tcp> {
        self.0.connect_tcp(server, local, wait_for)
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Connecting<Self::Udp> {
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(server).await?;
            Ok(Connected(socket))
        })
    }
}

/// A connected socket, on which the system reports an ICMP "port unreachable".
struct Connected(UdpSocket);

#[async_trait]
impl DnsUdpSocket for Connected {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        DnsUdpSocket::poll_recv_from(&self.0, cx, buffer)
    }

    /// An ICMP error does not make a socket readable, so tokio does not wake a task that waits only for readability.
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let ready = self.0.ready(Interest::READABLE | Interest::ERROR).await?;
            if ready.is_error() {
                if let Some(error) = self.0.take_error()? {
                    return Err(error);
                }
                // Clears the readiness; otherwise the next wait would return at once.
                let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                let _ = self.0.try_io(Interest::ERROR, nothing);
            }
            match self.0.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        DnsUdpSocket::poll_send_to(&self.0, cx, bytes, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use hickory_net::proto::op::Message;
    use hickory_net::proto::rr::Record;
    use hickory_net::proto::rr::rdata::{A, CNAME};

    fn name(text: &str) -> Name {
        Name::from_labels(text.split('.').map(str::as_bytes)).unwrap()
    }

    fn response(code: ResponseCode, answers: Vec<Record>) -> DnsResponse {
        let mut message = Message::query().into_response();
        message.metadata.response_code = code;
        message.metadata.recursion_available = true;
        message.answers = answers;
        DnsResponse::from_message(message).unwrap()
    }

    fn alias(from: &str, to: &str) -> Record {
        Record::from_rdata(name(from), 300, RData::CNAME(CNAME(name(to))))
    }

    fn address(of: &str, last: u8) -> Record {
        Record::from_rdata(name(of), 60, RData::A(A::new(10, 0, 0, last)))
    }

    #[test]
    fn addresses_are_those_at_the_end_of_the_aliases() {
        for (answers, expected, end) in [
            (
                vec![address("a.test", 1), address("A.Test", 2)],
                vec![1, 2],
                "a.test",
            ),
            (vec![address("other.test", 1)], vec![], "a.test"),
            (
                vec![
                    address("c.test", 3),
                    alias("b.test", "c.test"),
                    alias("a.test", "b.test"),
                ],
                vec![3],
                "c.test",
            ),
            (vec![alias("a.test", "b.test")], vec![], "b.test"),
            (
                vec![alias("a.test", "b.test"), alias("b.test", "a.test")],
                vec![],
                "b.test",
            ),
        ] {
            let found = addresses(
                &response(ResponseCode::NoError, answers),
                name("a.test"),
                RecordType::A,
            );
            let expected: Vec<_> = expected
                .into_iter()
                .map(|last| IpAddr::from([10, 0, 0, last]))
                .collect();
            assert_eq!((found.addresses, found.name), (expected, name(end)));
        }
    }

    #[test]
    fn of_many_addresses_the_first_are_kept() {
        let answers = (0..=255).map(|last| address("a.test", last)).collect();
        let response = response(ResponseCode::NoError, answers);
        let found = addresses(&response, name("a.test"), RecordType::A).addresses;
        let first: Vec<IpAddr> = (0..32).map(|last| [10, 0, 0, last].into()).collect();
        assert_eq!(found, first);
    }

    #[test]
    fn an_answer_that_is_none_leads_to_the_next_server() {
        for (code, expected) in [
            (ResponseCode::NoError, true),
            (ResponseCode::NXDomain, true),
            (ResponseCode::ServFail, false),
            (ResponseCode::Refused, false),
            (ResponseCode::NotImp, false),
            (ResponseCode::FormErr, false),
        ] {
            assert_eq!(
                judge(response(code, Vec::new())).is_ok(),
                expected,
                "{code}"
            );
        }
        let mut message = response(ResponseCode::NoError, Vec::new()).into_message();
        message.metadata.recursion_available = false;
        let referral = DnsResponse::from_message(message.clone()).unwrap();
        assert!(judge(referral).is_err());
        message.metadata.authoritative = true;
        assert!(judge(DnsResponse::from_message(message).unwrap()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_server_that_answers_nobody_is_down() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(5);
        let mut health = Health::default();
        health.note_silence(begun, later);
        assert!(health.is_down(later) && !health.is_down(later + DOWN));
        health.note_answer(later);
        assert!(!health.is_down(later));
        // The server answered another query meanwhile.
        health.note_silence(begun, later);
        assert!(!health.is_down(later));
    }

    #[test]
    fn what_silent_servers_take_leaves_time_to_connect() {
        for (count, timeout, expected) in [(1, 5, 5), (2, 5, 3), (3, 5, 2), (1, 2, 2)] {
            let servers = vec!["127.0.0.1:53".parse().unwrap(); count];
            let mut conf = Conf::with_servers(servers);
            conf.timeout = Duration::from_secs(timeout);
            let servers = Servers::new(conf, Duration::from_secs(10));
            assert_eq!(servers.patience.as_secs(), expected, "{count}");
            assert_eq!(servers.limit, Duration::from_secs(9));
        }
    }
}
