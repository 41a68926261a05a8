//! Schedules, and what the daemon is about.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use tokio::sync::{mpsc, oneshot};

use super::extract::{Names, Nothing, Parameters};
use super::page::Page;
use super::{Problem, ScheduleStatus, Status, json};
use axum::http::StatusCode;

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What is asked of a schedule.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Show(String),
    Run(String),
    Pause(String),
    Resume(String),
}

impl Asked {
    pub(crate) fn schedule(&self) -> &str {
        let (Self::Show(name) | Self::Run(name) | Self::Pause(name) | Self::Resume(name)) = self;
        name
    }
}

/// Why it is not done.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is no schedule `{name}`; there are: {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("schedule `{0}` is running; `overlap = \"queue\"` lets another run wait")]
    Running(String),
    #[error("the daemon is stopping")]
    Stopping,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let status = match refused {
            Refused::Unknown { .. } => StatusCode::NOT_FOUND,
            Refused::Running(_) => StatusCode::CONFLICT,
            Refused::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused.to_string())
    }
}

/// Something that is asked of the daemon's loop.
#[derive(Debug)]
pub(crate) struct Request {
    asked: Asked,
    reply: oneshot::Sender<Result<ScheduleStatus, Refused>>,
}

impl Request {
    pub(crate) fn answer(self, obey: impl FnOnce(&Asked) -> Result<ScheduleStatus, Refused>) {
        let answer = obey(&self.asked);
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

/// Where the daemon is seen and asked.
#[derive(Clone)]
pub(crate) struct Desk {
    /// Says what the daemon is about.
    pub(crate) status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// To its loop. Closed once it is stopping.
    pub(crate) ask: mpsc::Sender<Request>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    async fn ask(&self, asked: Asked) -> Result<ScheduleStatus, Problem> {
        let (reply, answer) = oneshot::channel();
        let request = Request { asked, reply };
        let answered = async {
            self.ask.send(request).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER, answered).await {
            Ok(Some(answer)) => Ok(answer?),
            Ok(None) | Err(_) => Err(Refused::Stopping.into()),
        }
    }
}

/// What the daemon is about
#[utoipa::path(get, path = "/api/v1/status", operation_id = "getStatus", tag = "schedules",
    responses((status = 200, description = "The schedules, and the process.", body = Status)))]
pub(super) async fn status(State(desk): State<Desk>, _: Parameters<Nothing>) -> Response {
    json(&(desk.status)())
}

/// The schedules
#[utoipa::path(get, path = "/api/v1/schedules", operation_id = "listSchedules", tag = "schedules",
    responses((status = 200, description = "All of them, by name.", body = Page<ScheduleStatus>)))]
pub(super) async fn list(State(desk): State<Desk>, _: Parameters<Nothing>) -> Response {
    json(&Page::whole((desk.status)().schedules))
}

/// A schedule
#[utoipa::path(get, path = "/api/v1/schedules/{name}", operation_id = "getSchedule", tag = "schedules",
    params(("name" = String, Path, description = "Its name.", example = "shop")),
    responses(
        (status = 200, description = "How it is with it.", body = ScheduleStatus),
        (status = 404, description = "There is no such schedule."),
    ))]
pub(super) async fn one(
    State(desk): State<Desk>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    Ok(json(&desk.ask(Asked::Show(name)).await?))
}

/// Runs a schedule now
#[utoipa::path(post, path = "/api/v1/schedules/{name}/run", operation_id = "runSchedule", tag = "schedules",
    params(("name" = String, Path, description = "Its name.", example = "shop")),
    responses(
        (status = 200, description = "How it is with it now.", body = ScheduleStatus),
        (status = 404, description = "There is no such schedule."),
        (status = 409, description = "It is running, and does not queue."),
    ))]
pub(super) async fn run(
    State(desk): State<Desk>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    Ok(json(&desk.ask(Asked::Run(name)).await?))
}

/// Lets the times of a schedule pass without a run
#[utoipa::path(post, path = "/api/v1/schedules/{name}/pause", operation_id = "pauseSchedule", tag = "schedules",
    params(("name" = String, Path, description = "Its name.", example = "shop")),
    responses(
        (status = 200, description = "How it is with it now.", body = ScheduleStatus),
        (status = 404, description = "There is no such schedule."),
    ))]
pub(super) async fn pause(
    State(desk): State<Desk>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    Ok(json(&desk.ask(Asked::Pause(name)).await?))
}

/// Has a paused schedule run again when it is due
#[utoipa::path(post, path = "/api/v1/schedules/{name}/resume", operation_id = "resumeSchedule", tag = "schedules",
    params(("name" = String, Path, description = "Its name.", example = "shop")),
    responses(
        (status = 200, description = "How it is with it now.", body = ScheduleStatus),
        (status = 404, description = "There is no such schedule."),
    ))]
pub(super) async fn resume(
    State(desk): State<Desk>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
) -> Result<Response, Problem> {
    Ok(json(&desk.ask(Asked::Resume(name)).await?))
}
