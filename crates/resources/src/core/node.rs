//! Nodes.

use crate::age;
use crate::columns::{AGE, NAME, or_none};
use crate::core::pod::taint_effect;
use crate::core::quantities::{amount, round_up};
use crate::field::{Errors, Fields, Path, field_mut, go_struct, map_mut, repeated};
use crate::{Ctx, Strategy, copy_field, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Nodes.
pub struct Node;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status").describe("The status of the node"),
    Column::string("Roles").describe("The roles of the node"),
    AGE,
    Column::string("Version").field("io.k8s.api.core.v1.NodeSystemInfo", "kubeletVersion"),
    Column::string("Internal-IP").wide().field("io.k8s.api.core.v1.NodeStatus", "addresses"),
    Column::string("External-IP").wide().field("io.k8s.api.core.v1.NodeStatus", "addresses"),
    Column::string("OS-Image").wide().field("io.k8s.api.core.v1.NodeSystemInfo", "osImage"),
    Column::string("Kernel-Version").wide().field("io.k8s.api.core.v1.NodeSystemInfo", "kernelVersion"),
    Column::string("Container-Runtime").wide().field("io.k8s.api.core.v1.NodeSystemInfo", "containerRuntimeVersion"),
];
const ROLE: &str = "node-role.kubernetes.io/";
const FIXED_CIDR: &str = "node updates may not change podCIDR except from \"\" to valid";

impl Strategy for Node {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            pod_cidrs(spec);
        }
        if let Some(status) = map_mut(obj, "status") {
            if !status.has("allocatable") && status.has("capacity") {
                status["allocatable"] = status.at("capacity").clone();
            }
            for list in ["capacity", "allocatable"] {
                field_mut(status, list).into_iter().for_each(round_up);
            }
            if let Some(endpoints) = map_mut(status, "daemonEndpoints").and_then(|d| map_mut(d, "kubeletEndpoint")) {
                if !endpoints.has("Port") {
                    endpoints["Port"] = 0.into();
                }
            }
            if let Some(info) = map_mut(status, "nodeInfo") {
                for field in NODE_INFO {
                    if !info.has(field) {
                        info[field] = "".into();
                    }
                }
            }
        }
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, _obj: &mut Object) {
        // a kubelet brings its status along
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        taints(&mut errors, obj);
        resources(&mut errors, obj);
        let swap = obj.at("status").at("nodeInfo").at("swap").int("capacity");
        if let Some(capacity) = swap.filter(|capacity| *capacity <= 0) {
            errors.invalid(&Path::root("metadata.nodeSwapStatus.capacity"), capacity, "must be greater than 0");
        }
        declared_features(&mut errors, obj);
        cidrs(&mut errors, obj.at("spec"));
        errors.0
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let spec = obj.at("spec");
        let texts = [
            ("configSource", "spec.configSource: the feature is removed"),
            ("externalID", "spec.externalID: this field is deprecated, and is unused by Kubernetes"),
        ];
        let mut out: Vec<String> =
            texts.into_iter().filter(|(field, _)| spec.has(field)).map(|(_, text)| text.to_owned()).collect();
        crate::rules::each_text(spec, "podCIDRs", &Path::root("spec"), |cidr, path| {
            out.extend(names::cidr_warnings(cidr).into_iter().map(|why| format!("{path}: {why}")));
        });
        out
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        // Upstream asks both, and so tells some errors twice.
        let mut errors = self.validate(ctx, new);
        errors.extend(changes(new, old).0);
        errors
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
        // The feature is gone, and nothing else may set it.
        if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
            status.remove("config");
        }
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        changes(new, old).0
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", obj.at("spec").flag("unschedulable").to_string())]
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn metadata_on_status_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Update
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let info = obj.at("status").at("nodeInfo");
        let unknown = |field: &str| if info.text(field).is_empty() { "<unknown>" } else { info.text(field) };
        vec![
            api::meta::name(obj).into(),
            status_word(obj).into(),
            or_none(&roles(obj)),
            age::since_creation(obj, now).into(),
            info.text("kubeletVersion").into(),
            address(obj, "InternalIP").into(),
            address(obj, "ExternalIP").into(),
            unknown("osImage").into(),
            match info.text("architecture") {
                "" => unknown("kernelVersion").into(),
                architecture => format!("{} ({architecture})", unknown("kernelVersion")).into(),
            },
            unknown("containerRuntimeVersion").into(),
        ]
    }
}

const NODE_INFO: [&str; 10] = [
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
];

/// `podCIDR` is the first of `podCIDRs`.
fn pod_cidrs(spec: &mut Value) {
    let (one, many) = (spec.text("podCIDR").to_owned(), spec.list("podCIDRs").len());
    match (one.is_empty(), many) {
        // older clients know the one field alone
        (false, _) if spec.list("podCIDRs").first().is_none_or(|first| *first != one) => {
            spec["podCIDRs"] = json!([one])
        }
        (true, 1..) => spec["podCIDR"] = spec.list("podCIDRs")[0].clone(),
        _ => {}
    }
}

fn taints(errors: &mut Errors, obj: &Object) {
    let path = Path::root("metadata.taints");
    let list = obj.at("spec").list("taints");
    let twice = repeated(list.iter().map(|taint| (taint.text("key"), taint.text("effect"))));
    for (i, taint) in list.iter().enumerate() {
        let (item, key, value) = (path.index(i), taint.text("key"), taint.text("value"));
        errors.invalid_each(&item.field("key"), key, names::label_key(key));
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.invalid(&item.field("value"), value, &wrong.join(";"));
        }
        taint_effect(errors, taint.text("effect"), false, &item.field("effect"));
        if twice[i] {
            let fields = [
                ("Key", key.into()),
                ("Value", value.into()),
                ("Effect", taint.text("effect").into()),
                ("TimeAdded", taint.at("timeAdded").clone()),
            ];
            let printed = || format!("{}: taints must be unique by key and effect pair", go_struct(&fields));
            errors.duplicate_printed(&item, printed);
        }
    }
}

/// Errors of a change, of the node or of its status alone.
fn changes(new: &Object, old: &Object) -> Errors {
    let mut errors = Errors::default();
    resources(&mut errors, new);
    declared_features(&mut errors, new);
    addresses(&mut errors, new);
    let (now, was) = (new.at("spec"), old.at("spec"));
    set_once(&mut errors, now, was);
    taints(&mut errors, new);
    if was.text("externalID") != now.text("externalID") {
        errors.forbidden(&Path::root("spec.externalID"), "may not be updated");
    }
    errors
}

/// Errors of addresses that are given twice.
fn addresses(errors: &mut Errors, obj: &Object) {
    let (list, path) = (obj.at("status").list("addresses"), Path::root("status.addresses"));
    let twice = repeated(list.iter().map(|address| (address.text("type"), address.text("address"))));
    for (i, address) in list.iter().enumerate().filter(|(i, _)| twice[*i]) {
        let fields = [("Type", address.at("type").clone()), ("Address", address.at("address").clone())];
        errors.duplicate_printed(&path.index(i), || go_struct(&fields));
    }
}

/// Errors of fields that a cloud or controller sets, and nobody again.
fn set_once(errors: &mut Errors, now: &Value, was: &Value) {
    let (has, had) = (now.list("podCIDRs"), was.list("podCIDRs"));
    let changed = match had.len() {
        0 => 0,
        count if count != has.len() => 1,
        _ => had.iter().zip(has).filter(|(was, now)| was != now).count(),
    };
    (0..changed).for_each(|_| errors.forbidden(&Path::root("spec.podCIDRs"), FIXED_CIDR));
    if !was.text("providerID").is_empty() && was.text("providerID") != now.text("providerID") {
        let text = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&Path::root("spec.providerID"), text);
    }
}

/// Errors of the features that a kubelet declares, which are in order.
fn declared_features(errors: &mut Errors, obj: &Object) {
    let (list, path) = (obj.at("status").texts("declaredFeatures"), Path::root("status.declaredFeatures"));
    for (i, name) in list.iter().enumerate() {
        if let Some(previous) = i.checked_sub(1).map(|before| list[before]) {
            match previous.cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => errors.duplicate(&path.index(i), *name),
                std::cmp::Ordering::Greater => {
                    errors.invalid(&path.index(i), *name, "list must be sorted alphabetically");
                }
            }
        }
        if let Some(why) = feature_name(name) {
            errors.invalid(&path.index(i), *name, &format!("invalid feature name {name:?}: {why}"));
        }
    }
}

fn feature_name(name: &str) -> Option<&'static str> {
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
    let starts = name.starts_with(|c: char| c.is_ascii_uppercase());
    match name.len() {
        0..=253 if starts && name.split('/').all(word) => None,
        0..=253 => Some(
            "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
        ),
        _ => Some("must be no more than 253 characters"),
    }
}

fn resources(errors: &mut Errors, obj: &Object) {
    for list in ["capacity", "allocatable"] {
        let path = Path::root("status");
        let path = path.field(list);
        for (name, value) in obj.at("status").entries(list) {
            amount(errors, name, value, &path.field(name));
        }
    }
}

fn cidrs(errors: &mut Errors, spec: &Value) {
    let (list, path) = (spec.texts("podCIDRs"), Path::root("spec.podCIDRs"));
    for (i, cidr) in list.iter().enumerate() {
        if let Some(text) = names::cidr(cidr) {
            errors.invalid(&path.index(i), *cidr, text);
        }
    }
    if list.len() < 2 {
        return;
    }
    let families: Vec<Option<bool>> =
        list.iter().map(|cidr| names::parse_cidr(cidr).map(|(ip, _)| ip.is_ipv4())).collect();
    if let Some(i) = families.iter().position(Option::is_none) {
        let why = format!("invalid CIDR[{i}]: <nil> (invalid CIDR address: {})", list[i]);
        let text = format!("invalid PodCIDRs. failed to check with dual stack with error:{why}");
        errors.internal(&path, &text);
    }
    let dual = families.contains(&Some(true)) && families.contains(&Some(false)) && !families.contains(&None);
    if list.len() > 2 || !dual {
        errors.invalid(&path, spec.at("podCIDRs").clone(), "may specify no more than one CIDR for each IP family");
    }
}

fn status_word(obj: &Object) -> String {
    let ready = obj.at("status").list("conditions").iter().find(|c| c.text("type") == "Ready");
    let mut word = match ready.map(|c| c.text("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if obj.at("spec").flag("unschedulable") {
        word.push_str(",SchedulingDisabled");
    }
    word
}

fn roles(obj: &Object) -> String {
    let mut roles = std::collections::BTreeSet::new();
    for (key, value) in obj.at("metadata").entries("labels") {
        let role = match key.strip_prefix(ROLE) {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or(""),
            None => "",
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn address(obj: &Object, kind: &str) -> String {
    let found = obj.at("status").list("addresses").iter().find(|a| a.text("type") == kind);
    found.map_or("<none>", |a| a.text("address")).to_owned()
}
