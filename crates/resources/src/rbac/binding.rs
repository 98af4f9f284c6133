//! Role bindings and cluster role bindings.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, same, set_default};
use crate::{Ctx, MetadataChecks, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Role bindings, and cluster role bindings.
pub struct Binding {
    /// Whether it binds in one namespace.
    pub namespaced: bool,
}

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

impl Strategy for Binding {
    fn default(&self, obj: &mut Object) {
        defaults(obj);
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
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        binding(obj, kinds, self.namespaced)
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        fixed(self.validate(ctx, new), new, old)
    }

    fn columns(&self) -> &'static [Column] {
        if self.namespaced { COLUMNS } else { CLUSTER_COLUMNS }
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        row(obj, now)
    }
}

fn defaults(obj: &mut Object) {
    if let Some(role) = map_mut(obj, "roleRef") {
        if role.text("apiGroup").is_empty() {
            role["apiGroup"] = GROUP.into();
        }
        for field in ["kind", "name"] {
            if !role.has(field) {
                role[field] = "".into();
            }
        }
    }
    for subject in items_mut(obj, "subjects") {
        if ["User", "Group"].contains(&subject.text("kind")) {
            set_default(subject, "apiGroup", GROUP);
        }
    }
}

fn binding(obj: &Object, kinds: &[&str], namespaced: bool) -> Vec<Cause> {
    let (mut errors, role, path) = (Errors::default(), obj.at("roleRef"), Path::root("roleRef"));
    errors.supported(&path.field("apiGroup"), role.text("apiGroup"), &[GROUP]);
    errors.supported(&path.field("kind"), role.text("kind"), kinds);
    match role.text("name") {
        "" => errors.required(&path.field("name"), ""),
        name => errors.invalid_each(&path.field("name"), name, names::path_segment(name, false)),
    }
    let list = Path::root("subjects");
    for (i, subject) in obj.list("subjects").iter().enumerate() {
        self::subject(&mut errors, subject, namespaced, &list.index(i));
    }
    errors.0
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

fn fixed(causes: Vec<Cause>, new: &Object, old: &Object) -> Vec<Cause> {
    let mut errors = Errors(causes);
    let role = new.at("roleRef");
    if !same(role, old.at("roleRef")) {
        errors.invalid_struct(&Path::root("roleRef"), "io.k8s.api.rbac.v1.RoleRef", role, "cannot change roleRef");
    }
    errors.0
}

fn row(obj: &Object, now: Timestamp) -> Vec<Value> {
    let role = obj.at("roleRef");
    let named = |kind: &str| {
        let name = |s: &Value| match kind {
            "ServiceAccount" => format!("{}/{}", s.text("namespace"), s.text("name")),
            _ => s.text("name").to_owned(),
        };
        let list: Vec<String> = obj.list("subjects").iter().filter(|s| s.text("kind") == kind).map(name).collect();
        Value::from(list.join(", "))
    };
    vec![
        api::meta::name(obj).into(),
        format!("{}/{}", role.text("kind"), role.text("name")).into(),
        age::since_creation(obj, now).into(),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}
