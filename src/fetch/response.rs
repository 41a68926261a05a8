//! An answer: what its headers say, and its body.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;
use url::Url;

use super::bandwidth::Bandwidth;
use super::body::{Body, Limits};
use super::caching::{self, ContentRange, Resume, Validators};
use super::client::Request;
use super::coding;
use super::error::{Cause, FetchError};
use super::headers::Sent;
use super::pool::{Ride, Via};
use super::redirect;
use super::refusal::{self, Refusal, RobotsTag};
use super::wire::Head;

/// An answer to one request.
///
/// Dropping it before its end closes the connection, or resets the stream of HTTP/2.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The URL that answered. May hold credentials.
    pub url: Url,
    content_length: Option<u64>,
    is_encoded: bool,
    resumed_at: u64,
    /// End of the range that a 206 carries, as an offset in the file.
    range_end: Option<u64>,
    /// Length of the file, the part before included; `None`: the origin did not say.
    whole_length: Option<u64>,
    /// Set if the bytes from before are the whole file.
    is_rest_empty: bool,
    body: Body,
    via: Option<Via>,
    /// Until the body's end.
    ride: Option<Ride>,
    /// Bytes of the body so far.
    got: u64,
    /// The `Authorization` that the request carried.
    pub(super) sent: Sent,
    /// The missing part of the request, if the status is an error.
    pub(super) advice: Option<Box<Cause>>,
    /// Nobody else is going to say whether it was good.
    pub(super) is_document: bool,
}

impl Response {
    /// Takes the head of an answer to `request`, and says so when it cannot be an answer to it.
    pub(super) fn new(
        mut head: Head,
        request: &Request<'_>,
        limits: Limits,
        max_header_bytes: u64,
        bandwidth: Arc<Bandwidth>,
        via: Option<Via>,
    ) -> Result<Self, FetchError> {
        let url = request.url;
        let ride = head.ride.take();
        let status = head.response.status().as_u16();
        let headers = std::mem::take(head.response.headers_mut());
        let header_bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        if header_bytes as u64 > max_header_bytes {
            return Err(bad(
                url,
                status,
                format!("{header_bytes} bytes of headers; `fetch.max_header_bytes` sets the limit"),
            ));
        }
        let has_body = matches!(status, 200 | 203 | 206);
        let is_encoded = has_body && coding::is_encoded(&headers);
        let content_length = head
            .response
            .content_length()
            .filter(|_| has_body && !is_encoded);
        let place = place(status, &headers, request)?;
        let (resumed_at, range_end, whole_length) = match place {
            Place::Part(range) => {
                let known = request.resume.and_then(Resume::length);
                let end = range.last.saturating_add(1);
                (range.first, Some(end), range.length.or(known))
            }
            Place::Start if is_encoded => (0, None, None),
            Place::Start | Place::Nothing => (0, None, content_length),
        };
        let expected = whole_length.or(range_end);
        if expected.is_some_and(|length| length > limits.max_bytes) {
            return Err(FetchError::TooLarge {
                url: url.into(),
                status,
                announced: expected,
                limit: limits.max_bytes,
            });
        }
        let body = if has_body {
            Body::new(head, &headers, limits, bandwidth, resumed_at, expected).map_err(
                |source| FetchError::BadResponse {
                    url: url.into(),
                    status: Some(status),
                    source,
                },
            )?
        } else {
            Body::none(head, limits, bandwidth)
        };
        Ok(Self {
            status,
            headers,
            url: url.clone(),
            content_length,
            is_encoded,
            resumed_at,
            range_end,
            whole_length,
            is_rest_empty: matches!(place, Place::Nothing),
            body,
            via,
            ride,
            got: 0,
            sent: Sent::Nothing,
            advice: None,
            is_document: false,
        })
    }

    /// Whether the status is one of those whose body is the file: 200, 203 and 206.
    pub fn has_body(&self) -> bool {
        matches!(self.status, 200 | 203 | 206)
    }

    /// Returns the next bytes of the body, decoded, or `None` at its end. `None` at once if
    /// [`has_body`](Self::has_body) returns `false`. Cancel safe.
    ///
    /// # Errors
    ///
    /// When the body is cut off or passes the request's `max_bytes`. A 206 that carries less than the rest of the
    /// file ends like a body that is cut off; [`is_part`](Self::is_part) tells them apart.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        let chunk = self.body.chunk(&self.url).await?;
        match &chunk {
            Some(bytes) => {
                self.got += bytes.len() as u64;
                if self.range_end.is_some_and(|end| self.end() > end) {
                    return Err(not_resumed(&self.url, self.resumed_at, self.status));
                }
            }
            // Without the file's length it is unknown whether this was the rest.
            None if self.is_part() => {
                return Err(FetchError::Truncated {
                    url: (&self.url).into(),
                    got: self.end(),
                    expected: None,
                });
            }
            None => {
                if let Some(ride) = self.ride.take() {
                    ride.arrived(self.got, self.body.held_up());
                    // What nobody can alter is as good as it can be.
                    let via = self.via.as_ref().filter(|via| !via.is_plain());
                    if let Some(via) = via.filter(|_| self.is_document && self.has_body()) {
                        via.accept();
                    }
                }
            }
        }
        Ok(chunk)
    }

    /// Returns the time that bandwidth limits have delayed the body so far.
    pub fn held_up(&self) -> Duration {
        self.body.held_up()
    }

    /// The proxy of the pool that it came through; `None` also where other proxies said the same.
    pub fn via(&self) -> Option<&Via> {
        self.via.as_ref()
    }

    /// Bytes that the body still has to bring, after decoding; `None`: not known.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Returns the length of the whole file if known. For a 206 that includes the bytes from before.
    pub fn whole_length(&self) -> Option<u64> {
        self.whole_length
    }

    /// Returns `true` if all of a 206 has arrived and the file goes on after it, or may go on. The origin chose to
    /// send less than the request asked for (RFC 9110, sections 14.2 and 15.3.7), and the rest takes another request.
    pub fn is_part(&self) -> bool {
        self.range_end == Some(self.end()) && self.whole_length != Some(self.end())
    }

    /// Returns `true` if the bytes from before are the whole file: the answer is 416 to a range that begins at the
    /// end of the file.
    pub fn is_rest_empty(&self) -> bool {
        self.is_rest_empty
    }

    /// Returns the offset in the file after the last byte received.
    fn end(&self) -> u64 {
        self.resumed_at + self.got
    }

    /// Whether the body came with a `Content-Encoding` that is taken off here.
    pub fn is_encoded(&self) -> bool {
        self.is_encoded
    }

    /// Where in the file the body begins: what was asked for in [`Request::resume`], or 0 when the origin
    /// begins again.
    pub fn resumed_at(&self) -> u64 {
        self.resumed_at
    }

    /// Returns `Content-Type` as sent, with its parameters.
    pub fn content_type(&self) -> Option<&str> {
        self.text(&CONTENT_TYPE)
    }

    /// The media type of `Content-Type` without parameters, as the origin writes it; compare without case.
    pub fn media_type(&self) -> Option<&str> {
        let value = self.content_type()?;
        let media_type = value.split(';').next().unwrap_or(value).trim();
        (!media_type.is_empty()).then_some(media_type)
    }

    /// What tells later whether the body is still the same.
    pub fn validators(&self) -> Validators {
        Validators::from_headers(&self.headers)
    }

    /// How to continue this body after `offset` bytes of the file, should it be cut off; `None`: it has to
    /// begin again.
    pub fn resume(&self, offset: u64) -> Option<Resume> {
        if self.is_encoded || !self.has_body() {
            return None;
        }
        let ends_range = self.range_end == Some(offset) && self.whole_length.is_none();
        let resume = Resume::new(&self.headers, offset, self.whole_length)?;
        Some(resume.at_end_of_range(ends_range))
    }

    /// Returns how to request this body again without the encoding, so that it can be continued if it is cut off.
    /// `None` if it is not encoded.
    pub fn restart_unencoded(&self) -> Option<Resume> {
        self.is_encoded.then(Resume::unencoded)
    }

    /// How long from `now` on the origin lets this answer pass as fresh (RFC 9111); zero when it wants to be
    /// asked each time, `None` when it does not say.
    pub fn freshness(&self, now: SystemTime) -> Option<Duration> {
        caching::freshness(&self.headers, now)
    }

    /// Where a redirect leads; `None`: the status is none.
    ///
    /// [`Trail`](super::Trail) counts them and finds circles.
    pub fn redirect(&self) -> Option<Result<Url, FetchError>> {
        redirect::is_redirect(self.status)
            .then(|| redirect::location(&self.url, self.status, &self.headers))
    }

    /// How long the origin asks to wait before the next request.
    pub fn retry_after(&self) -> Option<Duration> {
        caching::retry_after(&self.headers, SystemTime::now())
    }

    /// The error that a status without a usable body amounts to.
    pub fn status_error(&self) -> FetchError {
        FetchError::Status {
            url: (&self.url).into(),
            status: self.status,
            retry_after: self.retry_after(),
            advice: match self.status {
                402 => Some(Box::new(Cause(refusal::payment(&self.headers)))),
                _ => self.advice.clone(),
            },
        }
    }

    /// Returns how the answer asks the product `agent` not to use the file: by one of the directives in `respected`,
    /// or by status 402.
    pub fn refusal(&self, agent: &str, respected: &[RobotsTag]) -> Option<Refusal> {
        let now = SystemTime::now();
        let is_file = self.has_body() || self.status == 304 || self.is_rest_empty();
        refusal::refusal(self.status, is_file, &self.headers, agent, respected, now)
    }

    /// `Content-Disposition` as it was sent; `naming` makes sense of it.
    ///
    /// Of several lines the first counts that speaks of a file name.
    pub fn content_disposition(&self) -> Option<&[u8]> {
        let names = |value: &&[u8]| {
            value
                .windows(b"filename".len())
                .any(|part| part.eq_ignore_ascii_case(b"filename"))
        };
        let lines = self.headers.get_all(CONTENT_DISPOSITION).iter();
        lines.map(http::HeaderValue::as_bytes).find(names)
    }

    /// The body as a reader. Its errors are [`io::Error`]s that wrap [`FetchError`].
    pub fn into_reader(self) -> impl AsyncRead + Send + Unpin {
        let chunks = stream::try_unfold(self, |mut response| async move {
            let chunk = response.chunk().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(chunk.map(|chunk| (chunk, response)))
        });
        StreamReader::new(Box::pin(chunks))
    }

    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn bad(url: &Url, status: u16, why: impl Into<String>) -> FetchError {
    FetchError::BadResponse {
        url: url.into(),
        status: Some(status),
        source: Cause(why.into()),
    }
}

fn not_resumed(url: &Url, offset: u64, status: u16) -> FetchError {
    FetchError::NotResumed {
        url: url.into(),
        offset,
        status,
    }
}

/// Position of an answer's body in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the start of the file.
    Start,
    /// After the bytes from before.
    Part(ContentRange),
    /// There is no body, because the bytes from before are the whole file.
    Nothing,
}

/// Returns the position of the body. Fails if `status` and `headers` do not fit the request.
fn place(status: u16, headers: &HeaderMap, request: &Request<'_>) -> Result<Place, FetchError> {
    let url = request.url;
    let range = || headers.get(CONTENT_RANGE).and_then(ContentRange::parse);
    match (status, request.resume) {
        (206, None) => Err(bad(
            url,
            status,
            "a part of the body that was not asked for",
        )),
        (206, Some(resume)) => range()
            // A continued body was requested and sent without encoding, and it is not a list of ranges.
            .filter(|range| {
                resume.fits(headers, range)
                    && !coding::is_encoded(headers)
                    && !is_multipart(headers)
            })
            .map(Place::Part)
            .ok_or_else(|| not_resumed(url, resume.offset(), status)),
        (416, Some(resume)) if resume.is_whole(headers) => Ok(Place::Nothing),
        (416, Some(resume)) => Err(not_resumed(url, resume.offset(), status)),
        // The status means the whole body, the header a part.
        (200 | 203, Some(resume)) if range().is_some_and(|range| range.first > 0) => {
            Err(not_resumed(url, resume.offset(), status))
        }
        (304, resume)
            if resume.is_some() || request.validators.is_none_or(Validators::is_empty) =>
        {
            Err(FetchError::unasked_not_modified(url))
        }
        _ => Ok(Place::Start),
    }
}

/// Returns `true` if the body is a list of ranges, each with its own headers (RFC 9110, section 14.6).
fn is_multipart(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let kind = b"multipart/byteranges";
        value
            .as_bytes()
            .get(..kind.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(kind))
    })
}
