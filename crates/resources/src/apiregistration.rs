//! `apiregistration.k8s.io`: API services.

use crate::age;
use crate::columns::NAME;
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::{Ctx, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// API services.
pub struct ApiService;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Service").describe("The reference to the service that hosts this API endpoint."),
    Column::string("Available").describe("Whether this service is available."),
    crate::columns::AGE,
];

impl Strategy for ApiService {
    fn default(&self, obj: &mut Object) {
        if let Some(service) = map_mut(obj, "spec").and_then(|s| field_mut(s, "service")) {
            set_default(service, "port", 443);
        }
        map_mut(obj, "status");
    }

    fn prepare_for_create(&self, ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({});
        // what this server serves itself is available
        if !obj.at("spec").has("service") {
            obj["status"] = json!({"conditions": [{"type": "Available", "status": "True", "reason": "Local",
                "lastTransitionTime": ctx.timestamp(), "message": "Local APIServices are always available"}]});
        }
    }

    /// The name of the core group's ends with a dot.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::path_segment(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        let (group, version, name) = (spec.text("group"), spec.text("version"), api::meta::name(obj));
        let want = format!("{version}.{group}");
        if name != want {
            errors.invalid(
                &Path::root("metadata.name"),
                name,
                &format!("must be `spec.version+\".\"+spec.group`: {want:?}"),
            );
        }
        if !group.is_empty() {
            errors.invalid_each(&SPEC.field("group"), group, names::dns1123_subdomain(group, false));
        }
        errors.invalid_each(&SPEC.field("version"), version, names::dns1035_label(version, false));
        for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let value = spec.int(field).unwrap_or(0);
            if value <= 0 || value > max {
                errors.invalid(
                    &SPEC.field(field),
                    value,
                    &format!("must be positive and less than {}", if max == 1000 { "1000" } else { "20000" }),
                );
            }
        }
        if let Some(service) = Some(spec.at("service")).filter(|s| !s.is_null()) {
            for field in ["namespace", "name"] {
                if service.text(field).is_empty() {
                    errors.required(&SPEC.field("service").field(field), "");
                }
            }
        } else {
            if !spec.text("caBundle").is_empty() {
                errors.invalid(
                    &SPEC.field("caBundle"),
                    spec.text("caBundle"),
                    "local APIServices may not have a caBundle",
                );
            }
            if spec.flag("insecureSkipTLSVerify") {
                let text = "local APIServices may not have insecureSkipTLSVerify";
                errors.invalid(&SPEC.field("insecureSkipTLSVerify"), true, text);
            }
        }
        if spec.flag("insecureSkipTLSVerify") && !spec.text("caBundle").is_empty() {
            let text = "may not be true if caBundle is present";
            errors.invalid(&SPEC.field("insecureSkipTLSVerify"), true, text);
        }
        errors.0
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            api::meta::set(new, field, old.at("metadata").at(field).clone());
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let service = obj.at("spec").at("service");
        let service = if service.is_null() {
            "Local".into()
        } else {
            format!("{}/{}", service.text("namespace"), service.text("name"))
        };
        let condition = obj.at("status").list("conditions").iter().find(|c| c.text("type") == "Available");
        let available = match condition {
            Some(c) if c.text("status") == "True" => "True".to_owned(),
            Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
            None => "Unknown".into(),
        };
        vec![api::meta::name(obj).into(), service.into(), available.into(), age::since_creation(obj, now).into()]
    }
}
