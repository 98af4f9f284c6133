//! Replication controllers.

use crate::age;
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME};
use crate::core::pod::{defaults, template, warnings};
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::{Ctx, Propagation, Scale, Strategy, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Replication controllers.
pub struct ReplicationController;

const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired").field("io.k8s.api.core.v1.ReplicationControllerSpec", "replicas"),
    Column::integer("Current").field("io.k8s.api.core.v1.ReplicationControllerStatus", "replicas"),
    Column::integer("Ready").field("io.k8s.api.core.v1.ReplicationControllerStatus", "readyReplicas"),
    AGE,
    CONTAINERS.wide(),
    IMAGES.wide(),
    Column::string("Selector").wide().field("io.k8s.api.core.v1.ReplicationControllerSpec", "selector"),
];
const SPEC: Path<'_> = Path::root("spec");

impl Strategy for ReplicationController {
    fn default(&self, obj: &mut Object) {
        let labels = obj.at("spec").at("template").at("metadata").at("labels").clone();
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "replicas", 1);
            if spec.entries("selector").next().is_none() && labels.is_object() {
                spec["selector"] = labels.clone();
            }
            field_mut(spec, "template").into_iter().for_each(defaults::template);
        }
        if obj.at("metadata").entries("labels").next().is_none() && labels.is_object() {
            api::meta::set(obj, "labels", labels);
        }
        crate::apps::zero_counts(obj, &["replicas"]);
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({"replicas": 0});
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        // of a generated name only the outcome counts
        if prefix { Vec::new() } else { crate::names::long_name(name, prefix) }
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        errors.non_negative(&SPEC.field("minReadySeconds"), spec.int("minReadySeconds").unwrap_or(0));
        let empty = spec.entries("selector").next().is_none();
        if empty {
            errors.required(&SPEC.field("selector"), "");
        }
        match spec.int("replicas") {
            None => errors.required(&SPEC.field("replicas"), ""),
            Some(count) => errors.non_negative(&SPEC.field("replicas"), count),
        }
        let (of, path) = (spec.at("template"), SPEC.field("template"));
        if of.is_null() {
            errors.required(&path, "");
            return errors.0;
        }
        let labels = of.at("metadata").at("labels");
        if !empty && spec.entries("selector").any(|(k, v)| labels.get(k) != Some(v)) {
            template::labels_mismatch(&mut errors, of, &path);
        }
        template::validate(&mut errors, of, &path);
        template::restart_always(&mut errors, of, "ReplicationController", &path);
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        // Upstream confuses the templates: a change is warned of by what it replaces.
        match old.filter(|old| warnings::due(obj, Some(old))) {
            Some(old) => warnings::template(old.at("spec").at("template"), &SPEC.field("template")),
            None => crate::apps::named_template_warnings(obj, old),
        }
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        crate::apps::status::REPLICAS.check(new, old)
    }

    fn default_propagation(&self) -> Propagation {
        Propagation::Orphan
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("status.replicas", obj.at("status").int("replicas").unwrap_or(0).to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let (names, images) = crate::apps::containers(spec.at("template"));
        let count = |of: &Value, field: &str| Value::from(of.int(field).unwrap_or(0));
        vec![
            api::meta::name(obj).into(),
            count(spec, "replicas"),
            count(status, "replicas"),
            count(status, "readyReplicas"),
            age::since_creation(obj, now).into(),
            names.into(),
            images.into(),
            metadata::format_labels(spec.at("selector")).into(),
        ]
    }

    fn scale(&self, obj: &Object) -> Option<Scale> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let selector: Vec<String> =
            spec.entries("selector").map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
        Some(Scale {
            spec_replicas: spec.int("replicas").unwrap_or(0),
            status_replicas: status.int("replicas").unwrap_or(0),
            selector: selector.join(","),
        })
    }
}
