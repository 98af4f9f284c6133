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
        cidrs(&mut errors, obj.at("spec"));
        errors.0
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let spec = obj.at("spec");
        let texts = [
            ("configSource", "spec.configSource: the feature is removed"),
            ("externalID", "spec.externalID: this field is deprecated, and is unused by Kubernetes"),
        ];
        texts.into_iter().filter(|(field, _)| spec.has(field)).map(|(_, text)| text.to_owned()).collect()
    }

    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors(self.validate(ctx, new));
        resources(&mut errors, new);
        let (now, was) = (new.at("spec"), old.at("spec"));
        let addresses = new.at("status").list("addresses");
        let path = Path::root("status.addresses");
        for (i, address) in addresses.iter().enumerate() {
            if addresses[..i].contains(address) {
                let fields = [("Type", address.at("type").clone()), ("Address", address.at("address").clone())];
                errors.duplicate_printed(&path.index(i), &go_struct(&fields));
            }
        }
        let had = was.list("podCIDRs");
        if !had.is_empty() {
            let path = Path::root("spec.podCIDRs");
            match had.len() == now.list("podCIDRs").len() {
                false => errors.forbidden(&path, FIXED_CIDR),
                true => {
                    let changed = had.iter().zip(now.list("podCIDRs")).filter(|(a, b)| a != b);
                    changed.for_each(|_| errors.forbidden(&path, FIXED_CIDR));
                }
            }
        }
        if !was.text("providerID").is_empty() && was.text("providerID") != now.text("providerID") {
            let text = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&Path::root("spec.providerID"), text);
        }
        taints(&mut errors, new);
        if was.text("externalID") != now.text("externalID") {
            errors.forbidden(&Path::root("spec.externalID"), "may not be updated");
        }
        errors.0
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
    }

    fn validate_status_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        self.validate_update(ctx, new, old)
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", obj.at("spec").flag("unschedulable").to_string())]
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
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
            unknown("kernelVersion").into(),
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
        (false, 0) => spec["podCIDRs"] = json!([one]),
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
            let printed = format!("{}: taints must be unique by key and effect pair", go_struct(&fields));
            errors.duplicate_printed(&item, &printed);
        }
    }
}

fn resources(errors: &mut Errors, obj: &Object) {
    for list in ["capacity", "allocatable"] {
        let path = Path::root("status");
        let path = path.field(list);
        for (name, value) in obj.at("status").entries(list) {
            amount(errors, name, value, &path.key(name));
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
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in obj.at("metadata").entries("labels") {
        let role = match key.strip_prefix(ROLE) {
            Some(role) => role,
            None if key == "kubernetes.io/role" => value.as_str().unwrap_or(""),
            None => "",
        };
        if !role.is_empty() && !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles.sort_unstable();
    roles.join(",")
}

fn address(obj: &Object, kind: &str) -> String {
    let found = obj.at("status").list("addresses").iter().find(|a| a.text("type") == kind);
    found.map_or("<none>", |a| a.text("address")).to_owned()
}
