//! `resource.k8s.io`: dynamic resource allocation.

mod device;
mod request_policy;
mod requests;
mod selector;
mod status;

use device::Limits;
use requests::Requests;

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::pod::affinity;
use crate::field::{Errors, Fields, Path, items_mut, map_mut, repeated, same, set_default};
use crate::rules::each;
use crate::{Ctx, MetadataChecks, StatusRules, Strategy, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;

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

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        // What it makes is judged, not the prefix.
        if prefix { Vec::new() } else { names::long_name(name, prefix) }
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        class_spec(obj.at("spec"), Limits::New).0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let (spec, was) = (new.at("spec"), old.at("spec"));
        let stored = same(spec.at("config"), was.at("config"));
        class_spec(spec, if stored { Limits::Stored } else { Limits::New }).0
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

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({})).keeps(crate::METADATA)
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        self.status_rules().keep(new, old);
        status::drop_deallocated(new, old);
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        status::check(new, old)
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
        metadata::of_template(&mut errors, obj.at("spec").at("metadata"), &SPEC.field("metadata"));
        claim_spec(&mut errors, obj.at("spec").at("spec"), &SPEC.field("spec"));
        errors.0
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
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
        slice_spec(obj.at("spec"), None).0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        slice_spec(new.at("spec"), Some(old.at("spec"))).0
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
        vec![
            api::meta::name(obj).into(),
            spec.text("nodeName").into(),
            spec.text("driver").into(),
            spec.at("pool").text("name").into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

/// Errors of a slice; what may not change is judged before where it is.
fn slice_spec(spec: &Value, old: Option<&Value>) -> Errors {
    let mut errors = Errors::default();
    device::driver_name(&mut errors, spec.text("driver"), &SPEC.field("driver"));
    let (pool, path) = (spec.at("pool"), SPEC.field("pool"));
    device::pool_name(&mut errors, pool.text("name"), &path.field("name"));
    if pool.int("resourceSliceCount").unwrap_or(0) <= 0 {
        let count = pool.int("resourceSliceCount").unwrap_or(0);
        errors.invalid(&path.field("resourceSliceCount"), count, "must be greater than zero");
    }
    if let Some(generation) = pool.int("generation").filter(|generation| *generation < 0) {
        errors.invalid(&path.field("generation"), generation, "must be greater than or equal to zero");
    }
    if let Some(old) = old {
        errors.immutable(&path.field("name"), pool.at("name"), old.at("pool").at("name"));
        for field in ["driver", "nodeName"] {
            errors.immutable(&SPEC.field(field), spec.at(field), old.at(field));
        }
    }
    placement(&mut errors, spec);
    if spec.has("sharedCounters") && spec.has("devices") {
        errors.invalid(&SPEC, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    devices(&mut errors, spec, old);
    device::shared_counters(&mut errors, spec.list("sharedCounters"), &SPEC.field("sharedCounters"));
    errors
}

/// Errors of a slice's devices; those with much to say are fewer.
fn devices(errors: &mut Errors, spec: &Value, old: Option<&Value>) {
    let (list, path) = (spec.list("devices"), SPEC.field("devices"));
    let max = if list.iter().any(device::is_advanced) { DEVICES_MAX / 2 } else { DEVICES_MAX };
    if !errors.at_most(&path, list, max) {
        return;
    }
    let before: HashMap<&str, &Value> = old
        .map_or(&[][..], |old| old.list("devices"))
        .iter()
        .rev()
        .map(|device| (device.text("name"), device))
        .collect();
    for (i, device) in list.iter().enumerate() {
        let was = before.get(device.text("name")).copied();
        device::device(errors, device, was, spec.flag("perDeviceNodeSelection"), &path.index(i));
    }
    let twice = repeated(list.iter().map(|device| device.text("name")));
    for (i, device) in list.iter().enumerate().filter(|(i, _)| twice[*i]) {
        errors.duplicate(&path.index(i), device.text("name"));
    }
}

fn placement(errors: &mut Errors, spec: &Value) {
    let mut set = Vec::new();
    match (spec.has("nodeName"), spec.text("nodeName")) {
        (false, _) => {}
        (true, "") => {
            errors.invalid(&SPEC.field("nodeName"), "", "must be either unset or set to a non-empty string");
        }
        (true, node) => {
            set.push("`nodeName`");
            errors.invalid_each(&SPEC.field("nodeName"), node, names::dns1123_subdomain(node, false));
        }
    }
    if spec.has("nodeSelector") {
        set.push("`nodeSelector`");
        let (selector, path) = (spec.at("nodeSelector"), SPEC.field("nodeSelector"));
        affinity::node_selector(errors, selector, &path);
        if selector.list("nodeSelectorTerms").len() != 1 {
            let schema = "io.k8s.api.core.v1.NodeSelectorTerm";
            let printed = || internal_list(schema, selector.at("nodeSelectorTerms"));
            let path = path.field("nodeSelectorTerms");
            errors.invalid_printed(&path, printed, "must have exactly one node selector term");
        }
    }
    for (field, quoted) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match spec.at(field) {
            Value::Bool(true) => set.push(quoted),
            Value::Bool(false) => errors.invalid(&SPEC.field(field), false, "must be either unset or set to true"),
            _ => {}
        }
    }
    let text = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.required(&SPEC, text),
        1 => {}
        _ => {
            let text = format!("{text}, but multiple fields are set");
            errors.invalid(&SPEC, format!("{{{}}}", set.join(", ")), &text);
        }
    }
}

/// A list of structs as Go prints the JSON of their internal type.
fn internal_list(schema: &str, list: &Value) -> String {
    let Some(items) = list.as_array() else { return "null".into() };
    let items: Vec<String> =
        items.iter().map(|item| schema::internal_json(schema, item, schema::Layout::Compact)).collect();
    format!("[{}]", items.join(","))
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

const ONE_OF: &str = "exactly one of `exactly` or `firstAvailable` is required";

/// Devices of a slice.
const DEVICES_MAX: usize = 128;
/// Requests, configurations and constraints of a claim.
const ITEMS_MAX: usize = 32;
/// Alternatives of a request.
const SUBREQUESTS_MAX: usize = 8;

/// Errors of a class; `limits` are those of its configurations.
fn class_spec(spec: &Value, limits: Limits) -> Errors {
    let mut errors = Errors::default();
    selector::check(&mut errors, spec, &SPEC.field("selectors"));
    if errors.at_most(&SPEC.field("config"), spec.list("config"), ITEMS_MAX) {
        each(spec, "config", &SPEC, |config, path| device::configuration(&mut errors, config, limits, path));
    }
    let name = spec.at("extendedResourceName");
    if name.as_str().is_some_and(|name| !crate::core::quantities::is_extended(name)) {
        errors.invalid(&SPEC.field("extendedResourceName"), name.clone(), "must be a valid extended resource name");
    }
    errors
}

fn claim_spec(errors: &mut Errors, spec: &Value, path: &Path<'_>) {
    let (devices, path) = (spec.at("devices"), path.field("devices"));
    let (requests, list) = (devices.list("requests"), path.field("requests"));
    // A list that is too long is not looked into.
    if errors.at_most(&list, requests, ITEMS_MAX) {
        requests.iter().enumerate().for_each(|(i, request)| claim_request(errors, request, &list.index(i)));
        let twice = repeated(requests.iter().map(|request| request.text("name")));
        for (i, request) in requests.iter().enumerate().filter(|(i, _)| twice[*i]) {
            errors.duplicate(&list.index(i), request.text("name"));
        }
    }
    let names = Requests::of(devices);
    if errors.at_most(&path.field("constraints"), devices.list("constraints"), ITEMS_MAX) {
        each(devices, "constraints", &path, |constraint, path| {
            names.references(errors, constraint, &path.field("requests"));
            claim_constraint(errors, constraint, path);
        });
    }
    if errors.at_most(&path.field("config"), devices.list("config"), ITEMS_MAX) {
        each(devices, "config", &path, |config, path| {
            names.references(errors, config, &path.field("requests"));
            device::configuration(errors, config, Limits::New, path);
        });
    }
}

/// A request is for some devices, or for the first that can be had of several.
fn claim_request(errors: &mut Errors, request: &Value, path: &Path<'_>) {
    let (name, first) = (request.text("name"), request.list("firstAvailable"));
    errors.invalid_each(&path.field("name"), name, names::label(name));
    match (request.has("exactly"), first.is_empty()) {
        (false, true) => errors.required(path, ONE_OF),
        (true, false) => errors.invalid(path, Value::Null, &format!("{ONE_OF}, but multiple fields are set")),
        (true, true) => device_request(errors, request.at("exactly"), &path.field("exactly")),
        (false, false) if !errors.at_most(&path.field("firstAvailable"), first, SUBREQUESTS_MAX) => {}
        (false, false) => {
            let list = path.field("firstAvailable");
            for (i, sub) in first.iter().enumerate() {
                let (path, name) = (list.index(i), sub.text("name"));
                errors.invalid_each(&path.field("name"), name, names::label(name));
                device_request(errors, sub, &path);
            }
            let twice = repeated(first.iter().map(|sub| sub.text("name")));
            for (i, sub) in first.iter().enumerate().filter(|(i, _)| twice[*i]) {
                errors.duplicate(&list.index(i), sub.text("name"));
            }
        }
    }
}

fn claim_constraint(errors: &mut Errors, constraint: &Value, path: &Path<'_>) {
    match ["matchAttribute", "distinctAttribute"].into_iter().find(|field| constraint.has(field)) {
        Some(field) => device::full_name(errors, constraint.text(field), &path.field(field)),
        None => {
            let text =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.required(path, text);
        }
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
