//! What may change of a pod.

use super::{ANNOTATIONS, MIRROR, affinity, annotations};
use crate::difference::difference;
use crate::field::{Errors, Fields, Path, same};
use crate::names;
use crate::rules::{self, Check, each};
use crate::semantic;
use api::{Cause, Object};
use schema::Layout::Compact;
use serde_json::Value;
use std::collections::HashSet;

const FIXED: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// The lists whose containers may get other images.
const CHANGING_LISTS: [&str; 2] = ["containers", "initContainers"];
const SPEC: Path<'_> = Path::root("spec");
const EPHEMERAL: &str = "io.k8s.api.core.v1.EphemeralContainer";
const TERM: &str = "io.k8s.api.core.v1.NodeSelectorTerm";
const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const NO_RESTART: &str = "may not be transitioned to non-terminated state";

/// Errors of a changed spec. What hinders a comparison hides what the comparison would find.
pub fn spec(errors: &mut Errors, new: &Value, old: &Value) {
    for list in CHANGING_LISTS {
        if new.list(list).len() != old.list(list).len() {
            return errors.forbidden(&SPEC.field(list), "pod updates may not add or remove containers");
        }
        each(new, list, &SPEC, |c, path| {
            rules::check(errors, c, path, &[("image", Check::Given(""))]);
            super::container::image_spaces(errors, c, path);
        });
    }
    if !deadline(errors, new, old) {
        return;
    }
    tolerations(errors, new, old);
    gates(errors, new, old);
    let mut rest = new.clone();
    for list in CHANGING_LISTS {
        for (c, was) in crate::field::items_mut(&mut rest, list).zip(old.list(list)) {
            crate::copy_field(c, was, "image");
        }
        // upstream makes the lists anew, and no list of none
        if rest.list(list).is_empty() {
            crate::copy_field(&mut rest, &Value::Null, list);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        crate::copy_field(&mut rest, old, field);
    }
    if !old.list("schedulingGates").is_empty() {
        gated(errors, &mut rest, old);
    }
    if !semantic::equal(POD_SPEC, new, old) && !semantic::equal(POD_SPEC, &rest, old) {
        errors.forbidden(&SPEC, &format!("{FIXED}\n{}", difference(POD_SPEC, old, &rest)));
    }
}

/// Whether to go on.
fn deadline(errors: &mut Errors, new: &Value, old: &Value) -> bool {
    let path = SPEC.field("activeDeadlineSeconds");
    match (new.int("activeDeadlineSeconds"), old.int("activeDeadlineSeconds")) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.invalid(&path, seconds, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(seconds), Some(was)) if was < seconds => {
            errors.invalid(&path, seconds, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn tolerations(errors: &mut Errors, new: &Value, old: &Value) {
    let path = SPEC.field("tolerations");
    let fields = ["key", "operator", "value", "effect"];
    let what = |toleration: &Value| fields.map(|field| toleration.text(field).to_owned());
    let kept: HashSet<_> = new.list("tolerations").iter().map(what).collect();
    for was in old.list("tolerations") {
        if !kept.contains(&what(was)) {
            return errors.forbidden(&path, "existing toleration can not be modified except its tolerationSeconds");
        }
    }
    affinity::tolerations(errors, new, &path);
}

fn gates(errors: &mut Errors, new: &Value, old: &Value) {
    let path = SPEC.field("schedulingGates");
    let before: HashSet<&str> = old.list("schedulingGates").iter().map(|gate| gate.text("name")).collect();
    for (i, gate) in new.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !before.contains(name) {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.index(i).field("name"), &text);
        }
    }
}

/// A pod that waits for its gates may still be directed to fewer nodes.
fn gated(errors: &mut Errors, rest: &mut Value, old: &Value) {
    let selector = rest.at("nodeSelector").clone();
    if old.entries("nodeSelector").any(|(key, value)| selector.get(key) != Some(value)) {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&SPEC.field("nodeSelector"), selector, text);
    }
    crate::copy_field(rest, old, "nodeSelector");
    let of_nodes = |spec: &Value| spec.at("affinity").at("nodeAffinity").clone();
    let (now, was) = (of_nodes(rest), of_nodes(old));
    if now.is_null() != was.is_null() || !semantic::equal("io.k8s.api.core.v1.NodeAffinity", &now, &was) {
        node_affinity(errors, rest, old);
        let of_pods = ["podAffinity", "podAntiAffinity"].iter().any(|kind| rest.at("affinity").has(kind));
        match rest.has("affinity") && !old.has("affinity") && !of_pods {
            true => crate::copy_field(rest, old, "affinity"),
            false => copy_node_affinity(rest, old),
        }
    }
}

/// Makes the node affinity of a spec what it is in another.
pub fn copy_node_affinity(spec: &mut Value, from: &Value) {
    let was = from.at("affinity").at("nodeAffinity").clone();
    match (spec.get_mut("affinity").and_then(Value::as_object_mut), was.is_null()) {
        (Some(affinity), true) => drop(affinity.remove("nodeAffinity")),
        (Some(affinity), false) => drop(affinity.insert("nodeAffinity".into(), was)),
        (None, true) => {}
        (None, false) => spec["affinity"] = serde_json::json!({"nodeAffinity": was}),
    }
}

fn node_affinity(errors: &mut Errors, rest: &Value, old: &Value) {
    let terms = |spec: &Value| {
        let required = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        spec.pointer(required).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (now, was) = (terms(rest), terms(old));
    let path = SPEC.field("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if was.is_empty() {
        return;
    }
    if now.len() != was.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        let printed = || {
            let terms: Vec<String> = now.iter().map(|term| schema::internal_json(TERM, term, Compact)).collect();
            print_terms(&terms)
        };
        return errors.invalid_printed(&path, printed, text);
    }
    for (i, (now, was)) in now.iter().zip(&was).enumerate() {
        let grown = |field: &str| {
            let (now, was) = (now.list(field), was.list(field));
            now.len() >= was.len() && was.iter().zip(now).all(|(a, b)| same(a, b))
        };
        let empty = was.list("matchExpressions").is_empty() && was.list("matchFields").is_empty();
        if (empty && !same(now, was)) || !grown("matchExpressions") || !grown("matchFields") {
            errors.invalid_struct(&path.index(i), TERM, now, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// A list that is none prints as such.
fn print_terms(terms: &[String]) -> String {
    if terms.is_empty() { "null".into() } else { format!("[{}]", terms.join(",")) }
}

/// Errors of changed ephemeral containers: they can only be added.
pub fn ephemeral_containers(errors: &mut Errors, new: &Object, old: &Object) {
    annotations::update(errors, new, old, &ANNOTATIONS);
    if api::meta::annotation(old, MIRROR).is_some() {
        *errors = Errors::default();
        return errors.forbidden(&Path::root(""), "static pods do not support ephemeral containers");
    }
    let (path, list) = (SPEC.field("ephemeralContainers"), "ephemeralContainers");
    for was in old.at("spec").list(list) {
        let name = was.text("name");
        match new.at("spec").list(list).iter().find(|c| c.text("name") == name) {
            None => errors.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if !semantic::equal(EPHEMERAL, now, was) => {
                let text = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    difference(EPHEMERAL, was, now)
                );
                errors.forbidden(&path, &text);
            }
            Some(_) => {}
        }
    }
}

/// Errors of a changed status.
pub fn status(new: &Object, old: &Object) -> Vec<Cause> {
    let (mut errors, path) = (Errors::default(), Path::root("status"));
    annotations::update(&mut errors, new, old, &ANNOTATIONS);
    let (now, was) = (new.at("status"), old.at("status"));
    let conditions = path.field("conditions");
    for (i, condition) in now.list("conditions").iter().enumerate() {
        let kind = condition.text("type");
        if let Some(generation) = condition.int("observedGeneration").filter(|g| *g < 0) {
            let path = conditions.index(i);
            errors.invalid(&path.field("observedGeneration"), generation, "must be a non-negative integer");
        }
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            errors.invalid_each(&conditions.index(i).field("Type"), kind, names::qualified_name(kind));
        }
    }
    let nominated = now.text("nominatedNodeName");
    if nominated != was.text("nominatedNodeName") && !nominated.is_empty() {
        let path = path.field("nominatedNodeName");
        errors.invalid_each(&path, nominated, names::dns1123_subdomain(nominated, false));
        if !old.at("spec").text("nodeName").is_empty() {
            errors.forbidden(&path, "may not be set on pods that are already bound to a node");
        }
    }
    if let Some(generation) = now.int("observedGeneration").filter(|g| *g < 0) {
        errors.invalid(&path.field("observedGeneration"), generation, "must be a non-negative integer");
    }
    errors.immutable(&path.field("qosClass"), now.at("qosClass"), was.at("qosClass"));
    for (list, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        transitions(&mut errors, now.list(list), was.list(list), old.at("spec"), containers, &path.field(list));
    }
    super::status::claims(&mut errors, new, &path.field("resourceClaimStatuses"));
    for (field, first) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(&mut errors, now, was, field, first, &path.field(field));
    }
    containers_reported(&mut errors, new, &path);
    super::status::extended_claim(&mut errors, new, &path.field("extendedResourceClaimStatus"));
    errors.0
}

/// Errors of users and resources in the statuses of containers.
fn containers_reported(errors: &mut Errors, pod: &Object, path: &Path<'_>) {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        super::status::users(errors, status.list(list), spec, &path.field(list));
    }
    for (list, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        super::status::allocated(errors, status.list(list), spec.list(containers), &path.field(list));
    }
    let list = "ephemeralContainerStatuses";
    super::status::none_allocated(errors, status.list(list), &path.field(list));
}

fn transitions(errors: &mut Errors, now: &[Value], was: &[Value], spec: &Value, containers: &str, path: &Path<'_>) {
    let rules = CHANGING_LISTS.iter().flat_map(|list| spec.list(list)).flat_map(|c| c.list("restartPolicyRules"));
    if rules.into_iter().any(|rule| rule.text("action") == "RestartAllContainers") {
        return;
    }
    for (i, before) in was.iter().enumerate() {
        let (ended, name) = (before.at("state").at("terminated"), before.text("name"));
        let runs_again = now.iter().any(|c| c.text("name") == name && !c.at("state").has("terminated"));
        if !ended.is_null() && runs_again && !may_restart(spec, containers, name, ended.int("exitCode").unwrap_or(0)) {
            errors.forbidden(&path.index(i).field("state"), NO_RESTART);
        }
    }
}

fn may_restart(spec: &Value, containers: &str, name: &str, exit_code: i64) -> bool {
    let Some(c) = spec.list(containers).iter().find(|c| c.text("name") == name) else { return false };
    for rule in c.list("restartPolicyRules") {
        let codes = rule.at("exitCodes");
        let listed = codes.list("values").iter().any(|v| v.as_i64() == Some(exit_code));
        if listed == (codes.text("operator") == "In") {
            return true;
        }
    }
    let own = c.text("restartPolicy");
    match if own.is_empty() { spec.text("restartPolicy") } else { own } {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        // init containers of such a pod are retried by the pod's policy only
        _ => false,
    }
}

/// Errors of addresses; what is wrong with one does not matter when it was there before.
fn addresses(errors: &mut Errors, status: &Value, was: &Value, field: &str, first: &str, path: &Path<'_>) {
    let list = status.list(field);
    let known: Vec<&str> = was.list(field).iter().map(|ip| ip.text("ip")).collect();
    let ips: Vec<&str> = list.iter().map(|ip| ip.text("ip")).collect();
    if first == "hostIP" && ips.first().is_some_and(|ip| *ip != status.text(first)) {
        errors.invalid(&path.index(0).field("ip"), ips[0], "must be equal to `hostIP`");
    }
    for (i, ip) in ips.iter().enumerate() {
        errors.new_ip(&path.index(i), ip, &known);
    }
    if let Some(i) = ips.iter().position(|ip| names::parse_ip(ip).is_none()).filter(|_| ips.len() > 1) {
        let why = format!("failed to check for dual stack with error:invalid IP[{i}]: {}", ips[i]);
        errors.internal(path, &why);
    }
    let families: Vec<bool> = ips.iter().filter_map(|ip| names::parse_ip(ip)).map(|ip| ip.is_ipv4()).collect();
    let dual = families.len() == ips.len() && families.contains(&true) && families.contains(&false);
    if list.len() > 2 || (list.len() == 2 && !dual) {
        let printed = || ips.iter().map(|ip| format!("{{\"IP\":{ip:?}}}")).collect::<Vec<_>>().join(",");
        let text = "may specify no more than one IP for each IP family";
        errors.invalid_printed(path, || format!("[{}]", printed()), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(new: Value, want: &[&str]) {
        let old = json!({"containers": [{"name": "c", "image": "a"}], "activeDeadlineSeconds": 5, "nodeName": "n"});
        let mut errors = Errors::default();
        let mut merged = old.clone();
        new.as_object().into_iter().flatten().for_each(|(k, v)| merged[k] = v.clone());
        spec(&mut errors, &merged, &old);
        let got: Vec<String> =
            errors.0.iter().map(|c| format!("{}: {}", c.field, c.message.lines().next().unwrap_or(""))).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn little_may_change() {
        check(json!({"containers": [{"name": "c", "image": "b"}]}), &[]);
        check(json!({"activeDeadlineSeconds": 4}), &[]);
        check(
            json!({"activeDeadlineSeconds": 6}),
            &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
        );
        check(json!({"containers": []}), &["spec.containers: Forbidden: pod updates may not add or remove containers"]);
        check(json!({"nodeName": "m"}), &[&format!("spec: Forbidden: {FIXED}")]);
    }
}
