//! rustls configurations: TLS 1.2 and 1.3, the ring provider named each time, ALPN h2 and http/1.1.

use crate::ca::parse_certs;
use crate::{Error, Identity};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Tls(e.to_string())
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// The certificates of PEM bundles as roots of trust.
pub fn roots(bundles: &[&str]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for bundle in bundles {
        for cert in parse_certs(bundle)? {
            store.add(cert).map_err(failed)?;
        }
    }
    Ok(store)
}

/// A server: `client_cas` are the PEM bundles that client certificates are verified against. A client without
/// a certificate is let in and authenticates (or not) by other means.
pub fn server_config(identity: &Identity, client_cas: &[&str]) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(failed)?;
    let builder = if client_cas.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_cas)?), provider)
            .allow_unauthenticated()
            .build()
            .map_err(failed)?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_single_cert(identity.certs()?, identity.key()?).map_err(failed)?;
    config.alpn_protocols = alpn();
    Ok(config)
}

/// A server that asks clients for a certificate and lets its caller judge what they show ([`ClientVerifier`]);
/// `hints` are the PEM bundles of the authorities that clients are told of.
pub fn server_config_asking(identity: &Identity, hints: &[&str]) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Asking { hints: roots(hints)?.subjects(), algorithms: provider.signature_verification_algorithms };
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(failed)?.with_client_cert_verifier(Arc::new(verifier));
    let mut config = builder.with_single_cert(identity.certs()?, identity.key()?).map_err(failed)?;
    config.alpn_protocols = alpn();
    Ok(config)
}

/// Takes any certificate whose key the client has: who it is, is decided for each request.
#[derive(Debug)]
struct Asking {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Asking {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Judges the certificates of clients by the authorities of PEM bundles.
#[derive(Clone, Debug)]
pub struct ClientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientVerifier {
    /// A verifier that trusts these bundles.
    pub fn new(cas: &[&str]) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(cas)?), provider).build();
        Ok(Self(built.map_err(failed)?))
    }

    /// Whether a chain, the client's own certificate first, leads to one of the authorities now.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, rest)) = chain.split_first() else { return false };
        self.0.verify_client_cert(own, rest, UnixTime::now()).is_ok()
    }
}

/// A client that trusts the PEM bundles `cas` and proves who it is with `identity`, when there is one.
pub fn client_config(cas: &[&str], identity: Option<&Identity>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(cas)?);
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.certs()?, identity.key()?).map_err(failed)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ca;

    #[test]
    fn both_ends_can_be_built() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = Ca::load_or_create(dir.path()).expect("ca");
        let server = ca.issue_server("kube-apiserver", &["localhost".into(), "127.0.0.1".into()]).expect("server");
        let client = ca.issue_client("admin", &["system:masters"]).expect("client");
        assert!(server_config(&server, &[ca.cert_pem()]).is_ok());
        assert!(client_config(&[ca.cert_pem()], Some(&client)).is_ok());
        let mixed = Identity { cert_pem: server.cert_pem.clone(), key_pem: client.key_pem };
        assert!(server_config(&mixed, &[]).is_err(), "a key of another certificate is refused");
        assert!(server_config_asking(&server, &[ca.cert_pem()]).is_ok());
    }

    #[test]
    fn chains_are_judged() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = Ca::load_or_create(dir.path()).expect("ca");
        let other = Ca::load_or_create_front_proxy(dir.path()).expect("ca");
        let chain = ca.issue_client("a", &[]).expect("client").certs().expect("certs");
        assert!(ClientVerifier::new(&[ca.cert_pem()]).expect("verifier").verify(&chain));
        assert!(!ClientVerifier::new(&[other.cert_pem()]).expect("verifier").verify(&chain));
        assert!(!ClientVerifier::new(&[ca.cert_pem()]).expect("verifier").verify(&[]));
    }
}
