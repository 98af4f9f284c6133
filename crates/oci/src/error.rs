//! The error of kernel operations.

use std::fmt::Display;
use std::io;

/// Why a kernel operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {}", os_text(.cause))]
    Os {
        /// What was tried, with its object.
        what: String,
        /// The kernel's answer.
        cause: io::Error,
    },
    /// The arguments make no sense, or something outside was forged.
    #[error("{0}")]
    Invalid(String),
}

/// The result of a kernel operation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The kernel's error number, where it was the kernel.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { cause, .. } => cause.raw_os_error(),
            Self::Invalid(_) => None,
        }
    }
}

/// Adds what was tried to the kernel's answer.
pub trait Context<T> {
    /// Names the operation and its object.
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|cause| Error::Os { what: what().to_string(), cause: cause.into() })
    }
}

/// The text of a kernel error the way Go prints it: `no such file or directory`.
pub fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_go() {
        for (errno, expect) in [
            (libc::ENOENT, "no such file or directory"),
            (libc::EACCES, "permission denied"),
            (libc::ENOEXEC, "exec format error"),
        ] {
            assert_eq!(os_text(&io::Error::from_raw_os_error(errno)), expect);
        }
    }
}
