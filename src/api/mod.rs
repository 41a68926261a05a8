//! Jobs, schedules, albums and files over HTTP.
//!
//! One [`Router`] serves both the address of `api.listen` and the socket in the store, by which
//! `gannet schedule` and `gannet status` ask. What differs is who is let in.
//!
//! - `access`: tokens and their scopes;
//! - `serve`: connections and their limits;
//! - `problem`: errors, as problem documents (RFC 9457); `extract`: what handlers take from a request;
//! - `schedules`: schedules, and what the daemon is about;
//! - `jobs`, `albums`: what the catalog knows, `page` by page, by cursors that are keys;
//! - `files`: bytes; `conditions`: whether, and which of them;
//! - `service`: whether the daemon can do its work.
//!
//! This room does not know the daemon: it asks for things at its `Desk`.

mod access;
mod albums;
mod conditions;
mod extract;
mod files;
mod jobs;
mod page;
mod problem;
mod schedules;
mod serve;
mod service;
mod settings;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRef, Request};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::serve::{Listener, ListenerExt as _};
use axum::{Extension, Router};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::catalog::Catalog;
use crate::store::Store;
use access::guard;

pub use access::{Scope, Tokens};
pub use settings::Settings;
pub use status::{LastRun, RunningJob, ScheduleStatus, Status};

pub(crate) use access::{Access, Way};
pub(crate) use problem::{Document, Problem};
pub(crate) use schedules::{Asked, Desk, Refused, Request as Wish};
pub(crate) use serve::Server;
pub(crate) use service::Health;

/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(30);

/// Largest body of a request. None of them means anything yet.
const BODY_BYTES: usize = 64 * 1024;

/// What handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) desk: Desk,
    pub(crate) access: Access,
    /// To read. Not the one that jobs read from, so that neither waits for the other.
    pub(crate) catalog: Arc<dyn Catalog>,
    /// The one that jobs write to.
    pub(crate) keeper: Arc<dyn Catalog>,
    pub(crate) store: Store,
    pub(crate) health: Health,
}

impl FromRef<Api> for Desk {
    fn from_ref(api: &Api) -> Self {
        api.desk.clone()
    }
}

impl Api {
    /// Answers whoever comes to `listener`.
    pub(crate) fn serve<L: Listener>(&self, listener: L, way: Way, most: usize) -> Server {
        let router = self.router().layer(Extension(way));
        Server::start(listener, router, most)
    }

    fn router(&self) -> Router {
        let scope = |scope| from_fn_with_state((self.access.clone(), scope), guard);
        let read = Router::new()
            .route("/api/v1/status", get(schedules::status))
            .route("/api/v1/schedules", get(schedules::list))
            .route(
                "/api/v1/schedules/{name}",
                get(|s, n, p| schedules::obey(s, n, p, Asked::Show)),
            )
            .route("/api/v1/jobs", get(jobs::list))
            .route("/api/v1/jobs/{id}", get(jobs::one))
            .route("/api/v1/jobs/{id}/items", get(jobs::items))
            .route("/api/v1/albums", get(albums::list))
            .route("/api/v1/albums/{album}", get(albums::one))
            .route("/api/v1/albums/{album}/images", get(albums::images))
            .route("/api/v1/albums/{album}/images/{image}", get(albums::image))
            .route("/files/{*path}", get(files::send))
            .route_layer(scope(Scope::Read));
        let write = Router::new()
            .route(
                "/api/v1/schedules/{name}/run",
                post(|s, n, p| schedules::obey(s, n, p, Asked::Run)),
            )
            .route_layer(scope(Scope::Write));
        let admin = Router::new()
            .route(
                "/api/v1/schedules/{name}/pause",
                post(|s, n, p| schedules::obey(s, n, p, Asked::Pause)),
            )
            .route(
                "/api/v1/schedules/{name}/resume",
                post(|s, n, p| schedules::obey(s, n, p, Asked::Resume)),
            )
            .route_layer(scope(Scope::Admin));
        let open = Router::new()
            .route("/healthz", get(service::alive))
            .route("/readyz", get(service::ready));
        open.merge(read)
            .merge(write)
            .merge(admin)
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .layer(from_fn(limit))
            .layer(from_fn(describe))
            .with_state(self.clone())
    }
}

/// Listens on `address`, which may leave the port open. Returns where that is.
///
/// # Errors
///
/// When the system refuses.
pub(crate) async fn bind(
    address: SocketAddr,
) -> std::io::Result<(impl Listener<Addr = SocketAddr>, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener.tap_io(serve::without_delay), address))
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at `{}`", uri.path()))
}

async fn not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    let detail = format!("`{path}` does not take {method}; `Allow` says what it takes");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Refuses bodies that are too large before they are sent, and gives up what takes too long.
async fn limit(request: Request, next: Next) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > BODY_BYTES as u64) {
        let detail = format!("the body is larger than {BODY_BYTES} bytes");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
    }
    let answered = tokio::time::timeout(ANSWER, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let limit = humantime::format_duration(ANSWER);
        Problem::unavailable(format!("there was no answer within {limit}")).into_response()
    })
}

/// What is not said otherwise holds for the moment only, and is what its media type says.
async fn describe(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let headers = response.headers_mut();
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!("cannot write an answer of the API: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response()
        }
    }
}
