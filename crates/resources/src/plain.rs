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
