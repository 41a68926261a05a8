//! Those who listen to the daemon, for as long as they do.
//!
//! They are one receiver to the catalog, without a name. It is there while somebody listens, and a while longer, so that
//! who comes back misses nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::told::Told;
use crate::catalog::{Catalog, CatalogError, Wants};
use crate::target::describe;

/// How long events are kept for who may come back.
const GRACE: Duration = Duration::from_secs(60);

/// Events that are read at a time.
const PAGE: u32 = 100;

/// How long nothing is looked at that nobody told of.
const IDLE: Duration = Duration::from_secs(10);

/// What the catalog calls them.
const NAME: &str = "";

/// Where events can be listened to.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    catalog: Arc<dyn Catalog>,
    listeners: Mutex<Listeners>,
    /// Held while the catalog is told whether there are any.
    telling: tokio::sync::Mutex<()>,
    /// The last event that was dropped because there were too many.
    dropped: AtomicI64,
    stop: CancellationToken,
}

struct Listeners {
    next: u64,
    /// The last event that each has.
    positions: BTreeMap<u64, i64>,
    /// Since when there are none, if there are none.
    none_since: Instant,
    /// What the one that was furthest behind had at that time.
    floor: Option<(Instant, i64)>,
    /// Whether the catalog may have them as a receiver.
    is_known: bool,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners = self.0.lock().positions.len();
        f.debug_struct("Live")
            .field("listeners", &listeners)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    pub(super) fn new(catalog: Arc<dyn Catalog>) -> Self {
        Self(Arc::new(Shared {
            catalog,
            listeners: Mutex::new(Listeners {
                next: 0,
                positions: BTreeMap::new(),
                none_since: Instant::now(),
                floor: None,
                is_known: true,
            }),
            telling: tokio::sync::Mutex::default(),
            dropped: AtomicI64::new(0),
            stop: CancellationToken::new(),
        }))
    }

    /// Listens from now on, or to what came behind the event `after`.
    ///
    /// # Errors
    ///
    /// When the catalog fails.
    pub async fn listen(&self, after: Option<i64>) -> Result<Listening, CatalogError> {
        let _telling = self.0.telling.lock().await;
        let (catalog, now) = (&self.0.catalog, Utc::now());
        let news = catalog.news();
        let newest = catalog.save_receiver(NAME, &Wants::all(), now).await?;
        let rows = catalog.receivers().await?;
        let kept = rows.iter().find(|row| row.name == NAME);
        let kept = kept.map_or(newest, |row| row.position);
        let position = after.unwrap_or(newest);
        let mut listeners = self.0.lock();
        let id = listeners.next;
        listeners.next += 1;
        listeners.positions.insert(id, position);
        listeners.is_known = true;
        Ok(Listening {
            live: self.clone(),
            id,
            position,
            missed: kept.saturating_sub(position).max(0),
            news,
        })
    }

    /// Ends all listening, once what is there by now was heard.
    pub fn end(&self) {
        self.0.stop.cancel();
    }

    /// Notes that events up to `last` were dropped, whether or not everybody had them.
    pub(super) fn note_dropped(&self, last: i64) {
        self.0.dropped.fetch_max(last, Ordering::SeqCst);
    }

    /// Lets go of what nobody may come back for. Called every now and then.
    pub(super) async fn tidy(&self) {
        let _telling = self.0.telling.lock().await;
        let now = Instant::now();
        let (has_left, reached) = {
            let mut listeners = self.0.lock();
            let first = listeners.positions.values().min().copied();
            match first {
                None => {
                    listeners.floor = None;
                    let is_over = now.duration_since(listeners.none_since) > GRACE;
                    (listeners.is_known && is_over, None)
                }
                Some(first) => {
                    let (since, floor) = *listeners.floor.get_or_insert((now, first));
                    let is_old = now.duration_since(since) > GRACE;
                    if is_old {
                        listeners.floor = Some((now, first));
                    }
                    (false, is_old.then_some(floor))
                }
            }
        };
        let done = match (has_left, reached) {
            (true, _) => self.0.catalog.delete_receivers(vec![NAME.to_owned()]).await,
            (false, Some(floor)) => self.0.catalog.acknowledge(NAME, floor).await,
            (false, None) => return,
        };
        match done {
            Ok(()) if has_left => self.0.lock().is_known = false,
            Ok(()) => {}
            Err(error) => tracing::error!("cannot tidy the outbox up: {}", describe(&error)),
        }
    }
}

/// Somebody who listens, until it is dropped.
pub struct Listening {
    live: Live,
    id: u64,
    position: i64,
    /// How many events may have gone before it came.
    missed: i64,
    news: watch::Receiver<u64>,
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening")
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What somebody hears.
#[derive(Debug)]
pub enum Heard {
    /// Events, in their order.
    Events(Vec<Told>),
    /// So many are gone, at most, that it has not heard.
    Missed(i64),
}

impl Listening {
    /// The next events; waits until there are some. `None`: there are no more. Cancel safe.
    pub async fn next(&mut self) -> Option<Heard> {
        let shared = self.live.0.clone();
        loop {
            if self.missed > 0 {
                return Some(Heard::Missed(std::mem::take(&mut self.missed)));
            }
            let dropped = shared.dropped.load(Ordering::SeqCst);
            if dropped > self.position {
                // Where a client says that it was may be anything.
                let missed = dropped.saturating_sub(self.position);
                self.reach(dropped);
                return Some(Heard::Missed(missed));
            }
            self.news.mark_unchanged();
            let is_last = shared.stop.is_cancelled();
            let page = match shared.catalog.events_after(self.position, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!("a stream of events breaks off: {}", describe(&error));
                    return None;
                }
            };
            if let Some(last) = page.last() {
                self.reach(last.id);
                return Some(Heard::Events(page.iter().map(Told::of).collect()));
            }
            if is_last {
                return None;
            }
            tokio::select! {
                () = shared.stop.cancelled() => {}
                Ok(()) = self.news.changed() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
    }

    fn reach(&mut self, position: i64) {
        self.position = position;
        self.live.0.lock().positions.insert(self.id, position);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = self.live.0.lock();
        listeners.positions.remove(&self.id);
        listeners.none_since = Instant::now();
    }
}
