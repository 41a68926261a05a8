//! An open list, and the thread that parses it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::source::decode::{self, Input};
use crate::source::decompress::{self, Capped};
use crate::source::detect::{self, Hints};
use crate::source::encoding::{self, Choice};
use crate::source::error::{SourceError, Stop};
use crate::source::remote::{self, Follow, Pump};
use crate::source::sink::{CHUNKS_WAITING, Message, SharedSink, Sink};
use crate::source::{CHUNK_ENTRIES, Entry, ListFormat, Source, format};
use crate::target::{Reason, SafeUrl, describe};

/// Most sitemaps read for one list: as many as a sitemap index may name (sitemaps.org, "Sitemap index").
pub(super) const MAX_SITEMAPS: usize = 50_000;

/// Sitemaps of an index that may fail one after the other before the rest is not tried: each may cost a minute.
const MAX_FAILED_IN_A_ROW: u32 = 10;

/// Most faults of a list and its sitemaps that are kept as notices. The others are only logged.
const MAX_FAULTS: u32 = 20;

/// Bytes needed to detect an encoding: the longest byte order mark, or two characters of UTF-16.
const ENCODING_BYTES: usize = 4;

/// An open list. Dropping it ends the thread that parses it or the task that feeds it, and the request that brings it.
///
/// Only a thread that waits for a named pipe to be opened cannot be reached; it ends with the process.
#[derive(Debug)]
pub struct List {
    part: Part,
    /// What is read when the part ends.
    later: VecDeque<Next>,
    /// Why a sitemap that an index names could not be read: the first, told at the end. Others go to the log.
    failed: Option<SourceError>,
    /// How many of them came one after the other.
    failed_in_a_row: u32,
    ended: bool,
    notices: Vec<Notice>,
    /// Number of notices about faults so far.
    faults: u32,
}

/// A remark on how a list, or a part of it, was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// In words, such as "openverse has no more results for `red panda`".
    pub text: String,
    /// The kind of remark.
    pub kind: NoticeKind,
}

/// The kind of a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// The source has no more results.
    Exhausted,
    /// A failure cut the results short.
    Incomplete,
    /// The list has a fault, and was read nevertheless.
    Fault,
}

/// What one thread parses: a file, a body.
#[derive(Debug)]
struct Part {
    name: String,
    format: ListFormat,
    messages: mpsc::Receiver<Message>,
    /// The sitemaps that a sitemap index names.
    sitemaps: VecDeque<Url>,
    /// Whether every entry has been handed out, and the part has ended.
    complete: bool,
    /// Lines of a remote list that are no URLs, as long as there is none that is: it may be no list.
    doubtful: Option<Vec<Entry>>,
    /// How they are fetched; `None` where the list is no remote one.
    follow: Option<Follow>,
    /// When the copy came that this part is to take the place of.
    since: Option<String>,
    /// Feeds the thread, where bytes come from asynchronous code, and keeps a copy of them.
    pump: Option<Pump>,
    /// What sends the messages, where no thread does.
    _task: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
enum Next {
    Source(Arc<dyn Source>),
    Sitemap(Url, Follow),
}

impl List {
    /// A list of the entries that `task` sends.
    pub(super) fn fed(
        name: String,
        messages: mpsc::Receiver<Message>,
        task: AbortOnDropHandle<()>,
    ) -> Self {
        let mut list = Self::of(name, ListFormat::Text, messages, None);
        list.part._task = Some(task);
        list
    }

    fn of(
        name: String,
        format: ListFormat,
        messages: mpsc::Receiver<Message>,
        pump: Option<Pump>,
    ) -> Self {
        Self {
            part: Part {
                name,
                format,
                messages,
                sitemaps: VecDeque::new(),
                complete: false,
                doubtful: None,
                follow: None,
                since: None,
                pump,
                _task: None,
            },
            later: VecDeque::new(),
            failed: None,
            failed_in_a_row: 0,
            ended: false,
            notices: Vec::new(),
            faults: 0,
        }
    }

    /// The format that is being read. It may change where sources of several formats follow each other.
    pub fn format(&self) -> ListFormat {
        self.part.format
    }

    /// The next entries in the order of the list, at least one and at most
    /// [`CHUNK_ENTRIES`](super::CHUNK_ENTRIES); `None` at the end.
    ///
    /// Entries come as soon as the input pauses, so those of a slow writer flow. Cancel safe: no entry
    /// is lost when the call is dropped.
    ///
    /// # Errors
    ///
    /// When the list cannot be read to its end, after all entries before that place. Nothing follows then.
    /// Of a sitemap index, the sitemaps that can be read come before the error about one that cannot.
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<Entry>>, SourceError> {
        while !self.ended {
            if self.part.complete {
                if let Err(error) = self.advance().await {
                    return self.fail(error);
                }
                continue;
            }
            match self.part.messages.recv().await {
                Some(Message::Entries(entries)) => match self.part.believe(entries) {
                    Ok(None) => {}
                    Ok(entries) => return Ok(entries),
                    Err(error) => self.lose_part(error)?,
                },
                Some(Message::Sitemap(url)) => {
                    if let Err(error) = self.part.note_sitemap(url) {
                        self.lose_part(error)?;
                    }
                }
                Some(Message::Notices(notices)) => self.note(notices),
                Some(Message::End(Ok(()))) => match self.part.not_a_list() {
                    Some(error) => self.lose_part(error)?,
                    None => {
                        self.part.complete = true;
                        self.failed_in_a_row = 0;
                    }
                },
                Some(Message::End(Err(error))) => self.lose_part(error)?,
                None => {
                    let name = self.part.name.clone();
                    return self.fail(SourceError::Stopped { name });
                }
            }
        }
        Ok(None)
    }

    /// Takes the notices that have come up since the last call.
    pub fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Keeps notices up to [`MAX_FAULTS`], because an index may name thousands of sitemaps with the same fault.
    fn note(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            if notice.kind == NoticeKind::Fault {
                self.faults += 1;
                if self.faults > MAX_FAULTS {
                    continue;
                }
            }
            self.notices.push(notice);
        }
    }

    /// Goes on to what comes after a complete part. Cancel safe: what is not open yet stays next.
    async fn advance(&mut self) -> Result<(), SourceError> {
        self.part.keep_copy().await;
        if let Some(follow) = &self.part.follow {
            for url in self.part.sitemaps.drain(..).rev() {
                self.later.push_front(Next::Sitemap(url, follow.deeper()));
            }
        }
        let list = match self.later.front() {
            None => {
                self.ended = true;
                return self.failed.take().map_or(Ok(()), Err);
            }
            Some(Next::Source(source)) => source.open().await?,
            Some(Next::Sitemap(url, follow)) => {
                match remote::open_sitemap(url, follow.clone()).await {
                    Ok(Some(list)) => list,
                    Ok(None) => {
                        self.later.pop_front();
                        return Ok(());
                    }
                    Err(error) => {
                        self.later.pop_front();
                        return self.note_lost(error);
                    }
                }
            }
        };
        self.later.pop_front();
        self.part = list.part;
        self.note(list.notices);
        for next in list.later.into_iter().rev() {
            self.later.push_front(next);
        }
        Ok(())
    }

    /// Reads `sources` when this list is at its end.
    pub(super) fn then(mut self, sources: impl IntoIterator<Item = Arc<dyn Source>>) -> Self {
        self.later.extend(sources.into_iter().map(Next::Source));
        self
    }

    /// Lets the sitemaps that this list may name be fetched.
    pub(super) fn following(mut self, follow: Follow) -> Self {
        self.part.follow = Some(follow);
        let is_xml = matches!(self.part.format, ListFormat::Sitemap | ListFormat::Feed);
        self.part.doubtful = (!is_xml).then(Vec::new);
        self
    }

    /// Lets errors say that the copy stays that came at `since`.
    pub(super) fn instead_of(mut self, since: Option<String>) -> Self {
        self.part.since = since;
        self
    }

    /// Goes on behind a sitemap of an index that cannot be read; any other list ends there.
    fn lose_part(&mut self, error: SourceError) -> Result<(), SourceError> {
        let error = error.beside_copy(self.part.since.take());
        self.part.pump = None;
        if !self.part.follow.as_ref().is_some_and(Follow::is_child) {
            return self.fail(error);
        }
        self.part.messages.close();
        self.part.complete = true;
        self.note_lost(error).or_else(|error| self.fail(error))
    }

    fn note_lost(&mut self, error: SourceError) -> Result<(), SourceError> {
        self.failed_in_a_row += 1;
        let first = match self.failed.take() {
            None => error,
            Some(first) => {
                tracing::warn!(
                    "another sitemap of the index is left out: {}",
                    describe(&error)
                );
                first
            }
        };
        if self.failed_in_a_row >= MAX_FAILED_IN_A_ROW {
            return Err(first);
        }
        self.failed = Some(first);
        Ok(())
    }

    fn fail<T>(&mut self, error: SourceError) -> Result<T, SourceError> {
        self.ended = true;
        self.part.messages.close();
        Err(error)
    }
}

impl Part {
    /// Puts the copy of a part that was read to its end in the place of the one before. Cancel safe: what was not
    /// begun is begun again, and what was goes on.
    async fn keep_copy(&mut self) {
        let Some(pump) = &mut self.pump else { return };
        let whole = pump.await;
        self.pump = None;
        if let Ok(Some(draft)) = whole {
            draft.keep().await;
        }
    }

    /// Holds back lines that are no URLs until one is. What has none is no list.
    fn believe(&mut self, entries: Vec<Entry>) -> Result<Option<Vec<Entry>>, SourceError> {
        let Some(doubtful) = &mut self.doubtful else {
            return Ok(Some(entries));
        };
        doubtful.extend(entries);
        let is_url = |entry: &Entry| match entry {
            Entry::Target(_) => true,
            Entry::Invalid(invalid) => invalid.reason != Reason::InvalidUrl,
        };
        if doubtful.iter().any(is_url) {
            return Ok(self.doubtful.take());
        }
        if doubtful.len() < CHUNK_ENTRIES {
            return Ok(None);
        }
        self.not_a_list().map_or(Ok(None), Err)
    }

    fn not_a_list(&self) -> Option<SourceError> {
        let Some(Entry::Invalid(first)) = self.doubtful.as_ref()?.first() else {
            return None;
        };
        Some(SourceError::NotAList {
            name: self.name.clone(),
            what: format!("a text without a URL (it begins with `{}`)", first.text),
            advice: "open it in a browser: it may be an error message".to_owned(),
        })
    }

    fn note_sitemap(&mut self, url: Url) -> Result<(), SourceError> {
        let refuse = |detail: String| {
            Err(SourceError::SitemapIndex {
                name: self.name.clone(),
                detail,
            })
        };
        let Some(follow) = &self.follow else {
            return refuse(
                "only one that is read from its URL can be followed; give that URL, or the sitemaps themselves"
                    .to_owned(),
            );
        };
        if follow.is_known(&url) {
            tracing::debug!(
                "`{}` names the sitemap `{}` again",
                self.name,
                SafeUrl::new(&url)
            );
            return Ok(());
        }
        if follow.is_deepest() {
            return refuse("it is named by a sitemap index that another one names".to_owned());
        }
        if !follow.take(&url) {
            return refuse(format!("more than {MAX_SITEMAPS} sitemaps are named"));
        }
        self.sitemaps.push_back(url);
        Ok(())
    }
}

/// Starts a thread that parses what `input` yields; returns once it knows the format.
///
/// `input` runs on that thread. `name` is how messages call the list.
pub(super) async fn parse_on_thread(
    name: String,
    hints: Hints,
    pump: Option<Pump>,
    input: impl FnOnce(SharedSink) -> Result<Input, SourceError> + Send + 'static,
) -> Result<List, SourceError> {
    let thread_name = name.clone();
    on_thread(name, pump, move |sink, opened| {
        let name = thread_name;
        let prepared = input(sink.clone()).and_then(|input| {
            prepare(input, &hints, &sink).map_err(|stop| {
                let format = hints.format.unwrap_or(ListFormat::Text);
                stop.into_error(&name, format)
                    .unwrap_or(SourceError::Stopped { name: name.clone() })
            })
        });
        let (format, input) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // Whoever wanted to open the list may have gone.
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(format)).is_err() {
            return;
        }
        let parsed = format::parse(format, input, hints.base, &sink);
        let result = match parsed.map_err(|stop| stop.into_error(&name, format)) {
            Ok(()) => Ok(()),
            Err(Some(error)) => Err(error),
            Err(None) => return,
        };
        sink.borrow_mut().end(result);
    })
    .await
}

/// Starts a thread that hands out entries that are there already.
pub(super) async fn entries_on_thread(
    name: String,
    entries: impl Iterator<Item = io::Result<Entry>> + Send + 'static,
) -> Result<List, SourceError> {
    let shown = name.clone();
    on_thread(name, None, move |sink, opened| {
        if opened.send(Ok(ListFormat::Text)).is_err() {
            return;
        }
        let mut sink = sink.borrow_mut();
        for entry in entries {
            match entry {
                Ok(entry) => {
                    if sink.push(entry).is_err() {
                        return;
                    }
                }
                Err(source) => {
                    return sink.end(Err(SourceError::Read {
                        name: shown,
                        source,
                    }));
                }
            }
        }
        sink.end(Ok(()));
    })
    .await
}

type Opened = oneshot::Sender<Result<ListFormat, SourceError>>;

/// The thread is one of the system's rather than the runtime's: the runtime waits for its blocking
/// threads when it shuts down, and one that reads a silent terminal would hold up the process's end.
async fn on_thread(
    name: String,
    pump: Option<Pump>,
    work: impl FnOnce(SharedSink, Opened) + Send + 'static,
) -> Result<List, SourceError> {
    let (out, messages) = mpsc::channel(CHUNKS_WAITING);
    let (opened, format) = oneshot::channel();
    let sink_name = name.clone();
    thread::Builder::new()
        .name("list".to_owned())
        .spawn(move || work(Rc::new(RefCell::new(Sink::new(sink_name, out))), opened))
        .map_err(|source| SourceError::Open {
            name: name.clone(),
            source,
        })?;
    let format = match format.await {
        Ok(format) => format?,
        Err(_) => return Err(SourceError::Stopped { name }),
    };
    Ok(List::of(name, format, messages, pump))
}

/// Undoes compression and encoding, and finds out the format.
fn prepare(input: Input, hints: &Hints, sink: &SharedSink) -> Result<(ListFormat, Input), Stop> {
    let mut input = decompress::decompress(input, sink)?;
    if let Some(most) = hints.max_bytes {
        input = Box::new(Capped::new(input, most, remote::too_long(most)));
    }
    let (head, input) = decode::peek(input, ENCODING_BYTES, |_| false)?;
    if encoding::is_utf_32(&head) {
        return Err(Stop::not_a_list("a text in UTF-32", "save it as UTF-8"));
    }
    let choice = encoding::choose(&head, hints.encoding, hints.media_type.as_deref());
    let is_utf_16 = |encoding| encoding == UTF_16LE || encoding == UTF_16BE;
    let (encoding, fallback, input) = match choice {
        Choice::Said(encoding) | Choice::Shown(encoding) if is_utf_16(encoding) => {
            (encoding, encoding::FALLBACK, input)
        }
        choice => {
            let (head, input) = decode::peek(input, detect::HEAD_BYTES, detect::is_enough)?;
            detect::refuse_signature(&head)?;
            let declared = encoding::xml_declared(&head).unwrap_or(UTF_8);
            let encoding = match choice {
                Choice::Said(encoding) | Choice::Shown(encoding) => encoding,
                Choice::Open => declared,
            };
            // Some servers declare everything as UTF-8, so an XML declaration serves as the fallback.
            let fallback = match declared == UTF_8 {
                true => encoding::FALLBACK,
                false => declared,
            };
            (encoding, fallback, input)
        }
    };
    let input = decode::to_utf8(input, encoding, fallback, sink);
    let (head, input) = decode::peek(input, detect::HEAD_BYTES, detect::is_enough)?;
    Ok((detect::decide(&head, hints)?, input))
}
