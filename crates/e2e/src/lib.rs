//! End-to-end tests: the real kubectl and the shipped binary, on real containers.
//!
//! [`image`] makes images from Debian's packages, because no registry is reachable; [`Cluster`] starts
//! a cluster of its own in a temporary data directory and deletes it again, also when a test fails;
//! [`wait`] waits for what kubectl shows. Tests run as root and fail loudly where they cannot.

mod cluster;
pub mod image;
pub mod pty;

pub use cluster::{Cluster, sagong, wait};
