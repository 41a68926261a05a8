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

pub(super) async fn status(State(desk): State<Desk>, _: Parameters<Nothing>) -> Response {
    json(&(desk.status)())
}

pub(super) async fn list(State(desk): State<Desk>, _: Parameters<Nothing>) -> Response {
    json(&Page::whole((desk.status)().schedules))
}

/// A handler that asks for something of the schedule in the path.
pub(super) async fn obey(
    State(desk): State<Desk>,
    Names(name): Names<String>,
    _: Parameters<Nothing>,
    asked: fn(String) -> Asked,
) -> Result<Response, Problem> {
    Ok(json(&desk.ask(asked(name)).await?))
}
