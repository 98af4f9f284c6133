//! Storage classes.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::pod::warnings;
use crate::field::{Errors, Fields, Path, set_default};
use crate::{Ctx, MetadataChecks, Strategy, names, rules};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Storage classes.
pub struct StorageClass;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Provisioner").field("io.k8s.api.storage.v1.StorageClass", "provisioner"),
    Column::string("ReclaimPolicy").field("io.k8s.api.storage.v1.StorageClass", "reclaimPolicy"),
    Column::string("VolumeBindingMode").field("io.k8s.api.storage.v1.StorageClass", "volumeBindingMode"),
    Column::string("AllowVolumeExpansion").field("io.k8s.api.storage.v1.StorageClass", "allowVolumeExpansion"),
    AGE,
];

impl Strategy for StorageClass {
    fn default(&self, obj: &mut Object) {
        set_default(obj, "reclaimPolicy", "Delete");
        set_default(obj, "volumeBindingMode", "Immediate");
        if !obj.has("provisioner") {
            obj["provisioner"] = "".into();
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::new();
        rules::each(obj, "allowedTopologies", &Path::TOP, |term, path| {
            rules::each(term, "matchLabelExpressions", path, |expression, path| {
                let outdated = warnings::deprecated_label(expression.text("key"));
                out.extend(outdated.map(|why| format!("{}: {why}", path.field("key"))));
            });
        });
        out
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let path = Path::root("provisioner");
        match obj.text("provisioner") {
            "" => errors.required(&path, ""),
            name => {
                let name = name.to_lowercase();
                errors.invalid_each(&path, &name, names::qualified_name(&name));
            }
        }
        super::parameters(&mut errors, obj, false);
        let policy = obj.text("reclaimPolicy");
        if !policy.is_empty() {
            errors.supported(&Path::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let mode = obj.text("volumeBindingMode");
        errors.supported(&Path::root("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
        topologies(&mut errors, obj.list("allowedTopologies"), &Path::root("allowedTopologies"));
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            errors.immutable(&Path::root(field), new.at(field), old.at(field));
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let class = |key: &str| api::meta::annotation(obj, key) == Some("true");
        let default = class("storageclass.kubernetes.io/is-default-class")
            || class("storageclass.beta.kubernetes.io/is-default-class");
        let name = api::meta::name(obj);
        vec![
            if default { format!("{name} (default)") } else { name.to_owned() }.into(),
            obj.text("provisioner").into(),
            obj.text("reclaimPolicy").into(),
            obj.text("volumeBindingMode").into(),
            obj.flag("allowVolumeExpansion").into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

/// The values that a term asks for by key, in no order.
fn asked(term: &Value) -> BTreeMap<&str, BTreeSet<&str>> {
    let requirements = term.list("matchLabelExpressions").iter();
    requirements.map(|r| (r.text("key"), r.texts("values").into_iter().collect())).collect()
}

fn topologies(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    // Upstream compares each term also with as many empty ones as there are terms.
    let mut seen = vec![BTreeMap::new(); list.len()];
    for (i, term) in list.iter().enumerate() {
        let item = path.index(i);
        let expressions = item.field("matchLabelExpressions");
        let requirements = term.list("matchLabelExpressions");
        for (j, requirement) in requirements.iter().enumerate() {
            let (at, key) = (expressions.index(j), requirement.text("key"));
            let values = requirement.texts("values");
            let value_path = at.field("values");
            if values.is_empty() {
                errors.required(&value_path, "");
            }
            for (k, value) in values.iter().enumerate().filter(|(k, v)| values[..*k].contains(v)) {
                errors.duplicate(&value_path.index(k), *value);
            }
            errors.invalid_each(&at.field("key"), key, names::label_key(key));
            if requirements[..j].iter().any(|r| r.text("key") == key) {
                errors.duplicate(&at.field("key"), key);
            }
        }
        let asked = asked(term);
        for _ in seen.iter().filter(|other| **other == asked) {
            errors.duplicate(&expressions, "");
        }
        seen.push(asked);
    }
}
