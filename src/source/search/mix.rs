//! Brings the results of all providers and queries together.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::desk::Desk;
use super::{Cursor, Found, Page, Query, SearchError};
use crate::source::sink::Message;
use crate::source::{Entry, List, Notice, NoticeKind, SourceError};
use crate::target::Target;

/// Most results that are handed on at a time. Few, so that nothing is asked for that nobody wants.
const CHUNK: usize = 50;

/// How long a provider whose turn it is may take before others go first.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Addresses that are remembered, in digests of 8 bytes; beyond that all are forgotten. The plan of a job knows for sure.
const REMEMBERED: usize = 200_000;

/// Begins to ask `desks`, and returns once there is a result, or will be none.
///
/// # Errors
///
/// When all providers failed before they found anything.
pub(super) async fn open(
    name: String,
    desks: Vec<Desk>,
    queries: &[Query],
) -> Result<List, SourceError> {
    let (out, messages) = mpsc::channel(1);
    let (opened, is_open) = oneshot::channel();
    let mix = Mix::new(desks, queries);
    let task = AbortOnDropHandle::new(tokio::spawn(mix.run(name.clone(), out, opened)));
    match is_open.await {
        Ok(Ok(())) => Ok(List::fed(name, messages, task)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(SourceError::Stopped { name }),
    }
}

/// What a provider finds for a query.
#[derive(Debug)]
struct Stream {
    desk: usize,
    query: Query,
    /// Results of the page before that are not handed on yet.
    results: VecDeque<Found>,
    /// How many were handed on.
    rank: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// There is another page, and nobody asked for it yet.
    More(Option<Cursor>),
    /// It was asked for.
    Asked(Instant),
    /// There is none.
    Ended,
}

/// How the task ended that was to bring a page.
type Arrived = Result<(task::Id, Result<Page, SearchError>), JoinError>;

/// A provider, which is asked for one page at a time.
struct Asking {
    desk: Arc<Desk>,
    /// The task that asks it, and for which stream.
    asked: Option<(task::Id, usize)>,
}

struct Mix {
    streams: Vec<Stream>,
    /// Whose turn it is.
    turn: usize,
    asking: Vec<Asking>,
    /// Those that bring pages; they end when this is dropped.
    tasks: JoinSet<Result<Page, SearchError>>,
    seen: Seen,
    notices: Vec<Notice>,
}

impl Mix {
    fn new(desks: Vec<Desk>, queries: &[Query]) -> Self {
        let mut streams = Vec::new();
        // By query first, so that each round has all providers for one query beside each other.
        for query in queries {
            streams.extend((0..desks.len()).map(|desk| Stream {
                desk,
                query: query.clone(),
                results: VecDeque::new(),
                rank: 0,
                state: State::More(None),
            }));
        }
        let asking = desks.into_iter().map(|desk| Asking {
            desk: Arc::new(desk),
            asked: None,
        });
        Self {
            streams,
            turn: 0,
            asking: asking.collect(),
            tasks: JoinSet::new(),
            seen: Seen::default(),
            notices: Vec::new(),
        }
    }

    /// Hands on results as long as somebody takes them, and then says how each stream ended.
    async fn run(
        mut self,
        name: String,
        out: mpsc::Sender<Message>,
        opened: oneshot::Sender<Result<(), SourceError>>,
    ) {
        let mut opened = Some(opened);
        // Nothing is asked for before the results before it are taken.
        while out.reserve().await.is_ok() {
            let entries = self.gather().await;
            let is_end = entries.is_empty();
            if let Some(opened) = opened.take() {
                let failure = match is_end {
                    true => self.failure(&name),
                    false => None,
                };
                let is_failure = failure.is_some();
                if opened.send(failure.map_or(Ok(()), Err)).is_err() || is_failure {
                    return;
                }
            }
            // Nobody may be there to hear it.
            if !self.notices.is_empty() {
                let notices = std::mem::take(&mut self.notices);
                let _ = out.send(Message::Notices(notices)).await;
            }
            let message = match is_end {
                true => Message::End(Ok(())),
                false => Message::Entries(entries),
            };
            let _ = out.send(message).await;
            if is_end {
                return;
            }
        }
    }

    /// Why nothing was found, where that is because everybody failed.
    fn failure(&self, name: &str) -> Option<SourceError> {
        let all_failed = self
            .notices
            .iter()
            .all(|notice| notice.kind == NoticeKind::Incomplete);
        (all_failed && !self.notices.is_empty()).then(|| {
            let details: Vec<_> = self
                .notices
                .iter()
                .map(|notice| notice.text.as_str())
                .collect();
            SourceError::Search {
                name: name.to_owned(),
                detail: details.join("; "),
            }
        })
    }

    /// The next results, one of each stream in turn; none at the end. Returns with what is there rather than to wait for
    /// more, or to ask for more than anybody may want.
    async fn gather(&mut self) -> Vec<Entry> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            while let Some(arrived) = self.tasks.try_join_next_with_id() {
                self.take(arrived);
            }
            let is_anything_there = self.streams.iter().any(|s| !s.results.is_empty());
            let stream = &mut self.streams[self.turn];
            let asking = &self.asking[stream.desk];
            if let Some(found) = stream.results.pop_front() {
                stream.rank += 1;
                if self.seen.is_new(None, &found.url) {
                    let provider = asking.desk.name();
                    let target: Target = found.into_target(provider, &stream.query, stream.rank);
                    chunk.push(Entry::Target(target));
                }
                self.pass();
                continue;
            }
            match &stream.state {
                State::More(_) if asking.asked.is_none() => match chunk.is_empty() {
                    true => self.order(self.turn),
                    false => break,
                },
                State::Asked(since) if is_anything_there && since.elapsed() < GRACE => {
                    let until = *since + GRACE;
                    if let Ok(Some(arrived)) =
                        timeout_at(until, self.tasks.join_next_with_id()).await
                    {
                        self.take(arrived);
                    }
                }
                _ if is_anything_there => self.pass(),
                _ if !chunk.is_empty() => break,
                _ => {
                    // Whoever comes first has the next result.
                    for ahead in 0..self.streams.len() {
                        self.order((self.turn + ahead) % self.streams.len());
                    }
                    match self.tasks.join_next_with_id().await {
                        Some(arrived) => self.take(arrived),
                        None => break,
                    }
                }
            }
        }
        chunk
    }

    fn pass(&mut self) {
        self.turn = (self.turn + 1) % self.streams.len();
    }

    /// Has the next page of a stream brought, if there is one, and its provider is not asked for another one.
    fn order(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        let asking = &mut self.asking[stream.desk];
        if let (State::More(cursor), None) = (&mut stream.state, asking.asked) {
            let (desk, query, cursor) = (asking.desk.clone(), stream.query.clone(), cursor.take());
            let task = self
                .tasks
                .spawn(async move { desk.page(&query, cursor).await });
            asking.asked = Some((task.id(), at));
            stream.state = State::Asked(Instant::now());
        }
    }

    fn take(&mut self, arrived: Arrived) {
        let (id, page) = match arrived {
            Ok(arrived) => arrived,
            Err(panic) => {
                let detail = format!("asking it failed: {panic}");
                (panic.id(), Err(SearchError::Changed { detail }))
            }
        };
        let of_task = |asking: &mut Asking| asking.asked.take_if(|(task, _)| *task == id);
        let Some((_, at)) = self.asking.iter_mut().find_map(of_task) else {
            return;
        };
        let stream = &mut self.streams[at];
        let (name, query) = (self.asking[stream.desk].desk.name(), &stream.query);
        stream.state = State::Ended;
        match page {
            Ok(page) => {
                let text = &query.text;
                let is_empty = page.results.is_empty();
                let mut is_new = false;
                for found in &page.results {
                    is_new |= self.seen.is_new(Some(at), &found.url);
                }
                if page.broken > 0 {
                    tracing::debug!("`{name}`: {} results could not be read", page.broken);
                }
                let so_far = stream.rank + page.results.len() as u64;
                match page.next {
                    Some(next) if is_new => stream.state = State::More(Some(next)),
                    _ if is_new || is_empty => self.notices.push(Notice {
                        text: match so_far {
                            0 => format!("`{name}` has no results for `{text}`"),
                            _ => format!("`{name}` has no more results for `{text}` than {so_far}"),
                        },
                        kind: NoticeKind::Exhausted,
                    }),
                    _ => self.notices.push(Notice {
                        text: format!(
                            "`{name}` only repeats itself after {} results for `{text}`",
                            stream.rank
                        ),
                        kind: NoticeKind::Exhausted,
                    }),
                }
                if is_new {
                    stream.results = page.results.into();
                }
            }
            Err(error) => {
                let text = error.told(name, query);
                tracing::warn!("{text}");
                self.notices.push(Notice {
                    text,
                    kind: NoticeKind::Incomplete,
                });
                if !error.is_of_query() {
                    let desk = stream.desk;
                    for stream in self.streams.iter_mut().filter(|s| s.desk == desk) {
                        stream.state = State::Ended;
                    }
                }
            }
        }
    }
}

/// Which addresses were there before, of one stream or of all.
#[derive(Debug, Default)]
struct Seen {
    digests: HashSet<u64>,
    state: RandomState,
}

impl Seen {
    fn is_new(&mut self, stream: Option<usize>, url: &Url) -> bool {
        if self.digests.len() >= REMEMBERED {
            self.digests.clear();
        }
        self.digests.insert(self.state.hash_one((stream, url)))
    }
}
