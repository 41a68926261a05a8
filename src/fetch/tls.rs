//! TLS client configuration: which server certificates are trusted.
//!
//! All TLS clients of this process are made here: HTTP, brokers and mail. The exception is PostgreSQL, which uses
//! sqlx's own.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Version};

/// Returns a client that trusts the system's authorities and the certificates in `given`, both as authorities and as
/// certificates of servers.
///
/// A certificate that cannot be used as an authority is left out; see [`check`].
pub(crate) fn client_config(given: Vec<CertificateDer<'static>>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let system = rustls_native_certs::load_native_certs();
    if system.certs.is_empty() {
        // A container without authorities can still fetch over plain HTTP, and over TLS with `ca_files`.
        let why = system.errors.first().map(ToString::to_string);
        tracing::warn!(
            "no system certificate authorities: {}",
            why.as_deref().unwrap_or("there are none")
        );
    }
    let verifier = Verifier::new(system.certs, given, &provider);
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the versions of TLS that rustls has by default")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
}

/// Checks that a certificate can be trusted as an authority, and compared with one that a server presents.
///
/// # Errors
///
/// The problem with the certificate.
pub(crate) fn check(certificate: &CertificateDer<'_>) -> Result<(), Error> {
    RootCertStore::empty().add(certificate.clone())?;
    parse(certificate).map(drop)
}

/// Returns what is wrong with a host name that TLS does not take. rustls refuses names that certificates cannot have, although
/// they may resolve.
pub(crate) fn name_problem(host: &str) -> Option<&'static str> {
    if ServerName::try_from(host).is_ok() {
        return None;
    }
    let mut labels = host.split('.');
    Some(
        match labels.any(|label| label.starts_with('-') || label.ends_with('-')) {
            true => "a part of the name begins or ends with `-`",
            false => "the name has other parts than 1 to 63 letters, digits, `-` and `_`",
        },
    )
}

/// Returns `true` if `error` means that no authority vouches for a certificate. Trusting it, or its authority, is a
/// cure.
pub(crate) fn is_untrusted(error: &Error) -> bool {
    use CertificateError::{
        BadSignature, UnknownIssuer, UnsupportedSignatureAlgorithmForPublicKeyContext as OtherKey,
    };
    // The last two occur with an authority that has the same name and another key.
    matches!(
        error,
        Error::InvalidCertificate(UnknownIssuer | BadSignature | OtherKey { .. })
    )
}

/// Verifies servers as curl with OpenSSL does.
///
/// webpki decides first. If it refuses, a certificate is still trusted if it is in `given`, or if one in `given`
/// signed it directly. This covers certificates that webpki never accepts from a server: authorities (CA:TRUE, as
/// `openssl req -x509` makes), X.509 version 1, and those without subject alternative names. Validity, purpose and
/// name are checked all the same.
#[derive(Debug)]
struct Verifier {
    /// `None` without any authority.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    given: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(
        system: Vec<CertificateDer<'static>>,
        given: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(system);
        // webpki takes every certificate in the store for an authority, also that of a server.
        let authorities = given
            .iter()
            .filter(|given| parse(given).is_ok_and(|certificate| is_authority(&certificate)));
        roots.add_parsable_certificates(authorities.cloned());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        Self {
            // Without revocation lists, building fails only for an empty store.
            webpki: webpki.build().ok(),
            given,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Returns `true` if `certificate` is in `given`, or signed by a certificate in `given`.
    fn vouches_for(&self, der: &CertificateDer<'_>, certificate: &X509Certificate<'_>) -> bool {
        self.given.contains(der)
            || self.given.iter().any(|issuer| {
                parse(issuer).is_ok_and(|issuer| {
                    issuer.subject().as_raw() == certificate.issuer().as_raw()
                        && is_authority(&issuer)
                        && !has_name_constraints(&issuer)
                        && self.is_signed_by(certificate, &issuer)
                })
            })
    }

    fn is_signed_by(
        &self,
        certificate: &X509Certificate<'_>,
        issuer: &X509Certificate<'_>,
    ) -> bool {
        let key = SubjectPublicKeyInfoDer::from(issuer.public_key().raw);
        let Ok(key) = RawPublicKeyEntity::try_from(&key) else {
            return false;
        };
        let signed = certificate.tbs_certificate.as_ref();
        let signature = &certificate.signature_value.data;
        let mut algorithms = self.algorithms.all.iter();
        algorithms.any(|algorithm| key.verify_signature(*algorithm, signed, signature).is_ok())
    }

    fn verify_version_1(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let certificate = parse(certificate)?;
        let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        let entity = RawPublicKeyEntity::try_from(&key).map_err(|_| bad())?;
        let mut schemes = self.algorithms.mapping.iter();
        let (_, algorithms) = schemes
            .find(|(scheme, _)| *scheme == signature.scheme)
            .ok_or_else(bad)?;
        let is_valid = algorithms.iter().any(|algorithm| {
            let verified = entity.verify_signature(*algorithm, message, signature.signature());
            verified.is_ok()
        });
        match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(bad()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(end_entity, intermediates, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        let Err(error) = verified else {
            return verified;
        };
        let certificate = parse(end_entity)?;
        if self.vouches_for(end_entity, &certificate) {
            check_validity(&certificate, now)?;
            check_purpose(&certificate)?;
            check_name(&certificate, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        // webpki refused before it looked for an issuer. Trusting the certificate would help, so the error says
        // "unknown issuer".
        match is_unfit(&error) {
            true => Err(CertificateError::UnknownIssuer.into()),
            false => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match is_version_1(certificate) {
            true => self.verify_version_1(message, certificate, signature),
            false => verify_tls12_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match is_version_1(certificate) {
            true => {
                let certificate = parse(certificate)?;
                let key = SubjectPublicKeyInfoDer::from(certificate.public_key().raw);
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
            false => verify_tls13_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns `true` if webpki accepts no such certificate from a server, whoever signed it.
fn is_unfit(error: &Error) -> bool {
    use webpki::Error::{CaUsedAsEndEntity, UnsupportedCertVersion};
    let Error::InvalidCertificate(CertificateError::Other(error)) = error else {
        return false;
    };
    matches!(
        error.0.downcast_ref(),
        Some(CaUsedAsEndEntity | UnsupportedCertVersion)
    )
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

/// webpki refuses version 1, which has no extensions.
fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    parse(certificate).is_ok_and(|parsed| parsed.version() == X509Version::V1)
}

/// Returns `true` for X.509 version 1, and for CA:TRUE with a key usage that allows signing certificates, or with none.
fn is_authority(certificate: &X509Certificate<'_>) -> bool {
    if certificate.version() == X509Version::V1 {
        return true;
    }
    let may_sign = certificate
        .key_usage()
        .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    certificate.is_ca() && may_sign
}

/// Returns `true` if it may sign certificates for some names only. A check of one signature does not tell which.
fn has_name_constraints(certificate: &X509Certificate<'_>) -> bool {
    !matches!(certificate.name_constraints(), Ok(None))
}

fn check_validity(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = certificate.validity();
    let time = |time: i64| {
        let seconds = u64::try_from(time).unwrap_or(0);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    let not_before = time(validity.not_before.timestamp());
    let not_after = time(validity.not_after.timestamp());
    if now < not_before {
        let time = now;
        return Err(CertificateError::NotValidYetContext { time, not_before }.into());
    }
    if now > not_after {
        let time = now;
        return Err(CertificateError::ExpiredContext { time, not_after }.into());
    }
    Ok(())
}

/// Key usage and extended key usage, RFC 5280, sections 4.2.1.3 and 4.2.1.12.
fn check_purpose(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    let is_for_servers = certificate
        .extended_key_usage()
        .is_ok_and(|usage| usage.is_none_or(|usage| usage.value.any || usage.value.server_auth));
    let is_for_handshakes = certificate.key_usage().is_ok_and(|usage| {
        usage.is_none_or(|usage| {
            let usage = usage.value;
            usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
        })
    });
    match is_for_servers && is_for_handshakes {
        true => Ok(()),
        false => Err(CertificateError::InvalidPurpose.into()),
    }
}

/// Checks the subject alternative names, RFC 9525. The common name (RFC 2818, section 3.1) counts only if there are
/// none. That is safe because the operator trusts this very certificate.
fn check_name(certificate: &X509Certificate<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|_| CertificateError::BadEncoding)?;
    let alternatives = alternatives.map_or(&[][..], |names| &names.value.general_names);
    let mut presented = Vec::new();
    let mut is_match = false;
    for alternative in alternatives {
        match (alternative, name) {
            (GeneralName::DNSName(pattern), _) => {
                is_match |= matches_host(pattern, name);
                presented.push(format!("DnsName({pattern:?})"));
            }
            (GeneralName::IPAddress(octets), _) => {
                let address = match (<[u8; 4]>::try_from(*octets), <[u8; 16]>::try_from(*octets)) {
                    (Ok(v4), _) => IpAddr::from(v4),
                    (_, Ok(v6)) => IpAddr::from(v6),
                    _ => continue,
                };
                is_match |= matches!(name, ServerName::IpAddress(wanted)
                    if IpAddr::from(*wanted) == address);
                presented.push(format!("IpAddress({address})"));
            }
            _ => {}
        }
    }
    if presented.is_empty() {
        let common = certificate.subject().iter_common_name();
        for pattern in common.filter_map(|common| common.as_str().ok()) {
            is_match |= match name {
                ServerName::IpAddress(wanted) => pattern
                    .parse()
                    .is_ok_and(|address: IpAddr| IpAddr::from(*wanted) == address),
                name => matches_host(pattern, name),
            };
            presented.push(format!("CommonName({pattern:?})"));
        }
    }
    if is_match {
        return Ok(());
    }
    let expected = name.to_owned();
    Err(CertificateError::NotValidForNameContext {
        expected,
        presented,
    }
    .into())
}

/// RFC 9525, section 6.3: `*` stands for the whole first label, and nothing else.
fn matches_host(pattern: &str, name: &ServerName<'_>) -> bool {
    let ServerName::DnsName(name) = name else {
        return false;
    };
    let name = name.as_ref().trim_end_matches('.');
    let pattern = pattern.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        // A wildcard must not cover a whole top-level domain.
        Some(parent) => {
            parent.contains('.')
                && name
                    .split_once('.')
                    .is_some_and(|(_, of)| of.eq_ignore_ascii_case(parent))
        }
        None => pattern.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, GeneralSubtree, IsCa, Issuer, KeyPair,
        KeyUsagePurpose, NameConstraints,
    };
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    /// 2030-01-01.
    const NOW: u64 = 1_893_456_000;

    fn fixture(name: &str) -> CertificateDer<'static> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls");
        CertificateDer::from_pem_file(format!("{folder}/{name}.pem")).unwrap()
    }

    /// Verifies a server that presents `chain` as `host`, with a client that trusts `given`.
    fn verify(given: &[&str], chain: &[&str], host: &str) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let given = given.iter().copied().map(fixture).collect();
        let verifier = Verifier::new(Vec::new(), given, &provider);
        let chain: Vec<_> = chain.iter().copied().map(fixture).collect();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW));
        verifier
            .verify_server_cert(&chain[0], &chain[1..], &name, &[], now)
            .map(drop)
    }

    #[test]
    fn what_curl_takes_is_taken() {
        for (given, chain, host) in [
            (
                "self-signed-authority",
                &["self-signed-authority"][..],
                "localhost",
            ),
            (
                "self-signed-authority",
                &["self-signed-authority"],
                "127.0.0.1",
            ),
            (
                "self-signed-common-name",
                &["self-signed-common-name"],
                "localhost",
            ),
            (
                "self-signed-no-authority",
                &["self-signed-no-authority"],
                "localhost",
            ),
            (
                "self-signed-wildcard",
                &["self-signed-wildcard"],
                "a.wild.test",
            ),
            ("self-signed-address", &["self-signed-address"], "127.0.0.1"),
            ("version-1", &["version-1"], "localhost"),
            ("leaf", &["leaf"], "localhost"),
            ("leaf", &["leaf", "intermediate"], "localhost"),
            ("intermediate", &["leaf"], "localhost"),
            ("authority", &["leaf", "intermediate"], "localhost"),
            (
                "authority",
                &["leaf", "intermediate", "authority"],
                "localhost",
            ),
            ("authority", &["leaf-common-name"], "localhost"),
            ("authority", &["leaf-version-1"], "localhost"),
            ("authority", &["leaf-marked-as-authority"], "localhost"),
        ] {
            assert_eq!(
                verify(&[given], chain, host),
                Ok(()),
                "{given} {chain:?} {host}"
            );
        }
        // The certificate is one of a bundle.
        let bundle = [
            "authority",
            "self-signed-other-name",
            "self-signed-authority",
        ];
        assert_eq!(
            verify(&bundle, &["self-signed-authority"], "localhost"),
            Ok(())
        );
        assert_eq!(
            verify(&bundle, &["self-signed-other-name"], "other.test"),
            Ok(())
        );
    }

    #[test]
    fn what_curl_refuses_is_refused_for_its_reason() {
        for (given, chain, host, why) in [
            (
                "authority",
                &["self-signed-authority"][..],
                "localhost",
                "UnknownIssuer",
            ),
            (
                "authority",
                &["self-signed-no-authority"],
                "localhost",
                "UnknownIssuer",
            ),
            ("authority", &["version-1"], "localhost", "UnknownIssuer"),
            ("authority", &["leaf"], "localhost", "UnknownIssuer"),
            (
                "self-signed-authority",
                &["self-signed-common-name"],
                "localhost",
                "UnknownIssuer",
            ),
            (
                "self-signed-no-authority",
                &["leaf"],
                "localhost",
                "UnknownIssuer",
            ),
            (
                "self-signed-expired",
                &["self-signed-expired"],
                "localhost",
                "expired",
            ),
            (
                "self-signed-only-signs",
                &["self-signed-only-signs"],
                "localhost",
                "InvalidPurpose",
            ),
            (
                "self-signed-only-client",
                &["self-signed-only-client"],
                "localhost",
                "InvalidPurpose",
            ),
            (
                "self-signed-authority",
                &["self-signed-authority"],
                "other.test",
                "not valid for name",
            ),
            (
                "self-signed-authority",
                &["self-signed-authority"],
                "127.0.0.2",
                "not valid for name",
            ),
            (
                "self-signed-common-name",
                &["self-signed-common-name"],
                "other.test",
                "not valid for name",
            ),
            // The common name is ignored if there are alternative names.
            (
                "self-signed-other-name",
                &["self-signed-other-name"],
                "localhost",
                "not valid for name",
            ),
            (
                "self-signed-wildcard",
                &["self-signed-wildcard"],
                "a.b.wild.test",
                "not valid for name",
            ),
            (
                "self-signed-wildcard",
                &["self-signed-wildcard"],
                "wild.test",
                "not valid for name",
            ),
            (
                "self-signed-address",
                &["self-signed-address"],
                "127.0.0.2",
                "not valid for name",
            ),
            (
                "version-1",
                &["version-1"],
                "other.test",
                "not valid for name",
            ),
            (
                "authority",
                &["leaf-version-1"],
                "other.test",
                "not valid for name",
            ),
        ] {
            let text = verify(&[given], chain, host).unwrap_err().to_string();
            assert!(text.contains(why), "{given} {chain:?} {host}: {text}");
        }
    }

    /// What a client says of a server as `host` that presents a certificate for three names, signed by the key of the certificate that the client is given.
    fn verify_signed_by(given: CertificateParams, host: &str) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let keys = [(); 2].map(|()| KeyPair::generate().unwrap());
        let certificate = given.self_signed(&keys[0]).unwrap();
        let names = ["localhost", "other.test", "my_bucket.pics.test"].map(str::to_owned);
        let leaf = CertificateParams::new(names).unwrap();
        let leaf = leaf.signed_by(&keys[1], &Issuer::from_params(&given, &keys[0]));
        let verifier = Verifier::new(Vec::new(), vec![certificate.der().clone()], &provider);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let verified = verifier.verify_server_cert(
            leaf.unwrap().der(),
            &[],
            &name,
            &[],
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW)),
        );
        verified.map(drop)
    }

    #[test]
    fn only_an_authority_vouches_for_what_it_signed() {
        let params = |is_ca, usages: &[KeyUsagePurpose]| {
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            let name = rcgen::DnType::CommonName;
            params.distinguished_name.push(name, "one that was given");
            (params.is_ca, params.key_usages) = (is_ca, usages.to_vec());
            params
        };
        let authority = IsCa::Ca(BasicConstraints::Unconstrained);
        let signs = [KeyUsagePurpose::KeyCertSign];
        for (is_ca, usages, is_trusted) in [
            (authority, &[][..], true),
            (authority, &signs, true),
            (authority, &[KeyUsagePurpose::DigitalSignature], false),
            (IsCa::ExplicitNoCa, &[], false),
            (IsCa::ExplicitNoCa, &signs, false),
            (IsCa::NoCa, &[], false),
        ] {
            let verified = verify_signed_by(params(is_ca, usages), "localhost");
            let expected = match is_trusted {
                true => Ok(()),
                false => Err(CertificateError::UnknownIssuer.into()),
            };
            assert_eq!(verified, expected, "{is_ca:?} {usages:?}");
        }
        let bucket = verify_signed_by(params(authority, &signs), "my_bucket.pics.test");
        assert_eq!(bucket, Ok(()));
        let mut constrained = params(authority, &signs);
        constrained.name_constraints = Some(NameConstraints {
            permitted_subtrees: ["localhost", "my_bucket.pics.test", "other.test"]
                .map(|name| GeneralSubtree::DnsName(name.to_owned()))
                .into(),
            excluded_subtrees: Vec::new(),
        });
        assert_eq!(verify_signed_by(constrained.clone(), "localhost"), Ok(()));
        let constraints = constrained.name_constraints.as_mut().unwrap();
        constraints.permitted_subtrees.pop();
        let error = verify_signed_by(constrained, "localhost").unwrap_err();
        assert!(error.to_string().contains("NameConstraint"), "{error}");
    }

    #[test]
    fn names_that_tls_refuses_are_told_apart() {
        let hyphen = Some("a part of the name begins or ends with `-`");
        let other = Some("the name has other parts than 1 to 63 letters, digits, `-` and `_`");
        for (host, expected) in [
            ("a.test", None),
            ("a.test.", None),
            ("my_bucket.pics.test", None),
            ("_a.test", None),
            ("xn--bcher-kva.example", None),
            ("a--b.test", None),
            ("-a.test", hyphen),
            ("a-.test", hyphen),
            ("b.-a-.test", hyphen),
            ("a+b.test", other),
            ("a..test", other),
        ] {
            assert_eq!(name_problem(host), expected, "{host}");
        }
        let label = "a".repeat(64);
        assert_eq!(name_problem(&format!("{label}.test")), other);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, name, expected) in [
            ("a.test", "A.Test", true),
            ("a.test.", "a.test", true),
            ("*.b.test", "a.b.test", true),
            ("*.b.test", "b.test", false),
            ("*.b.test", "x.a.b.test", false),
            ("*.test", "a.test", false),
            ("*", "a", false),
            ("a*.b.test", "ax.b.test", false),
        ] {
            let name = ServerName::try_from(name).unwrap();
            assert_eq!(matches_host(pattern, &name), expected, "{pattern} {name:?}");
        }
    }
}
