//! `pods/eviction`: a deletion that the pod's disruption budget must allow.

use crate::admission::{self, Attributes, Operation};
use crate::body::Body;
use crate::handlers::{Request, answer, options};
use crate::registry::Resource;
use crate::registry::decode::{Expected, body, invalid_options};
use crate::registry::delete::{DeleteOptions, check, delete};
use crate::registry::meta::time;
use crate::server::ApiServer;
use crate::store::{ListOptions, Preconditions, Selection, Stored, Update};
use api::{Cause, Gvk, Object, Status, meta};
use http::Response;
use serde_json::{Value, json};

const SCHEMA: &str = "io.k8s.api.policy.v1.Eviction";
const MULTIPLE: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts a pod.
pub async fn handle(server: &ApiServer, request: &Request, pods: &Resource) -> Result<Response<Body>, Status> {
    crate::media::Format::of_content_type(&request.headers).ok_or_else(crate::media::unsupported)?;
    let write = options::write_options(request, "CreateOptions", "eviction")?;
    let gvk = Gvk::new("policy", "v1", "Eviction");
    let mut eviction = body(request, &Expected { schema: SCHEMA, gvk: &gvk, also: &["policy/v1beta1"] }).await?;
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    if meta::name(&eviction) != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    refuse_unsafe(&eviction, name)?;
    same_dry_run(request, &eviction)?;
    let attributes = Attributes {
        request,
        resource: pods,
        operation: Operation::Create,
        subresource: "eviction",
        namespace,
        name,
        old: None,
        dry_run: write.dry_run,
        options: None,
        reinvocation: None,
    };
    admission::admit(server, &attributes, &mut eviction).await?;
    admission::validate(server, &attributes, Some(&eviction)).await?;
    let mut options = delete_options(&eviction);
    options.dry_run |= write.dry_run;
    let stored = pods.store.get(namespace, name).await?.ok_or_else(|| pods.not_found(name))?;
    let pod = stored.object()?;
    if !ignores_budget(&pod) {
        charge_budget(server, request, &pod, options.dry_run).await?;
    }
    let causes = options::delete_causes(eviction.get("deleteOptions").unwrap_or(&Value::Null));
    if !causes.is_empty() {
        return Err(invalid_options("DeleteOptions", &causes));
    }
    let told = tell_disruption(pods, request, &options).await?;
    if options.resource_version.is_some() && !options.dry_run {
        options.resource_version = Some(told.to_string());
    }
    delete(server, request, pods, namespace, name, &options).await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    answer::plain(request, 201, &done)
}

/// An eviction deletes no pod that cannot be read.
fn refuse_unsafe(eviction: &Object, name: &str) -> Result<(), Status> {
    const FIELD: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if eviction.pointer("/deleteOptions").and_then(|options| options.get(FIELD)) != Some(&json!(true)) {
        return Ok(());
    }
    let why = "can not be set for pod eviction, try after removing the option";
    let cause = Cause::invalid(format!("deleteOptions.{FIELD}"), &json!(true), why);
    Err(Status::invalid("policy", "Eviction", name, &[cause]))
}

/// Where both the request and the options in its body say what is dry, they must agree.
fn same_dry_run(request: &Request, eviction: &Object) -> Result<(), Status> {
    let asked = request.query.all("dryRun");
    let options = eviction.pointer("/deleteOptions/dryRun").and_then(Value::as_array);
    let given: Vec<&str> = options.into_iter().flatten().filter_map(Value::as_str).collect();
    if asked.is_empty() || given.is_empty() || asked == given {
        return Ok(());
    }
    let (asked, given) = (asked.join(" "), given.join(" "));
    Err(Status::new(500, "", format!("Non-matching dry-run options in request and content: [{asked}] and [{given}]")))
}

/// Notes in the pod's status why it ends, for whoever judges its failure (KEP-3329).
/// The pod's resource version after that.
async fn tell_disruption(pods: &Resource, request: &Request, options: &DeleteOptions) -> Result<u64, Status> {
    let now = time(request.now);
    let change = |_: &Stored, mut pod: Object| {
        check(pods, &pod, options)?;
        let generation = meta::generation(&pod);
        let status = meta::field_mut(&mut pod, "status");
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        let Some(list) = conditions.as_array_mut() else { return Ok(Update::Keep) };
        list.retain(|c| c["type"] != "DisruptionTarget");
        list.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
            "observedGeneration": generation,
        }));
        Ok(Update::Write(pod))
    };
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    let updated =
        pods.store.guaranteed_update(namespace, name, &Preconditions::default(), change, options.dry_run).await?;
    Ok(updated.stored.meta.resource_version)
}

fn delete_options(eviction: &Object) -> DeleteOptions {
    let options = eviction.get("deleteOptions").unwrap_or(&Value::Null);
    let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    DeleteOptions {
        grace_period: options.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation: text("/propagationPolicy").unwrap_or_default(),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        dry_run: options.get("dryRun").and_then(Value::as_array).is_some_and(|d| !d.is_empty()),
        ..DeleteOptions::default()
    }
}

/// Pods that serve no one (any more) may always go.
fn ignores_budget(pod: &Object) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_deleting(pod)
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Takes one disruption from the pod's budget, if it has one.
async fn charge_budget(server: &ApiServer, request: &Request, pod: &Object, dry_run: bool) -> Result<(), Status> {
    let budgets = server.store("policy", "poddisruptionbudgets").ok_or_else(Status::no_such_path)?;
    let selection = Selection { namespace: meta::namespace(pod).into(), ..Selection::default() };
    let list = budgets.list(ListOptions { selection, ..ListOptions::default() }).await?;
    let labels = pod.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    let mut matching = Vec::new();
    for stored in list.items {
        let selector = stored.object()?.pointer("/spec/selector").cloned().unwrap_or_default();
        if selector.is_object() && resources::metadata::selector_matches(&selector, &labels) == Some(true) {
            matching.push(stored);
        }
    }
    let budget = match matching.as_slice() {
        [] => return Ok(()),
        [budget] => budget,
        _ => return Err(Status::new(500, "InternalError", MULTIPLE)),
    };
    let (name, now, pod_name) = (&budget.meta.name, time(request.now), meta::name(pod).to_owned());
    let ready = is_ready(pod);
    let change = |_: &Stored, object: Object| take(object, &pod_name, ready, &now);
    budgets.guaranteed_update(meta::namespace(pod), name, &Preconditions::default(), change, dry_run).await.map(drop)
}

fn take(mut budget: Object, pod: &str, ready: bool, now: &str) -> Result<Update, Status> {
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let refuse = |seconds: u32, why: String| {
        let mut status = Status::too_many_requests(VIOLATES, seconds);
        if seconds == 0 {
            status.details = json!({});
        }
        status.details["causes"] = json!([{"reason": "DisruptionBudget", "message": why}]);
        status
    };
    let name = meta::name(&budget);
    let policy = budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str);
    let (healthy, desired) = (number("/status/currentHealthy"), number("/status/desiredHealthy"));
    if !ready && (policy == Some("AlwaysAllow") || (healthy >= desired && desired > 0)) {
        return Ok(Update::Keep);
    }
    if number("/status/observedGeneration") < meta::generation(&budget) {
        return Err(refuse(10, format!("The disruption budget {name} is still being processed by the server.")));
    }
    let allowed = number("/status/disruptionsAllowed");
    if allowed <= 0 {
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(refuse(0, why));
    }
    let status = meta::field_mut(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    disrupted[pod] = now.into();
    Ok(Update::Write(budget))
}
