//! What others ask of a running daemon: HTTP over a socket in the store, which only those may use who may write there.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/v1/status` | a [`Status`] |
//! | `GET /api/v1/schedules` | a list of [`ScheduleStatus`] |
//! | `GET /api/v1/schedules/NAME` | one |
//! | `POST /api/v1/schedules/NAME/run`, `/pause`, `/resume` | the same, after it |
//!
//! Errors are problem documents (RFC 9457).

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path as Part, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::status::{Board, ScheduleStatus, Status, socket};

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What is asked of a schedule.
#[derive(Debug, Clone)]
pub(super) enum Asked {
    Show(String),
    Run(String),
    Pause(String),
    Resume(String),
}

impl Asked {
    pub(super) fn schedule(&self) -> &str {
        let (Self::Show(name) | Self::Run(name) | Self::Pause(name) | Self::Resume(name)) = self;
        name
    }
}

/// Why it is not done.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Refused {
    #[error("there is no schedule `{name}`; there are: {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("schedule `{0}` is running; `overlap = \"queue\"` lets another run wait")]
    Running(String),
    #[error("the daemon is stopping")]
    Stopping,
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::Running(_) => StatusCode::CONFLICT,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = Problem {
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response()
    }
}

/// A problem document (RFC 9457, section 3). Its type is `about:blank`.
#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    title: String,
    status: u16,
    detail: String,
}

/// Something that is asked of the daemon's loop.
#[derive(Debug)]
pub(super) struct Request {
    asked: Asked,
    reply: oneshot::Sender<Result<ScheduleStatus, Refused>>,
}

impl Request {
    pub(super) fn answer(self, obey: impl FnOnce(&Asked) -> Result<ScheduleStatus, Refused>) {
        let answer = obey(&self.asked);
        // Whoever asked may have gone.
        let _ = self.reply.send(answer);
    }
}

/// The socket, while it is listened on.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Shared {
    board: Board,
    ask: mpsc::Sender<Request>,
}

impl Control {
    /// Listens on the store's socket. Whoever calls holds the store, so one that is there is a dead one's.
    pub(super) async fn listen(board: Board, ask: mpsc::Sender<Request>) -> anyhow::Result<Self> {
        let path = socket(board.root());
        let listener = bind(&path).map_err(|error| {
            anyhow::Error::new(error).context(format!("cannot listen on `{}`", path.display()))
        })?;
        let shared = Shared { board, ask };
        let router = Router::new()
            .route("/api/v1/status", get(status))
            .route("/api/v1/schedules", get(schedules))
            .route(
                "/api/v1/schedules/{name}",
                get(|s, p| obey(s, p, Asked::Show)),
            )
            .route(
                "/api/v1/schedules/{name}/run",
                post(|s, p| obey(s, p, Asked::Run)),
            )
            .route(
                "/api/v1/schedules/{name}/pause",
                post(|s, p| obey(s, p, Asked::Pause)),
            )
            .route(
                "/api/v1/schedules/{name}/resume",
                post(|s, p| obey(s, p, Asked::Resume)),
            )
            .with_state(shared);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stopped);
            if let Err(error) = served.await {
                tracing::error!("the control socket is gone: {error}");
            }
        });
        Ok(Self { path, stop, task })
    }

    /// Answers what was asked, and takes the socket away.
    pub(super) async fn close(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(Duration::from_secs(1), &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Addresses of sockets are short: 108 bytes, unix(7). A folder that is open has a short name.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (_folder, short) = short(path)?;
    let listener = UnixListener::bind(short)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The same path by way of its open folder.
fn short(path: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    use std::os::fd::AsRawFd as _;
    let folder = std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?;
    let name = path.file_name().unwrap_or_default();
    let short = Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name);
    Ok((folder, short))
}

async fn status(State(shared): State<Shared>) -> Response {
    json(&shared.board.status())
}

async fn schedules(State(shared): State<Shared>) -> Response {
    json(&shared.board.status().schedules)
}

async fn obey(
    State(shared): State<Shared>,
    Part(name): Part<String>,
    asked: fn(String) -> Asked,
) -> Response {
    let (reply, answer) = oneshot::channel();
    let request = Request {
        asked: asked(name),
        reply,
    };
    let answered = async {
        shared.ask.send(request).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER, answered).await {
        Ok(Some(Ok(status))) => json(&status),
        Ok(Some(Err(refused))) => refused.into_response(),
        Ok(None) | Err(_) => Refused::Stopping.into_response(),
    }
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_string(value).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Asks a running daemon.
#[derive(Debug)]
pub struct Client {
    to: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<()>,
}

/// Why a daemon does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no daemon works with the store `{}`; `gannet daemon` starts one", root.display())]
    NotRunning {
        /// The store.
        root: PathBuf,
    },
    /// Only who may write into the store may ask.
    #[error("this user may not ask the daemon: `{}` belongs to another", path.display())]
    Forbidden {
        /// The socket.
        path: PathBuf,
    },
    /// It answers, but not as it should.
    #[error("the daemon cannot be asked")]
    Http(#[from] hyper::Error),
    /// It does not answer.
    #[error("the daemon does not answer")]
    Late(#[from] tokio::time::error::Elapsed),
    /// It refuses.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// Connects to the daemon that works with the store at `root`.
    ///
    /// # Errors
    ///
    /// When there is no such daemon.
    pub async fn connect(root: &Path) -> Result<Self, ControlError> {
        let path = socket(root);
        let connect = async {
            let (_folder, short) = short(&path)?;
            // A socket that a dead process left refuses.
            UnixStream::connect(short).await
        };
        let stream = connect.await.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ControlError::Forbidden { path: path.clone() },
            _ => ControlError::NotRunning {
                root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            },
        })?;
        let (to, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            // What goes wrong, whoever waits for an answer hears.
            let _ = connection.await;
        });
        Ok(Self { to, connection })
    }

    /// What the daemon is about.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn status(&mut self) -> Result<Status, ControlError> {
        self.ask(Method::GET, "/api/v1/status").await
    }

    /// Does `what` (`run`, `pause`, `resume`) with a schedule. Returns how it is then.
    ///
    /// # Errors
    ///
    /// When the daemon refuses.
    pub async fn schedule(
        &mut self,
        name: &str,
        what: &str,
    ) -> Result<ScheduleStatus, ControlError> {
        let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/api/v1/schedules/{name}/{what}");
        self.ask(Method::POST, &path).await
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
    ) -> Result<T, ControlError> {
        let mut request = hyper::Request::new(Empty::new());
        *request.method_mut() = method;
        // A path that is encoded, as it is here, is always one.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let host = header::HeaderValue::from_static("daemon");
        request.headers_mut().insert(header::HOST, host);
        let answered = async {
            let response = self.to.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        let (status, body) = tokio::time::timeout(2 * ANSWER, answered).await??;
        if status.is_success()
            && let Ok(value) = serde_json::from_slice(&body)
        {
            return Ok(value);
        }
        Err(ControlError::Refused(
            serde_json::from_slice::<Problem>(&body).map_or_else(
                |_| format!("the daemon answered {status}"),
                |problem| problem.detail,
            ),
        ))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
