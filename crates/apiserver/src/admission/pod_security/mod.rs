//! PodSecurity: pods keep to the Pod Security Standard that their namespace's labels name.
//!
//! [`policy`] reads the labels, [`evaluate`] runs the [`checks`]. A pod that violates `enforce` is refused;
//! `warn` warns, for workloads' templates too; raising a namespace's `enforce` warns about the pods it has.
//! Absent: exemptions (there is no configuration), and audit annotations (there is no audit log).

mod baseline;
mod checks;
mod policy;
mod restricted;
mod view;

use super::{Attributes, Operation, Plugin, namespace_lifecycle};
use crate::server::ApiServer;
use crate::store::{ListOptions, Selection};
use api::{Object, Status, meta};
use async_trait::async_trait;
use checks::{details, evaluate, reasons};
use policy::{Level, Policy, Standard};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use view::View;

/// So many of a namespace's pods are looked at when its labels change.
const MAX_PODS: usize = 3000;
/// Subresources of pods that change nothing a check looks at.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// The plugin.
pub struct PodSecurity;

#[async_trait]
impl Plugin for PodSecurity {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| writes) else { return Ok(()) };
        match (a.resource.group.as_str(), a.resource.resource.as_str()) {
            ("", "namespaces") if a.subresource.is_empty() => namespace(server, a, object).await,
            ("", "pods") if !IGNORED.contains(&a.subresource) => pod(server, a, object).await,
            (group, resource) if a.subresource.is_empty() => match template(group, resource) {
                Some(pointer) => workload(server, a, object.pointer(pointer)).await,
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Where a workload keeps its pod template.
fn template(group: &str, resource: &str) -> Option<&'static str> {
    match (group, resource) {
        ("", "podtemplates") => Some("/template"),
        ("", "replicationcontrollers") | ("apps", "replicasets" | "deployments" | "daemonsets" | "statefulsets") => {
            Some("/spec/template")
        }
        ("batch", "jobs") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

async fn namespace(server: &ApiServer, a: &Attributes<'_>, new: &Object) -> Result<(), Status> {
    let (policy, errors) = Policy::of(new);
    let Some(old) = a.old.filter(|_| a.operation == Operation::Update) else {
        return if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Namespace", a.name, &errors)) };
    };
    let (old_policy, old_errors) = Policy::of(old);
    if !errors.is_empty() && errors != old_errors {
        return Err(Status::invalid("", "Namespace", a.name, &errors));
    }
    let (now, before) = (policy.enforce, old_policy.enforce);
    if now == before || now.level == Level::Privileged || (now.version == before.version && now.level <= before.level) {
        return Ok(());
    }
    a.request.warn_all(existing_pods(server, meta::name(new), now).await);
    Ok(())
}

/// Warnings about pods that a new policy would not let in.
async fn existing_pods(server: &ApiServer, namespace: &str, standard: Standard) -> Vec<String> {
    let selection = Selection { namespace: namespace.into(), ..Selection::default() };
    let list = match server.store("", "pods") {
        Some(pods) => pods.list(ListOptions { selection, ..ListOptions::default() }).await,
        None => Err(Status::no_such_path()),
    };
    let Ok(list) = list else {
        return vec!["failed to list pods while checking new PodSecurity enforce level".into()];
    };
    let total = list.items.len();
    let pods = prioritized(list.items.iter().filter_map(|stored| stored.object().ok()).collect());
    let mut warnings = Vec::new();
    if total > MAX_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MAX_PODS} of {total} existing pods"
        ));
    }
    let mut violations: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods.iter().take(MAX_PODS) {
        let findings = evaluate(standard, &View::new(pod));
        if !findings.is_empty() {
            violations.entry(reasons(&findings)).or_default().push(meta::name(pod));
        }
    }
    if !violations.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut texts: Vec<_> = violations.into_iter().map(|(why, names)| violators(&names, &why)).collect();
    texts.sort();
    warnings.extend(texts);
    warnings
}

/// One pod of every controller first: its siblings tell nothing new.
fn prioritized(pods: Vec<Object>) -> Vec<Object> {
    let mut seen = HashSet::new();
    let (mut first, siblings): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| {
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let controller = owners.into_iter().flatten().find(|o| o["controller"] == true);
        controller.and_then(|o| o["uid"].as_str()).is_none_or(|uid| seen.insert(uid.to_owned()))
    });
    first.extend(siblings);
    first
}

fn violators(names: &[&str], why: &str) -> String {
    let first = names.iter().min().copied().unwrap_or("");
    match names.len() {
        0 | 1 => format!("{first}: {why}"),
        2 => format!("{first} (and 1 other pod): {why}"),
        n => format!("{first} (and {} other pods): {why}", n - 1),
    }
}

async fn pod(server: &ApiServer, a: &Attributes<'_>, pod: &Object) -> Result<(), Status> {
    if a.operation == Operation::Update && a.old.is_some_and(|old| !is_significant(pod, old)) {
        return Ok(());
    }
    let (policy, _) = Policy::of(&*namespace_lifecycle::find(server, a.namespace).await?);
    let view = View::new(pod);
    let findings = evaluate(policy.enforce, &view);
    if !findings.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&findings));
        return Err(a.forbidden(&why));
    }
    warn(a, policy.warn, &view);
    Ok(())
}

async fn workload(server: &ApiServer, a: &Attributes<'_>, template: Option<&Object>) -> Result<(), Status> {
    let Some(template) = template.filter(|t| t.is_object()) else { return Ok(()) };
    let (policy, _) = Policy::of(&*namespace_lifecycle::find(server, a.namespace).await?);
    warn(a, policy.warn, &View::new(template));
    Ok(())
}

fn warn(a: &Attributes<'_>, standard: Standard, view: &View<'_>) {
    let findings = evaluate(standard, view);
    if !findings.is_empty() {
        a.request.warn(format!("would violate PodSecurity \"{standard}\": {}", details(&findings)));
    }
}

/// Whether an update may change what the checks say: of a pod only images change, and ephemeral containers come.
fn is_significant(pod: &Object, old: &Object) -> bool {
    let list = |pod: &Object, field: &str| {
        let list = pod.pointer("/spec").and_then(|s| s.get(field)).and_then(Value::as_array).cloned();
        list.unwrap_or_default()
    };
    let same_images = |field: &str| {
        let (new, old) = (list(pod, field), list(old, field));
        new.len() == old.len() && new.iter().zip(&old).all(|(n, o)| n.get("image") == o.get("image"))
    };
    let known = list(old, "ephemeralContainers");
    let is_known = |c: &Value| known.iter().any(|o| o["name"] == c["name"] && o.get("image") == c.get("image"));
    !same_images("containers")
        || !same_images("initContainers")
        || !list(pod, "ephemeralContainers").iter().all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_images_and_new_containers_matter() {
        let check = |new: Value, old: Value, want: bool| {
            let pod = |spec: Value| json!({ "spec": spec });
            assert_eq!(is_significant(&pod(new.clone()), &pod(old)), want, "{new}");
        };
        let a = json!({"containers": [{"name": "a", "image": "i"}]});
        check(a.clone(), a.clone(), false);
        check(json!({"containers": [{"name": "a", "image": "j"}]}), a.clone(), true);
        check(json!({"containers": [{"name": "a", "image": "i", "tty": true}]}), a.clone(), false);
        let e =
            json!({"containers": [{"name": "a", "image": "i"}], "ephemeralContainers": [{"name": "e", "image": "i"}]});
        check(e.clone(), a, true);
        check(e.clone(), e, false);
    }

    #[test]
    fn violators_are_counted() {
        assert_eq!(violators(&["b"], "x"), "b: x");
        assert_eq!(violators(&["b", "a"], "x"), "a (and 1 other pod): x");
        assert_eq!(violators(&["b", "a", "c"], "x"), "a (and 2 other pods): x");
    }

    #[test]
    fn a_controllers_first_pod_comes_first() {
        let pod = |name: &str, uid: &str| json!({"metadata": {"name": name, "ownerReferences": [{"controller": true, "uid": uid}]}});
        let pods = prioritized(vec![pod("a", "1"), pod("b", "1"), pod("c", "2"), json!({"metadata": {"name": "d"}})]);
        assert_eq!(pods.iter().map(meta::name).collect::<Vec<_>>(), ["a", "c", "d", "b"]);
    }
}
