//! Deployments.

use crate::age;
use crate::apps::status::Counts;
use crate::apps::{self, SPEC};
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME};
use crate::core::pod::defaults;
use crate::field::{Errors, Fields, Path, map_mut, same, set_default};
use crate::rules::{self, Check, Rule};
use crate::{Ctx, Scale, StatusRules, Strategy, metadata};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Deployments.
pub struct Deployment;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready").describe("Number of the pod with ready state"),
    Column::string("Up-to-date").field("io.k8s.api.apps.v1.DeploymentStatus", "updatedReplicas"),
    Column::string("Available").field("io.k8s.api.apps.v1.DeploymentStatus", "availableReplicas"),
    AGE,
    CONTAINERS.wide(),
    IMAGES.wide(),
    Column::string("Selector").wide().field("io.k8s.api.apps.v1.DeploymentSpec", "selector"),
];
/// Beside the replicas and the selector, which are looked at before.
const RULES: &[Rule] = &[
    ("strategy", Check::By(strategy)),
    ("minReadySeconds", Check::NotNegative),
    ("revisionHistoryLimit", Check::NotNegative),
    ("progressDeadlineSeconds", Check::NotNegative),
];
const COUNTS: Counts = Counts {
    numbers: &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ],
    parts: &["updatedReplicas", "readyReplicas", "availableReplicas"],
    ready: "readyReplicas",
};

const STRATEGY: &str = "io.k8s.api.apps.v1.DeploymentStrategy";

impl Strategy for Deployment {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "replicas", 1);
            set_default(spec, "revisionHistoryLimit", 10);
            set_default(spec, "progressDeadlineSeconds", 600);
            map_mut(spec, "strategy").into_iter().for_each(|s| apps::rolling_defaults(s, "25%", "25%"));
            map_mut(spec, "template").into_iter().for_each(defaults::template);
        }
        map_mut(obj, "status");
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({})).keeps(&["labels"])
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, new: &Object, old: &Object) -> bool {
        let annotations = |object| Fields::at(object, "metadata").at("annotations");
        new.get("spec") != old.get("spec") || !same(annotations(new), annotations(old))
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        errors.non_negative(&SPEC.field("replicas"), spec.int("replicas").unwrap_or(0));
        apps::replicated(&mut errors, spec);
        rules::check(&mut errors, spec, &SPEC, RULES);
        let ready = spec.int("minReadySeconds").unwrap_or(0);
        if let Some(deadline) = spec.int("progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
            let path = SPEC.field("progressDeadlineSeconds");
            errors.invalid(&path, deadline, "must be greater than minReadySeconds");
        }
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
        COUNTS.check(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let of = |field: &str| status.int(field).unwrap_or(0);
        let (names, images) = apps::containers(spec.at("template"));
        vec![
            api::meta::name(obj).into(),
            format!("{}/{}", of("readyReplicas"), spec.int("replicas").unwrap_or(0)).into(),
            of("updatedReplicas").into(),
            of("availableReplicas").into(),
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

fn strategy(errors: &mut Errors, strategy: &Value, path: &Path<'_>) {
    let (rolling, path_of) = (strategy.at("rollingUpdate"), path.field("rollingUpdate"));
    match strategy.text("type") {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&path_of, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_null() => errors.required(&path_of, "this should be defaulted and never be nil"),
        "RollingUpdate" => rolling_update(errors, rolling, &path_of),
        _ => {
            let printed = || schema::internal_json(STRATEGY, strategy, schema::Layout::Compact);
            errors.not_supported_printed(path, printed, &["Recreate", "RollingUpdate"]);
        }
    }
}

fn rolling_update(errors: &mut Errors, rolling: &Value, path: &Path<'_>) {
    let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
    apps::int_or_percent(errors, unavailable, &path.field("maxUnavailable"));
    apps::int_or_percent(errors, surge, &path.field("maxSurge"));
    if apps::number(unavailable) == 0 && apps::number(surge) == 0 {
        errors.invalid(&path.field("maxUnavailable"), unavailable.clone(), "may not be 0 when `maxSurge` is 0");
    }
    apps::at_most_all(errors, unavailable, &path.field("maxUnavailable"));
}
