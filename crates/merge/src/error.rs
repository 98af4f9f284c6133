//! Why a patch cannot be applied.

/// Errors with the texts of the API machinery; [`Error::status`] says how HTTP answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch itself is malformed: 400 BadRequest.
    #[error("{0}")]
    BadRequest(String),
    /// The patch cannot be applied to this object: 422 Invalid.
    #[error("{0}")]
    Invalid(String),
    /// Too large: 413 RequestEntityTooLarge.
    #[error("{0}")]
    TooLarge(String),
    /// Anything else upstream answers with a plain error: 500.
    #[error("{0}")]
    Internal(String),
    /// Server-side apply met fields of others: 409.
    #[error("{}", crate::apply::conflict_message(.0))]
    Conflict(Vec<crate::apply::Conflict>),
}

impl Error {
    /// The HTTP status code.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Invalid(_) => 422,
            Self::TooLarge(_) => 413,
            Self::Internal(_) => 500,
            Self::Conflict(_) => 409,
        }
    }
}
