//! Kinds whose behaviour is nothing but the defaults of the trait.

use crate::Strategy;

/// A kind without behaviour of its own.
pub struct Plain {
    /// Whether it has a status that only the subresource writes.
    pub status: bool,
    /// Whether it counts generations.
    pub generation: bool,
}

impl Strategy for Plain {
    fn has_status(&self) -> bool {
        self.status
    }

    fn counts_generation(&self) -> bool {
        self.generation
    }
}

/// A kind whose names may be anything that fits into a path (roles and bindings).
pub struct PathNamed;

impl Strategy for PathNamed {
    fn has_status(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::path_segment(name, prefix)
    }
}
