//! rustls configurations: TLS 1.2 and 1.3, the ring provider named each time, ALPN h2 and http/1.1.

use crate::ca::parse_certs;
use crate::{Error, Identity};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
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
        let mixed = Identity { cert_pem: server.cert_pem, key_pem: client.key_pem };
        assert!(server_config(&mixed, &[]).is_err(), "a key of another certificate is refused");
    }
}
