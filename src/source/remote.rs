//! A list behind a URL.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::source::decode::Input;
use crate::source::detect::Hints;
use crate::source::file::PAUSE;
use crate::source::list::parse_on_thread;
use crate::source::sink::SharedSink;
use crate::source::{List, ListFormat, Source, SourceError};
use crate::target::SafeUrl;

/// Bytes that are read of a body at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that may wait for the parser.
const PIECES_WAITING: usize = 4;

/// How far sitemap indexes are followed: sitemaps.org knows no index of indexes, but there are some.
const MAX_DEPTH: u8 = 2;

/// Brings the body behind a URL.
///
/// # Contract
///
/// - An answer that is no success is an error.
/// - The stream ends with an error when the body is shorter than promised, or comes too slowly.
/// - Every connection goes through the egress guard, redirects included.
#[async_trait]
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// Asks for `url`, and returns when the answer's headers are there.
    async fn open(&self, url: &Url) -> Result<RemoteBody, FetchFailure>;
}

/// Why a body does not come. Its text holds no credentials.
pub type FetchFailure = Box<dyn Error + Send + Sync>;

/// A body that comes.
pub struct RemoteBody {
    /// `Content-Type`, as sent.
    pub media_type: Option<String>,
    /// Where redirects led.
    pub final_url: Url,
    /// The bytes, with any `Content-Encoding` undone.
    pub stream: Pin<Box<dyn AsyncRead + Send>>,
}

impl fmt::Debug for RemoteBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBody")
            .field("media_type", &self.media_type)
            .field("final_url", &SafeUrl::new(&self.final_url))
            .finish_non_exhaustive()
    }
}

/// The list behind an `http` or `https` URL. The sitemaps that a sitemap index names are read too.
#[derive(Clone)]
pub struct RemoteSource {
    url: Url,
    fetch: Arc<dyn Fetch>,
    format: Option<ListFormat>,
}

impl RemoteSource {
    /// The list at `url`, brought by `fetch`; `None` as format means: find out.
    pub fn new(url: Url, fetch: Arc<dyn Fetch>, format: Option<ListFormat>) -> Self {
        Self { url, fetch, format }
    }
}

impl fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSource")
            .field("url", &SafeUrl::new(&self.url))
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SafeUrl::new(&self.url).fmt(f)
    }
}

#[async_trait]
impl Source for RemoteSource {
    async fn open(&self) -> Result<List, SourceError> {
        let follow = Follow {
            fetch: Arc::clone(&self.fetch),
            depth: 0,
        };
        open(&self.url, self.format, follow).await
    }
}

/// How the sitemaps are fetched that a list names, and how many indexes led to that list.
#[derive(Debug, Clone)]
pub(super) struct Follow {
    fetch: Arc<dyn Fetch>,
    depth: u8,
}

impl Follow {
    /// For a sitemap that this list names.
    pub(super) fn deeper(&self) -> Self {
        Self {
            fetch: Arc::clone(&self.fetch),
            depth: self.depth + 1,
        }
    }

    /// Whether a sitemap index named this list.
    pub(super) fn is_child(&self) -> bool {
        self.depth > 0
    }

    /// Whether what this list names is too deep.
    pub(super) fn is_deepest(&self) -> bool {
        self.depth >= MAX_DEPTH
    }
}

/// Opens the list at `url`.
pub(super) async fn open(
    url: &Url,
    format: Option<ListFormat>,
    follow: Follow,
) -> Result<List, SourceError> {
    let safe = SafeUrl::new(url);
    let body = match follow.fetch.open(url).await {
        Ok(body) => body,
        Err(source) => return Err(SourceError::Fetch { url: safe, source }),
    };
    let last_segment = |url: &Url| {
        let name = url.path_segments()?.next_back()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    let hints = Hints {
        format,
        // A redirect often leads to storage that names things by number.
        name: last_segment(url)
            .filter(|name| name.contains('.'))
            .or_else(|| last_segment(&body.final_url)),
        media_type: body.media_type,
        base: Some(body.final_url),
    };
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let pump = AbortOnDropHandle::new(tokio::spawn(pump(body.stream, pieces)));
    let list = parse_on_thread(safe.to_string(), hints, Some(pump), move |sink| {
        Ok(Box::new(BodyInput {
            pieces: waiting,
            current: Bytes::new(),
            ended: false,
            sink,
        }) as Input)
    })
    .await?;
    Ok(list.following(follow))
}

/// What the pump says to the parser's thread.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// Nothing has come for a while.
    Pause,
    Failed(io::Error),
    End,
}

/// Carries a body to the parser's thread until either is gone.
async fn pump(mut stream: Pin<Box<dyn AsyncRead + Send>>, pieces: mpsc::Sender<Piece>) {
    loop {
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        let read = match timeout(PAUSE, stream.read_buf(&mut buffer)).await {
            Ok(read) => read,
            Err(_) => {
                if pieces.send(Piece::Pause).await.is_err() {
                    return;
                }
                stream.read_buf(&mut buffer).await
            }
        };
        let (piece, last) = match read {
            Ok(0) => (Piece::End, true),
            Ok(_) => (Piece::Data(buffer.freeze()), false),
            Err(error) => (Piece::Failed(error), true),
        };
        if pieces.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// The parser's end of the pump.
#[derive(Debug)]
struct BodyInput {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
    sink: SharedSink,
}

impl Read for BodyInput {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            self.sink.borrow_mut().offer().map_err(io::Error::other)?;
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::Pause) => self.sink.borrow_mut().flush().map_err(io::Error::other)?,
                Some(Piece::Failed(error)) => return Err(error),
                Some(Piece::End) => self.ended = true,
                // The pump ends without a word only when it is aborted: the body is not whole.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let n = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}
