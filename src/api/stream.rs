//! Events as they happen: server-sent events, or a line of JSON each.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use uuid::Uuid;

use super::extract::Parameters;
use super::jobs::{NDJSON, accepts_ndjson};
use super::{Api, Problem};
use crate::catalog::{EVENTS, Wants};
use crate::notify::{Heard, Listening, Told};

/// How long a stream is silent. What stands between may hang up on one that is.
const SILENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Names and patterns, divided by commas.
    #[param(example = "job.*,file.stored")]
    events: Option<String>,
    /// Only of this schedule.
    schedule: Option<String>,
    /// Only of this album.
    album: Option<String>,
    /// Only of this job.
    job: Option<Uuid>,
    /// The last event that is known, as `Last-Event-ID`.
    after: Option<i64>,
}

/// Which events a stream has.
#[derive(Debug)]
struct Filter {
    events: Wants,
    schedule: Option<String>,
    album: Option<String>,
    job: Option<Uuid>,
}

impl Filter {
    fn has(&self, told: &Told) -> bool {
        let is = |wanted: &Option<String>, key| {
            wanted
                .as_ref()
                .is_none_or(|wanted| *wanted == told.text(key))
        };
        self.events.has(&told.event)
            && is(&self.schedule, "schedule")
            && is(&self.album, "album")
            && self.job.is_none_or(|job| told.job == Some(job))
    }
}

/// Events as they happen
///
/// Server-sent events, or a line of JSON each where `application/x-ndjson` is accepted.
#[utoipa::path(get, path = "/api/v1/events", operation_id = "listen", tag = "service",
    params(
        Wanted,
        ("Last-Event-ID" = Option<i64>, Header, description = "The `id` of the last event that came."),
    ),
    responses((status = 200, description = "Events, until the client goes.", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    State(api): State<Api>,
    Parameters(wanted): Parameters<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let events = match &wanted.events {
        None => Wants::all(),
        Some(text) => Wants::new(text.split(',').map(str::trim)).map_err(|wrong| {
            Problem::bad_request(format!(
                "the query cannot be used: events: `{wrong}` means no event; there are `{}`, and patterns such as `job.*`",
                EVENTS.join("`, `")
            ))
        })?,
    };
    let filter = Filter {
        events,
        schedule: wanted.schedule,
        album: wanted.album,
        job: wanted.job,
    };
    let last = headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let listening = api.events.listen(last.or(wanted.after)).await?;
    let is_lines = accepts_ndjson(&headers);
    let media_type = if is_lines {
        NDJSON
    } else {
        "text/event-stream"
    };
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::VARY, "Accept"),
        // nginx would hold back what is to be seen at once.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body(listening, filter, is_lines)).into_response())
}

fn body(listening: Listening, filter: Filter, is_lines: bool) -> Body {
    // The head goes out with something, so that who asked sees that he listens.
    let first = Some(Bytes::from_static(if is_lines { b"\n" } else { b":\n\n" }));
    let state = (listening, filter, first);
    let pieces = stream::unfold(state, move |(mut listening, filter, first)| async move {
        if let Some(first) = first {
            return Some((
                Ok::<_, std::convert::Infallible>(first),
                (listening, filter, None),
            ));
        }
        let text = loop {
            let text = match tokio::time::timeout(SILENCE, listening.next()).await {
                Err(_) if is_lines => "\n".to_owned(),
                Err(_) => ":\n\n".to_owned(),
                Ok(None) => return None,
                Ok(Some(heard)) => write(&heard, &filter, is_lines),
            };
            if !text.is_empty() {
                break text;
            }
        };
        Some((Ok(Bytes::from(text)), (listening, filter, None)))
    });
    Body::from_stream(pieces)
}

fn write(heard: &Heard, filter: &Filter, is_lines: bool) -> String {
    let told = match heard {
        Heard::Missed(count) => {
            let data = json!({ "event": "missed", "at_most": count });
            return match is_lines {
                true => format!("{data}\n"),
                false => format!("event: missed\ndata: {data}\n\n"),
            };
        }
        Heard::Events(told) => told,
    };
    let line = |told: &Told| match is_lines {
        true => told.json() + "\n",
        false => format!(
            "id: {}\nevent: {}\ndata: {}\n\n",
            told.id,
            told.event,
            told.json()
        ),
    };
    let wanted = told.iter().filter(|told| filter.has(told));
    wanted.map(line).collect()
}
