//! Container logs in the CRI format: reading, following, rotating.

pub mod notify;
pub mod reader;
pub mod rotation;
