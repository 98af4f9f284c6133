//! Patches: JSON patch, merge patch, strategic merge patch, server-side apply.
//!
//! Pure functions on JSON values. What a field is (its merge key, its list type) comes from the
//! caller through [`Facts`], so built-in kinds and custom resources take the same path.
//!
//! Deliberately absent: HTTP, storage, clocks (a time is always an argument), the making of patches (two-way and
//! three-way differences), conversion between versions of a kind.

mod apply;
mod configuration;
mod error;
mod facts;
mod json;
mod managed;
mod scale;
mod set;
mod strategic;
mod typed;

pub use apply::{Applied, Apply, Conflict, apply};
pub use configuration::merge_configuration;
pub use error::Error;
pub use facts::{Facts, FieldFact, ListType, Scalar, Shape, Untyped};
pub use json::{json_patch, merge_patch};
pub use managed::{Write, is_typed, update_managed_fields};
pub use scale::{managers_from_scale, managers_to_scale};
pub use set::FieldSet;
pub use strategic::{strategic_kind, strategic_merge};
