//! Custom resources: what custom resource definitions make of the served resources.
//!
//! The [`controller`] follows the definitions in the store: it accepts their names, serves the versions of each
//! established one by putting [`Definition`]s into the registry, and removes the instances of deleted ones. From
//! there on a custom resource takes the generic way of every resource; its [`Behaviour`] and merge facts come from
//! its structural schema.
//!
//! Invariants: a version is served before its definition says that it is established; what is served always
//! belongs to one definition.
//!
//! Where a definition names a webhook for conversion, each version has a view of the store that calls it.

mod columns;
mod conversion;
pub mod controller;
mod decode;
mod definition;
pub mod discovery;
mod facts;
mod json_path;
mod names;
pub mod openapi;
mod strategy;

pub use columns::table;
pub use controller::mark_as_terminating;
pub use decode::body;
pub use definition::Definition;
pub use facts::ROOT;

use resources::Strategy;
use std::ops::Deref;
use std::sync::Arc;

/// The behaviour of a resource, fixed or made from a definition.
pub enum Behaviour {
    /// That of a built-in kind.
    BuiltIn(&'static dyn Strategy),
    /// That of a custom resource.
    Custom(Arc<dyn Strategy>),
}

impl Deref for Behaviour {
    type Target = dyn Strategy;

    fn deref(&self) -> &(dyn Strategy + 'static) {
        match self {
            Self::BuiltIn(strategy) => *strategy,
            Self::Custom(strategy) => &**strategy,
        }
    }
}
