//! A name server with whatever addresses a test wants.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, without its final dot.
    pub name: String,
    pub is_ipv6: bool,
    pub is_tcp: bool,
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Says {
    /// The addresses of the family that was asked for.
    Addresses(Vec<IpAddr>),
    /// The same over TCP. Over UDP, the answer is truncated.
    OverTcp(Vec<IpAddr>),
    /// The same as `Addresses`, so much later. Over UDP only.
    Late(Duration, Vec<IpAddr>),
    NoName,
    Failure,
    Nothing,
}

type Zone = dyn Fn(&Question, usize) -> Says + Send + Sync;

/// A name server on loopback, until it is dropped.
pub struct NameServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    zone: Box<Zone>,
    /// TTL of answers, in seconds.
    ttl: u8,
    asked: Mutex<Vec<Question>>,
}

impl NameServer {
    /// `zone` is asked with a name, without its last dot, and the number of queries before; `None` is
    /// NXDOMAIN. Answers live for zero seconds, so that each connection asks anew.
    pub fn start(
        zone: impl Fn(&str, usize) -> Option<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self::with_ttl(0, zone)
    }

    /// The same with answers that live for `ttl` seconds.
    pub fn with_ttl(
        ttl: u8,
        zone: impl Fn(&str, usize) -> Option<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let zone = move |asked: &Question, before: usize| {
            zone(&asked.name, before).map_or(Says::NoName, Says::Addresses)
        };
        Self::on("127.0.0.1:0", ttl, zone)
    }

    /// Starts a server at `address` that may give any answer, over UDP and TCP.
    pub fn on(
        address: &str,
        ttl: u8,
        zone: impl Fn(&Question, usize) -> Says + Send + Sync + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared {
            zone: Box::new(zone),
            ttl,
            asked: Mutex::default(),
        });
        // Another process may use the port; few tests need it.
        if let Ok(listener) = TcpListener::bind(address) {
            let shared = shared.clone();
            // Ends with the process.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = shared.clone();
                    std::thread::spawn(move || shared.serve_tcp(stream));
                }
            });
        }
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || shared.serve_udp(&socket)
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    pub fn queries(&self) -> usize {
        self.asked().len()
    }

    /// Returns all queries in order.
    pub fn asked(&self) -> Vec<Question> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // An empty datagram is the sign to stop.
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(&[], self.address);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            if length == 0 {
                return;
            }
            match self.answer(&buffer[..length], false) {
                Some((Duration::ZERO, answer)) => {
                    let _ = socket.send_to(&answer, client);
                }
                Some((delay, answer)) => {
                    let socket = socket.try_clone().unwrap();
                    std::thread::spawn(move || {
                        std::thread::sleep(delay);
                        let _ = socket.send_to(&answer, client);
                    });
                }
                None => {}
            }
        }
    }

    /// DNS over TCP, RFC 1035, section 4.2.2.
    fn serve_tcp(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            if stream.read_exact(&mut query).is_err() {
                return;
            }
            if let Some((_, answer)) = self.answer(&query, true) {
                let mut message = (answer.len() as u16).to_be_bytes().to_vec();
                message.extend(answer);
                let _ = stream.write_all(&message);
            }
        }
    }

    /// Builds an answer, RFC 1035, sections 4.1 and 4.2.1. Also returns when to send it.
    fn answer(&self, query: &[u8], is_tcp: bool) -> Option<(Duration, Vec<u8>)> {
        let mut name = Vec::new();
        let mut at = 12;
        loop {
            let length = usize::from(*query.get(at)?);
            if length == 0 {
                break;
            }
            name.push(
                String::from_utf8_lossy(query.get(at + 1..at + 1 + length)?).to_ascii_lowercase(),
            );
            at += 1 + length;
        }
        let question = query.get(12..at + 5)?;
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let asked = Question {
            name: name.join("."),
            is_ipv6: kind == 28,
            is_tcp,
        };
        let before = {
            let mut all = self.asked.lock().unwrap();
            all.push(asked.clone());
            all.len() - 1
        };
        let mut delay = Duration::ZERO;
        let (flags, code, found) = match (self.zone)(&asked, before) {
            Says::Late(after, found) => {
                delay = after;
                (0, 0, found)
            }
            Says::Addresses(found) => (0, 0, found),
            Says::OverTcp(found) if is_tcp => (0, 0, found),
            // Truncated.
            Says::OverTcp(_) => (0x02, 0, Vec::new()),
            Says::NoName => (0, 3, Vec::new()),
            Says::Failure => (0, 2, Vec::new()),
            Says::Nothing => return None,
        };
        let records: Vec<Vec<u8>> = found
            .into_iter()
            .filter_map(|address| match (address, kind) {
                (IpAddr::V4(v4), 1) => Some(v4.octets().to_vec()),
                (IpAddr::V6(v6), 28) => Some(v6.octets().to_vec()),
                _ => None,
            })
            .collect();
        let mut out = query[..2].to_vec();
        let count = records.len() as u8;
        out.extend([0x81 | flags, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        out.extend(question);
        for record in records {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, self.ttl, 0, record.len() as u8]);
            out.extend(record);
        }
        Some((delay, out))
    }
}
