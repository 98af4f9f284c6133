//! Why a certificate or token operation failed.

/// Why an operation of this crate failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or certificate request cannot be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate request cannot be read.
    #[error("certificate request: {0}")]
    Request(String),
    /// A private key cannot be made or read.
    #[error("private key: {0}")]
    Key(String),
    /// TLS cannot be set up with what was given.
    #[error("tls: {0}")]
    Tls(String),
    /// A token is malformed or its signature is not ours.
    #[error("{0}")]
    Token(&'static str),
}
