//! What can go wrong with images.

use crate::registry;
use std::io;
use std::path::{Path, PathBuf};

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image name cannot be parsed.
    #[error("couldn't parse image name {name:?}: {reason}")]
    InvalidName {
        /// As given.
        name: String,
        /// `invalid reference format` and its relatives.
        reason: String,
    },
    /// The store has no such image.
    #[error("image {0:?} not found")]
    NotFound(String),
    /// The archive is broken or refused.
    #[error("{path}: {reason}")]
    Archive {
        /// Archive or the part of it.
        path: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The disk is full.
    #[error(
        "no space left on {path:?}: free some space there (or remove images that are not used), then try again; nothing was kept of this import"
    )]
    NoSpace {
        /// The store.
        path: PathBuf,
    },
    /// An image could not be pulled.
    #[error("failed to pull and unpack image {reference:?}")]
    Pull {
        /// Normalised.
        reference: String,
        /// Why not.
        #[source]
        source: Box<Error>,
    },
    /// A registry did not give what was asked of it.
    #[error(transparent)]
    Registry(registry::Error),
    /// A file could not be read or written.
    #[error("cannot {doing}")]
    Io {
        /// What was tried, `read "/x"`.
        doing: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Names an IO failure by what was tried.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }

    /// Refuses an archive.
    pub fn archive(path: impl ToString, reason: impl ToString) -> Error {
        Error::Archive { path: path.to_string(), reason: reason.to_string() }
    }

    /// Turns a full disk anywhere in the cause chain into [`Error::NoSpace`].
    pub fn name_full_disk(self, store: &Path) -> Error {
        match &self {
            Error::Io { source, .. } if is_full(source) => Error::NoSpace { path: store.to_owned() },
            _ => self,
        }
    }

    /// The error with its causes, for one line of text.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Error {
        match error {
            registry::Error::Write { path, source } => Error::io(format!("write {path:?}"))(source),
            registry::Error::Fetch(inner) if matches!(*inner, registry::Error::Write { .. }) => (*inner).into(),
            other => Error::Registry(other),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
