//! The standard way of one request: ask, judge the head, take the body in, judge the whole.
//!
//! Small bodies stay in memory as far as the process-wide budget allows; all others are spooled to the
//! store's stage while they arrive. A body that is cut off is handed back as [`Partial`], so that the next
//! attempt can go on where it stopped.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::{Body, Downloader, Facts, Format, HEAD_BYTES, Hints, Rejection, Verdict};
use crate::fetch::{
    Client, FetchError, Next, Refusal, Request, Response, Resume, Trail, Validators, Via,
};
use crate::store::{Spool, Spooled, Store, StoreError};
use crate::target::{Reason, Sha256, Sha256Hasher};

/// Largest body that is held in memory. Beyond it, writing as it arrives costs little beside its bytes.
const MEMORY_BODY: u64 = 1024 * 1024;

/// Largest body that is inspected where it arrived: header checks take a few microseconds for most formats
/// and some milliseconds a megabyte for the slowest, SVG.
const INSPECT_IN_PLACE: usize = 128 * 1024;

/// Length of the first prefix that is inspected for damage, if the body is announced to be longer than a head. Most
/// headers are shorter.
const FIRST_LOOK: u64 = 2 * 1024;

/// Unit of the memory budget: one permit stands for this many bytes.
const UNIT: u64 = 1024;

/// What a download works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whoever asks.
    pub client: Arc<Client>,
    /// Where bodies are spooled that are too large for memory.
    pub store: Store,
    /// Where all others are.
    pub memory: Memory,
}

/// Memory for bodies, shared by all that work with clones of it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Semaphore>);

impl Memory {
    /// Room for `bytes`.
    pub fn new(bytes: u64) -> Self {
        let units = usize::try_from(bytes / UNIT).unwrap_or(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))))
    }

    /// Room for a body, until the permit is dropped; `None` while there is none.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).ok()?;
        self.0.clone().try_acquire_many_owned(units).ok()
    }
}

/// One request for a target.
#[derive(Debug)]
pub struct Ask<'a> {
    /// What to ask for: the target's URL, or where redirects led.
    pub url: &'a Url,
    /// The target's own URL, whose host its credentials belong to.
    pub origin: &'a Url,
    /// The earlier requests of this attempt. Updated by the answer to this one.
    pub trail: &'a mut Trail,
    /// Validators from an earlier answer of this very URL.
    pub validators: Option<&'a Validators>,
    /// What an earlier attempt brought.
    pub partial: Option<Partial>,
    /// The name that the list asks for.
    pub name: Option<&'a str>,
    /// Set if `X-Robots-Tag` and 402 count as refusals.
    pub robots: bool,
    /// Proxies of the pool that brought nothing good for this target.
    pub avoid: &'a [Via],
}

/// What an origin answered.
#[derive(Debug)]
pub enum Answer {
    /// An acceptable file.
    File(Box<Download>),
    /// 304: the kept file is current. Only in answer to validators.
    NotModified(Meta),
    /// Another request has to come first, after a redirect or with the credentials that the origin asks for.
    Continue {
        /// The URL of a redirect. `None` means the same URL.
        to: Option<Url>,
        /// The bytes from an earlier attempt, if the next request can continue them.
        partial: Option<Box<Partial>>,
        /// The proxy of the pool that it came through.
        via: Option<Via>,
    },
}

/// An acceptable file that has arrived.
#[derive(Debug)]
pub struct Download {
    /// Its bytes.
    pub arrived: Arrived,
    /// Their digest.
    pub sha256: Sha256,
    /// What the bytes show.
    pub facts: Facts,
    /// What the answer said besides.
    pub meta: Meta,
    /// The `Content-Disposition` header as it came.
    pub content_disposition: Option<Vec<u8>>,
    /// Set if the bytes come from several answers.
    pub is_stitched: bool,
}

/// What an answer says about the file.
#[derive(Debug, Clone)]
pub struct Meta {
    /// Its status.
    pub status: u16,
    /// `ETag` and `Last-Modified`.
    pub validators: Validators,
    /// How long this answer stays fresh, regardless of redirects that led to it. `None` if it does not say.
    pub fresh_for: Option<Duration>,
    /// The proxy of the pool that it came through.
    pub via: Option<Via>,
}

/// Bytes of a complete body.
#[derive(Debug)]
pub enum Arrived {
    /// In memory, within the budget.
    Memory(Bytes, OwnedSemaphorePermit),
    /// Staged.
    Staged(Spooled),
}

impl Arrived {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes, _) => bytes.len() as u64,
            Self::Staged(spooled) => spooled.len(),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same bytes, to be read.
    pub(crate) fn body(&self) -> Body {
        match self {
            Self::Memory(bytes, _) => Body::Memory(bytes.clone()),
            Self::Staged(spooled) => Body::File(spooled.file().clone(), spooled.len()),
        }
    }
}

/// Why a request brought no acceptable file.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: DownloadError,
    /// Status of the answer, when there was one.
    pub status: Option<u16>,
    /// What another attempt can go on from.
    pub partial: Option<Partial>,
    /// The proxy of the pool that the answer came through.
    pub via: Option<Via>,
    /// Set if the unacceptable bytes come from several answers.
    pub is_stitched: bool,
    /// Set if the origin sent all that it announced, and announced less than the rest of the file. `partial` can be
    /// continued at once.
    pub is_part: bool,
    /// How long bandwidth limits delayed the answer.
    pub held_up: Duration,
}

impl Failure {
    /// A failure with nothing to continue from.
    pub fn new(error: impl Into<DownloadError>, status: Option<u16>, via: Option<Via>) -> Self {
        Self {
            error: error.into(),
            status,
            partial: None,
            via,
            is_stitched: false,
            is_part: false,
            held_up: Duration::ZERO,
        }
    }
}

/// What can go wrong with a download.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No complete answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A complete answer that is not acceptable, or a beginning that never can be.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The bytes could not be staged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The origin asks robots not to use the file.
    #[error("{0}")]
    Robots(Refusal),
}

/// The beginning of a body that was cut off. Empty if the next attempt has to start over in another way.
#[derive(Debug)]
pub struct Partial {
    gathered: Gathered,
    resume: Resume,
    said: Said,
}

impl Partial {
    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.gathered.len()
    }

    /// Returns `true` if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Returns the length of the whole body, if the origin stated it.
    pub fn whole_length(&self) -> Option<u64> {
        self.resume.length()
    }
}

/// The parts of an answer besides its body.
#[derive(Debug, Clone)]
struct Said {
    meta: Meta,
    content_disposition: Option<Vec<u8>>,
    media_type: Option<String>,
}

impl Said {
    fn by(response: &Response) -> Self {
        Self {
            meta: meta(response),
            content_disposition: response.content_disposition().map(<[u8]>::to_vec),
            media_type: response.media_type().map(str::to_ascii_lowercase),
        }
    }

    /// Fills gaps from the earlier answer, which brought the beginning. An origin need not repeat its headers when it
    /// honours `If-Range` (RFC 9110, section 15.3.7).
    fn or(self, earlier: Self) -> Self {
        let Validators {
            etag,
            last_modified,
        } = self.meta.validators;
        let before = earlier.meta.validators;
        Self {
            meta: Meta {
                validators: Validators {
                    etag: etag.or(before.etag),
                    last_modified: last_modified.or(before.last_modified),
                },
                fresh_for: self.meta.fresh_for.or(earlier.meta.fresh_for),
                ..self.meta
            },
            content_disposition: self.content_disposition.or(earlier.content_disposition),
            media_type: self.media_type.or(earlier.media_type),
        }
    }
}

/// Bytes of a body as they arrive.
#[derive(Debug)]
struct Gathered {
    bytes: Gathering,
    digest: Sha256Hasher,
    /// What the head showed, once it showed something.
    format: Option<Format>,
    /// Length of the prefix that was last inspected for damage.
    looked_at: u64,
    /// Number of answers that the bytes come from.
    answers: u32,
}

#[derive(Debug)]
enum Gathering {
    Memory(BytesMut, Option<OwnedSemaphorePermit>),
    Spool(Spool),
}

/// A file that somebody sent.
#[derive(Debug)]
pub struct Received {
    /// Its bytes.
    pub arrived: Arrived,
    /// Their digest.
    pub sha256: Sha256,
    /// What the bytes show.
    pub facts: Facts,
}

/// Takes in a body that no origin answers with, and judges it like one. Dropping it leaves nothing.
#[derive(Debug)]
pub struct Intake {
    downloader: Arc<dyn Downloader>,
    place: Place,
    gathered: Gathered,
    /// Length that was announced.
    expected: Option<u64>,
    max_bytes: u64,
    media_type: Option<String>,
    name: Option<String>,
}

impl Intake {
    /// Begins a body of at most `max_bytes`, or what the kind takes. `media_type` and `name` are what the sender says of it.
    pub fn new(
        downloader: Arc<dyn Downloader>,
        store: Store,
        memory: Memory,
        max_bytes: u64,
        expected: Option<u64>,
        media_type: Option<String>,
        name: Option<String>,
    ) -> Self {
        let max_bytes = downloader
            .max_bytes()
            .map_or(max_bytes, |max| max.min(max_bytes));
        Self {
            downloader,
            place: Place { store, memory },
            gathered: Gathered::new(),
            expected,
            max_bytes,
            media_type,
            name,
        }
    }

    /// Takes the next bytes. Not cancel safe: drop the intake when a call was dropped.
    ///
    /// # Errors
    ///
    /// As soon as it shows that the body is not acceptable, or when it cannot be staged.
    pub async fn take(&mut self, bytes: &Bytes) -> Result<(), DownloadError> {
        if self.gathered.len() + bytes.len() as u64 > self.max_bytes {
            let detail = format!("the body is larger than {} bytes", self.max_bytes);
            return Err(Rejection::new(Reason::TooLarge, detail).into());
        }
        let hints = Hints {
            media_type: self.media_type.as_deref(),
            name: self.name.as_deref(),
            complete: false,
        };
        let (place, expected) = (&self.place, self.expected);
        self.gathered
            .take(&self.downloader, place, bytes, expected, hints)
            .await
    }

    /// Judges the whole.
    ///
    /// # Errors
    ///
    /// When the body is not acceptable, or cannot be staged.
    pub async fn finish(mut self) -> Result<Received, DownloadError> {
        let hints = Hints {
            media_type: self.media_type.as_deref(),
            name: self.name.as_deref(),
            complete: true,
        };
        self.gathered.end(&*self.downloader, hints)?;
        self.gathered.judge(self.downloader, &self.place).await
    }
}

/// Where bodies are while they arrive.
#[derive(Debug)]
struct Place {
    store: Store,
    memory: Memory,
}

/// Sends one request and takes its answer in.
///
/// # Errors
///
/// A [`Failure`] with what is known at that point.
pub async fn download<D: Downloader + ?Sized>(
    downloader: Arc<D>,
    cx: &Context,
    ask: Ask<'_>,
) -> Result<Answer, Failure> {
    let most = cx.client.settings_of(ask.url).max_bytes().as_u64();
    let max_bytes = downloader.max_bytes().map_or(most, |max| max.min(most));
    let request = Request {
        url: ask.url,
        accept: downloader.accept(),
        validators: ask.validators,
        resume: ask.partial.as_ref().map(|partial| &partial.resume),
        max_bytes,
        origin: ask.origin,
        avoid: ask.avoid,
        trail: Some(&*ask.trail),
    };
    let mut response = match cx.client.send(request).await {
        Ok(response) => response,
        // Nothing new came, so the next attempt still goes on from the same place.
        Err(error) => {
            let status = error.status();
            let partial = ask
                .partial
                .filter(|_| error.is_retriable() && error.keeps_part());
            return Err(Failure {
                partial,
                ..Failure::new(error, status, None)
            });
        }
    };
    let (status, via) = (response.status, response.via().cloned());
    let fail = |error: DownloadError| Failure::new(error, Some(status), via.clone());
    let next = cx.client.next(ask.trail, ask.origin, &mut response);
    match next.map_err(|error| fail(error.into()))? {
        Next::Nothing => {}
        Next::Redirect(to) => {
            return Ok(Answer::Continue {
                to: Some(to),
                partial: ask.partial.map(Box::new),
                via,
            });
        }
        Next::Again => {
            return Ok(Answer::Continue {
                to: None,
                partial: ask.partial.map(Box::new),
                via,
            });
        }
    }
    if ask.robots {
        let respected = cx.client.settings_of(ask.url).robots_tags();
        let refusal = response.refusal(cx.client.agent(ask.url), respected);
        if let Some(refusal) = refusal {
            return Err(fail(DownloadError::Robots(refusal)));
        }
    }
    if status == 304 {
        return Ok(Answer::NotModified(meta(&response)));
    }
    let is_rest_empty = response.is_rest_empty();
    if !response.has_body() && !is_rest_empty {
        let error = response.status_error();
        // An overloaded origin may continue from the same place later.
        let partial = ask.partial.filter(|_| error.is_retriable());
        return Err(Failure {
            partial,
            ..fail(error.into())
        });
    }
    let (mut gathered, said) = match ask.partial {
        Some(partial) if is_rest_empty => (partial.gathered, partial.said),
        Some(partial)
            if response.resumed_at() > 0 && response.resumed_at() == partial.gathered.len() =>
        {
            (partial.gathered, Said::by(&response).or(partial.said))
        }
        _ => (Gathered::new(), Said::by(&response)),
    };
    gathered.answers += 1;
    let hints = Hints {
        media_type: said.media_type.as_deref(),
        name: ask.name,
        complete: false,
    };
    let place = Place {
        store: cx.store.clone(),
        memory: cx.memory.clone(),
    };
    let taken = if is_rest_empty {
        gathered.end(&*downloader, hints)
    } else {
        gathered
            .take_in(&downloader, &place, &mut response, hints)
            .await
    };
    if let Err(mut error) = taken {
        let (is_part, is_stitched) = (response.is_part(), gathered.answers > 1);
        let mut partial = None;
        if let DownloadError::Fetch(cut) = &error
            && cut.is_retriable()
            && cut.keeps_part()
        {
            // The rest of a damaged body is not requested.
            let length = response.whole_length();
            match gathered.rest(&downloader, length).await {
                Ok(()) => {
                    let rest = response.resume(gathered.len());
                    let rest = rest.map(|resume| (resume, gathered));
                    let again = || Some((response.restart_unencoded()?, Gathered::new()));
                    partial = rest.or_else(again).map(|(resume, gathered)| Partial {
                        gathered,
                        resume,
                        said,
                    });
                }
                Err(damaged) => error = damaged,
            }
        }
        return Err(Failure {
            is_part: is_part && partial.is_some(),
            partial,
            is_stitched,
            held_up: response.held_up(),
            ..fail(error)
        });
    }
    drop(response);
    let is_stitched = gathered.answers > 1;
    let judged = gathered.judge(downloader, &place).await;
    let received = judged.map_err(|error| Failure {
        is_stitched,
        ..fail(error)
    })?;
    Ok(Answer::File(Box::new(Download {
        arrived: received.arrived,
        sha256: received.sha256,
        facts: received.facts,
        meta: said.meta,
        content_disposition: said.content_disposition,
        is_stitched,
    })))
}

fn meta(response: &Response) -> Meta {
    Meta {
        status: response.status,
        validators: response.validators(),
        fresh_for: response.freshness(SystemTime::now()),
        via: response.via().cloned(),
    }
}

impl Gathered {
    fn new() -> Self {
        Self {
            bytes: Gathering::Memory(BytesMut::new(), None),
            digest: Sha256Hasher::default(),
            format: None,
            looked_at: 0,
            answers: 0,
        }
    }

    fn len(&self) -> u64 {
        match &self.bytes {
            Gathering::Memory(bytes, _) => bytes.len() as u64,
            Gathering::Spool(spool) => spool.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inspects the bytes before a cut, and closes the file until more bytes come. `length` is that of the whole
    /// body.
    async fn rest<D: Downloader + ?Sized>(
        &mut self,
        downloader: &Arc<D>,
        length: Option<u64>,
    ) -> Result<(), DownloadError> {
        // A body that comes in many pieces is not inspected anew after each.
        if self.len() - self.looked_at >= self.looked_at / 4 {
            self.look(downloader, length).await?;
        }
        match &mut self.bytes {
            Gathering::Spool(spool) => Ok(spool.rest().await?),
            Gathering::Memory(..) => Ok(()),
        }
    }

    /// Reads the body to its end, or until it is rejected.
    async fn take_in<D: Downloader + ?Sized>(
        &mut self,
        downloader: &Arc<D>,
        place: &Place,
        response: &mut Response,
        hints: Hints<'_>,
    ) -> Result<(), DownloadError> {
        let length = response.whole_length();
        while let Some(chunk) = response.chunk().await? {
            self.take(downloader, place, &chunk, length, hints).await?;
        }
        self.end(&**downloader, hints)
    }

    /// Adds some bytes, and sniffs the head until its format is known. From then on the prefix is inspected for
    /// damage each time its length has doubled. All these inspections together cost at most two of the whole.
    async fn take<D: Downloader + ?Sized>(
        &mut self,
        downloader: &Arc<D>,
        place: &Place,
        chunk: &Bytes,
        length: Option<u64>,
        hints: Hints<'_>,
    ) -> Result<(), DownloadError> {
        self.push(place, chunk, length).await?;
        if self.format.is_none()
            && let Gathering::Memory(head, _) = &self.bytes
        {
            let head = &head[..head.len().min(HEAD_BYTES)];
            let hints = Hints {
                complete: head.len() == HEAD_BYTES,
                ..hints
            };
            self.format = sniff(&**downloader, head, hints)?;
        }
        let is_long = length.is_some_and(|length| length > HEAD_BYTES as u64);
        let first = if is_long {
            FIRST_LOOK
        } else {
            HEAD_BYTES as u64
        };
        let due = first.max(self.looked_at.saturating_mul(2));
        if self.len() >= due && length != Some(self.len()) {
            self.look(downloader, length).await?;
        }
        Ok(())
    }

    /// Inspects the bytes so far of a body of `length` bytes for damage.
    async fn look<D: Downloader + ?Sized>(
        &mut self,
        downloader: &Arc<D>,
        length: Option<u64>,
    ) -> Result<(), DownloadError> {
        let Some(format) = self.format else {
            return Ok(());
        };
        self.looked_at = self.len();
        match &mut self.bytes {
            Gathering::Memory(bytes, _) => {
                let beginning = std::mem::take(bytes).freeze();
                let body = Body::Memory(beginning.clone());
                let looked = inspect_prefix(downloader, body, format, length).await;
                *bytes = beginning
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&*shared));
                looked?;
            }
            Gathering::Spool(spool) => {
                let body = Body::File(spool.flush().await?, spool.len());
                inspect_prefix(downloader, body, format, length).await?;
            }
        }
        Ok(())
    }

    /// No more bytes come.
    fn end<D: Downloader + ?Sized>(
        &mut self,
        downloader: &D,
        hints: Hints<'_>,
    ) -> Result<(), DownloadError> {
        if self.is_empty() {
            return Err(Rejection::new(Reason::Empty, "the body is empty").into());
        }
        if self.format.is_none()
            && let Gathering::Memory(head, _) = &self.bytes
        {
            self.format = sniff(
                downloader,
                head,
                Hints {
                    complete: true,
                    ..hints
                },
            )?;
        }
        Ok(())
    }

    async fn push(
        &mut self,
        place: &Place,
        chunk: &Bytes,
        expected: Option<u64>,
    ) -> Result<(), StoreError> {
        self.digest.update(chunk);
        if let Gathering::Memory(bytes, permit) = &mut self.bytes {
            let len = (bytes.len() + chunk.len()) as u64;
            // The head has to be in one piece until its format is known.
            let undecided = self.format.is_none() && bytes.len() < HEAD_BYTES;
            let room = expected.unwrap_or(0).max(len);
            if undecided || room <= MEMORY_BODY && fits(&place.memory, permit, room) {
                if bytes.capacity() < room as usize && room <= MEMORY_BODY {
                    bytes.reserve(room as usize - bytes.len());
                }
                bytes.extend_from_slice(chunk);
                return Ok(());
            }
            let mut spool = place.store.spool().await?;
            spool.write(&bytes.split().freeze()).await?;
            self.bytes = Gathering::Spool(spool);
        }
        match &mut self.bytes {
            Gathering::Spool(spool) => spool.write(chunk).await,
            Gathering::Memory(..) => Ok(()),
        }
    }

    /// Lets the downloader judge the complete body.
    async fn judge<D: Downloader + ?Sized>(
        self,
        downloader: Arc<D>,
        place: &Place,
    ) -> Result<Received, DownloadError> {
        let Some(format) = self.format else {
            return Err(
                Rejection::new(Reason::WrongKind, "the first bytes show no known format").into(),
            );
        };
        let sha256 = self.digest.finish();
        let arrived = match self.bytes {
            Gathering::Memory(bytes, permit) => {
                let permit = permit.or_else(|| place.memory.reserve(bytes.len() as u64));
                match permit {
                    Some(permit) => Arrived::Memory(bytes.freeze(), permit),
                    None => {
                        let mut spool = place.store.spool().await?;
                        spool.write(&bytes.freeze()).await?;
                        Arrived::Staged(spool.finish().await?)
                    }
                }
            }
            Gathering::Spool(spool) => Arrived::Staged(spool.finish().await?),
        };
        let facts = inspect(downloader, arrived.body(), format).await?;
        Ok(Received {
            arrived,
            sha256,
            facts,
        })
    }
}

/// Runs the downloader's inspection of a whole body.
async fn inspect<D: Downloader + ?Sized>(
    downloader: Arc<D>,
    body: Body,
    format: Format,
) -> Result<Facts, Rejection> {
    let is_short = is_short(&body) && !downloader.is_heavy();
    run(is_short, move || downloader.inspect(&body, format)).await
}

/// Runs the downloader's inspection of a prefix.
async fn inspect_prefix<D: Downloader + ?Sized>(
    downloader: &Arc<D>,
    prefix: Body,
    format: Format,
    length: Option<u64>,
) -> Result<(), Rejection> {
    let downloader = downloader.clone();
    run(is_short(&prefix), move || {
        downloader.inspect_prefix(&prefix, format, length)
    })
    .await
}

fn is_short(body: &Body) -> bool {
    body.as_slice()
        .is_some_and(|bytes| bytes.len() <= INSPECT_IN_PLACE)
}

/// Runs short work in place, because handing it over would cost more.
async fn run<T: Send + 'static>(
    is_short: bool,
    work: impl FnOnce() -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    if is_short {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Rejection::new(
            Reason::Corrupt,
            "the check of this file panicked",
        ))
    })
}

/// Judges a kept file as if it had just arrived. `name` is its name in the list, `media_type` the one recorded for
/// it.
///
/// # Errors
///
/// The reason why it is not an acceptable file of this kind, or cannot be read.
pub(crate) async fn inspect_kept(
    downloader: Arc<dyn Downloader>,
    body: Body,
    name: Option<String>,
    media_type: String,
) -> Result<Facts, Rejection> {
    let inspected = tokio::task::spawn_blocking(move || {
        let mut head = vec![0; HEAD_BYTES.min(usize::try_from(body.len()).unwrap_or(HEAD_BYTES))];
        let length = body
            .read_at(&mut head, 0)
            .map_err(|error| Rejection::new(Reason::StoreError, error.to_string()))?;
        let hints = Hints {
            media_type: Some(&media_type),
            name: name.as_deref(),
            complete: true,
        };
        match sniff(&*downloader, &head[..length], hints)? {
            Some(format) => downloader.inspect(&body, format),
            None => Err(Rejection::new(
                Reason::WrongKind,
                "the first bytes show no known format",
            )),
        }
    });
    inspected.await.unwrap_or_else(|_| {
        Err(Rejection::new(
            Reason::Corrupt,
            "the check of this file panicked",
        ))
    })
}

/// Makes sure that the budget has `len` bytes for this body.
fn fits(memory: &Memory, permit: &mut Option<OwnedSemaphorePermit>, len: u64) -> bool {
    let held = permit
        .as_ref()
        .map_or(0, |permit| permit.num_permits() as u64 * UNIT);
    if len <= held {
        return true;
    }
    // Bodies of unknown length grow in steps, so that not every chunk has to ask.
    let step = (len - held).max(if held == 0 { UNIT } else { 64 * UNIT });
    let Some(more) = memory.reserve(step) else {
        return false;
    };
    match permit {
        Some(permit) => permit.merge(more),
        None => *permit = Some(more),
    }
    true
}

fn sniff<D: Downloader + ?Sized>(
    downloader: &D,
    head: &[u8],
    hints: Hints<'_>,
) -> Result<Option<Format>, Rejection> {
    match downloader.sniff(head, &hints) {
        Verdict::Accept(format) => Ok(Some(format)),
        Verdict::Reject(rejection) => Err(rejection),
        Verdict::More if hints.complete => Err(Rejection::new(
            Reason::WrongKind,
            "the first bytes show no known format",
        )),
        Verdict::More => Ok(None),
    }
}
