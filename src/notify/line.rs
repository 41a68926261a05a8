//! Connections to brokers and mail servers: by the guarded client, with TLS where it is wanted.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fetch::Client;
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
        let Some(tls) = &self.tls else {
            return Ok(Line::Plain(stream));
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| io::Error::other(format!("`{}` is no name of a host", self.host)))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| {
            io::Error::other(format!(
                "no TLS with `{}`: {error}; `ca_file` adds authorities to trust",
                self.host
            ))
        })?;
        Ok(Line::Tls(Box::new(stream)))
    }
}

/// TLS that trusts the system's authorities, and those of `files`.
///
/// # Errors
///
/// What is wrong with a file.
pub(super) fn tls<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<ClientConfig, String> {
    // Another part of the process may have installed one; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    // A container may have none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for path in files {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| format!("`{}` cannot be used: {error}", path.display()))?;
        }
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(config.with_no_client_auth())
}

/// The certificates of a PEM file.
///
/// # Errors
///
/// When it cannot be read, or has none.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path)
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
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
