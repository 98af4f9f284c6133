//! CSI drivers.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, map_mut, repeated, same, set_default};
use crate::{Ctx, Strategy};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// CSI drivers.
pub struct CsiDriver;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column { kind: "boolean", ..Column::string("AttachRequired") }
        .field("io.k8s.api.storage.v1.CSIDriverSpec", "attachRequired"),
    Column { kind: "boolean", ..Column::string("PodInfoOnMount") }
        .field("io.k8s.api.storage.v1.CSIDriverSpec", "podInfoOnMount"),
    Column { kind: "boolean", ..Column::string("StorageCapacity") }
        .field("io.k8s.api.storage.v1.CSIDriverSpec", "storageCapacity"),
    Column::string("TokenRequests").field("io.k8s.api.storage.v1.CSIDriverSpec", "tokenRequests"),
    Column { kind: "boolean", ..Column::string("RequiresRepublish") }
        .field("io.k8s.api.storage.v1.CSIDriverSpec", "requiresRepublish"),
    Column::string("Modes").field("io.k8s.api.storage.v1.CSIDriverSpec", "volumeLifecycleModes"),
    AGE,
];

impl Strategy for CsiDriver {
    fn default(&self, obj: &mut Object) {
        let Some(spec) = map_mut(obj, "spec") else { return };
        for (field, value) in [
            ("attachRequired", json!(true)),
            ("podInfoOnMount", json!(false)),
            ("storageCapacity", json!(false)),
            ("requiresRepublish", json!(false)),
            ("seLinuxMount", json!(false)),
            ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
        ] {
            set_default(spec, field, value);
        }
        if spec.list("volumeLifecycleModes").is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        // behind a gate that is off
        map_mut(obj, "spec").and_then(Value::as_object_mut).map(|spec| spec.remove("preventPodSchedulingIfMissing"));
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let spec = obj.at("spec");
        let exposed = !spec.list("tokenRequests").is_empty() && !spec.has("serviceAccountTokenInSecrets");
        let text = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                    possible logging of tokens in volume attributes";
        let is_new = old.is_none_or(|old| !same(old.at("spec").at("tokenRequests"), spec.at("tokenRequests")));
        if is_new && exposed { vec![text.into()] } else { Vec::new() }
    }

    /// The generation starts at none and counts changes.
    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        if !old.at("spec").has("preventPodSchedulingIfMissing") {
            map_mut(new, "spec")
                .and_then(Value::as_object_mut)
                .map(|spec| spec.remove("preventPodSchedulingIfMissing"));
        }
        if !same(new.at("spec"), old.at("spec")) {
            api::meta::set(new, "generation", api::meta::generation(old) + 1);
        }
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"));
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (now, was) = (new.at("spec"), old.at("spec"));
        spec(&mut errors, now);
        for field in ["attachRequired", "volumeLifecycleModes"] {
            errors.immutable(
                &SPEC.field(if field == "attachRequired" { "attachedRequired" } else { field }),
                now.at(field),
                was.at(field),
            );
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let audiences: Vec<&str> = spec.list("tokenRequests").iter().map(|t| t.text("audience")).collect();
        let modes = spec.texts("volumeLifecycleModes");
        let or_unset = |list: Vec<&str>| if list.is_empty() { "<unset>".into() } else { list.join(",") };
        vec![
            api::meta::name(obj).into(),
            spec.at("attachRequired").as_bool().unwrap_or(true).into(),
            spec.flag("podInfoOnMount").into(),
            spec.flag("storageCapacity").into(),
            or_unset(audiences).into(),
            spec.flag("requiresRepublish").into(),
            if modes.is_empty() { "<none>".into() } else { modes.join(",") }.into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn spec(errors: &mut Errors, spec: &Value) {
    for field in ["attachRequired", "podInfoOnMount", "storageCapacity"].into_iter().filter(|f| !spec.has(f)) {
        errors.required(&SPEC.field(field), "");
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    errors.supported(&SPEC.field("fsGroupPolicy"), spec.text("fsGroupPolicy"), &policies);
    let path = SPEC.field("tokenRequests");
    let list = spec.list("tokenRequests");
    let twice = repeated(list.iter().map(|request| request.text("audience")));
    for (i, request) in list.iter().enumerate() {
        let (item, audience) = (path.index(i), request.text("audience"));
        if twice[i] {
            errors.duplicate(&item.field("audience"), audience);
            continue;
        }
        if let Some(seconds) = request.int("expirationSeconds") {
            if seconds < 600 {
                let text = "may not specify a duration less than 10 minutes";
                errors.invalid(&item.field("expirationSeconds"), seconds, text);
            }
            if seconds > 1 << 32 {
                let text = "may not specify a duration larger than 2^32 seconds";
                errors.invalid(&item.field("expirationSeconds"), seconds, text);
            }
        }
    }
    for mode in spec.texts("volumeLifecycleModes") {
        errors.supported(&SPEC.field("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(seconds) = spec.int("nodeAllocatableUpdatePeriodSeconds").filter(|s| *s < 10) {
        let text = "must be greater than or equal to 10 seconds";
        errors.invalid(&SPEC.field("nodeAllocatableUpdatePeriodSeconds"), seconds, text);
    }
    if spec.has("serviceAccountTokenInSecrets") && list.is_empty() {
        let text = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        let field = "serviceAccountTokenInSecrets";
        errors.invalid(&SPEC.field(field), spec.at(field).clone(), text);
    }
}
