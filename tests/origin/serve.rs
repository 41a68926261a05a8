//! How an origin speaks: HTTP/1.1 by hand, so that it can speak it wrongly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::reply::{End, Framing, Parting, Reply};
use super::{Recorded, Shared};

pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            let _open = shared.connections.enter();
            // What goes wrong here is the client's doing, and what the test is about.
            let _ = match tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection(stream, &shared).await,
                    Err(error) => Err(error),
                },
                None => connection(stream, &shared).await,
            };
        });
    }
}

async fn connection(mut stream: impl Wire, shared: &Shared) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut answered = 0;
    loop {
        let request = read_request(&mut stream, &mut buffer);
        let request = match shared.idle {
            Some(idle) if answered > 0 => tokio::time::timeout(idle, request).await,
            _ => Ok(request.await),
        };
        let Ok(Some(request)) = request.unwrap_or(Ok(None)) else {
            break;
        };
        let _in_flight = shared.requests.enter();
        if !shared.forgetful {
            shared.asked.lock().unwrap().push(request.clone());
        }
        if let Some((requests, parting)) = shared.parting
            && answered == requests
        {
            match parting {
                Parting::Close => break,
                Parting::Reset => return reset(&mut stream).map(drop),
                Parting::Words(words) => stream.write_all(words.as_bytes()).await?,
            }
            break;
        }
        answered += 1;
        let reply = choose(shared, &request);
        if !answer(&mut stream, &reply, &request, &shared.sent).await? {
            break;
        }
    }
    stream.shutdown().await
}

fn choose(shared: &Shared, request: &Recorded) -> Reply {
    let mut hits = shared.hits.lock().unwrap();
    let count = hits.entry(request.path.clone()).or_default();
    let replies = shared.routes.get(&request.path);
    let reply = replies.and_then(|replies| replies.get(*count).or(replies.last()));
    *count += 1;
    reply
        .or(shared.fallback.as_ref())
        .cloned()
        .unwrap_or_else(|| Reply::status(404))
}

async fn read_request(
    stream: &mut impl Wire,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Recorded>> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
        // A TLS handshake where there is none: answered by 404, as other origins do by 400.
        if buffer[0] == 0x16 {
            buffer.clear();
            return Ok(Some(Recorded {
                path: "(TLS)".to_owned(),
                at: Instant::now(),
                headers: Vec::new(),
            }));
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end);
    let mut lines = head.lines();
    let path = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    Ok(Some(Recorded {
        path: path.to_owned(),
        at: Instant::now(),
        headers,
    }))
}

/// Sends `reply`; whether the connection stays open.
async fn answer(
    stream: &mut impl Wire,
    reply: &Reply,
    request: &Recorded,
    sent: &AtomicU64,
) -> io::Result<bool> {
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    match reply.end {
        End::Silent => return hang().await,
        End::Close => return Ok(false),
        End::Reset => return reset(stream),
        End::Whole | End::CutAfter(_) | End::ResetAfter(_) | End::HangAfter(_) => {}
    }
    if let Some(raw) = &reply.raw {
        stream.write_all(raw).await?;
        return Ok(false);
    }
    let mut status = reply.status;
    let mut body = &reply.body[..];
    let mut extra = String::new();
    if is_unchanged(reply, request) {
        (status, body) = (304, &[]);
    } else if let Some(from) = range_start(reply, request) {
        if from < body.len() {
            let to = from.saturating_add(reply.range_bytes).min(body.len());
            let length = match reply.hides_length {
                true => "*".to_owned(),
                false => body.len().to_string(),
            };
            extra = format!("Content-Range: bytes {from}-{}/{length}\r\n", to - 1);
            (status, body) = (206, &body[from..to]);
        } else {
            extra = format!("Content-Range: bytes */{}\r\n", body.len());
            (status, body) = (416, &[]);
        }
    }
    let mut head = format!("HTTP/1.1 {status} Status\r\n{extra}");
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.framing {
        _ if status == 304 => {}
        Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
        Framing::Repeated(times) => {
            head.push_str(&format!(
                "Content-Length: {}\r\n",
                body.len() as u64 * times
            ));
        }
        Framing::LengthOf(claimed) => head.push_str(&format!("Content-Length: {claimed}\r\n")),
        Framing::Chunked | Framing::Endless => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::Close => head.push_str("Connection: close\r\n"),
    }
    head.push_str("\r\n");
    let mut whole = head.into_bytes();
    if reply.framing == Framing::Length && reply.drip.is_none() && reply.end == End::Whole {
        // In one write, as a fast origin does.
        whole.extend_from_slice(body);
        stream.write_all(&whole).await?;
        sent.fetch_add(body.len() as u64, Ordering::SeqCst);
        return Ok(true);
    }
    stream.write_all(&whole).await?;
    send_body(stream, reply, body, sent).await
}

async fn send_body(
    stream: &mut impl Wire,
    reply: &Reply,
    body: &[u8],
    counter: &AtomicU64,
) -> io::Result<bool> {
    let is_chunked = matches!(reply.framing, Framing::Chunked | Framing::Endless);
    let sent = match reply.end {
        End::CutAfter(n) | End::ResetAfter(n) | End::HangAfter(n) => &body[..n.min(body.len())],
        _ => body,
    };
    let (piece, pause) = reply.drip.unwrap_or((64 * 1024, std::time::Duration::ZERO));
    let mut rounds = 0;
    loop {
        for piece in sent.chunks(piece) {
            if is_chunked {
                let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
                chunk.extend_from_slice(piece);
                chunk.extend_from_slice(b"\r\n");
                stream.write_all(&chunk).await?;
            } else {
                stream.write_all(piece).await?;
            }
            counter.fetch_add(piece.len() as u64, Ordering::SeqCst);
            if !pause.is_zero() {
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
        }
        let is_again = match reply.framing {
            Framing::Endless => true,
            Framing::Repeated(times) => {
                rounds += 1;
                rounds < times
            }
            _ => false,
        };
        if !is_again {
            break;
        }
    }
    stream.flush().await?;
    match reply.end {
        End::HangAfter(_) => hang().await,
        End::ResetAfter(_) => {
            // What was sent has to be read first: RST throws away what waits.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            reset(stream)
        }
        End::CutAfter(_) => Ok(false),
        _ if is_chunked => {
            stream.write_all(b"0\r\n\r\n").await?;
            Ok(true)
        }
        _ => Ok(matches!(
            reply.framing,
            Framing::Length | Framing::Repeated(_)
        )),
    }
}

/// Keeps the connection until the origin ends.
async fn hang() -> io::Result<bool> {
    std::future::pending().await
}

fn reset(stream: &mut impl Wire) -> io::Result<bool> {
    // With a linger time of zero, closing sends RST (and cannot block, which is the fault of others).
    stream.tcp().set_zero_linger()?;
    Err(io::ErrorKind::ConnectionReset.into())
}

fn is_unchanged(reply: &Reply, request: &Recorded) -> bool {
    if reply.status != 200 {
        return false;
    }
    // RFC 9110 section 13.2.2: the date does not count where there is an ETag.
    match request.header("if-none-match") {
        Some(known) => reply.value("etag").is_some_and(|etag| known == etag),
        None => {
            let known = request.header("if-modified-since");
            known.is_some() && known == reply.value("last-modified")
        }
    }
}

fn range_start(reply: &Reply, request: &Recorded) -> Option<usize> {
    if !reply.ranges {
        return None;
    }
    let from = request
        .header("range")?
        .strip_prefix("bytes=")?
        .strip_suffix('-')?
        .parse()
        .ok()?;
    let condition = request.header("if-range");
    let holds = condition.is_none()
        || condition == reply.value("etag")
        || condition == reply.value("last-modified");
    holds.then_some(from)
}
