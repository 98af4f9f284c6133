//! The generic object store: one [`ObjectStore`] per stored resource, over [`kv::Kv`], with a cacher.
mod types;
pub use types::*;
