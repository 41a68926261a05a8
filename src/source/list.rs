//! An open list, and the thread that parses it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::source::decode::{self, Input, Transcoder};
use crate::source::detect::{self, Hints};
use crate::source::error::{SourceError, Stop};
use crate::source::remote::{self, Follow};
use crate::source::sink::{CHUNKS_WAITING, Message, SharedSink, Sink};
use crate::source::{Entry, ListFormat, Source, format};

/// Sitemaps that may wait to be read: what one sitemap index may name (sitemaps.org, "Sitemap index").
const MAX_SITEMAPS: usize = 50_000;

/// An open list. Dropping it ends the thread that parses it, and the request that brings it.
///
/// Only a thread that waits for a named pipe to be opened cannot be reached; it ends with the process.
#[derive(Debug)]
pub struct List {
    part: Part,
    /// What is read when the part ends.
    later: VecDeque<Next>,
    ended: bool,
}

/// What one thread parses: a file, a body.
#[derive(Debug)]
struct Part {
    name: String,
    format: ListFormat,
    messages: mpsc::Receiver<Message>,
    /// The sitemaps that a sitemap index names.
    sitemaps: VecDeque<Url>,
    /// Whether every entry has been handed out, and the part has ended well.
    complete: bool,
    /// How they are fetched; `None` where the list is no remote one.
    follow: Option<Follow>,
    /// Feeds the thread, where bytes come from asynchronous code.
    _pump: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
enum Next {
    Source(Arc<dyn Source>),
    Sitemap(Url, Follow),
}

impl List {
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
    pub async fn next_chunk(&mut self) -> Result<Option<Vec<Entry>>, SourceError> {
        while !self.ended {
            if self.part.complete {
                if let Err(error) = self.advance().await {
                    return self.fail(error);
                }
                continue;
            }
            match self.part.messages.recv().await {
                Some(Message::Entries(entries)) => return Ok(Some(entries)),
                Some(Message::Sitemap(url)) => {
                    if let Err(error) = self.part.note_sitemap(url) {
                        return self.fail(error);
                    }
                }
                Some(Message::End(Ok(()))) => self.part.complete = true,
                Some(Message::End(Err(error))) => return self.fail(error),
                None => {
                    let name = self.part.name.clone();
                    return self.fail(SourceError::Stopped { name });
                }
            }
        }
        Ok(None)
    }

    /// Goes on to what comes after a complete part. Cancel safe: what is not open yet stays next.
    async fn advance(&mut self) -> Result<(), SourceError> {
        if let Some(follow) = &self.part.follow {
            for url in self.part.sitemaps.drain(..).rev() {
                self.later.push_front(Next::Sitemap(url, follow.deeper()));
            }
        }
        let list = match self.later.front() {
            None => {
                self.ended = true;
                return Ok(());
            }
            Some(Next::Source(source)) => source.open().await?,
            Some(Next::Sitemap(url, follow)) => remote::open(url, None, follow.clone()).await?,
        };
        self.later.pop_front();
        self.part = list.part;
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
        self
    }

    fn fail<T>(&mut self, error: SourceError) -> Result<T, SourceError> {
        self.ended = true;
        self.part.messages.close();
        Err(error)
    }
}

impl Part {
    fn note_sitemap(&mut self, url: Url) -> Result<(), SourceError> {
        let refuse = |detail: String| {
            Err(SourceError::SitemapIndex {
                name: self.name.clone(),
                detail,
            })
        };
        match &self.follow {
            None => {
                return refuse(
                    "only one that is read from its URL can be followed; give that URL, or the sitemaps themselves"
                        .to_owned(),
                );
            }
            Some(follow) if follow.is_deepest() => {
                return refuse("it is named by a sitemap index that another one names".to_owned());
            }
            Some(_) => {}
        }
        if self.sitemaps.len() >= MAX_SITEMAPS {
            return refuse(format!("it names more than {MAX_SITEMAPS} sitemaps"));
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
    pump: Option<AbortOnDropHandle<()>>,
    input: impl FnOnce(SharedSink) -> Result<Input, SourceError> + Send + 'static,
) -> Result<List, SourceError> {
    let thread_name = name.clone();
    on_thread(name, pump, move |sink, opened| {
        let name = thread_name;
        let prepared = input(sink.clone()).and_then(|input| {
            prepare(input, &hints).map_err(|stop| {
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
        let parsed = format::parse(format, input, &sink);
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
    entries: impl Iterator<Item = Entry> + Send + 'static,
) -> Result<List, SourceError> {
    on_thread(name, None, move |sink, opened| {
        if opened.send(Ok(ListFormat::Text)).is_err() {
            return;
        }
        let mut sink = sink.borrow_mut();
        for entry in entries {
            if sink.push(entry).is_err() {
                return;
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
    pump: Option<AbortOnDropHandle<()>>,
    work: impl FnOnce(SharedSink, Opened) + Send + 'static,
) -> Result<List, SourceError> {
    let (out, messages) = mpsc::channel(CHUNKS_WAITING);
    let (opened, format) = oneshot::channel();
    thread::Builder::new()
        .name("list".to_owned())
        .spawn(move || work(Rc::new(RefCell::new(Sink::new(out))), opened))
        .map_err(|source| SourceError::Open {
            name: name.clone(),
            source,
        })?;
    let format = match format.await {
        Ok(format) => format?,
        Err(_) => return Err(SourceError::Stopped { name }),
    };
    Ok(List {
        part: Part {
            name,
            format,
            messages,
            sitemaps: VecDeque::new(),
            complete: false,
            follow: None,
            _pump: pump,
        },
        later: VecDeque::new(),
        ended: false,
    })
}

/// Undoes compression and encoding, and finds out the format.
fn prepare(input: Input, hints: &Hints) -> Result<(ListFormat, Input), Stop> {
    let input = decode::decompress(input)?;
    let (head, mut input) = decode::peek(input, 4, |_| false)?;
    if let Some(encoding) = decode::sniff_encoding(&head) {
        input = Box::new(Transcoder::new(input, encoding));
    }
    let (head, mut input) = decode::peek(input, detect::HEAD_BYTES, detect::is_enough)?;
    let format = detect::decide(&head, hints)?;
    if matches!(format, ListFormat::Sitemap | ListFormat::Feed) {
        // The parser takes UTF-8 and nothing else.
        input = Box::new(Transcoder::new(input, decode::xml_encoding(&head)));
    } else if head.starts_with(b"\xef\xbb\xbf") {
        input.read_exact(&mut [0; 3])?;
    }
    Ok((format, input))
}
