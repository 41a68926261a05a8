//! Jobs, schedules, albums and files over HTTP.
//!
//! One [`Router`] serves both the address of `api.listen` and the socket in the store, by which
//! `gannet schedule` and `gannet status` ask. What differs is who is let in.
//!
//! - `access`: tokens and their scopes; `origin`: pages of other sites; `rate`: how often who may ask;
//! - `serve`: connections and their limits; `tls`: their certificate; `log`: a line about each request;
//! - `problem`: errors, as problem documents (RFC 9457); `extract`: what handlers take from a request;
//! - `schedules`: schedules, and what the daemon is about;
//! - `jobs`, `albums`: what the catalog knows, `page` by page, by cursors that are keys; `filter`: which images;
//! - `post`: jobs that clients post; `live`: how they go on;
//! - `changes`: albums and images as clients want them; `uploads`: files that they send;
//! - `lookup`: files by URL, digest or path;
//! - `files`: bytes; `conditions`: whether, and which of them; `archive`: those of an album, as a zip;
//! - `stream`: events, as they happen;
//! - `service`: whether the daemon can do its work; `metrics`: figures for Prometheus;
//! - `openapi`: the document of all of it.
//!
//! This room does not know the daemon: it asks for things at its `Desk`.
//!
//! A new route is a handler with `#[utoipa::path(…)]` above it and a line `.routes(routes!(room::handler))` below its scope in
//! `Api::router`, never `.route(…)`; handlers of one path and one scope share a line, as in `routes!(albums::one, albums::delete)`.
//! The attribute has the method, the whole path, `operation_id` (a verb and a noun, used once), `tag` (of those in `openapi`),
//! `params` (a query's type derives `IntoParams` with `#[into_params(parameter_in = Query)]`), `request_body`, what is answered
//! with its `body` (a type that derives `ToSchema`), and `(status = 409, description = "When.")` for each problem of its own.
//! What problems look like, and 400, 401, 403, 413, 429, 500 and 503, which any route may answer, `openapi` adds. The first line of the doc comment is
//! the title, without a full stop. `tests/openapi.rs` holds the document against the router, `.ci/schemathesis` against the answers.

mod access;
mod albums;
mod archive;
mod changes;
mod conditions;
mod extract;
mod files;
mod filter;
mod jobs;
mod live;
mod log;
mod lookup;
mod metrics;
mod openapi;
mod origin;
mod page;
mod post;
mod problem;
mod rate;
mod schedules;
mod serve;
mod service;
mod settings;
mod status;
mod stream;
mod tls;
mod uploads;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRef, Request};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::serve::{Listener, ListenerExt as _};
use axum::{Extension, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::catalog::Catalog;
use crate::job::{self, Files, Posts};
use crate::notify::Live;
use crate::rendition::Renditions;
use crate::store::Store;
use crate::target::Sha256Hasher;
use access::guard;

pub use access::{Scope, Tokens};
pub use metrics::Metrics;
pub use settings::Settings;
pub use status::{LastRun, ReceiverStatus, RunningJob, ScheduleStatus, Status};

pub(crate) use access::{Access, Rules, Way};
pub(crate) use lookup::LookUps;
pub(crate) use problem::{Document, Problem};
pub(crate) use schedules::{Asked, Desk, Refused, Request as Wish};
pub(crate) use serve::{Offer, Server};
pub(crate) use service::Health;
pub(crate) use tls::Tls;
pub(crate) use uploads::{UploadRules, Uploads};

/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(30);

/// Largest body of a request. None of them means anything yet.
const BODY_BYTES: usize = 64 * 1024;

/// What is asked of the engine at each scrape.
#[derive(Clone)]
pub(crate) struct Census(pub(crate) Arc<dyn Fn() -> Option<job::Census> + Send + Sync>);

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Census")
    }
}

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
    /// Smaller pictures of files.
    pub(crate) renditions: Renditions,
    /// To change albums and files.
    pub(crate) files: Files,
    pub(crate) uploads: Uploads,
    pub(crate) health: Health,
    pub(crate) events: Live,
    pub(crate) posts: Posts,
    /// Largest body of a job that is posted, in bytes.
    pub(crate) max_body: usize,
    /// The memory that such bodies share.
    pub(crate) bodies: Arc<Semaphore>,
    /// Whether files can be looked up fast.
    pub(crate) look_ups: LookUps,
    /// Who may listen to jobs.
    pub(crate) listeners: Arc<Semaphore>,
    /// Says what there is to do; `None`: nothing any more.
    pub(crate) census: Census,
    /// Who may see figures.
    pub(crate) metrics: Metrics,
    /// Whether it shows its document.
    pub(crate) with_docs: bool,
}

/// The memory that the bodies of posted jobs share, of up to `max_body` bytes each.
pub(crate) fn bodies(max_body: usize) -> Arc<Semaphore> {
    Arc::new(post::bodies(max_body))
}

/// Places for those who listen to jobs.
pub(crate) fn listeners() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(live::LISTENERS))
}

impl FromRef<Api> for Desk {
    fn from_ref(api: &Api) -> Self {
        api.desk.clone()
    }
}

impl Api {
    /// Answers whoever comes to `listener`.
    pub(crate) fn serve<L: Listener<Addr: fmt::Debug>>(
        &self,
        listener: L,
        way: Way,
        offer: Offer,
    ) -> Server {
        let router = self.router().layer(Extension(way));
        Server::start(listener, router, offer)
    }

    fn router(&self) -> Router {
        let read = OpenApiRouter::new()
            .routes(routes!(schedules::status))
            .routes(routes!(schedules::list))
            .routes(routes!(schedules::one))
            .routes(routes!(jobs::list))
            .routes(routes!(jobs::one))
            .routes(routes!(jobs::items))
            .routes(routes!(jobs::groups))
            .routes(routes!(live::watch))
            .routes(routes!(stream::events))
            .routes(routes!(albums::list))
            .routes(routes!(albums::one))
            .routes(routes!(albums::images))
            .routes(routes!(albums::image))
            .routes(routes!(archive::send))
            .routes(routes!(lookup::find))
            .routes(routes!(files::send));
        let write = OpenApiRouter::new()
            .routes(routes!(schedules::run))
            .routes(routes!(post::cancel))
            .routes(routes!(post::retry))
            .routes(routes!(changes::create))
            .routes(routes!(changes::alter_album))
            .routes(routes!(changes::alter_image, changes::delete_image));
        // They see to the limits of their bodies themselves, or take as long as it takes.
        let unlimited = OpenApiRouter::new()
            .routes(routes!(post::post))
            .routes(routes!(changes::delete_album))
            .routes(routes!(uploads::upload));
        let admin = OpenApiRouter::new()
            .routes(routes!(schedules::pause))
            .routes(routes!(schedules::resume));
        let open = openapi::begin()
            .routes(routes!(service::alive))
            .routes(routes!(service::ready));
        let (read, open) = match self.metrics {
            Metrics::Token => (read.routes(routes!(metrics::show)), open),
            Metrics::Open => (read, open.routes(routes!(metrics::show))),
            Metrics::Off => (read, open),
        };
        let all = open
            .merge(self.takes(Scope::Read, read))
            .merge(self.takes(Scope::Write, write))
            .merge(self.takes(Scope::Admin, admin));
        let all = all
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .layer(from_fn(limit))
            .merge(
                self.takes(Scope::Write, unlimited)
                    .layer(DefaultBodyLimit::disable()),
            );
        openapi::end(all, self.with_docs)
            .fallback(not_found)
            .method_not_allowed_fallback(not_allowed)
            .layer(from_fn(describe))
            .layer(from_fn_with_state(self.access.clone(), origin::share))
            .layer(from_fn_with_state(self.access.clone(), log::note))
            .with_state(self.clone())
    }

    /// Has `routes` take `scope`.
    fn takes(&self, scope: Scope, routes: OpenApiRouter<Self>) -> OpenApiRouter<Self> {
        let guard = from_fn_with_state((self.access.clone(), scope), guard);
        openapi::takes(routes, scope).route_layer(guard)
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

/// A resource as JSON, with its entity tag: the digest of what is sent.
fn tagged(value: &impl Serialize) -> Response {
    let mut response = json(value);
    if let Some(etag) = etag(value)
        && let Ok(etag) = HeaderValue::from_str(&etag)
    {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The strong entity tag of a resource, with its quotes.
fn etag(value: &impl Serialize) -> Option<String> {
    let mut hasher = Sha256Hasher::default();
    hasher.update(&serde_json::to_vec(value).ok()?);
    Some(format!("\"{}\"", hasher.finish()))
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
