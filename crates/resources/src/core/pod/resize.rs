//! `pods/resize`: CPU and memory of containers, and of the pod as a whole (KEP-1287, KEP-5419).

use super::MIRROR;
use crate::field::{Errors, Fields, Path, same};
use crate::rules::each;
use api::Object;
use serde_json::Value;

const SPEC: Path<'_> = Path::root("spec");
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// Puts what a resize may change from `wanted` into a spec.
pub(super) fn take(spec: &mut Value, wanted: &Value) {
    let names = |of: &Value, list: &str| of.list(list).iter().map(|c| c.text("name").to_owned()).collect::<Vec<_>>();
    for list in LISTS {
        if names(spec, list) != names(wanted, list) {
            // Validation refuses them.
            spec[list] = wanted.at(list).clone();
            continue;
        }
        for c in crate::field::items_mut(spec, list) {
            let same = |w: &&Value| w.text("name") == c.text("name");
            let Some(wanted) = wanted.list(list).iter().find(same) else { continue };
            c["resources"] = wanted.at("resources").clone();
            if wanted.has("resizePolicy") {
                c["resizePolicy"] = wanted.at("resizePolicy").clone();
            }
        }
    }
    super::copy_field(spec, wanted, "resources");
}

/// Errors of a resize: only CPU and memory change, and the quality-of-service class does not.
pub(super) fn check(errors: &mut Errors, new: &Object, old: &Object) {
    for (refused, text) in [
        (api::meta::annotation(old, MIRROR).is_some(), "static pods cannot be resized"),
        (old.at("spec").at("os").text("name") == "windows", "windows pods cannot be resized"),
    ] {
        if refused {
            *errors = Errors::default();
            return errors.forbidden(&Path::root(""), text);
        }
    }
    let (now, was) = (new.at("spec"), old.at("spec"));
    if super::resources::qos_class(now) != super::resources::qos_class(was) {
        let class = new.at("status").text("qosClass");
        errors.invalid(&SPEC, class, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_supported(old.at("status")) {
        errors.forbidden(&SPEC, "Pod running on node without support for resize");
    }
    pod_level(errors, now, was);
    let before = errors.0.len();
    same_containers(errors, now, was);
    if errors.0.len() > before {
        return;
    }
    for list in ["initContainers", "containers"] {
        let mut before = was.list(list).iter();
        each(now, list, &SPEC, |c, path| {
            let before = before.next().unwrap_or(&Value::Null);
            removed(errors, c.at("resources"), before.at("resources"), &path.field("resources"), "resource");
        });
    }
    for (c, before) in now.list("containers").iter().zip(was.list("containers")) {
        if !same_but_compute(c, before) {
            errors.forbidden(&SPEC, "only cpu and memory resources are mutable");
        }
    }
    let mut before = was.list("initContainers").iter();
    each(now, "initContainers", &SPEC, |c, path| {
        init_container(errors, c, before.next().unwrap_or(&Value::Null), path)
    });
}

/// Nodes of old releases do not say what their running containers have.
fn is_supported(status: &Value) -> bool {
    let mut containers = status.list("containerStatuses").iter();
    containers.find(|c| c.at("state").has("running")).is_none_or(|c| c.has("resources"))
}

fn pod_level(errors: &mut Errors, now: &Value, was: &Value) {
    let (path, now, was) = (SPEC.field("resources"), now.at("resources"), was.at("resources"));
    let is_set = |r: &Value| ["requests", "limits"].iter().any(|list| r.entries(list).next().is_some());
    if !is_set(now) && !is_set(was) {
        return;
    }
    if now.is_null() {
        return errors.forbidden(&path, "pod-level resources cannot be removed");
    }
    if !was.is_null() {
        removed(errors, now, was, &path, "pod-level resource");
    }
    let wrap = |resources: &Value| serde_json::json!({"resources": resources});
    if !same(&without_compute(&wrap(now), false), &without_compute(&wrap(was), false)) {
        errors.forbidden(&SPEC, "only cpu and memory resources are mutable at pod-level");
    }
}

fn init_container(errors: &mut Errors, c: &Value, before: &Value, path: &Path<'_>) {
    if !same_but_compute(c, before) {
        errors.forbidden(path, "only cpu and memory resources for init or sidecar containers are mutable");
    }
    if c.text("restartPolicy") == "Always" || same(c, before) {
        return;
    }
    for _ in c.list("resizePolicy").iter().filter(|policy| policy.text("restartPolicy") == "RestartContainer") {
        errors
            .forbidden(path, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized");
    }
}

/// Containers stay as many and in their order.
fn same_containers(errors: &mut Errors, now: &Value, was: &Value) {
    for list in LISTS {
        let (path, now, was) = (SPEC.field(list), now.list(list), was.list(list));
        if now.len() != was.len() {
            errors.forbidden(&path, &format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in now.iter().zip(was).enumerate().filter(|(_, (c, before))| c.text("name") != before.text("name")) {
            let text = format!("{list} may not be renamed or reordered on resize");
            errors.forbidden(&path.index(i).field("name"), &text);
        }
    }
}

fn removed(errors: &mut Errors, now: &Value, was: &Value, path: &Path<'_>, what: &str) {
    for list in ["requests", "limits"] {
        if was.at(list).as_object().into_iter().flatten().any(|(name, _)| !now.at(list).has(name)) {
            errors.forbidden(&path.field(list), &format!("{what} {list} cannot be removed"));
        }
    }
}

/// Claims are taken from what is new alone: a container that has some cannot be resized.
fn same_but_compute(now: &Value, was: &Value) -> bool {
    same(&without_compute(now, true), &without_compute(was, false))
}

fn without_compute(c: &Value, without_claims: bool) -> Value {
    let mut c = c.clone();
    let Some(resources) = c.get_mut("resources").and_then(Value::as_object_mut) else { return c };
    if without_claims {
        resources.remove("claims");
    }
    for list in ["requests", "limits"] {
        if let Some(map) = resources.get_mut(list).and_then(Value::as_object_mut) {
            map.remove("cpu");
            map.remove("memory");
        }
    }
    // Without anything left it is as if there were none.
    if ["requests", "limits", "claims"].iter().all(|list| {
        resources
            .get(*list)
            .is_none_or(|l| l.as_object().is_some_and(|m| m.is_empty()) || l.as_array().is_some_and(Vec::is_empty))
    }) {
        c.as_object_mut().into_iter().for_each(|c| drop(c.remove("resources")));
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_the_pod_and_of_containers() {
        let spec = |pod: Value, container: Value, init: Value| json!({"containers": [{"name": "c", "resources": container}], "initContainers": [init], "resources": pod});
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let init = json!({"name": "i", "resources": cpu("1")});
        let check = |old: Value, new: Value, expect: &[&str]| {
            let of = |spec: Value| json!({"metadata": {}, "spec": spec});
            let mut errors = Errors::default();
            super::check(&mut errors, &of(new), &of(old));
            let got: Vec<String> = errors.0.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, expect);
        };
        let base = spec(cpu("1"), cpu("1"), init.clone());
        check(base.clone(), spec(cpu("2"), cpu("3"), init.clone()), &[]);
        check(
            base.clone(),
            spec(json!({"requests": {"memory": "1"}}), cpu("1"), init.clone()),
            &["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"],
        );
        check(
            base.clone(),
            spec(Value::Null, cpu("1"), init.clone()),
            &["spec.resources: Forbidden: pod-level resources cannot be removed"],
        );
        check(
            base.clone(),
            spec(json!({"requests": {"cpu": "1", "hugepages-2Mi": "2Mi"}}), cpu("1"), init),
            &["spec: Forbidden: only cpu and memory resources are mutable at pod-level"],
        );
        let restarts = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        let with = |amount: &str| json!({"name": "i", "resources": cpu(amount), "resizePolicy": restarts});
        check(
            spec(cpu("1"), cpu("1"), with("1")),
            spec(cpu("1"), cpu("1"), with("2")),
            &[
                "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
            ],
        );
    }
}
