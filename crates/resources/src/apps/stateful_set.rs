//! Stateful sets.

use crate::age;
use crate::apps::status::Counts;
use crate::apps::{self, SPEC, SelectorWords};
use crate::columns::{AGE, CONTAINERS, IMAGES, NAME};
use crate::core::persistent_volume_claim;
use crate::core::pod::{defaults, template};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, same, set_default};
use crate::rules::{self, Check, Rule, each};
use crate::{Ctx, Scale, StatusRules, Strategy, copy_field, names};
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
    CONTAINERS.wide(),
    IMAGES.wide(),
];
const SHOWN: [&str; 2] = ["replicas", "availableReplicas"];
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
const COUNTS: Counts = Counts {
    numbers: &[
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ],
    parts: &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
    ready: "status.readyReplicas",
};
const NEW: &[Rule] = &[("volumeClaimTemplates", Check::Each(claim))];
const NUMBERS: &[Rule] =
    &[("replicas", Check::NotNegative), ("minReadySeconds", Check::NotNegative), ("ordinals", Check::By(ordinals))];
const POLICIES: &[Rule] = &[
    ("podManagementPolicy", Check::By(management)),
    ("updateStrategy", Check::By(strategy)),
    ("persistentVolumeClaimRetentionPolicy", Check::By(retention)),
];
const STRATEGY: &str = "io.k8s.api.apps.v1.StatefulSetUpdateStrategy";
const ROLLING: &str = "io.k8s.api.apps.v1.RollingUpdateStatefulSetStrategy";
const SELECTOR: SelectorWords = SelectorWords { kind: "statefulset", malformed: "" };

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
        apps::zero_counts(obj, &SHOWN);
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| SHOWN.iter().map(|count| (*count, 0)).collect())
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::dns1123_label(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        spec(obj.at("spec"), true, false).0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        // A set that would be refused today may still change in other ways.
        let was_wrong = !spec(old.at("spec"), false, false).is_empty();
        let mut errors = spec(new.at("spec"), false, was_wrong);
        let mut rest = new.at("spec").clone();
        CHANGEABLE.iter().for_each(|field| copy_field(&mut rest, old.at("spec"), field));
        if !same(&rest, old.at("spec")) {
            errors.forbidden(&SPEC, FIXED);
        }
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let mut out = apps::template_warnings(obj, old);
        each(obj.at("spec"), "volumeClaimTemplates", &SPEC, |claim, path| {
            // as upstream names it
            let path = path.field(if old.is_some() { "Spec" } else { "" });
            out.extend(persistent_volume_claim::spec_warnings(claim.at("spec"), &path));
        });
        if obj.at("spec").int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            out.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        out
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        COUNTS.check(new, old)
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
    if strategy.has("rollingUpdate") {
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

/// Claims and the service's name are checked when the set is made; they cannot change afterwards. `lenient`: the
/// template's pod is not looked at.
fn spec(spec: &Value, create: bool, lenient: bool) -> Errors {
    let mut errors = Errors::default();
    let new: &[Rule] = if create { NEW } else { &[] };
    [POLICIES, new, NUMBERS].iter().for_each(|rules| rules::check(&mut errors, spec, &SPEC, rules));
    if create {
        rules::check(&mut errors, spec, &SPEC, &[("serviceName", Check::MaybeNamed(names::label))]);
    }
    apps::selector_and_template(&mut errors, spec, &SELECTOR, |errors, of, at| {
        if !lenient {
            template::validate(errors, &complete(of, spec.list("volumeClaimTemplates")), at);
        }
        // Upstream looks at them twice.
        template::described(errors, of, at);
    });
    template::restart_always(&mut errors, spec.at("template"), "StatefulSet", &SPEC.field("template"));
    errors
}

fn management(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    match policy.as_str().unwrap_or("") {
        "OrderedReady" | "Parallel" => {}
        "" => errors.required(path, ""),
        other => errors.invalid(path, other, "must be 'OrderedReady' or 'Parallel'"),
    }
}

fn retention(errors: &mut Errors, policy: &Value, path: &Path<'_>) {
    const KEPT: Check = Check::Among(&["Retain", "Delete"]);
    if !policy.is_null() {
        rules::check(errors, policy, path, &[("whenDeleted", KEPT), ("whenScaled", KEPT)]);
    }
}

fn ordinals(errors: &mut Errors, ordinals: &Value, path: &Path<'_>) {
    rules::check(errors, ordinals, path, &[("start", Check::NotNegative)]);
}

fn claim(errors: &mut Errors, claim: &Value, path: &Path<'_>) {
    persistent_volume_claim::spec(errors, claim.at("spec"), &path.field("spec"));
}

fn strategy(errors: &mut Errors, strategy: &Value, path: &Path<'_>) {
    let (rolling, path_of) = (strategy.at("rollingUpdate"), path.field("rollingUpdate"));
    match strategy.text("type") {
        "" => errors.required(path, ""),
        "OnDelete" if !rolling.is_null() => {
            errors.invalid_struct(&path_of, ROLLING, rolling, "only allowed for updateStrategy 'RollingUpdate'");
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
        _ => {
            errors.invalid_struct(path, STRATEGY, strategy, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

/// The template with the volumes that the set's claims make, without the names that its pods get.
fn complete(template: &Value, claims: &[Value]) -> Value {
    let mut template = template.clone();
    let Some(spec) = template.get_mut("spec") else { return template };
    if let Some(map) = spec.as_object_mut() {
        map.remove("subdomain");
        map.remove("hostname");
    }
    let names: Vec<&str> = claims.iter().map(|c| c.at("metadata").text("name")).collect();
    let mut taken = std::collections::HashSet::new();
    let mut volumes: Vec<Value> = (names.into_iter().filter(|name| taken.insert(*name)))
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    volumes.extend(spec.list("volumes").iter().filter(|v| !taken.contains(v.text("name"))).cloned());
    if !volumes.is_empty() {
        spec["volumes"] = volumes.into();
    }
    template
}
