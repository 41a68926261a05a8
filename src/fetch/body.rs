//! A body on its way in: decoded, within its limits.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use http::header::HeaderMap;
use tokio::time::{Instant, Sleep};
use tokio_util::io::{StreamReader, poll_read_buf};
use url::Url;

use super::bandwidth::Bandwidth;
use super::classify;
use super::coding::{self, Reader};
use super::error::{Cause, FetchError, Phase};
use super::settings::Effective;
use super::wire::{Deadline, Head};

/// Room for decoded bytes; what one chunk of an encoded body holds at most.
const DECODED_CHUNK: usize = 32 * 1024;

/// Limits that hold while a body comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) idle: Duration,
    pub(super) deadline: Deadline,
    /// Bytes a second; 0: any.
    pub(super) min_speed: u64,
    pub(super) window: Duration,
    /// For the whole body, after decoding, with the part that a resumed body began with.
    pub(super) max_bytes: u64,
}

impl Limits {
    /// Those of `settings`, for a request that begins now.
    pub(super) fn of(settings: &Effective<'_>, max_bytes: u64) -> Self {
        Self {
            idle: settings.idle_timeout(),
            deadline: Deadline {
                at: Instant::now() + settings.total_timeout(),
                limit: settings.total_timeout(),
            },
            min_speed: settings.min_speed().as_u64(),
            window: settings.min_speed_window(),
            max_bytes,
        }
    }
}

/// The bytes as they come.
pub(super) enum Bytestream {
    /// As the origin sends them.
    Plain(reqwest::Response),
    /// Through decoders. Boxed once a body.
    Decoded {
        reader: Reader,
        buffer: BytesMut,
        /// Encoded bytes that were read and not yet charged to the bandwidth limits.
        encoded: Arc<AtomicU64>,
    },
    /// All are read, or there are none to read.
    Ended,
}

impl Bytestream {
    /// The bytes of `response`, through the decoders that `headers` ask for.
    ///
    /// # Errors
    ///
    /// When `headers` name too many codings.
    pub(super) fn new(response: reqwest::Response, headers: &HeaderMap) -> Result<Self, Cause> {
        let codings = coding::codings(headers)?;
        // An empty body with a coding is what some origins send; there is nothing to decode.
        if codings.is_empty() || response.content_length() == Some(0) {
            return Ok(Self::Plain(response));
        }
        let encoded = Arc::new(AtomicU64::new(0));
        let count = {
            let encoded = encoded.clone();
            move |bytes: &Bytes| {
                encoded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        };
        let bytes = response.bytes_stream().inspect_ok(count);
        let source = StreamReader::new(bytes.map_err(io::Error::other));
        Ok(Self::Decoded {
            reader: coding::decode(source, &codings),
            buffer: BytesMut::new(),
            encoded,
        })
    }
}

/// A body and its limits.
pub(super) struct Body {
    stream: Bytestream,
    watch: Watch,
    bandwidth: Arc<Bandwidth>,
    /// A chunk that waits for bandwidth, and its length on the wire.
    unpaid: Option<(Bytes, u64)>,
    /// Total time that chunks have waited for bandwidth.
    held_up: Duration,
    status: u16,
    /// Set for HTTP/2, where bodies share a connection. While others wait for bandwidth, they may fill its window.
    shares_connection: bool,
    max_bytes: u64,
    /// Bytes so far, with the part that a resumed body began with.
    got: u64,
    /// Bytes in the end, if known.
    expected: Option<u64>,
}

impl Body {
    /// The body of an answer, of which `offset` bytes are there already.
    pub(super) fn new(
        head: Head,
        headers: &HeaderMap,
        limits: Limits,
        bandwidth: Arc<Bandwidth>,
        offset: u64,
        expected: Option<u64>,
    ) -> Result<Self, Cause> {
        Ok(Self {
            bandwidth,
            unpaid: None,
            held_up: Duration::ZERO,
            status: head.response.status().as_u16(),
            shares_connection: head.response.version() == http::Version::HTTP_2,
            stream: Bytestream::new(head.response, headers)?,
            watch: Watch::new(head.sleep, limits),
            max_bytes: limits.max_bytes,
            got: offset,
            expected,
        })
    }

    /// The body of an answer that has none to read.
    pub(super) fn none(head: Head, limits: Limits, bandwidth: Arc<Bandwidth>) -> Self {
        Self {
            bandwidth,
            unpaid: None,
            held_up: Duration::ZERO,
            status: head.response.status().as_u16(),
            shares_connection: head.response.version() == http::Version::HTTP_2,
            stream: Bytestream::Ended,
            watch: Watch::new(head.sleep, limits),
            max_bytes: 0,
            got: 0,
            expected: None,
        }
    }

    /// Returns the next bytes, or `None` at the end. They come as fast as the bandwidth limits allow; time spent
    /// waiting for bandwidth counts towards no timeout. Cancel safe: a dropped call loses nothing.
    pub(super) async fn chunk(&mut self, url: &Url) -> Result<Option<Bytes>, FetchError> {
        if self.unpaid.is_none() {
            self.unpaid = self.read(url).await?;
        }
        if let Some((_, on_the_wire)) = self.unpaid {
            let held_up = self.bandwidth.take(url, on_the_wire).await;
            self.watch.limits.deadline.at += held_up;
            self.held_up += held_up;
        }
        Ok(self.unpaid.take().map(|(bytes, _)| bytes))
    }

    /// Returns the time that bandwidth limits have delayed the body so far.
    pub(super) fn held_up(&self) -> Duration {
        self.held_up
    }

    /// Reads the next bytes, and returns them with their number on the wire.
    async fn read(&mut self, url: &Url) -> Result<Option<(Bytes, u64)>, FetchError> {
        let Self {
            stream,
            watch,
            bandwidth,
            shares_connection,
            ..
        } = self;
        let is_excused = || *shares_connection && bandwidth.holds_up_connection(url);
        let next = match stream {
            Bytestream::Plain(response) => {
                let mut next = pin!(response.chunk());
                let next = poll_fn(|cx| match next.as_mut().poll(cx) {
                    Poll::Ready(next) => Poll::Ready(Ok(next)),
                    Poll::Pending => watch.poll_expired(cx, is_excused).map(Err),
                });
                match next.await {
                    Ok(Ok(next)) => Ok(next),
                    Ok(Err(error)) => Err(classify::body(&error, url, self.got, self.expected)),
                    Err(expired) => Err(watch.explain(expired, url)),
                }
            }
            Bytestream::Decoded { reader, buffer, .. } => {
                buffer.reserve(DECODED_CHUNK);
                let next = poll_fn(|cx| match poll_read_buf(reader.as_mut(), cx, buffer) {
                    Poll::Ready(read) => Poll::Ready(Ok(read)),
                    Poll::Pending => watch.poll_expired(cx, is_excused).map(Err),
                });
                match next.await {
                    Ok(Ok(0)) => Ok(None),
                    Ok(Ok(_)) => Ok(Some(buffer.split().freeze())),
                    Ok(Err(error)) => Err(classify::decode(&error, url, self.got)),
                    Err(expired) => Err(watch.explain(expired, url)),
                }
            }
            Bytestream::Ended => return Ok(None),
        };
        let next = next.and_then(|next| self.count(next, url));
        if !matches!(next, Ok(Some(_))) {
            // Gives the connection back, or hangs up.
            self.stream = Bytestream::Ended;
        }
        Ok(next?.map(|bytes| {
            let on_the_wire = match &self.stream {
                Bytestream::Decoded { encoded, .. } => encoded.swap(0, Ordering::Relaxed),
                Bytestream::Plain(_) | Bytestream::Ended => bytes.len() as u64,
            };
            (bytes, on_the_wire)
        }))
    }

    fn count(&mut self, next: Option<Bytes>, url: &Url) -> Result<Option<Bytes>, FetchError> {
        let Some(bytes) = next else {
            return match self.expected {
                Some(expected) if self.got < expected => Err(FetchError::Truncated {
                    url: url.into(),
                    got: self.got,
                    expected: Some(expected),
                }),
                _ => Ok(None),
            };
        };
        self.watch.note(bytes.len());
        self.got += bytes.len() as u64;
        if self.got > self.max_bytes {
            return Err(FetchError::TooLarge {
                url: url.into(),
                status: self.status,
                announced: None,
                limit: self.max_bytes,
            });
        }
        Ok(Some(bytes))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("got", &self.got)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// Watches the time while a body is waited for.
///
/// Costs nothing as long as bytes are there when they are asked for, and a look at the clock when they are
/// not. The timer is left alone until it fires; only then is it set to what is due by now. Time in which
/// nobody asks for bytes counts for `total_timeout` alone.
struct Watch {
    sleep: Pin<Box<Sleep>>,
    limits: Limits,
    /// Since when the next bytes are waited for.
    waiting: Option<Instant>,
    /// Waiting within the current window of `min_speed`, up to `counted`.
    waited: Duration,
    counted: Instant,
    /// Bytes within that window.
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum Expired {
    Phase(Phase, Duration),
    TooSlow,
}

impl Watch {
    fn new(sleep: Pin<Box<Sleep>>, limits: Limits) -> Self {
        let counted = sleep.deadline();
        Self {
            sleep,
            limits,
            waiting: None,
            waited: Duration::ZERO,
            counted,
            bytes: 0,
        }
    }

    /// Ready once a limit has run out. If `is_excused`, silence and slowness are measured afresh from that moment
    /// instead.
    fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        is_excused: impl Fn() -> bool,
    ) -> Poll<Expired> {
        let mut since = match self.waiting {
            Some(since) => since,
            None => {
                let now = Instant::now();
                self.waiting = Some(now);
                self.counted = now;
                now
            }
        };
        let Limits {
            idle,
            deadline,
            window,
            ..
        } = self.limits;
        loop {
            let window_ends = self.counted + window.saturating_sub(self.waited);
            let mut due = (since + idle).min(deadline.at);
            if self.limits.min_speed > 0 {
                due = due.min(window_ends);
            }
            if self.sleep.deadline() > due {
                self.sleep.as_mut().reset(due);
            }
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= deadline.at {
                return Poll::Ready(Expired::Phase(Phase::Total, deadline.limit));
            }
            if now >= due && is_excused() {
                since = now;
                self.waiting = Some(now);
                self.start_window(now);
                continue;
            }
            if now >= since + idle {
                return Poll::Ready(Expired::Phase(Phase::Body, idle));
            }
            if self.limits.min_speed > 0 && now >= window_ends {
                if self.is_slow() {
                    return Poll::Ready(Expired::TooSlow);
                }
                self.start_window(now);
                continue;
            }
            self.sleep.as_mut().reset(due);
        }
    }

    /// Counts bytes that arrived.
    fn note(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.waiting.take().is_some() && self.limits.min_speed > 0 {
            let now = Instant::now();
            self.waited += now.saturating_duration_since(self.counted);
            if self.waited >= self.limits.window && !self.is_slow() {
                self.start_window(now);
            }
        }
    }

    fn start_window(&mut self, now: Instant) {
        self.counted = now;
        self.waited = Duration::ZERO;
        self.bytes = 0;
    }

    fn is_slow(&self) -> bool {
        (self.bytes as f64) < self.limits.min_speed as f64 * self.limits.window.as_secs_f64()
    }

    fn explain(&self, expired: Expired, url: &Url) -> FetchError {
        match expired {
            Expired::Phase(phase, limit) => FetchError::Timeout {
                url: url.into(),
                phase,
                limit,
            },
            Expired::TooSlow => FetchError::TooSlow {
                url: url.into(),
                min_speed: self.limits.min_speed,
                window: self.limits.window,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_counts_unless_other_bodies_hold_up_the_connection() {
        let begun = Instant::now();
        let seconds = Duration::from_secs;
        let limits = Limits {
            idle: seconds(10),
            deadline: Deadline {
                at: begun + seconds(100),
                limit: seconds(100),
            },
            min_speed: 1000,
            window: seconds(4),
            max_bytes: u64::MAX,
        };
        // Too slow after one window, idle after ten seconds, and past the deadline in any case.
        for (min_speed, excused_for, expected) in [
            (1000, 0, 4),
            (1000, 30, 32),
            (0, 0, 10),
            (0, 30, 30),
            (0, 200, 100),
        ] {
            let limits = Limits {
                min_speed,
                deadline: Deadline {
                    at: Instant::now() + seconds(100),
                    ..limits.deadline
                },
                ..limits
            };
            let begun = Instant::now();
            let sleep = Box::pin(tokio::time::sleep_until(begun + seconds(1)));
            let mut watch = Watch::new(sleep, limits);
            let is_excused = || begun.elapsed() < seconds(excused_for);
            poll_fn(|cx| watch.poll_expired(cx, is_excused)).await;
            assert_eq!(begun.elapsed(), seconds(expected), "{excused_for}");
        }
    }
}
