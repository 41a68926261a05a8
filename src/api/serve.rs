//! Connections: how many, how long, and their end.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::log::Peer;
use super::tls::Tls;

/// How long the head of a request may take, from the end of the one before, and how long to agree on TLS. So long may who began one hold up the end.
const HEAD: Duration = Duration::from_secs(15);

/// How large it may be.
const HEAD_BYTES: usize = 32 * 1024;

/// How long somebody may take none of the bytes of an answer.
const STALLED: Duration = Duration::from_secs(60);

/// How others may come.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// Connections at a time.
    pub(crate) most: usize,
    /// What they are encrypted with.
    pub(crate) tls: Option<Tls>,
}

/// A listener, and those who have come.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers by `router`.
    pub(crate) fn start<L>(listener: L, router: Router, offer: Offer) -> Self
    where
        L: Listener<Addr: fmt::Debug>,
    {
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, offer, stop.clone()));
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

async fn serve<L: Listener<Addr: fmt::Debug>>(
    mut listener: L,
    router: Router,
    offer: Offer,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(offer.most));
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
            (io, peer) = listener.accept() => {
                let peer = Peer(format!("{peer:?}").into());
                let (router, stop, tls) = (router.clone(), stop.clone(), offer.tls.clone());
                connections.spawn(welcome(io, peer, tls, router, stop, permit));
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

/// Shakes hands where there is TLS, and answers.
async fn welcome<Io>(
    io: Io,
    peer: Peer,
    tls: Option<Tls>,
    router: Router,
    stop: CancellationToken,
    permit: OwnedSemaphorePermit,
) where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = tls else {
        return answer(io, peer, router, stop, permit).await;
    };
    let shaken = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(HEAD, tls.acceptor().accept(io)) => shaken,
    };
    match shaken {
        Ok(Ok(io)) => answer(io, peer, router, stop, permit).await,
        Ok(Err(error)) => tracing::debug!("no TLS with {peer:?}: {error}"),
        Err(_) => tracing::debug!("no TLS with {peer:?} within {HEAD:?}"),
    }
}

/// Answers what comes by one connection, until it ends.
async fn answer<Io>(
    io: Io,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(STALLED));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(io)), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// A connection to something that answers with a mebibyte, and its task.
    fn connect() -> (DuplexStream, JoinHandle<()>, CancellationToken) {
        let (here, there) = tokio::io::duplex(1024);
        let router = Router::new().route("/", get(|| async { vec![0; 1 << 20] }));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(answer(there, Peer("".into()), router, stop.clone(), permit));
        (here, task, stop)
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_is_let_go() {
        for begun in [&b""[..], &REQUEST[..20]] {
            let (mut here, task, _stop) = connect();
            here.write_all(begun).await.unwrap();
            let begun = Instant::now();
            task.await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), HEAD.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_let_go() {
        let (mut here, task, _stop) = connect();
        here.write_all(REQUEST).await.unwrap();
        let begun = Instant::now();
        task.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), STALLED.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_it_slowly_gets_it_all_also_when_the_daemon_ends() {
        let (mut here, task, stop) = connect();
        here.write_all(REQUEST).await.unwrap();
        let mut taken = 0;
        let mut piece = [0; 16 * 1024];
        loop {
            tokio::time::sleep(STALLED / 2).await;
            match here.read(&mut piece).await.unwrap() {
                0 => break,
                count => taken += count,
            }
            stop.cancel();
        }
        assert!(taken > 1 << 20);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_asked_for_nothing_when_the_daemon_ends_is_let_go() {
        for (asked, limit) in [(&b""[..], Duration::ZERO), (&REQUEST[..20], HEAD)] {
            let (mut here, task, stop) = connect();
            here.write_all(asked).await.unwrap();
            tokio::task::yield_now().await;
            stop.cancel();
            let begun = Instant::now();
            task.await.unwrap();
            assert!(
                begun.elapsed() <= limit + Duration::from_millis(2),
                "{asked:?}"
            );
        }
    }
}
