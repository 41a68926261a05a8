//! A job as it goes on: server-sent events (WHATWG HTML, section 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::extract::{Names, Nothing, Parameters};
use super::{Api, Problem, jobs};
use crate::catalog::{Catalog, CatalogError, JobRow, OutcomeRow};
use crate::target::{Counts, describe};

/// How often it is looked whether there is something new.
const EVERY: Duration = Duration::from_millis(300);

/// Outcomes that are read at a time.
const CHUNK: u32 = 200;

/// Who may listen at a time, to any job.
pub(super) const LISTENERS: usize = 128;

/// The id of the last event.
const END: &str = "end";

/// A job as it goes on
///
/// Server-sent events: `progress` with the job, `item` with each outcome of a posted job in the order in which they were
/// recorded, and `end` with the job. `Last-Event-ID` goes on behind an `item`; behind `end` there is nothing.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", operation_id = "watchJob", tag = "jobs",
    params(
        ("id" = Uuid, Path, description = "Its id."),
        ("Last-Event-ID" = Option<String>, Header, pattern = "^([0-9]{1,18}|end)?$", description = "The `id` of the last event that came."),
    ),
    responses(
        (status = 200, description = "Events, as they come.", content_type = "text/event-stream", body = String),
        (status = 204, description = "The last event was `end`: there are no more."),
        (status = 404, description = "There is no such job."),
    ))]
pub(super) async fn watch(
    State(api): State<Api>,
    Names(id): Names<String>,
    _: Parameters<Nothing>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = jobs::find(&*api.catalog, &id).await?;
    let after = match headers.get("last-event-id").map(|id| id.as_bytes()) {
        None | Some(b"") => None,
        Some(id) if id == END.as_bytes() => return Ok(StatusCode::NO_CONTENT.into_response()),
        Some(id) => {
            let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            let wrong = || {
                Problem::bad_request("`Last-Event-ID`: expected the `id` of an event of this job")
            };
            Some(id.ok_or_else(wrong)?)
        }
    };
    let Ok(permit) = api.listeners.clone().try_acquire_owned() else {
        let detail = format!("{LISTENERS} clients listen already; ask for the job instead");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
        return Err(problem.with(header::RETRY_AFTER, "10"));
    };
    let live = Live {
        catalog: api.catalog.clone(),
        job: job.id,
        after,
        shown: None,
        waiting: VecDeque::new(),
        is_over: false,
        stop: api.posts.stopping(),
        _permit: permit,
    };
    let events = stream::unfold(live, |mut live| async move {
        let event = live.next().await?;
        Some((Ok::<_, Infallible>(event), live))
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

struct Live {
    catalog: Arc<dyn Catalog>,
    job: Uuid,
    /// The number of the last outcome that was told.
    after: Option<u64>,
    /// What was told of the job last.
    shown: Option<(Counts, crate::target::State)>,
    waiting: VecDeque<Event>,
    is_over: bool,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    /// The next event; `None` behind the last, and when the daemon ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.is_over || self.stop.is_cancelled() {
                return None;
            }
            if let Err(error) = self.look().await {
                tracing::warn!(job.id = %self.job, "events break off: {}", describe(&error));
                return None;
            }
            if self.waiting.is_empty() {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = tokio::time::sleep(EVERY) => {}
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), CatalogError> {
        // First the job: what it counts as done is among the outcomes that are read after it.
        let Some(job) = self.catalog.job(self.job).await? else {
            self.is_over = true;
            return Ok(());
        };
        let state = (job.counts, job.state);
        let is_new = self.shown.replace(state) != Some(state);
        if is_new && job.finished.is_none() {
            self.waiting.extend(event("progress", None, &job));
        }
        if job.posted.is_some() {
            let after = self.after;
            let items = self.catalog.outcomes_since(self.job, after, CHUNK).await?;
            for (number, item) in &items {
                self.after = Some(*number);
                self.waiting.extend(item_event(*number, item));
            }
            if items.len() == CHUNK as usize {
                return Ok(());
            }
        }
        if job.finished.is_some() {
            self.is_over = true;
            self.waiting.extend(event("end", Some(END), &job));
        }
        Ok(())
    }
}

fn event(name: &str, id: Option<&str>, job: &JobRow) -> Option<Event> {
    let event = Event::default().event(name);
    let event = match id {
        Some(id) => event.id(id),
        None => event,
    };
    Some(event.data(serde_json::to_string(job).ok()?))
}

fn item_event(number: u64, item: &OutcomeRow) -> Option<Event> {
    let event = Event::default().event("item").id(number.to_string());
    Some(event.data(serde_json::to_string(item).ok()?))
}
