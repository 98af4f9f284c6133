//! The container runtime interface (CRI v1) as traits and plain types.
//!
//! The kubelet knows nothing below this crate. [`RuntimeService`] and [`ImageService`] carry
//! CRI v1's calls under their own names; where CRI hands out a URL for a stream, this trait
//! hands out the stream itself ([`Streams`]). Our `runtime` implements the traits in-process; a
//! client of a remote CRI socket and a server for one are adapters between these types and protobuf.
//! Both sides remove what containers leave behind, which is not as easy as it sounds ([`remove_tree`]), and show images
//! as directories ([`mount_layers`]).
//!
//! Invariants: every call is idempotent in CRI's sense (stopping a stopped container succeeds,
//! removing a missing one succeeds); events are never lost between `subscribe` and a later list
//! (subscribe first, then list).

mod image;
mod overlay;
mod pressure;
mod runtime;
mod stats;
mod tree;
mod types;

pub use image::*;
pub use overlay::mount_layers;
pub use pressure::{Pressure, Pressures, Stalls};
pub use runtime::*;
pub use stats::*;
pub use tree::remove_tree;
pub use types::*;

/// Why a call failed; the names are gRPC codes where CRI relies on them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sandbox, container or image does not exist.
    #[error("{0} not found")]
    NotFound(String),
    /// The object is not in a state that allows the call.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The arguments are wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// Image failures the kubelet reports under their own reason (`ErrImagePull`, `InvalidImageName` ...).
    #[error("{message}")]
    Image {
        /// Reason shown in the container's waiting state.
        reason: &'static str,
        /// Text for people.
        message: String,
    },
    /// A command ran longer than its timeout.
    #[error("command {0:?} timed out")]
    DeadlineExceeded(String),
    /// Anything else, with its cause chain printed.
    #[error("{0}")]
    Internal(String),
}

/// The result of a CRI call.
pub type Result<T> = std::result::Result<T, Error>;
