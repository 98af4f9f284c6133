//! `apiregistration.k8s.io`: API services.

use crate::age;
use crate::columns::NAME;
use crate::field::{Errors, Fields, Path, field_mut, map_mut, set_default};
use crate::rules::{self, Check, Rule};
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
const SERVICE: &[Rule] = &[("namespace", Check::Given("")), ("name", Check::Given(""))];

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
        let (mut errors, spec, name) = (Errors::default(), obj.at("spec"), api::meta::name(obj));
        let (group, version) = (spec.text("group"), spec.text("version"));
        let want = format!("{version}.{group}");
        if name != want {
            let text = format!("must be `spec.version+\".\"+spec.group`: {want:?}");
            errors.invalid(&Path::root("metadata.name"), name, &text);
        }
        rules::check(&mut errors, spec, &SPEC, &[("group", Check::MaybeNamed(names::subdomain))]);
        errors.invalid_each(&SPEC.field("version"), version, names::dns1035_label(version, false));
        for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let value = spec.int(field).unwrap_or(0);
            if !(1..=max).contains(&value) {
                errors.invalid(&SPEC.field(field), value, &format!("must be positive and less than {max}"));
            }
        }
        match spec.at("service") {
            Value::Null => local(&mut errors, spec),
            service => rules::check(&mut errors, service, &SPEC.field("service"), SERVICE),
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

/// What this server serves itself needs no trust in another.
fn local(errors: &mut Errors, spec: &Value) {
    let (bundle, skips) = (spec.text("caBundle"), spec.flag("insecureSkipTLSVerify"));
    if !bundle.is_empty() {
        errors.invalid(&SPEC.field("caBundle"), bundle, "local APIServices may not have a caBundle");
    }
    if skips {
        let text = "local APIServices may not have insecureSkipTLSVerify";
        errors.invalid(&SPEC.field("insecureSkipTLSVerify"), true, text);
    }
}
