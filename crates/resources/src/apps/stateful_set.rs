//! Stateful sets.

use crate::age;
use crate::apps::{self, SPEC};
use crate::columns::{AGE, NAME};
use crate::core::persistent_volume_claim;
use crate::core::pod::{defaults, template};
use crate::field::{Errors, Fields, Path, go_struct, items_mut, map_mut, same, set_default};
use crate::{Ctx, Scale, Strategy, copy_field, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Stateful sets.
pub struct StatefulSet;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready").describe("Number of the pod with ready state"),
    AGE,
    Column::string("Containers").wide().describe("Names of each container in the template."),
    Column::string("Images").wide().describe("Images referenced by each container in the template."),
];
const COUNTS: [&str; 2] = ["replicas", "availableReplicas"];
const FIXED: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

impl Strategy for StatefulSet {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            set_default(spec, "replicas", 1);
            set_default(spec, "revisionHistoryLimit", 10);
            set_default(spec, "podManagementPolicy", "OrderedReady");
            if !spec.has("serviceName") {
                spec["serviceName"] = "".into();
            }
            map_mut(spec, "updateStrategy").into_iter().for_each(strategy_defaults);
            if let Some(policy) = map_mut(spec, "persistentVolumeClaimRetentionPolicy") {
                set_default(policy, "whenDeleted", "Retain");
                set_default(policy, "whenScaled", "Retain");
            }
            map_mut(spec, "template").into_iter().for_each(defaults::template);
            items_mut(spec, "volumeClaimTemplates").for_each(claim_defaults);
        }
        apps::zero_counts(obj, &COUNTS);
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({});
        apps::zero_counts(obj, &COUNTS);
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"), true);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, new.at("spec"), false);
        let mut rest = new.at("spec").clone();
        CHANGEABLE.iter().for_each(|field| copy_field(&mut rest, old.at("spec"), field));
        if !same(&rest, old.at("spec")) {
            errors.forbidden(&SPEC, FIXED);
        }
        errors.0
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut out = apps::template_warnings(obj);
        if obj.at("spec").int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        out
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let (mut errors, path, status) = (Errors::default(), Path::root("status"), new.at("status"));
        let of = |field: &str| status.int(field).unwrap_or(0);
        for field in [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ] {
            errors.non_negative(&path.field(field), of(field));
        }
        for field in ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
            if of(field) > of("replicas") {
                errors.invalid(&path.field(field), of(field), "cannot be greater than status.replicas");
            }
        }
        if of("availableReplicas") > of("readyReplicas") {
            let text = "cannot be greater than status.readyReplicas";
            errors.invalid(&path.field("availableReplicas"), of("availableReplicas"), text);
        }
        if of("collisionCount") < old.at("status").int("collisionCount").unwrap_or(0) {
            errors.invalid(&path.field("collisionCount"), of("collisionCount"), "cannot be decremented");
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let (names, images) = apps::containers(spec.at("template"));
        let ready = status.int("readyReplicas").unwrap_or(0);
        vec![
            api::meta::name(obj).into(),
            format!("{ready}/{}", spec.int("replicas").unwrap_or(0)).into(),
            age::since_creation(obj, now).into(),
            names.into(),
            images.into(),
        ]
    }

    fn scale(&self, obj: &Object) -> Option<Scale> {
        apps::scale(obj)
    }
}

fn strategy_defaults(strategy: &mut Value) {
    if strategy.text("type").is_empty() {
        strategy["type"] = "RollingUpdate".into();
        map_mut(strategy, "rollingUpdate");
    }
    if strategy.text("type") == "RollingUpdate" && strategy.has("rollingUpdate") {
        set_default(&mut strategy["rollingUpdate"], "partition", 0);
    }
}

/// The claims of a stateful set are whole objects, with type and status.
fn claim_defaults(claim: &mut Value) {
    claim["apiVersion"] = "v1".into();
    claim["kind"] = "PersistentVolumeClaim".into();
    map_mut(claim, "metadata");
    persistent_volume_claim::PersistentVolumeClaim.default(claim);
}

fn spec(errors: &mut Errors, spec: &Value, create: bool) {
    let path = SPEC.field("podManagementPolicy");
    match spec.text("podManagementPolicy") {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(&path, ""),
        other => errors.invalid(&path, other, "must be 'OrderedReady' or 'Parallel'"),
    }
    strategy(errors, spec.at("updateStrategy"), &SPEC.field("updateStrategy"));
    let (policy, path) =
        (spec.at("persistentVolumeClaimRetentionPolicy"), SPEC.field("persistentVolumeClaimRetentionPolicy"));
    for field in ["whenDeleted", "whenScaled"].into_iter().filter(|_| !policy.is_null()) {
        errors.supported(&path.field(field), policy.text(field), &["Retain", "Delete"]);
    }
    if create {
        claims(errors, spec, &SPEC.field("volumeClaimTemplates"));
    }
    for field in ["replicas", "minReadySeconds"] {
        errors.non_negative(&SPEC.field(field), spec.int(field).unwrap_or(0));
    }
    errors.non_negative(&SPEC.field("ordinals.start"), spec.at("ordinals").int("start").unwrap_or(0));
    let service = spec.text("serviceName");
    if create && !service.is_empty() {
        errors.invalid_each(&SPEC.field("serviceName"), service, names::dns1123_label(service, false));
    }
    selector_and_template(errors, spec);
}

fn strategy(errors: &mut Errors, strategy: &Value, path: &Path<'_>) {
    let (rolling, path_of) = (strategy.at("rollingUpdate"), path.field("rollingUpdate"));
    match strategy.text("type") {
        "" => errors.required(path, ""),
        "OnDelete" if !rolling.is_null() => {
            errors.invalid(&path_of, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            errors.non_negative(&path_of.field("partition"), rolling.int("partition").unwrap_or(0));
            if rolling.has("maxUnavailable") {
                let (value, path) = (rolling.at("maxUnavailable"), path_of.field("maxUnavailable"));
                apps::int_or_percent(errors, value, &path);
                if apps::number(value) == 0 {
                    errors.invalid(&path, value.clone(), "cannot be 0");
                }
                apps::at_most_all(errors, value, &path);
            }
        }
        other => {
            let printed = go_struct(&[("Type", other.into()), ("RollingUpdate", rolling.clone())]);
            errors.invalid_printed(path, &printed, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

fn claims(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    for (i, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        let item = path.index(i);
        persistent_volume_claim::spec(errors, claim.at("spec"), &item.field("spec"));
    }
}

/// The template is checked with the volumes that its claims make, without the names that pods get.
fn selector_and_template(errors: &mut Errors, spec: &Value) {
    let (selector, path) = (spec.at("selector"), SPEC.field("selector"));
    if selector.is_null() {
        errors.required(&path, "");
    } else {
        metadata::label_selector(errors, selector, &path);
        if metadata::selector_is_empty(selector) {
            errors.invalid_printed(&path, "{}", "empty selector is invalid for statefulset");
        }
    }
    let at = SPEC.field("template");
    let mut of = spec.at("template").clone();
    match metadata::selector_matches(selector, of.at("metadata").at("labels")) {
        None => errors.invalid_printed(&path, &apps::print_selector(selector), ""),
        Some(matches) => {
            if !matches {
                template::labels_mismatch(errors, &of, &at);
            }
            complete(&mut of, spec.list("volumeClaimTemplates"));
            template::validate(errors, &of, &at);
        }
    }
    template::restart_always(errors, spec.at("template"), "StatefulSet", &at);
}

fn complete(template: &mut Value, claims: &[Value]) {
    let Some(spec) = template.get_mut("spec") else { return };
    if let Some(map) = spec.as_object_mut() {
        map.remove("subdomain");
        map.remove("hostname");
    }
    let names: Vec<&str> = claims.iter().map(|c| c.at("metadata").text("name")).collect();
    let mut volumes: Vec<Value> =
        names.iter().map(|n| json!({"name": n, "persistentVolumeClaim": {"claimName": n}})).collect();
    volumes.extend(spec.list("volumes").iter().filter(|v| !names.contains(&v.text("name"))).cloned());
    if !volumes.is_empty() {
        spec["volumes"] = volumes.into();
    }
}
