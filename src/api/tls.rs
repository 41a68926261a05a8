//! Connections that nobody else can read.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use crate::local_path::LocalPath;

/// `[api.tls]`. Defaults are in `config/default.toml` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// PEM file with the certificate, and those between it and its authority; empty: no TLS.
    pub cert: LocalPath,
    /// PEM file with its key.
    pub key: LocalPath,
}

impl Settings {
    /// Whether there is TLS.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }

    /// Reads certificate and key; `None`: there is no TLS.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or they are no pair.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        if !self.is_on() {
            return Ok(None);
        }
        let certificates = read(&self.cert, "api.tls.cert", |pem| {
            CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()
        })?;
        anyhow::ensure!(
            !certificates.is_empty(),
            "`{}`, which `api.tls.cert` names, has no certificate in PEM form",
            self.cert.display()
        );
        let key = read(&self.key, "api.tls.key", PrivateKeyDer::from_pem_slice)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .with_context(|| {
                format!(
                    "`{}` and `{}` are no pair of certificate and key",
                    self.cert.display(),
                    self.key.display()
                )
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}

fn read<T>(
    path: &Path,
    setting: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, rustls::pki_types::pem::Error>,
) -> anyhow::Result<T> {
    let named = || format!("cannot use `{}`, which `{setting}` names", path.display());
    let pem = std::fs::read(path).with_context(named)?;
    parse(&pem)
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(named)
}

/// What connections are made with at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// Goes by another certificate from now on. Connections that are there stay.
    pub(crate) fn set(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(config.clone())
    }
}
