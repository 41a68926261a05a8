//! Connections: how many, how long, and their end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// How long the head of a request may take, from the end of the one before.
const HEAD: Duration = Duration::from_secs(30);

/// How large it may be.
const HEAD_BYTES: usize = 32 * 1024;

/// How long the last bytes of an answer may take to leave when the daemon ends.
const FLUSH: Duration = Duration::from_secs(1);

/// A listener, and those who have come.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers by `router`, up to `most` connections at a time.
    pub(crate) fn start<L>(listener: L, router: Router, most: usize) -> Self
    where
        L: Listener,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, most, stop.clone()));
        Self { stop, task }
    }

    /// Lets nobody in any more. What was asked is answered.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until all is answered, or cuts it short at `by`.
    pub(crate) async fn close(mut self, by: Instant) {
        self.stop();
        if tokio::time::timeout_at(by, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
    }
}

async fn serve<L: Listener>(mut listener: L, router: Router, most: usize, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Ok(permit) = permits.clone().acquire_owned() => permit,
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => note(ended),
            (io, _) = listener.accept() => {
                connections.spawn(answer(io, router.clone(), stop.clone(), permit));
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("a connection to the API panicked, please report it: {error}");
    }
}

/// Answers what comes by one connection, until it ends.
async fn answer<Io>(io: Io, router: Router, stop: CancellationToken, _permit: OwnedSemaphorePermit)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    // Held here, by the service, and by each request until its answer has been taken to the end.
    const HELD_BY_NONE: usize = 2;
    let busy = Arc::new(());
    let service = service_fn({
        let busy = busy.clone();
        move |request: Request<Incoming>| {
            let (mut router, held) = (router.clone(), busy.clone());
            async move {
                let response = router.call(request).await?;
                let hold = move |frame| {
                    let _ = &held;
                    frame
                };
                Ok::<_, Infallible>(response.map(|body| body.map_frame(hold)))
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            loop {
                tokio::select! {
                    result = connection.as_mut() => break result,
                    () = tokio::time::sleep(FLUSH) => {}
                }
                // Whoever has not asked by now comes too late.
                if Arc::strong_count(&busy) == HELD_BY_NONE {
                    break Ok(());
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection to the API ended early: {error}");
    }
}

/// What is answered in pieces is not held back to be sent with the next.
pub(crate) fn without_delay(stream: &mut TcpStream) {
    let set: io::Result<()> = stream.set_nodelay(true);
    if let Err(error) = set {
        tracing::debug!("cannot have a connection send at once: {error}");
    }
}
