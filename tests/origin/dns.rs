//! A name server with whatever addresses a test wants.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

type Zone = dyn Fn(&str, usize) -> Option<Vec<IpAddr>> + Send + Sync;

/// Answers queries by UDP on loopback until it is dropped.
pub struct NameServer {
    pub address: SocketAddr,
    queries: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
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
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let queries = queries.clone();
            move || serve(&socket, ttl, &zone, &queries)
        });
        Self {
            address,
            queries,
            thread: Some(thread),
        }
    }

    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
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

fn serve(socket: &UdpSocket, ttl: u8, zone: &Zone, queries: &AtomicUsize) {
    let mut buffer = [0; 1500];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        if length == 0 {
            return;
        }
        if let Some(answer) = answer(&buffer[..length], ttl, zone, queries) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// RFC 1035, sections 4.1 and 4.2.1.
fn answer(query: &[u8], ttl: u8, zone: &Zone, queries: &AtomicUsize) -> Option<Vec<u8>> {
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
    let found = zone(&name.join("."), queries.fetch_add(1, Ordering::SeqCst));
    let code = if found.is_some() { 0 } else { 3 };
    let records: Vec<Vec<u8>> = found
        .unwrap_or_default()
        .into_iter()
        .filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), 1) => Some(v4.octets().to_vec()),
            (IpAddr::V6(v6), 28) => Some(v6.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    out.extend(question);
    for record in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, ttl, 0, record.len() as u8]);
        out.extend(record);
    }
    Some(out)
}
