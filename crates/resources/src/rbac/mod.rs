//! `rbac.authorization.k8s.io`: roles and bindings, of a namespace or of the cluster. They are written by one
//! strategy, [`Access`], which asks its [`Kind`] for what differs.

pub mod binding;
pub mod role;

use crate::field::Errors;
use crate::{Ctx, MetadataChecks, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// What sets roles and bindings apart.
pub trait Kind: Sync + Send {
    /// Sets fields that were left out.
    fn default(&self, obj: &mut Object);
    /// Finds the errors of an object; `namespaced`: of one that acts in a namespace.
    fn check(&self, errors: &mut Errors, obj: &Object, namespaced: bool);
    /// Finds what may not change.
    fn check_change(&self, _errors: &mut Errors, _new: &Object, _old: &Object) {}
    /// Printer columns, where they are not the usual ones.
    fn columns(&self, _namespaced: bool) -> Option<&'static [Column]> {
        None
    }
    /// The cells of its columns.
    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value>;
}

/// A kind of access rules. Names may be any path segment.
pub struct Access<K> {
    /// What it is.
    pub kind: K,
    /// Whether it acts in one namespace.
    pub namespaced: bool,
}

/// Access rules of a namespace.
pub const fn of_namespace<K>(kind: K) -> Access<K> {
    Access { kind, namespaced: true }
}

/// Access rules of the cluster.
pub const fn of_cluster<K>(kind: K) -> Access<K> {
    Access { kind, namespaced: false }
}

/// Columns and cells of kinds that have none of their own.
struct Plain;

impl Strategy for Plain {}

impl<K: Kind> Strategy for Access<K> {
    fn default(&self, obj: &mut Object) {
        self.kind.default(obj);
    }

    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::path_segment(name, prefix)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        self.kind.check(&mut errors, obj, self.namespaced);
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        self.kind.check_change(&mut errors, new, old);
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        self.kind.columns(self.namespaced).unwrap_or(Plain.columns())
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        self.kind.row(obj, now)
    }
}
