//! Whether the daemon is alive, and can do its work. Neither takes a token, nor says more than that.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::extract::{Nothing, Parameters};
use super::{Api, Problem, json};
use crate::metrics::METRICS;
use crate::target::describe;

/// How long an answer holds, so that whoever asks often costs little.
const HOLDS: Duration = Duration::from_secs(1);

/// How long catalog and store may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What was found last, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<Option<(Instant, Found)>>>);

/// That all is well, or what is not.
type Found = Result<(), &'static str>;

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", operation_id = "isAlive", tag = "service",
    responses((status = 200, description = "It does.", body = Object, example = json!({"status": "alive"}))))]
pub(super) async fn alive(_: Parameters<Nothing>) -> Response {
    json(&serde_json::json!({ "status": "alive" }))
}

/// Whether catalog and store can be written
///
/// `receivers` is "failing" while a receiver of events takes none. That does not make the service unready: events wait.
#[utoipa::path(get, path = "/readyz", operation_id = "isReady", tag = "service",
    responses(
        (status = 200, description = "They can.", body = Object, example = json!({"status": "ready", "receivers": "ok"})),
        (status = 503, description = "They cannot; the log says why."),
    ))]
pub(super) async fn ready(
    State(api): State<Api>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    let mut last = api.health.0.lock().await;
    let found = match *last {
        Some((at, found)) if at.elapsed() < HOLDS => found,
        _ => {
            let found = look(&api).await;
            *last = Some((Instant::now(), found));
            found
        }
    };
    drop(last);
    found.map_err(Problem::unavailable)?;
    let receivers = METRICS.receivers();
    let is_failing = receivers.values().any(|of| of.failing_since.is_some());
    let receivers = if is_failing { "failing" } else { "ok" };
    Ok(json(
        &serde_json::json!({ "status": "ready", "receivers": receivers }),
    ))
}

async fn look(api: &Api) -> Found {
    // A transaction that forgets nobody waits for the right to write, as any does.
    let catalog = tokio::time::timeout(ANSWER, api.keeper.delete_receivers(Vec::new()));
    match catalog.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!("not ready: {}", describe(&error));
            return Err("the catalog cannot be written; the log says why");
        }
        Err(_) => return Err("the catalog does not answer"),
    }
    match tokio::time::timeout(ANSWER, api.store.probe()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!("not ready: {}", describe(&error));
            Err("the store cannot be written; the log says why")
        }
        Err(_) => Err("the store does not answer"),
    }
}
