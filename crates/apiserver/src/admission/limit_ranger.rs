//! LimitRanger: containers get a namespace's default requests and limits, and stay within its bounds.

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use api::quantity::Quantity;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

type Amounts = BTreeMap<String, Quantity>;
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// The plugin.
pub struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    async fn admit(&self, server: &ApiServer, a: &Attributes<'_>, pod: &mut Object) -> Result<(), Status> {
        if a.operation == Operation::Create && a.is("", "pods") {
            for (_, range) in server.lives().limit_ranges.in_namespace(a.namespace) {
                set_defaults(pod, &range);
            }
        }
        Ok(())
    }

    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, o: Option<&Object>) -> Result<(), Status> {
        let pods = (a.is("", "pods") && a.operation == Operation::Create) || is_resize(a);
        let claims = a.is("", "persistentvolumeclaims") && a.operation != Operation::Delete;
        let going = a.old.is_some_and(meta::is_deleting);
        let Some(object) = o.filter(|_| (pods || claims) && !going) else { return Ok(()) };
        for (_, range) in server.lives().limit_ranges.in_namespace(a.namespace) {
            let mut errors: Vec<String> = Vec::new();
            for error in limits(&range).flat_map(|limit| check(object, limit, pods)) {
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
            match errors.as_slice() {
                [] => {}
                [one] => return Err(a.forbidden(one)),
                many => return Err(a.forbidden(&format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

/// A resize keeps to the bounds as a new pod does.
fn is_resize(a: &Attributes<'_>) -> bool {
    a.resource.group.is_empty() && a.resource.resource == "pods" && a.subresource == "resize"
}

fn limits(range: &Object) -> impl Iterator<Item = &Value> {
    range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten()
}

fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

fn set_defaults(pod: &mut Object, range: &Object) {
    let (mut requests, mut maxima) = (Map::new(), Map::new());
    for limit in limits(range).filter(|l| l["type"] == "Container") {
        let fields = |name: &str| limit.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        requests.extend(fields("defaultRequest"));
        maxima.extend(fields("default"));
    }
    if requests.is_empty() && maxima.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    let spec = meta::field_mut(pod, "spec");
    for list in LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| c.is_object()) {
            let name = container["name"].as_str().unwrap_or("").to_owned();
            let word = if list == "containers" { "container" } else { "init container" };
            for (field, defaults, what) in [("requests", &requests, "request"), ("limits", &maxima, "limit")] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    notes.push(format!("{} {what} for {word} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        meta::set_annotation(pod, "kubernetes.io/limit-ranger", &text);
    }
}

/// Sets the amounts that a container does not name; gives their names.
fn fill(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        let present = container.get("resources").and_then(|r| r.get(field)).and_then(|f| f.get(name)).is_some();
        if !present {
            let resources = meta::field_mut(container, "resources");
            let map = resources.entry(field).or_insert_with(|| json!({}));
            map[name.as_str()] = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

fn check(object: &Object, limit: &Value, pod: bool) -> Vec<String> {
    let kind = limit["type"].as_str().unwrap_or("");
    match (pod, kind) {
        (true, "Container") => LISTS
            .iter()
            .filter_map(|list| object.pointer(&format!("/spec/{list}"))?.as_array())
            .flatten()
            .flat_map(|container| bounds(kind, limit, &resources(container, "requests"), &resources(container, "limits")))
            .collect(),
        (true, "Pod") => bounds(kind, limit, &pod_total(object, "requests"), &pod_total(object, "limits")),
        (false, "PersistentVolumeClaim") => claim_bounds(kind, limit, &amounts(object.pointer("/spec/resources/requests"))),
        _ => Vec::new(),
    }
}

fn resources(container: &Value, field: &str) -> Amounts {
    amounts(container.get("resources").and_then(|r| r.get(field)))
}

/// What a pod asks for in all: its containers together, or the most that its init containers need at a time.
pub(super) fn pod_total(pod: &Object, field: &str) -> Amounts {
    let containers = |list: &str| {
        pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (mut total, mut sidecars, mut most) = (Amounts::new(), Amounts::new(), Amounts::new());
    containers("containers").iter().for_each(|c| add(&mut total, &resources(c, field)));
    for container in containers("initContainers") {
        let own = resources(&container, field);
        let mut now = sidecars.clone();
        add(&mut now, &own);
        if container["restartPolicy"] == "Always" {
            add(&mut total, &own);
            sidecars = now.clone();
        }
        raise(&mut most, &now);
    }
    raise(&mut total, &most);
    total.extend(amounts(pod.pointer("/spec/resources").and_then(|r| r.get(field))));
    total
}

pub(super) fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        total.entry(name.clone()).and_modify(|t| *t = t.plus(amount)).or_insert(*amount);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        total.entry(name.clone()).and_modify(|t| *t = (*t).max(*amount)).or_insert(*amount);
    }
}

fn bounds(kind: &str, limit: &Value, requests: &Amounts, maxima: &Amounts) -> Vec<String> {
    let mut out = Vec::new();
    for (name, min) in amounts(limit.get("min")) {
        let head = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(&name), maxima.get(&name)) {
            (None, _) => out.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < min => out.push(format!("{head}, but request is {request}")),
            (_, Some(most)) if *most < min => out.push(format!("{head}, but limit is {most}")),
            _ => {}
        }
    }
    for (name, max) in amounts(limit.get("max")) {
        let head = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(&name), maxima.get(&name)) {
            (_, None) => out.push(format!("{head}.  No limit is specified")),
            (_, Some(most)) if *most > max => out.push(format!("{head}, but limit is {most}")),
            (Some(request), _) if *request > max => out.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        out.extend(ratio_error(kind, &name, ratio, requests.get(&name), maxima.get(&name)));
    }
    out
}

fn ratio_error(kind: &str, name: &str, ratio: Quantity, request: Option<&Quantity>, most: Option<&Quantity>) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {ratio}");
    let set = |q: Option<&Quantity>| q.filter(|q| q.sign() != 0).copied();
    let Some(request) = set(request) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(most) = set(most) else { return Some(format!("{head}, but no limit is specified or limit is 0")) };
    let found = most.milli_value() as f64 / request.milli_value() as f64;
    (found * 1000.0 > ratio.milli_value() as f64).then(|| format!("{head}, but provided ratio is {found:.6}"))
}

fn claim_bounds(kind: &str, limit: &Value, requests: &Amounts) -> Vec<String> {
    let mut out = bounds(kind, &json!({"min": limit.get("min")}), requests, &Amounts::new());
    for (name, max) in amounts(limit.get("max")) {
        let head = format!("maximum {name} usage per {kind} is {max}");
        match requests.get(&name) {
            None => out.push(format!("{head}.  No request is specified")),
            Some(request) if *request > max => out.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_set_and_noted() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}});
        set_defaults(&mut pod, &range);
        assert_eq!(pod["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}));
        let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(meta::annotation(&pod, "kubernetes.io/limit-ranger"), Some(note));
    }

    #[test]
    fn bounds_are_kept() {
        let limit = json!({"type": "Container", "max": {"cpu": "1"}});
        let pod = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "2"}}}, {}]}});
        let want = ["maximum cpu usage per Container is 1, but limit is 2", "maximum cpu usage per Container is 1.  No limit is specified"];
        assert_eq!(check(&pod, &limit, true), want);
    }
}
