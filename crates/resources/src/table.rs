//! The table of resources: one row each.

use crate::Strategy;

/// A resource that is stored.
pub struct Row {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name; all facts (kind, scope, verbs, subresources, names) are looked up in `schema` by it.
    pub resource: &'static str,
    /// Where its objects are stored, `apps/deployments`; two versions of one resource share it.
    pub storage: &'static str,
    /// The version whose form is stored, when it is another than `version` (`autoscaling/v1` → `v2`).
    pub convert: Option<&'static Conversion>,
    /// Its behaviour.
    pub strategy: &'static dyn Strategy,
}

/// How a served version differs from the stored one.
pub struct Conversion {
    /// The stored form's `apiVersion`.
    pub stored: &'static str,
    /// Served → stored.
    pub to_stored: fn(&mut api::Object),
    /// Stored → served.
    pub from_stored: fn(&mut api::Object),
}
