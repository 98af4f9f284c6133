//! Replica sets.

use crate::age;
use crate::apps::{self, SPEC};
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME};
use crate::core::pod::defaults;
use crate::field::{Errors, Fields, map_mut, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, Scale, StatusRules, Strategy, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Replica sets.
pub struct ReplicaSet;

const COLUMNS: &[Column] = &[
    NAME,
    Column::integer("Desired").field("io.k8s.api.apps.v1.ReplicaSetSpec", "replicas"),
    Column::integer("Current").field("io.k8s.api.apps.v1.ReplicaSetStatus", "replicas"),
    Column::integer("Ready").field("io.k8s.api.apps.v1.ReplicaSetStatus", "readyReplicas"),
    AGE,
    CONTAINERS.wide(),
    IMAGES.wide(),
    Column::string("Selector").wide().field("io.k8s.api.apps.v1.ReplicaSetSpec", "selector"),
];
const RULES: &[Rule] = &[("replicas", Check::NotNegative), ("minReadySeconds", Check::NotNegative)];

impl Strategy for ReplicaSet {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "replicas", 1);
            map_mut(spec, "template").into_iter().for_each(defaults::template);
        }
        apps::zero_counts(obj, &["replicas"]);
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"replicas": 0}))
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        rules::check(&mut errors, spec, &SPEC, RULES);
        apps::replicated(&mut errors, spec);
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        apps::fixed_selector(&mut errors, new.at("spec"), old.at("spec"));
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        apps::named_template_warnings(obj, old)
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        apps::status::REPLICAS.check(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let (names, images) = apps::containers(spec.at("template"));
        vec![
            api::meta::name(obj).into(),
            spec.int("replicas").unwrap_or(0).into(),
            status.int("replicas").unwrap_or(0).into(),
            status.int("readyReplicas").unwrap_or(0).into(),
            age::since_creation(obj, now).into(),
            names.into(),
            images.into(),
            metadata::format_selector(spec.at("selector")).into(),
        ]
    }

    fn scale(&self, obj: &Object) -> Option<Scale> {
        apps::scale(obj)
    }
}
