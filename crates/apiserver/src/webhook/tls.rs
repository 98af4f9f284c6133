//! Whom to trust: the bundle of a configuration, or the system's certificates.

use super::error::Error;
use pki::Identity;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use std::io;
use std::sync::Arc;

/// Where distributions keep the certificates that the system trusts.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A TLS client that trusts a PEM bundle (empty: the system's), or anyone when it is `insecure`.
pub fn client(bundle: &str, identity: Option<&Identity>, insecure: bool) -> Result<ClientConfig, Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Config(e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(bundle, insecure, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (certs, key) = (identity.certs().map_err(|e| failed(&e))?, identity.key().map_err(|e| failed(&e))?);
            builder.with_client_auth_cert(certs, key).map_err(|e| failed(&e))
        }
    }
}

/// Verifies as rustls does, and also lets a server present one of the trusted certificates itself, as Go does:
/// webhooks are often configured with their self-signed certificate as the bundle.
#[derive(Debug)]
struct Verifier {
    /// `None` trusts anyone.
    inner: Option<Arc<WebPkiServerVerifier>>,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(bundle: &str, insecure: bool, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        if insecure {
            return Ok(Self { inner: None, trusted: Vec::new(), provider });
        }
        let system = bundle.trim().is_empty();
        let trusted = if system { system_certificates() } else { parse(bundle) };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        if roots.is_empty() {
            let why = match system {
                true => "unable to load root certificates: the system has none",
                false => "unable to load root certificates: unable to parse bytes as PEM block",
            };
            return Err(Error::Config(why.into()));
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let inner = inner.map_err(|e| Error::Config(e.to_string()))?;
        let trusted = if system { Vec::new() } else { trusted };
        Ok(Self { inner: Some(inner), trusted, provider })
    }

    /// Whether a trusted certificate, presented by a server itself, is for its name and in its time.
    fn is_trusted_itself(
        &self,
        cert: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<bool, rustls::Error> {
        if !self.trusted.iter().any(|t| t.as_ref() == cert.as_ref()) {
            return Ok(false);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(cert)?, name)?;
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(cert) else { return Ok(false) };
        let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if (from..=to).contains(&now) { Ok(true) } else { Err(CertificateError::Expired.into()) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        match inner.verify_server_cert(cert, intermediates, name, ocsp, now) {
            Ok(verified) => Ok(verified),
            Err(_) if self.is_trusted_itself(cert, name, now)? => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn parse(bundle: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect()
}

fn system_certificates() -> Vec<CertificateDer<'static>> {
    SYSTEM.iter().find_map(|path| std::fs::read_to_string(path).ok()).map(|text| parse(&text)).unwrap_or_default()
}

/// Why a handshake failed, in Go's words.
pub fn text(error: &io::Error, name: &str) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer => "x509: certificate signed by unknown authority".to_owned(),
            CertificateError::NotValidForNameContext { presented, .. } => not_for_name(presented, name),
            CertificateError::Expired
            | CertificateError::NotValidYet
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYetContext { .. } => {
                "x509: certificate has expired or is not yet valid".to_owned()
            }
            other => format!("x509: {other}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => return "http: server gave HTTP response to HTTPS client".into(),
        Some(other) => return format!("remote error: tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => return "EOF".into(),
        None if error.kind() == io::ErrorKind::ConnectionReset => return "read: connection reset by peer".into(),
        None => return error.to_string(),
    };
    format!("tls: failed to verify certificate: {why}")
}

/// `presented` are names as rustls prints them, `DnsName("a")`.
fn not_for_name(presented: &[String], name: &str) -> String {
    let bare = |text: &String| text.split('"').nth(1).map_or_else(|| text.clone(), str::to_owned);
    let names: Vec<String> = presented.iter().map(bare).collect();
    match names.is_empty() {
        true => format!("x509: certificate is not valid for any names, but wanted to match {name}"),
        false => format!("x509: certificate is valid for {}, not {name}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_without_certificates_are_refused() {
        let why = client("rubbish", None, false).map(drop).expect_err("no certificate").to_string();
        assert_eq!(why, "unable to load root certificates: unable to parse bytes as PEM block");
        assert!(client("", None, true).is_ok());
    }

    #[test]
    fn names_are_listed() {
        let presented = ["DnsName(\"a\")".to_owned(), "DnsName(\"b\")".to_owned()];
        assert_eq!(not_for_name(&presented, "c"), "x509: certificate is valid for a, b, not c");
    }
}
