//! Certificates and service account tokens: what a cluster trusts and how its parts prove who they are.
//!
//! A data directory holds one [`Ca`] for clients and servers, one for the front proxy, and one
//! [`ServiceAccountKey`]. The CA issues an [`Identity`] (certificate and key) to each component; the
//! functions of [`tls`] turn identities into rustls configurations; [`token`] signs and verifies the
//! bound tokens of service accounts; [`jwt`] verifies the tokens of other issuers.
//!
//! Invariants: private keys that are made here are ECDSA P-256 and never leave the files of mode 0600 they are written to
//! atomically; every rustls configuration names its provider, so no process-wide default is needed.
//!
//! Deliberately absent: revocation, the making of RSA keys (given ones sign tokens), clocks other than the system's.

mod ca;
mod error;
mod files;
pub mod jwt;
mod request;
pub mod tls;
pub mod token;

pub use ca::{Ca, Identity, Usage};
pub use error::Error;
pub use files::write_private;
pub use request::CertificateRequest;
pub use token::{ServiceAccountKey, TokenClaims};

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether two secrets are equal, in time that tells nothing about where they differ.
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    let digest = |bytes| ring::digest::digest(&ring::digest::SHA256, bytes);
    let (a, b) = (digest(a), digest(b));
    a.as_ref().iter().zip(b.as_ref()).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}
