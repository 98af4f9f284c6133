//! `resource.k8s.io`: dynamic resource allocation. Expressions are checked for presence only.

mod device;
mod selector;

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, same, set_default};
use crate::{Ctx, MetadataChecks, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Device classes.
pub struct DeviceClass;
/// Resource claims.
pub struct ResourceClaim;
/// Templates of resource claims.
pub struct ResourceClaimTemplate;
/// Resource slices.
pub struct ResourceSlice;

const CLAIM_SPEC: &str = "io.k8s.api.resource.v1.ResourceClaimSpec";
const TEMPLATE_SPEC: &str = "io.k8s.api.resource.v1.ResourceClaimTemplateSpec";
const SPEC: Path<'_> = Path::root("spec");
const CLASS_COLUMNS: &[Column] = &[NAME, AGE];
const CLAIM_COLUMNS: &[Column] = &[
    NAME,
    Column::string("State").describe("A summary of the current state (allocated, pending, reserved, etc.)."),
    AGE,
];
const TEMPLATE_COLUMNS: &[Column] = &[NAME, AGE];
const SLICE_COLUMNS: &[Column] = &[
    NAME,
    Column::string("Node").field("io.k8s.api.resource.v1.ResourceSliceSpec", "nodeName"),
    Column::string("Driver").field("io.k8s.api.resource.v1.ResourceSliceSpec", "driver"),
    Column::string("Pool").field("io.k8s.api.resource.v1.ResourcePool", "name"),
    AGE,
];

impl Strategy for DeviceClass {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec");
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        selector::check(&mut errors, obj.at("spec"), &SPEC.field("selectors"));
        let configs = SPEC.field("config");
        for (i, config) in obj.at("spec").list("config").iter().enumerate() {
            device::configuration(&mut errors, config, &configs.index(i));
        }
        let name = obj.at("spec").at("extendedResourceName");
        if name.as_str().is_some_and(|name| !crate::core::quantities::is_extended(name)) {
            errors.invalid(&SPEC.field("extendedResourceName"), name.clone(), "must be a valid extended resource name");
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        CLASS_COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), age::since_creation(obj, now).into()]
    }
}

impl Strategy for ResourceClaim {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec").into_iter().for_each(claim_defaults);
        map_mut(obj, "status");
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({});
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        claim_spec(&mut errors, obj.at("spec"), &SPEC);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        if !same(new.at("spec"), old.at("spec")) {
            errors.invalid_struct(&SPEC, CLAIM_SPEC, new.at("spec"), crate::field::IMMUTABLE);
        }
        errors.0
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
    }

    fn columns(&self) -> &'static [Column] {
        CLAIM_COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let status = obj.at("status");
        let mut states = Vec::new();
        if api::meta::is_deleting(obj) {
            states.push("deleted");
        }
        match (status.has("allocation"), status.list("reservedFor").is_empty()) {
            (false, _) if states.is_empty() => states.push("pending"),
            (true, true) => states.push("allocated"),
            (true, false) => states.extend(["allocated", "reserved"]),
            _ => {}
        }
        vec![api::meta::name(obj).into(), states.join(",").into(), age::since_creation(obj, now).into()]
    }
}

impl Strategy for ResourceClaimTemplate {
    fn default(&self, obj: &mut Object) {
        let Some(spec) = map_mut(obj, "spec") else { return };
        map_mut(spec, "metadata");
        map_mut(spec, "spec").into_iter().for_each(claim_defaults);
    }

    fn has_status(&self) -> bool {
        false
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        claim_spec(&mut errors, obj.at("spec").at("spec"), &SPEC.field("spec"));
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let spec = new.at("spec");
        if !same(spec, old.at("spec")) {
            errors.invalid_struct(&SPEC, TEMPLATE_SPEC, spec, crate::field::IMMUTABLE);
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        TEMPLATE_COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), age::since_creation(obj, now).into()]
    }
}

impl Strategy for ResourceSlice {
    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let (mut errors, spec) = (Errors::default(), obj.at("spec"));
        device::driver_name(&mut errors, spec.text("driver"), &SPEC.field("driver"));
        let (pool, path) = (spec.at("pool"), SPEC.field("pool"));
        match pool.text("name") {
            "" => errors.required(&path.field("name"), ""),
            name => {
                for part in name.split('/') {
                    errors.invalid_each(&path.field("name"), part, names::dns1123_subdomain(part, false));
                }
            }
        }
        if pool.int("resourceSliceCount").unwrap_or(0) <= 0 {
            let count = pool.int("resourceSliceCount").unwrap_or(0);
            errors.invalid(&path.field("resourceSliceCount"), count, "must be greater than zero");
        }
        errors.non_negative(&path.field("generation"), pool.int("generation").unwrap_or(0));
        placement(&mut errors, spec);
        let devices = SPEC.field("devices");
        for (i, device) in spec.list("devices").iter().enumerate() {
            let (item, name) = (devices.index(i), device.text("name"));
            device::device(&mut errors, device, spec.flag("perDeviceNodeSelection"), &item);
            if spec.list("devices")[..i].iter().any(|d| d.text("name") == name) {
                errors.duplicate(&item, name);
            }
        }
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        let (now, was) = (new.at("spec"), old.at("spec"));
        for field in ["driver", "nodeName"] {
            errors.immutable(&SPEC.field(field), now.at(field), was.at(field));
        }
        let (now, was) = (now.at("pool").at("name"), was.at("pool").at("name"));
        errors.immutable(&SPEC.field("pool.name"), now, was);
        errors.0
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        let spec = obj.at("spec");
        vec![("spec.nodeName", spec.text("nodeName").into()), ("spec.driver", spec.text("driver").into())]
    }

    fn columns(&self) -> &'static [Column] {
        SLICE_COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let node = if spec.has("nodeName") { spec.text("nodeName") } else { "<unset>" };
        vec![
            api::meta::name(obj).into(),
            node.into(),
            spec.text("driver").into(),
            spec.at("pool").text("name").into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn placement(errors: &mut Errors, spec: &Value) {
    let set = [
        !spec.text("nodeName").is_empty(),
        spec.has("nodeSelector"),
        spec.flag("allNodes"),
        spec.flag("perDeviceNodeSelection"),
    ];
    if spec.at("allNodes") == &Value::Bool(false) {
        errors.invalid(&SPEC.field("allNodes"), false, "must be either unset or set to true");
    }
    let node = spec.text("nodeName");
    if !node.is_empty() {
        errors.invalid_each(&SPEC.field("nodeName"), node, names::dns1123_subdomain(node, false));
    }
    let text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.iter().filter(|s| **s).count() {
        0 => errors.required(&SPEC, text),
        1 => {}
        _ => errors.invalid(&SPEC, "{}", text),
    }
}

fn claim_defaults(spec: &mut Value) {
    let Some(devices) = map_mut(spec, "devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            count_defaults(exactly);
        }
        items_mut(request, "firstAvailable").for_each(count_defaults);
    }
}

fn count_defaults(request: &mut Value) {
    set_default(request, "allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.int("count").unwrap_or(0) == 0 {
        request["count"] = 1.into();
    }
    for toleration in items_mut(request, "tolerations") {
        set_default(toleration, "operator", "Equal");
    }
}

fn claim_spec(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (devices, path) = (spec.at("devices"), path.field("devices"));
    let requests = devices.list("requests");
    let list = path.field("requests");
    if requests.len() > 32 {
        errors.too_many(&list, requests.len(), 32);
    }
    for (i, request) in requests.iter().enumerate() {
        let (item, name) = (list.index(i), request.text("name"));
        errors.invalid_each(&item.field("name"), name, names::dns1123_label(name, false));
        let (exactly, first) = (request.at("exactly"), request.list("firstAvailable"));
        match (exactly.is_null(), first.is_empty()) {
            (true, true) => errors.required(&item, "exactly one of `exactly` or `firstAvailable` is required"),
            (false, false) => {
                let text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.invalid(&item, Value::Null, text);
            }
            (false, true) => device_request(errors, exactly, &item.field("exactly")),
            (true, false) => {
                let list = item.field("firstAvailable");
                first.iter().enumerate().for_each(|(j, r)| device_request(errors, r, &list.index(j)));
            }
        }
    }
    for (i, request) in requests.iter().enumerate() {
        let name = request.text("name");
        if requests[..i].iter().any(|r| r.text("name") == name) {
            errors.duplicate(&list.index(i), name);
        }
    }
    let configs = path.field("config");
    for (i, config) in devices.list("config").iter().enumerate() {
        let item = configs.index(i);
        let names_path = item.field("requests");
        for (j, name) in config.texts("requests").into_iter().enumerate() {
            request_name(errors, name, requests, &names_path.index(j));
        }
        device::configuration(errors, config, &item);
    }
    let list = path.field("constraints");
    for (i, constraint) in devices.list("constraints").iter().enumerate() {
        let item = list.index(i);
        let names_path = item.field("requests");
        for (j, name) in constraint.texts("requests").into_iter().enumerate() {
            request_name(errors, name, requests, &names_path.index(j));
        }
        match ["matchAttribute", "distinctAttribute"].into_iter().find(|field| constraint.has(field)) {
            Some(field) => device::full_name(errors, constraint.text(field), &item.field(field)),
            None => {
                let text = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
                errors.required(&item, text);
            }
        }
    }
}

fn request_name(errors: &mut Errors, name: &str, requests: &[Value], path: &Path<'_>) {
    let (main, sub) = name.split_once('/').unwrap_or((name, ""));
    let request = requests.iter().find(|r| r.text("name") == main);
    let known =
        request.is_some_and(|r| sub.is_empty() || r.list("firstAvailable").iter().any(|s| s.text("name") == sub));
    if !known {
        let text =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        errors.invalid(path, name, text);
    }
}

fn device_request(errors: &mut Errors, request: &Value, path: &Path<'_>) {
    match request.text("deviceClassName") {
        "" => errors.required(&path.field("deviceClassName"), ""),
        name => errors.invalid_each(&path.field("deviceClassName"), name, names::dns1123_subdomain(name, false)),
    }
    selector::check(errors, request, &path.field("selectors"));
    let tolerations = path.field("tolerations");
    for (i, toleration) in request.list("tolerations").iter().enumerate() {
        device::toleration(errors, toleration, &tolerations.index(i));
    }
    let count = request.int("count").unwrap_or(0);
    match request.text("allocationMode") {
        "All" if count != 0 => {
            errors.invalid(&path.field("count"), count, "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if count <= 0 => errors.invalid(&path.field("count"), count, "must be greater than zero"),
        "ExactCount" => {}
        other => errors.not_supported(&path.field("allocationMode"), other, &["All", "ExactCount"]),
    }
}
