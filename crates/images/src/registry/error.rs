//! What can go wrong between this node and a registry, in the words containerd made known.

use http::{Method, StatusCode};
use std::io;
use std::path::PathBuf;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a registry did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No host could say what the reference means.
    #[error("failed to resolve reference {reference:?}")]
    Resolve {
        /// Normalised.
        reference: String,
        /// The answer that says most.
        #[source]
        source: Box<Error>,
    },
    /// A manifest or blob could not be fetched.
    #[error("failed to copy")]
    Fetch(#[source] Box<Error>),
    /// The registry has no such tag, manifest or blob.
    #[error("{0}: not found")]
    NotFound(String),
    /// The index has nothing for this machine.
    #[error("no match for platform in manifest: not found ({0})")]
    Platform(String),
    /// The registry asks for credentials it was not given, or refuses these.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    /// An answer that is neither success nor one of the above.
    #[error("unexpected status from {method} request to {url}: {status}{detail}")]
    Status {
        /// Of the request.
        method: Method,
        /// Of the request, after redirects.
        url: String,
        /// Of the answer.
        status: StatusCode,
        /// `: CODE: message` where the registry said so.
        detail: String,
        /// Seconds the registry asked to wait.
        retry_after: Option<u64>,
    },
    /// There was no answer, or it broke off.
    #[error("failed to do request: {} {url:?}: {reason}", title(method))]
    Request {
        /// Of the request.
        method: Method,
        /// Of the request.
        url: String,
        /// The deepest cause.
        reason: String,
        /// Whether trying again may help.
        transient: bool,
    },
    /// What arrived is not what was asked for.
    #[error(
        "failed commit on ref {expect:?}: unexpected commit digest {actual}, expected {expect}: failed precondition"
    )]
    Digest {
        /// Asked for.
        expect: String,
        /// Of what arrived.
        actual: String,
    },
    /// The answer breaks the distribution specification or exceeds a bound.
    #[error("{url}: {reason}")]
    Protocol {
        /// Of the request, or the digest of the document.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// `certs.d` is misconfigured.
    #[error("{path:?}: {reason}")]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The pull as a whole took too long.
    #[error("the pull took longer than {0} hours: context deadline exceeded")]
    Deadline(u64),
    /// A file of the store could not be written.
    #[error("cannot write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Error::Request { transient, .. } => *transient,
            Error::Status { status, .. } => {
                matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
            }
            _ => false,
        }
    }

    /// How much an answer says about the image: the host that got furthest is the one to report.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Error::Request { .. } | Error::Hosts { .. } => 1,
            Error::NotFound(_) => 2,
            _ => 3,
        }
    }

    pub(crate) fn protocol(url: impl ToString, reason: impl ToString) -> Error {
        Error::Protocol { url: url.to_string(), reason: reason.to_string() }
    }
}

/// `Head`: how Go writes methods in the errors of its client.
fn title(method: &Method) -> String {
    let (first, rest) = method.as_str().split_at(1);
    format!("{first}{}", rest.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Error {
        let status = StatusCode::from_u16(code).unwrap();
        Error::Status { method: Method::GET, url: "u".into(), status, detail: String::new(), retry_after: None }
    }

    fn request(transient: bool) -> Error {
        Error::Request { method: Method::HEAD, url: "u".into(), reason: "r".into(), transient }
    }

    #[test]
    fn only_transient_failures_are_tried_again() {
        for (error, expect) in [
            (status(503), true),
            (status(429), true),
            (status(400), false),
            (status(501), false),
            (request(true), true),
            (request(false), false),
            (Error::NotFound("x".into()), false),
            (Error::Denied("x".into()), false),
            (Error::Digest { expect: "a".into(), actual: "b".into() }, false),
        ] {
            assert_eq!(error.is_transient(), expect, "{error}");
        }
    }

    #[test]
    fn speaks_as_containerd_does() {
        assert_eq!(request(true).to_string(), "failed to do request: Head \"u\": r");
        assert_eq!(status(500).to_string(), "unexpected status from GET request to u: 500 Internal Server Error");
    }
}
