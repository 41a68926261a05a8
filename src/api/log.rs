//! An id for each request, and a line about it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use uuid::Uuid;

use super::access::{Access, Name, Way};
use crate::metrics::METRICS;

/// What a request is known by, here and in the log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a client that is taken over.
const ID_BYTES: usize = 64;

/// How much of a path is logged.
const PATH_BYTES: usize = 1024;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) Arc<str>);

/// What others ask all the time, which is worth no line unless it fails.
const ROUTINE: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Gives a request its id, and has a line written once its answer is sent or broken off.
pub(super) async fn note(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let is_quiet = request.extensions().get() == Some(&Way::Socket) || !access.rules().access_log;
    let mut line = Line {
        id: id.clone(),
        method: request.method().clone(),
        path: shown(request.uri().path()),
        peer: request.extensions().get().map(|Peer(peer)| peer.clone()),
        token: None,
        status: StatusCode::OK,
        begun,
        bytes: 0,
        expected: Some(0),
        is_whole: false,
        is_quiet,
    };
    // What is asked for is none of ours where there is no route.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let status = response.status().as_u16();
    METRICS.api_request(route, known(&line.method), status, begun.elapsed());
    line.token = response.extensions_mut().remove();
    line.status = response.status();
    response.headers_mut().insert(REQUEST_ID, id);
    let length = response.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    response.map(|body| {
        line.expected = match line.method {
            Method::HEAD => Some(0),
            _ => length.or(body.size_hint().exact()),
        };
        Body::new(Counted { body, line })
    })
}

/// The id that a client gave it, where it can stand in a log, or another one.
fn id(headers: &HeaderMap) -> HeaderValue {
    let fits = |id: &&HeaderValue| {
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
        (1..=ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_plain)
    };
    let given = headers.get(REQUEST_ID).filter(fits).cloned();
    given.unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// A method, unless it is one of the client's own.
fn known(method: &Method) -> &str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let found = known.into_iter().find(|known| *known == method.as_str());
    found.unwrap_or("other")
}

/// The beginning of a path, which is ASCII without control characters.
fn shown(path: &str) -> String {
    path.chars().take(PATH_BYTES).collect()
}

/// A line about a request, which is written as it is dropped.
struct Line {
    id: HeaderValue,
    method: Method,
    path: String,
    peer: Option<Arc<str>>,
    token: Option<Name>,
    status: StatusCode,
    begun: Instant,
    /// Bytes of the body that were sent.
    bytes: u64,
    /// How many there are, where that is known beforehand.
    expected: Option<u64>,
    /// Whether the body said that it is at its end.
    is_whole: bool,
    is_quiet: bool,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.is_whole |= self.expected.is_some_and(|expected| self.bytes >= expected);
        let id = self.id.to_str().unwrap_or_default();
        let elapsed_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let token = self.token.as_ref().map_or("-", |Name(name)| name);
        let peer = self.peer.as_deref().unwrap_or("-");
        let is_routine = ROUTINE.contains(&self.path.as_str()) && self.status.is_success();
        macro_rules! write {
            ($level:expr) => {
                tracing::event!(
                    target: "gannet::access", $level,
                    { request.id = id, method = %self.method, path = self.path, status = self.status.as_u16(),
                      bytes = self.bytes, elapsed_ms, token, peer },
                    "{self}"
                )
            };
        }
        match self.is_quiet || is_routine {
            true => write!(tracing::Level::DEBUG),
            false => write!(tracing::Level::INFO),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.path, self.status.as_u16())?;
        match self.is_whole {
            true => Ok(()),
            false => f.write_str(", broken off"),
        }
    }
}

/// A body, and a line that counts its bytes.
struct Counted {
    body: Body,
    line: Line,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let data = frame.data_ref();
            this.line.bytes += data.map_or(0, |data| data.len() as u64);
        }
        this.line.is_whole |= matches!(polled, Poll::Ready(None));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_client_is_taken_over_where_it_can_stand_in_a_log() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(
                REQUEST_ID,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
            id(&headers)
        };
        assert_eq!(with("a-1/b"), "a-1/b");
        for other in ["", "a b", "\u{e9}", "\"", &"a".repeat(65)] {
            assert_eq!(with(other).len(), 36, "{other}");
        }
    }
}
