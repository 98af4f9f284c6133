//! What can go wrong with the network.

use rustix::io::Errno;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused, with its own words where it has some.
    #[error("cannot {doing}: {errno}{}", .text.as_ref().map(|t| format!(" ({t})")).unwrap_or_default())]
    Kernel {
        /// What was tried, `add route 10.0.0.2/32 dev eth0`.
        doing: String,
        /// The kernel's code.
        errno: Errno,
        /// The kernel's text.
        text: Option<String>,
    },
    /// A file could not be read or written.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Every address of the node's range is in use.
    #[error("no free address left in {cidr}: {used} pods use it; delete pods or give the node a larger range")]
    Exhausted {
        /// The range.
        cidr: String,
        /// Addresses in use.
        used: usize,
    },
    /// An argument is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Names a system call's failure by what was tried.
    pub fn kernel(doing: impl Into<String>) -> impl FnOnce(Errno) -> Error {
        let doing = doing.into();
        move |errno| Error::Kernel { doing, errno, text: None }
    }

    /// Names an IO failure by what was tried.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Io { doing, source }
    }

    /// The kernel's code, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Kernel { errno, .. } => Some(*errno),
            Error::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}

/// Makes "it is there already" or "it is gone already" a success.
pub(crate) trait Tolerate {
    fn tolerate(self, errnos: &[Errno]) -> Result<()>;
}

impl Tolerate for Result<()> {
    fn tolerate(self, errnos: &[Errno]) -> Result<()> {
        match self {
            Err(error) if error.errno().is_some_and(|errno| errnos.contains(&errno)) => Ok(()),
            other => other,
        }
    }
}
