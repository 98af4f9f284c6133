//! Role bindings and cluster role bindings.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, same, set_default};
use crate::names;
use crate::rbac::Kind;
use crate::rules::{self, Check, each};
use api::Object;
use api::table::Column;
use jiff::Timestamp;
use serde_json::Value;

/// Role bindings, and cluster role bindings.
pub struct Binding;

const GROUP: &str = "rbac.authorization.k8s.io";
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Role").describe("RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error."),
    AGE,
    Column::string("Users").wide().describe("Users in the roleBinding"),
    Column::string("Groups").wide().describe("Groups in the roleBinding"),
    Column::string("ServiceAccounts").wide().describe("ServiceAccounts in the roleBinding"),

];
const CLUSTER_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Role").describe("RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error."),
    AGE,
    Column::string("Users").wide().describe("Users in the clusterRoleBinding"),
    Column::string("Groups").wide().describe("Groups in the clusterRoleBinding"),
    Column::string("ServiceAccounts").wide().describe("ServiceAccounts in the clusterRoleBinding"),

];

impl Kind for Binding {
    fn default(&self, obj: &mut Object) {
        if let Some(role) = map_mut(obj, "roleRef") {
            if role.text("apiGroup").is_empty() {
                role["apiGroup"] = GROUP.into();
            }
            ["kind", "name"].iter().for_each(|field| set_default(role, field, ""));
        }
        for subject in items_mut(obj, "subjects") {
            if ["User", "Group"].contains(&subject.text("kind")) {
                set_default(subject, "apiGroup", GROUP);
            }
        }
    }

    fn check(&self, errors: &mut Errors, obj: &Object, namespaced: bool) {
        let (role, path) = (obj.at("roleRef"), Path::root("roleRef"));
        let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        errors.one_of(&path.field("apiGroup"), role.text("apiGroup"), &[GROUP]);
        errors.one_of(&path.field("kind"), role.text("kind"), kinds);
        rules::check(errors, role, &path, &[("name", Check::Named(names::segment))]);
        each(obj, "subjects", &Path::TOP, |subject, path| self::subject(errors, subject, namespaced, path));
    }

    fn check_change(&self, errors: &mut Errors, new: &Object, old: &Object) {
        let role = new.at("roleRef");
        if !same(role, old.at("roleRef")) {
            errors.invalid_struct(&Path::root("roleRef"), "io.k8s.api.rbac.v1.RoleRef", role, "cannot change roleRef");
        }
    }

    fn columns(&self, namespaced: bool) -> Option<&'static [Column]> {
        Some(if namespaced { COLUMNS } else { CLUSTER_COLUMNS })
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let role = obj.at("roleRef");
        vec![
            api::meta::name(obj).into(),
            format!("{}/{}", role.text("kind"), role.text("name")).into(),
            age::since_creation(obj, now).into(),
            named(obj, "User"),
            named(obj, "Group"),
            named(obj, "ServiceAccount"),
        ]
    }
}

fn subject(errors: &mut Errors, subject: &Value, namespaced: bool, path: &Path<'_>) {
    let (kind, name, group) = (subject.text("kind"), subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        errors.required(&path.field("name"), "");
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_each(&path.field("name"), name, names::dns1123_subdomain(name, false));
            }
            if !group.is_empty() {
                errors.not_supported(&path.field("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.text("namespace").is_empty() {
                errors.required(&path.field("namespace"), "");
            }
        }
        "User" | "Group" => errors.one_of(&path.field("apiGroup"), group, &[GROUP]),
        other => errors.not_supported(&path.field("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// The subjects of a kind, service accounts with their namespaces.
fn named(obj: &Object, kind: &str) -> Value {
    let name = |s: &Value| match kind {
        "ServiceAccount" => format!("{}/{}", s.text("namespace"), s.text("name")),
        _ => s.text("name").to_owned(),
    };
    let list: Vec<String> = obj.list("subjects").iter().filter(|s| s.text("kind") == kind).map(name).collect();
    list.join(", ").into()
}
