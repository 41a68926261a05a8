//! What an origin answers.

use std::time::Duration;

/// One answer. Starts from [`Reply::ok`] or [`Reply::status`], and is bent from there.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) framing: Framing,
    pub(super) delay: Duration,
    pub(super) drip: Option<(usize, Duration)>,
    pub(super) end: End,
    pub(super) ranges: bool,
    pub(super) range_bytes: usize,
    pub(super) hides_length: bool,
    pub(super) raw: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `Content-Length` as it is.
    Length,
    /// `Content-Length` of another number.
    LengthOf(u64),
    Chunked,
    /// Until the connection is closed.
    Close,
    /// Chunked, the body again and again.
    Endless,
    /// `Content-Length`, the body so many times.
    Repeated(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// Closes after so many bytes of the body.
    CutAfter(usize),
    /// Sends RST after so many bytes of the body.
    ResetAfter(usize),
    /// Sends nothing more after so many bytes of the body, and keeps the connection.
    HangAfter(usize),
    /// Sends RST in place of an answer.
    Reset,
    /// Closes in place of an answer.
    Close,
    /// Never answers.
    Silent,
}

/// How an origin ends a connection instead of answering a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    Close,
    Reset,
    /// Sends these bytes and closes.
    Words(&'static str),
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
            delay: Duration::ZERO,
            drip: None,
            end: End::Whole,
            ranges: false,
            range_bytes: usize::MAX,
            hides_length: false,
            raw: None,
        }
    }

    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::ok("")
        }
    }

    /// A redirect to `location`, as it stands there.
    pub fn redirect(status: u16, location: impl AsRef<str>) -> Self {
        Self::status(status).header("Location", location.as_ref())
    }

    /// These bytes and nothing else, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            raw: Some(bytes.into()),
            ..Self::ok("")
        }
    }

    /// No answer, ever.
    pub fn silent() -> Self {
        Self {
            end: End::Silent,
            ..Self::ok("")
        }
    }

    /// RST in place of an answer.
    pub fn reset() -> Self {
        Self {
            end: End::Reset,
            ..Self::ok("")
        }
    }

    /// The end of the connection in place of an answer.
    pub fn close() -> Self {
        Self {
            end: End::Close,
            ..Self::ok("")
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Waits before answering.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in pieces of `bytes`, with a pause after each.
    pub fn drip(mut self, bytes: usize, pause: Duration) -> Self {
        self.drip = Some((bytes, pause));
        self
    }

    /// Closes the connection after `bytes` of the body, whatever was promised.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.end = End::CutAfter(bytes);
        self
    }

    /// Sends RST after `bytes` of the body.
    pub fn reset_after(mut self, bytes: usize) -> Self {
        self.end = End::ResetAfter(bytes);
        self
    }

    /// Sends nothing more after `bytes` of the body.
    pub fn hang_after(mut self, bytes: usize) -> Self {
        self.end = End::HangAfter(bytes);
        self
    }

    /// Promises another length than the body has; then closes the connection.
    pub fn claim_length(mut self, bytes: u64) -> Self {
        self.framing = Framing::LengthOf(bytes);
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// A body that ends with the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// The body again and again, without end.
    pub fn endless(mut self) -> Self {
        self.framing = Framing::Endless;
        self
    }

    /// The body so many times over, with the right `Content-Length`.
    pub fn repeated(mut self, times: u64) -> Self {
        self.framing = Framing::Repeated(times);
        self
    }

    /// Answers 304 to a request that knows this `ETag`.
    pub fn etag(self, etag: &str) -> Self {
        self.header("ETag", etag)
    }

    /// Answers 304 to a request that knows exactly this date.
    pub fn last_modified(self, date: &str) -> Self {
        self.header("Last-Modified", date)
    }

    /// Answers 206 to `Range: bytes=N-` when `If-Range` matches.
    pub fn ranges(mut self) -> Self {
        self.ranges = true;
        self.header("Accept-Ranges", "bytes")
    }

    /// Answers a range with at most `bytes` of it, as `Content-Range` then states.
    pub fn capped(mut self, bytes: usize) -> Self {
        self.range_bytes = bytes;
        self
    }

    /// Sends `*` in place of the length in `Content-Range`.
    pub fn hide_length(mut self) -> Self {
        self.hides_length = true;
        self
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}
