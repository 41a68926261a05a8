//! The socket in the store, by which the commands ask a running daemon. Only those may use it who may write there, so
//! the API does for them whatever it can.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::{Position, Url};

use super::status::socket;
use crate::api::{Api, Document, Offer, ScheduleStatus, Server, Status, Way};

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Connections by the socket at a time.
const CONNECTIONS: usize = 64;

/// The socket, while it is listened on.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    server: Server,
}

impl Control {
    /// Listens on the socket of the store at `root`. Whoever calls holds the store, so one that is there is a dead one's.
    pub(super) fn listen(root: &Path, api: &Api) -> anyhow::Result<Self> {
        let path = socket(root);
        let listener = bind(&path).map_err(|error| {
            anyhow::Error::new(error).context(format!("cannot listen on `{}`", path.display()))
        })?;
        let offer = Offer {
            most: CONNECTIONS,
            tls: None,
        };
        let server = api.serve(listener, Way::Socket, offer);
        Ok(Self { path, server })
    }

    /// Lets nobody in any more, and takes the socket away.
    pub(super) fn stop(&self) {
        self.server.stop();
        let _ = std::fs::remove_file(&self.path);
    }

    /// Answers what was asked, until `by`.
    pub(super) async fn close(self, by: Instant) {
        self.server.close(by).await;
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

    /// What happens from now on. `query`: parameters of the route, those of them that are given.
    ///
    /// # Errors
    ///
    /// When the daemon refuses.
    pub async fn events(mut self, query: &[(&str, Option<&str>)]) -> Result<Events, ControlError> {
        let mut path = Url::parse("http://daemon/api/v1/events").map_err(|_| {
            ControlError::Refused("internal error: the route of events is none".to_owned())
        })?;
        let given = query
            .iter()
            .filter_map(|(key, value)| Some((key, (*value)?)));
        path.query_pairs_mut().extend_pairs(given);
        let mut request = hyper::Request::new(Empty::new());
        *request.uri_mut() = path[Position::BeforePath..].parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::HOST, header::HeaderValue::from_static("daemon"));
        let lines = header::HeaderValue::from_static("application/x-ndjson");
        headers.insert(header::ACCEPT, lines);
        let response = tokio::time::timeout(ANSWER, self.to.send_request(request)).await??;
        let status = response.status();
        if !status.is_success() {
            let body = response.into_body().collect().await?.to_bytes();
            return Err(refused(status, &body));
        }
        Ok(Events {
            body: response.into_body(),
            read: Vec::new(),
            _client: self,
        })
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
        let (status, body) = tokio::time::timeout(ANSWER, answered).await??;
        if status.is_success()
            && let Ok(value) = serde_json::from_slice(&body)
        {
            return Ok(value);
        }
        Err(refused(status, &body))
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ControlError {
    ControlError::Refused(serde_json::from_slice::<Document>(body).map_or_else(
        |_| format!("the daemon answered {status}"),
        |document| document.detail,
    ))
}

/// Events of a running daemon.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    read: Vec<u8>,
    _client: Client,
}

impl Events {
    /// The next event, as JSON; `None` once the daemon has stopped.
    ///
    /// # Errors
    ///
    /// When it ends in another way.
    pub async fn next(&mut self) -> Result<Option<String>, ControlError> {
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                // Others only show that the daemon is there.
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
