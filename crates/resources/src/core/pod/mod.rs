//! Pods.

pub mod affinity;
mod annotations;
mod app_armor;
mod container;
pub mod defaults;
mod env;
mod probe;
mod projected;
mod qos_and_mutation;
mod resize;
pub mod resources;
mod security;
mod spec;
mod status;
mod table;
pub mod template;
mod update;
mod volume;
pub mod volume_sources;
pub mod warnings;

pub use affinity::{node_selector, taint_effect, tolerations};
pub use container::PROTOCOL;
pub use probe::port_number_or_name;
pub use spec::{Scope, pod_spec};
pub use update::copy_node_affinity;

use crate::field::{Errors, Fields, Path};
use crate::rules::{self, Check, each, each_of};
use crate::{Ctx, Strategy, copy_field};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// On a pod that a kubelet runs from a file, to show it.
const MIRROR: &str = "kubernetes.io/config.mirror";

const ANNOTATIONS: Path<'_> = Path::root("metadata.annotations");

/// Pods.
pub struct Pod;

impl Strategy for Pod {
    fn default(&self, obj: &mut Object) {
        defaults::pod(obj);
        if let Some(status) = obj.get_mut("status") {
            defaults::status(status);
            address_beside_addresses(status);
        }
    }

    fn prepare_for_create(&self, ctx: &Ctx<'_>, obj: &mut Object) {
        defaults::service_account(&mut obj["spec"]);
        qos_and_mutation::merge_label_keys(obj);
        obj["status"] = qos_and_mutation::initial_status(ctx, obj);
        app_armor::set_fields(obj);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        defaults::service_account(&mut new["spec"]);
        copy_field(new, old, "status");
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        whole(&mut errors, obj, None);
        let (spec, path) = (obj.at("spec"), Path::root("spec"));
        if !spec.list("ephemeralContainers").is_empty() {
            errors.forbidden(&path.field("ephemeralContainers"), "cannot be set on create");
        }
        if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
            let text = "cannot be set until all schedulingGates have been cleared";
            errors.forbidden(&path.field("nodeName"), text);
        }
        annotations::agree(&mut errors, obj, &path);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        whole(&mut errors, new, Some(old));
        annotations::update(&mut errors, new, old, &ANNOTATIONS);
        update::spec(&mut errors, new.at("spec"), old.at("spec"));
        errors.0
    }

    fn preparation_warnings(&self, obj: &Object) -> Vec<String> {
        app_armor::warnings(obj)
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let mut out = Vec::from_iter(warnings::host_name(obj, old, "the Pod's hostname"));
        out.extend(warnings::pod(obj));
        out
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        copy_field(new, old, "spec");
        for field in ["ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            api::meta::set(new, field, old.at("metadata").at(field).clone());
        }
        if new.at("status").text("qosClass").is_empty() {
            let class = old.at("status").at("qosClass").clone();
            api::meta::field_mut(new, "status").insert("qosClass".into(), class);
        }
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        update::status(new, old)
    }

    fn grace_period(&self, obj: &Object, requested: Option<i64>) -> Option<i64> {
        let spec = obj.at("spec");
        let period = requested.or(spec.int("terminationGracePeriodSeconds")).unwrap_or(30);
        let finished = ["Succeeded", "Failed"].contains(&obj.at("status").text("phase"));
        // nothing runs, so nothing needs time to end
        if spec.text("nodeName").is_empty() || finished {
            return Some(0);
        }
        Some(if period < 0 { 1 } else { period })
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        let (spec, status) = (obj.at("spec"), obj.at("status"));
        let ip = status.list("podIPs").first().map_or("", |ip| ip.text("ip"));
        vec![
            ("spec.nodeName", spec.text("nodeName").into()),
            ("spec.restartPolicy", spec.text("restartPolicy").into()),
            ("spec.schedulerName", spec.text("schedulerName").into()),
            ("spec.serviceAccountName", spec.text("serviceAccountName").into()),
            ("spec.hostNetwork", spec.flag("hostNetwork").to_string()),
            ("status.phase", status.text("phase").into()),
            ("status.podIP", if ip.is_empty() { status.text("podIP") } else { ip }.into()),
            ("status.nominatedNodeName", status.text("nominatedNodeName").into()),
        ]
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        table::row(obj, now)
    }

    fn subresource(&self, name: &str) -> Option<&'static dyn Strategy> {
        match name {
            "ephemeralcontainers" => Some(&EPHEMERAL_CONTAINERS),
            "resize" => Some(&RESIZE),
            _ => None,
        }
    }
}

/// Errors of metadata and spec that create and update share.
fn whole(errors: &mut Errors, obj: &Object, old: Option<&Object>) {
    let (spec, path) = (obj.at("spec"), Path::root("spec"));
    annotations::check(errors, obj, old, &ANNOTATIONS);
    pod_spec(errors, spec, obj.at("metadata"), true, &path);
    if spec.text("serviceAccountName").is_empty() {
        const TOKEN: Check = Check::Absent("must not be specified when serviceAccountName is not set");
        each(spec, "volumes", &path, |volume, path| {
            let projected = path.field("projected");
            each(volume.at("projected"), "sources", &projected, |source, path| {
                rules::check(errors, source, path, &[("serviceAccountToken", TOKEN)]);
            });
        });
    }
    each_of(spec, &["containers", "initContainers"], &path, |c, path| container::image_spaces(errors, c, path));
}

/// A subresource that changes one part of the spec, which is then checked as a whole.
struct Part {
    /// Takes over the part from the spec that the request brought.
    take: fn(&mut Value, &Value),
    /// Finds what may not change.
    check: fn(&mut Errors, &Object, &Object),
}

/// `pods/ephemeralcontainers`
static EPHEMERAL_CONTAINERS: Part = Part { take: take_ephemeral, check: update::ephemeral_containers };
/// `pods/resize`
static RESIZE: Part = Part { take: resize::take, check: resize::check };

impl Strategy for Part {
    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn default(&self, obj: &mut Object) {
        defaults::pod(obj);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        let wanted = new.at("spec").clone();
        keep_spec(new, old);
        (self.take)(&mut new["spec"], &wanted);
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        whole(&mut errors, new, Some(old));
        (self.check)(&mut errors, new, old);
        errors.0
    }
}

fn take_ephemeral(spec: &mut Value, wanted: &Value) {
    let given = wanted.has("ephemeralContainers");
    copy_field(spec, if given { wanted } else { &Value::Null }, "ephemeralContainers");
}

/// Keeps everything of `old` but the resource version and field managers that the request brought.
fn keep_spec(new: &mut Object, old: &Object) {
    let meta = new.at("metadata");
    let (rv, managed) = (meta.at("resourceVersion").clone(), meta.at("managedFields").clone());
    *new = old.clone();
    api::meta::set(new, "resourceVersion", rv);
    api::meta::set(new, "managedFields", managed);
}

/// The errors of a `Binding`.
pub fn validate_binding(binding: &Object) -> Vec<Cause> {
    let (mut errors, path, target) = (Errors::default(), Path::root("target"), binding.at("target"));
    if !["", "Node"].contains(&target.text("kind")) {
        errors.not_supported(&path.field("kind"), target.text("kind"), &["Node", "<empty>"]);
    }
    if target.text("name").is_empty() {
        errors.required(&path.field("name"), "");
    }
    errors.0
}

/// The first of the addresses stands beside them too; where both are given and differ, the one that stands alone
/// counts, as it is all that old kubelets write.
fn address_beside_addresses(status: &mut Value) {
    let (one, many) = (status.text("podIP").to_owned(), status.list("podIPs"));
    let first = many.first().map_or("", |ip| ip.text("ip")).to_owned();
    if !one.is_empty() && one != first {
        status["podIPs"] = json!([{"ip": one}]);
    } else if one.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    }
}

/// Binds a pod to a node: sets the node's name, takes over the binding's labels and annotations, and says so in
/// the conditions. Fails with the text of the conflict when the pod is bound, gated or being deleted.
pub fn bind(pod: &mut Object, binding: &Object, now: &str) -> Result<(), String> {
    let (name, node) = (api::meta::name(pod).to_owned(), binding.at("target").text("name").to_owned());
    if api::meta::is_deleting(pod) {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let bound = pod.at("spec").text("nodeName");
    if !bound.is_empty() {
        return Err(format!("pod {name} is already assigned to node {bound:?}"));
    }
    if !pod.at("spec").list("schedulingGates").is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = node.into();
    for map in ["annotations", "labels"] {
        let entries = binding.at("metadata").at(map).clone();
        if let (Value::Object(entries), Some(target)) = (entries, crate::field::map_mut(&mut pod["metadata"], map)) {
            entries.into_iter().for_each(|(key, value)| target[key] = value);
        }
        crate::field::drop_empty(&mut pod["metadata"], map);
    }
    let generation = api::meta::generation(pod);
    let mut condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if generation > 0 {
        condition["observedGeneration"] = generation.into();
    }
    set_condition(pod, condition);
    Ok(())
}

/// Sets a condition of a pod; one of the same status keeps the time of its transition.
pub fn set_condition(pod: &mut Object, mut condition: Value) {
    if pod.at("status").at("conditions").as_array().is_none() {
        api::meta::field_mut(pod, "status").insert("conditions".into(), Value::Array(Vec::new()));
    }
    let Some(list) = pod["status"]["conditions"].as_array_mut() else { return };
    match list.iter_mut().find(|c| c.text("type") == condition.text("type")) {
        Some(had) => {
            if had.text("status") == condition.text("status") {
                condition["lastTransitionTime"] = had.at("lastTransitionTime").clone();
            }
            *had = condition;
        }
        None => list.push(condition),
    }
}
