//! A list behind a URL.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes, BytesMut};
use bytesize::ByteSize;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::fetch::{StoredValidators, Validators};
use crate::source::decode::Input;
use crate::source::detect::Hints;
use crate::source::file::{FileInput, PAUSE};
use crate::source::list::{MAX_SITEMAPS, parse_on_thread};
use crate::source::search::Search;
use crate::source::shelf::{self, Draft, Head, LastCopy, Shelf};
use crate::source::sink::SharedSink;
use crate::source::{List, ListEncoding, ListFormat, Source, SourceError};
use crate::target::{SafeUrl, Sha256};

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
/// - An answer without success is an error.
/// - Validators go only to the URL that sent them, which may be `url` or the end of its redirects.
///   [`Answer::Unchanged`] is always an answer to them.
/// - The stream ends with an error when the body is shorter than promised, or comes too slowly.
/// - Every connection goes through the egress guard, redirects included.
#[async_trait]
pub trait Fetch: fmt::Debug + Send + Sync + 'static {
    /// Asks for `url`, unless it is what `known` stands for, and returns when the answer's headers are there.
    async fn open(
        &self,
        url: &Url,
        known: Option<&StoredValidators>,
    ) -> Result<Answer, FetchFailure>;
}

/// Why a body does not come. Its text holds no credentials.
pub type FetchFailure = Box<dyn Error + Send + Sync>;

/// What an origin says to who asks for a list.
#[derive(Debug)]
pub enum Answer {
    /// The list.
    Body(RemoteBody),
    /// The list is what the validators stand for.
    Unchanged {
        /// Where redirects led.
        final_url: Url,
    },
}

/// A body that comes.
pub struct RemoteBody {
    /// `Content-Type`, as sent.
    pub media_type: Option<String>,
    /// Where redirects led.
    pub final_url: Url,
    /// What to ask with next time.
    pub validators: Validators,
    /// Bytes that are to come, where the origin said it.
    pub length: Option<u64>,
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

/// How remote lists are read, and searches asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Brings them.
    pub fetch: Arc<dyn Fetch>,
    /// Where the last good copy of each is kept; `None`: nowhere.
    pub shelf: Option<Shelf>,
    /// Longest list that is read, in bytes after content decoding.
    pub max_bytes: u64,
    /// What searches need; `None`: there are none.
    pub search: Option<Arc<Search>>,
}

/// The list behind an `http` or `https` URL. The sitemaps that a sitemap index names are read too.
#[derive(Clone)]
pub struct RemoteSource {
    url: Url,
    reader: Reader,
    format: Option<ListFormat>,
    encoding: Option<ListEncoding>,
}

impl RemoteSource {
    /// The list at `url`, read by `reader`; `None` as format means: find out.
    pub fn new(url: Url, reader: Reader, format: Option<ListFormat>) -> Self {
        Self {
            url,
            reader,
            format,
            encoding: None,
        }
    }

    /// Sets the encoding of the list, which overrides what the list itself states. `None` detects it.
    pub fn in_encoding(mut self, encoding: Option<ListEncoding>) -> Self {
        self.encoding = encoding;
        self
    }
}

impl fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSource")
            .field("url", &SafeUrl::new(&self.url))
            .field("format", &self.format)
            .field("encoding", &self.encoding)
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
            reader: self.reader.clone(),
            encoding: self.encoding,
            depth: 0,
            known: Arc::default(),
        };
        follow.take(&self.url);
        open(&self.url, self.format, follow).await
    }
}

/// How the sitemaps are fetched that a list names, and how many indexes led to that list.
#[derive(Debug, Clone)]
pub(super) struct Follow {
    reader: Reader,
    encoding: Option<ListEncoding>,
    depth: u8,
    /// Shared by a list and all sitemaps reached from it. Never locked across an await.
    known: Arc<Mutex<Known>>,
}

/// URLs that must not be read again.
#[derive(Debug, Default)]
struct Known {
    /// URLs that were read or are queued, and the URLs they redirect to, as digests of their [`spelling`]. The value is
    /// the URL that was requested.
    urls: HashMap<Sha256, Sha256>,
    /// Number of URLs that were read or are queued.
    count: usize,
}

impl Follow {
    /// For a sitemap that this list names.
    pub(super) fn deeper(&self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self.clone()
        }
    }

    /// Returns `true` if `url` was read or is queued.
    pub(super) fn is_known(&self, url: &Url) -> bool {
        self.known().urls.contains_key(&digest(url))
    }

    /// Adds `url` to the queued URLs. Returns `false` if there are too many.
    pub(super) fn take(&self, url: &Url) -> bool {
        let mut known = self.known();
        let digest = digest(url);
        known.urls.insert(digest, digest);
        known.count += 1;
        // The list itself counts too.
        known.count <= MAX_SITEMAPS + 1
    }

    /// Records the URL that `url` led to. Returns `false` if another requested URL covers it. May be called
    /// repeatedly.
    fn arrive(&self, url: &Url, final_url: &Url) -> bool {
        let from = digest(url);
        let mut known = self.known();
        *known.urls.entry(digest(final_url)).or_insert(from) == from
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

fn digest(url: &Url) -> Sha256 {
    Sha256::of(spelling(url).as_bytes())
}

/// Normalises a URL (RFC 3986, section 6.2.2), so that URLs for the same resource are equal, and drops credentials.
fn spelling(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_fragment(None);
    if plain.query() == Some("") {
        plain.set_query(None);
    }
    // The setters fail only for URLs without a host, which have no credentials.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    let mut text = String::with_capacity(plain.as_str().len());
    let mut rest = plain.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let byte = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                text.push(byte.into());
                &after[2..]
            }
            Some(byte) => {
                text.push_str(&format!("%{byte:02X}"));
                &after[2..]
            }
            None => {
                text.push('%');
                after
            }
        };
    }
    text + rest
}

/// Opens a sitemap that an index names. `None` if it redirects to one that is read already or is queued.
pub(super) async fn open_sitemap(url: &Url, follow: Follow) -> Result<Option<List>, SourceError> {
    open_unless_known(url, None, follow).await
}

async fn open(url: &Url, format: Option<ListFormat>, follow: Follow) -> Result<List, SourceError> {
    let opened = open_unless_known(url, format, follow).await?;
    Ok(opened.expect("nothing is known before the first list"))
}

/// Opens the list at `url`: the copy of it, where the origin says that it did not change.
async fn open_unless_known(
    url: &Url,
    format: Option<ListFormat>,
    follow: Follow,
) -> Result<Option<List>, SourceError> {
    let mut copy = match &follow.reader.shelf {
        Some(shelf) => shelf.find(url).await,
        None => None,
    };
    let since = copy.as_ref().map(LastCopy::since);
    let asked = ask(url, &follow.reader, &mut copy).await;
    if let Ok(asked) = &asked
        && !follow.arrive(url, asked.final_url())
    {
        tracing::debug!(
            "`{}` leads to `{}`, which is read already",
            SafeUrl::new(url),
            SafeUrl::new(asked.final_url())
        );
        return Ok(None);
    }
    let list = match asked {
        Ok(Asked::Body(body)) => stream(url, format, body, &follow).await,
        Ok(Asked::Copy(copied)) => {
            let list = read_copy(url, format, copied, &follow).await?;
            return Ok(Some(list.following(follow)));
        }
        Err(error) => Err(error),
    };
    // A copy that turned out to be damaged is none.
    let since = since.filter(|_| copy.is_some());
    match list {
        Ok(list) => Ok(Some(list.following(follow).instead_of(since))),
        Err(error) => Err(error.beside_copy(since)),
    }
}

/// Where the list is.
enum Asked {
    Body(RemoteBody),
    Copy(Copied),
}

impl Asked {
    /// Returns the URL at the end of the redirects.
    fn final_url(&self) -> &Url {
        match self {
            Self::Body(body) => &body.final_url,
            Self::Copy(copied) => &copied.final_url,
        }
    }
}

/// A copy that is the list.
struct Copied {
    body: io::Take<File>,
    media_type: Option<String>,
    final_url: Url,
}

/// Asks for the list, by what is known of `copy`; takes that away when it is of no use.
async fn ask(
    url: &Url,
    reader: &Reader,
    copy: &mut Option<LastCopy>,
) -> Result<Asked, SourceError> {
    let failed = |source| SourceError::Fetch {
        url: SafeUrl::new(url),
        source,
    };
    let known = copy.as_ref().and_then(LastCopy::validators);
    let final_url = match reader
        .fetch
        .open(url, known.as_ref())
        .await
        .map_err(failed)?
    {
        Answer::Body(body) => return Ok(Asked::Body(body)),
        Answer::Unchanged { final_url } => final_url,
    };
    if let Some(copy) = copy.take() {
        let (since, media_type) = (copy.since(), copy.media_type().map(str::to_owned));
        match copy.body().await {
            Ok(body) => {
                tracing::debug!(
                    "the list `{}` has not changed since {since}",
                    SafeUrl::new(url)
                );
                return Ok(Asked::Copy(Copied {
                    body,
                    media_type,
                    final_url,
                }));
            }
            Err(error) => shelf::not_used(url, &error),
        }
    }
    match reader.fetch.open(url, None).await.map_err(failed)? {
        Answer::Body(body) => Ok(Asked::Body(body)),
        Answer::Unchanged { .. } => Err(failed(
            "it says that nothing changed to who knows nothing".into(),
        )),
    }
}

fn hints(
    url: &Url,
    format: Option<ListFormat>,
    media_type: Option<String>,
    final_url: Url,
    follow: &Follow,
) -> Hints {
    let last_segment = |url: &Url| {
        let name = url.path_segments()?.next_back()?;
        (!name.is_empty()).then(|| name.to_owned())
    };
    Hints {
        format,
        encoding: follow.encoding,
        max_bytes: Some(follow.reader.max_bytes),
        // A redirect often leads to storage that names things by number.
        name: last_segment(url)
            .filter(|name| name.contains('.'))
            .or_else(|| last_segment(&final_url)),
        media_type,
        base: Some(final_url),
    }
}

async fn read_copy(
    url: &Url,
    format: Option<ListFormat>,
    copied: Copied,
    follow: &Follow,
) -> Result<List, SourceError> {
    let Copied {
        body,
        media_type,
        final_url,
    } = copied;
    let name = SafeUrl::new(url).to_string();
    let hints = hints(url, format, media_type, final_url, follow);
    parse_on_thread(name, hints, None, move |sink| {
        let bytes = body.limit();
        let input = FileInput::regular(body.into_inner(), sink).take(bytes);
        Ok(Box::new(input) as Input)
    })
    .await
}

/// Reads a body as it comes, out of its copy where there is one.
async fn stream(
    url: &Url,
    format: Option<ListFormat>,
    body: RemoteBody,
    follow: &Follow,
) -> Result<List, SourceError> {
    let reader = &follow.reader;
    let name = SafeUrl::new(url).to_string();
    let max_bytes = reader.max_bytes;
    if body.length.is_some_and(|length| length > max_bytes) {
        let source = too_long(max_bytes);
        return Err(SourceError::Read { name, source });
    }
    let head = Head::of(url, &body);
    let begun = match &reader.shelf {
        Some(shelf) => shelf.begin(url, head).await,
        None => None,
    };
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    let (pump, copy) = match begun {
        Some((draft, copy)) => {
            let pump = spool(body.stream, pieces, draft, max_bytes);
            (tokio::spawn(pump), Some(copy))
        }
        None => {
            let pump = pump(body.stream, pieces, max_bytes);
            (tokio::spawn(pump), None)
        }
    };
    let hints = hints(url, format, body.media_type, body.final_url, follow);
    parse_on_thread(name, hints, Some(Pump::new(pump)), move |sink| {
        Ok(Box::new(BodyInput {
            pieces: waiting,
            current: Bytes::new(),
            copy,
            read: 0,
            copied: 0,
            ended: false,
            sink,
        }) as Input)
    })
    .await
}

pub(super) fn too_long(max_bytes: u64) -> io::Error {
    io::Error::other(format!(
        "it is longer than {}; `source.max_bytes` sets the limit",
        ByteSize(max_bytes)
    ))
}

/// What the pump says to the parser's thread.
#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// So many bytes are in the copy.
    Copied(u64),
    /// Nothing has come for a while.
    Pause,
    Failed(io::Error),
    End,
}

/// What feeds a parser. Yields the copy, once all of it is there.
pub(super) type Pump = AbortOnDropHandle<Option<Draft>>;

/// Carries a body to the parser's thread until either is gone.
async fn pump(
    mut stream: Pin<Box<dyn AsyncRead + Send>>,
    pieces: mpsc::Sender<Piece>,
    max_bytes: u64,
) -> Option<Draft> {
    let mut length = 0;
    loop {
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        let read = match timeout(PAUSE, stream.read_buf(&mut buffer)).await {
            Ok(read) => read,
            Err(_) => {
                if pieces.send(Piece::Pause).await.is_err() {
                    return None;
                }
                stream.read_buf(&mut buffer).await
            }
        };
        length += buffer.len() as u64;
        let (piece, last) = match read {
            Ok(0) => (Piece::End, true),
            Ok(_) if length > max_bytes => (Piece::Failed(too_long(max_bytes)), true),
            Ok(_) => (Piece::Data(buffer.freeze()), false),
            Err(error) => (Piece::Failed(error), true),
        };
        if pieces.send(piece).await.is_err() || last {
            return None;
        }
    }
}

/// Carries a body into its copy, as fast as it comes: no origin waits for a job of hours to go on with the list. The
/// parser's thread is told how far it may read, and need not have read to the end.
async fn spool(
    mut stream: Pin<Box<dyn AsyncRead + Send>>,
    pieces: mpsc::Sender<Piece>,
    mut draft: Draft,
    max_bytes: u64,
) -> Option<Draft> {
    let ended = loop {
        let mut buffer = BytesMut::with_capacity(PIECE_BYTES);
        let read = loop {
            match timeout(PAUSE, stream.read_buf(&mut buffer)).await {
                Ok(read) => break read,
                // Where there is no room, there is enough to read.
                Err(_) => {
                    let _ = pieces.try_send(Piece::Copied(draft.len()));
                    let _ = pieces.try_send(Piece::Pause);
                }
            }
        };
        match read {
            Ok(0) => break Ok(()),
            Ok(read) if draft.len() + read as u64 > max_bytes => break Err(too_long(max_bytes)),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        if let Err(error) = draft.write(&buffer).await {
            break Err(error);
        }
        let _ = pieces.try_send(Piece::Copied(draft.len()));
    };
    // A parser that has seen enough does not want to know.
    let _ = pieces.send(Piece::Copied(draft.len())).await;
    let (piece, draft) = match ended {
        Ok(()) => (Piece::End, Some(draft)),
        Err(error) => (Piece::Failed(error), None),
    };
    let _ = pieces.send(piece).await;
    draft
}

/// The parser's end of the pump.
#[derive(Debug)]
struct BodyInput {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    copy: Option<File>,
    /// Bytes that were read of the copy.
    read: u64,
    /// Bytes that are there.
    copied: u64,
    ended: bool,
    sink: SharedSink,
}

impl Read for BodyInput {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && self.read == self.copied && !self.ended {
            self.sink.borrow_mut().offer().map_err(io::Error::other)?;
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::Copied(bytes)) => self.copied = bytes,
                Some(Piece::Pause) => self.sink.borrow_mut().flush().map_err(io::Error::other)?,
                Some(Piece::Failed(error)) => return Err(error),
                Some(Piece::End) => self.ended = true,
                // The pump ends without a word only when it is aborted: the body is not whole.
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        if let Some(copy) = self.copy.as_ref().filter(|_| self.read < self.copied) {
            // A list that only has comments would else be read on for nobody.
            self.sink.borrow().check_open().map_err(io::Error::other)?;
            let most = usize::try_from(self.copied - self.read).unwrap_or(usize::MAX);
            let most = most.min(out.len());
            let n = copy.read_at(&mut out[..most], self.read)?;
            if n == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read += n as u64;
            return Ok(n);
        }
        let n = self.current.len().min(out.len());
        self.current.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}
