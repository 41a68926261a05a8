//! A certificate for this machine, by an authority that nobody else trusts.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::SupportedProtocolVersion;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::TlsAcceptor;

/// All in PEM form. The certificate is for `localhost` and 127.0.0.1.
pub struct Identity {
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
    /// TLS versions that a server offers.
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// A server with it wants a certificate of its clients.
    pub asks_for_certificate: bool,
}

impl Identity {
    pub fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        // Of its own, or others take the certificates that it signs for such as signed themselves.
        let name = rcgen::DnType::CommonName;
        ca.distinguished_name.push(name, "authority of a test");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        Self {
            ca_pem,
            certificate_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
            versions: rustls::ALL_VERSIONS,
            asks_for_certificate: false,
        }
    }

    /// A certificate that is its own authority, as `openssl req -x509` makes it.
    pub fn self_signed() -> Self {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut certificate = CertificateParams::new(names).unwrap();
        certificate.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = certificate.self_signed(&key).unwrap().pem();
        Self {
            ca_pem: pem.clone(),
            certificate_pem: pem,
            key_pem: key.serialize_pem(),
            versions: rustls::ALL_VERSIONS,
            asks_for_certificate: false,
        }
    }

    /// A certificate from `tests/fixtures/tls`, which clients are given as it is.
    pub fn fixture(name: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
        let read = |ending| std::fs::read_to_string(format!("{folder}/{name}.{ending}")).unwrap();
        Self {
            ca_pem: read("pem"),
            certificate_pem: read("pem"),
            key_pem: read("key"),
            versions: rustls::ALL_VERSIONS,
            asks_for_certificate: false,
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.server())
    }

    /// TLS for a server that has it.
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = provider.key_provider.load_private_key(key).unwrap();
        // Not validated, because rustls would refuse to serve some of these certificates.
        let identity = CertifiedKey::new(vec![certificate], key);
        let config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions)
            .unwrap();
        let config = match self.asks_for_certificate {
            true => {
                let mut roots = rustls::RootCertStore::empty();
                let authority = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap();
                roots.add(authority).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                config.with_client_cert_verifier(verifier.build().unwrap())
            }
            false => config.with_no_client_auth(),
        };
        let config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        Arc::new(config)
    }
}
