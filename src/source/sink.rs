//! Where parsers put their entries: chunks on a bounded channel.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::mpsc;
use url::Url;

use crate::source::error::{SourceError, Stop};
use crate::source::{Entry, Invalid, Notice, NoticeKind};
use crate::target::{Reason, Target};

/// Most entries in a chunk: about as many as the catalog is asked for in one query.
pub const CHUNK_ENTRIES: usize = 500;

/// Chunks that may wait between the parser and its reader.
pub(super) const CHUNKS_WAITING: usize = 4;

/// What a parser's thread says to its list.
#[derive(Debug)]
pub(super) enum Message {
    /// Entries, in the order of the list.
    Entries(Vec<Entry>),
    /// A sitemap named by a sitemap index.
    Sitemap(Url),
    /// Notices on how the list was read.
    Notices(Vec<Notice>),
    /// Nothing follows.
    End(Result<(), SourceError>),
}

/// Shared by a parser and the input at the bottom of it, which knows when a pause comes.
pub(super) type SharedSink = Rc<RefCell<Sink>>;

/// Gathers entries into chunks.
#[derive(Debug)]
pub(super) struct Sink {
    /// Name of the list in messages.
    name: String,
    /// The newest entry stays here until another follows or the input pauses: option lines amend it.
    pending: Vec<Entry>,
    notices: Vec<Notice>,
    out: mpsc::Sender<Message>,
}

impl Sink {
    pub(super) fn new(name: String, out: mpsc::Sender<Message>) -> Self {
        Self {
            name,
            pending: Vec::new(),
            notices: Vec::new(),
            out,
        }
    }

    /// Logs a fault of the list, and records it for the job's summary.
    ///
    /// For faults of the list as a whole. The notice is kept until the end.
    pub(super) fn warn(&mut self, detail: impl std::fmt::Display) {
        let text = format!("the list `{}`: {detail}", self.name);
        tracing::warn!("{text}");
        self.notices.push(Notice {
            text,
            kind: NoticeKind::Fault,
        });
    }

    /// Takes the notices that have come up since the last call.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Adds an entry. Waits while the channel is full.
    pub(super) fn push(&mut self, entry: Entry) -> Result<(), Stop> {
        if self.pending.len() >= CHUNK_ENTRIES {
            self.flush()?;
        }
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(CHUNK_ENTRIES);
        }
        self.pending.push(entry);
        Ok(())
    }

    /// Adds the name of a sitemap, after the entries before it.
    pub(super) fn push_sitemap(&mut self, url: Url) -> Result<(), Stop> {
        self.flush()?;
        self.send(Message::Sitemap(url))
    }

    /// The newest target, as long as it can still be amended.
    pub(super) fn newest(&mut self) -> Option<&mut Target> {
        match self.pending.last_mut() {
            Some(Entry::Target(target)) => Some(target),
            _ => None,
        }
    }

    /// Turns the newest target into an invalid entry.
    pub(super) fn spoil_newest(&mut self, detail: String) {
        if let Some(last @ Entry::Target(_)) = self.pending.last_mut()
            && let Entry::Target(target) = &*last
        {
            *last = Entry::Invalid(Invalid {
                line: target.line,
                text: super::address::shown(target.url.as_str()),
                reason: Reason::InvalidUrl,
                detail,
                group: target.group.clone(),
                place: target.place,
            });
        }
    }

    /// Hands out what is there, without waiting: called before an input that may pause is read.
    ///
    /// All but the newest entry, and only when the channel has room; otherwise chunks grow instead.
    pub(super) fn offer(&mut self) -> Result<(), Stop> {
        if self.pending.len() < 2 {
            return self.check_open();
        }
        match self.out.try_reserve() {
            Ok(permit) => {
                let newest = self.pending.pop();
                permit.send(Message::Entries(std::mem::take(&mut self.pending)));
                self.pending.extend(newest);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(())) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(())) => Err(Stop::Closed),
        }
    }

    /// Hands out everything. Waits while the channel is full.
    pub(super) fn flush(&mut self) -> Result<(), Stop> {
        if !self.notices.is_empty() {
            let notices = self.take_notices();
            self.send(Message::Notices(notices))?;
        }
        if self.pending.is_empty() {
            return self.check_open();
        }
        let entries = std::mem::take(&mut self.pending);
        self.send(Message::Entries(entries))
    }

    /// Whether somebody still listens.
    pub(super) fn check_open(&self) -> Result<(), Stop> {
        if self.out.is_closed() {
            Err(Stop::Closed)
        } else {
            Ok(())
        }
    }

    fn send(&self, message: Message) -> Result<(), Stop> {
        self.out.blocking_send(message).map_err(|_| Stop::Closed)
    }

    /// Says how the list ended, after its last entries.
    pub(super) fn end(&mut self, result: Result<(), SourceError>) {
        if self.flush().is_ok() {
            // A list that was dropped meanwhile does not want to know.
            let _ = self.send(Message::End(result));
        }
    }
}
