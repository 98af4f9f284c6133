//! Go's view of a value: the names of its struct fields, the JSON of the API server's internal types, and the
//! dump of which controllers take hashes.
//!
//! Both leave no field out, so messages and hashes that Kubernetes makes of them depend on the declared order
//! and on which fields are pointers; the tables know both. Internal types are those of the served version
//! with few differences, which are listed in [`names`].

mod dump;
mod internal;
mod names;

pub use dump::dump;
pub use internal::{Layout, internal_json};
