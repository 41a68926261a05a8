//! Connections to brokers and mail servers: by the guarded client, with TLS where it is wanted.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fetch::{Client, tls};
use crate::target::describe;

/// How to reach a host.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) client: Arc<Client>,
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: the connection is not encrypted, or not yet.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Dial {
    /// Connects.
    pub(super) async fn connect(&self) -> io::Result<Line> {
        let stream = self.client.connect(&self.host, self.port).await;
        let stream = stream.map_err(|error| io::Error::other(describe(&error)))?;
        let _ = stream.set_nodelay(true);
        match &self.tls {
            Some(tls) => self.shake_hands(stream, tls).await,
            None => Ok(Line::Plain(stream)),
        }
    }

    /// Starts TLS on a connection.
    pub(super) async fn shake_hands(
        &self,
        stream: TcpStream,
        tls: &Arc<ClientConfig>,
    ) -> io::Result<Line> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| io::Error::other(format!("`{}` is no name of a host", self.host)))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| {
            let fault = error.get_ref().and_then(|inner| inner.downcast_ref());
            let advice = match fault.is_some_and(tls::is_untrusted) {
                true => "; `ca_file` adds certificates to trust",
                false => "",
            };
            io::Error::other(format!("no TLS with `{}`: {error}{advice}", self.host))
        })?;
        Ok(Line::Tls(Box::new(stream)))
    }
}

/// Returns a TLS configuration that trusts the system's authorities and the certificates in `files`.
///
/// # Errors
///
/// The problem with a file.
pub(super) fn tls<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<ClientConfig, String> {
    let mut given = Vec::new();
    for path in files {
        given.extend(certificates(path)?);
    }
    Ok(tls::client_config(given))
}

/// Reads the certificates of a PEM file.
///
/// # Errors
///
/// When the file cannot be read, has no certificate, or has one that cannot be used.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path)
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => {
            for certificate in &certificates {
                tls::check(certificate)
                    .map_err(|error| format!("`{}` cannot be used: {error}", path.display()))?;
            }
            Ok(certificates)
        }
        _ => Err(format!("`{}` holds no PEM certificate", path.display())),
    }
}

/// A connection.
pub(super) enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl lettre::transport::smtp::client::AsyncTokioStream for Line {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr(),
            Self::Tls(stream) => stream.get_ref().0.peer_addr(),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
