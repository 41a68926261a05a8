//! A client of the API that sends what it is told to, byte for byte.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Far more than an answer takes.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer as it came.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Got {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Asserts that it is a problem document of this status, and returns its detail.
    #[track_caller]
    pub fn problem(self, status: u16) -> String {
        let got = self.expect(status);
        assert_eq!(got.header("content-type"), Some("application/problem+json"));
        let document = got.json();
        assert_eq!(document["status"], status);
        assert!(document["title"].is_string(), "{document}");
        document["detail"].as_str().unwrap().to_owned()
    }
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{} {:#?}\n{body}", self.status, self.headers)
    }
}

/// A connection on which nothing was sent yet.
pub fn connect(to: SocketAddr) -> TcpStream {
    #[expect(clippy::disallowed_methods, reason = "loopback")]
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// One request on a connection of its own. `Host` is the address, unless `headers` have another.
#[track_caller]
pub fn ask(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Got {
    send(to, method, target, headers, None)
}

/// The same with a body, whose length is told.
#[track_caller]
pub fn send(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Got {
    let mut stream = connect(to);
    let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    if !headers.iter().any(|(name, _)| *name == "Host") {
        head += &format!("Host: {to}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    // It may be refused before all of it is sent.
    let _ = stream.write_all(body.unwrap_or_default());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    parse(&bytes)
}

#[track_caller]
pub fn parse(bytes: &[u8]) -> Got {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = &bytes[end + 4..];
    let is_chunked = headers.contains(&("transfer-encoding".to_owned(), "chunked".to_owned()));
    Got {
        status: status.parse().unwrap(),
        body: match is_chunked {
            true => unchunked(body),
            false => body.to_vec(),
        },
        headers,
    }
}

/// The body without the lengths of its chunks. One that breaks off is an error.
#[track_caller]
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let length = std::str::from_utf8(&bytes[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return body;
        }
        let chunk = &bytes[end + 2..];
        body.extend_from_slice(&chunk[..length]);
        bytes = &chunk[length + 2..];
    }
}
