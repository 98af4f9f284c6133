//! Whether a pod may run here. Its checks run before all hooks, in order of arrival.
//!
//! The order is upstream's: pressure, sysctls, exclusive resources, predicates (with preemption for critical pods),
//! AppArmor, user namespaces, shutdown.

use crate::context::Context;
use crate::pod::{PodExt, is_critical};
use crate::preemption::{self, Requirement};
use crate::qos::{self, Resources};
use crate::static_pods::is_static;
use crate::{shutdown, sysctl};
use api::k8s::core::v1::{AppArmorProfile, Node, Pod, Taint};
use api::node_selector::pod_accepts_node;
use api::quantity::{Format, Quantity};
use std::sync::Arc;

/// Why a pod is rejected: reason and message of its status.
pub type Rejection = (String, String);

/// A predicate that does not hold.
#[derive(Clone, Debug, PartialEq)]
enum Unmet {
    /// A resource lacks.
    Resource { name: String, requested: i64, used: i64, capacity: i64 },
    /// Something else; reason and message.
    Other(Rejection),
}

impl Unmet {
    fn rejection(&self) -> Rejection {
        match self {
            Self::Other(rejection) => rejection.clone(),
            Self::Resource { name, requested, used, capacity } => (
                format!("OutOf{name}"),
                format!(
                    "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
                ),
            ),
        }
    }
}

/// Decides about a pod next to those that are already there; returns the pods that must go for it.
pub fn admit(ctx: &Context, pod: &Pod, others: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, Rejection> {
    pressure(ctx, pod)?;
    let settings = &ctx.config.settings;
    sysctl::admit(pod, &settings.allowed_unsafe_sysctls).map_err(|why| ("SysctlForbidden".to_owned(), why))?;
    ctx.managers.allocate(pod, &[&ctx.plugins.devices])?;
    let victims = predicates(ctx, pod, others)?;
    app_armor(pod)?;
    user_namespace(ctx, pod)?;
    if ctx.shutdown.is_under_way() {
        return Err((shutdown::NOT_ADMITTED.into(), shutdown::NOT_ADMITTED_MESSAGE.into()));
    }
    Ok(victims)
}

/// A node under pressure takes only critical pods; one that only lacks memory takes all but best-effort ones.
fn pressure(ctx: &Context, pod: &Pod) -> Result<(), Rejection> {
    let conditions = ctx.eviction.conditions();
    // One that runs already was admitted by an earlier life of the kubelet.
    if conditions.is_empty() || is_critical(pod) || pod.phase() == "Running" {
        return Ok(());
    }
    if conditions == ["MemoryPressure"] {
        let taint =
            Taint { key: "node.kubernetes.io/memory-pressure".into(), effect: "NoSchedule".into(), ..Taint::default() };
        if qos::class(pod) != "BestEffort" || tolerates(pod, &taint) {
            return Ok(());
        }
    }
    let list = crate::format::list(&conditions);
    Err(("Evicted".into(), format!("The node had condition: {list}. ")))
}

fn predicates(ctx: &Context, pod: &Pod, others: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, Rejection> {
    let (node, spec) = (ctx.node.read().clone(), pod.spec());
    let os = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if os.is_some_and(|os| os != "linux") {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(("PodOSSelectorNodeLabelDoesNotMatch".into(), message.into()));
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(("PodOSNotSupported".into(), message.into()));
    }
    let mut allocatable = ctx.allocatable();
    for (name, count) in ctx.plugins.devices.allocated() {
        let given = Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi);
        if allocatable.get(&name).is_none_or(|q| q.value() < given.value()) {
            allocatable.insert(name, given);
        }
    }
    let mut unmet = resources(&allocatable, pod, others);
    unmet.extend([selectors(&node, pod), ports(pod, others)].into_iter().filter_map(Result::err).map(Unmet::Other));
    if !is_static(pod) {
        let listed = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
        unmet.extend(taints(listed, pod).err().map(Unmet::Other));
    }
    recover(pod, others, &unmet)
}

/// A critical pod that only lacks resources gets them from others.
fn recover(pod: &Pod, others: &[Arc<Pod>], unmet: &[Unmet]) -> Result<Vec<Arc<Pod>>, Rejection> {
    let Some(first) = unmet.first() else { return Ok(Vec::new()) };
    if !is_critical(pod) {
        return Err(first.rejection());
    }
    let mut wanted = Vec::new();
    for one in unmet {
        match one {
            Unmet::Other(rejection) => return Err(rejection.clone()),
            Unmet::Resource { name, requested, used, capacity } => {
                wanted.push(Requirement { resource: name.clone(), quantity: requested - (capacity - used) });
            }
        }
    }
    preemption::victims(pod, others, &wanted).map_err(|why| {
        let message = format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: {why}"
        );
        ("UnexpectedAdmissionError".into(), message)
    })
}

/// Whether the resources of a pod fit beside those of others.
pub fn fits(ctx: &Context, pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    match resources(&ctx.allocatable(), pod, others).first() {
        None => Ok(()),
        Some(unmet) => Err(unmet.rejection()),
    }
}

fn resources(allocatable: &Resources, pod: &Pod, others: &[Arc<Pod>]) -> Vec<Unmet> {
    let of = |name: &str, list: &Resources| {
        let amount = list.get(name);
        amount.map_or(0, |q| if name == "cpu" { q.milli_value() } else { q.value() })
    };
    let mut out = Vec::new();
    let (most, count) = (of("pods", allocatable), i64::try_from(others.len()).unwrap_or(i64::MAX));
    if count + 1 > most {
        out.push(Unmet::Resource { name: "pods".into(), requested: 1, used: count, capacity: most });
    }
    let mut used = Resources::new();
    for other in others {
        for (name, amount) in qos::pod_requests(other) {
            used.entry(name).and_modify(|u| *u = u.plus(&amount)).or_insert(amount);
        }
    }
    let wanted = qos::pod_requests(pod);
    let zero = Quantity::from_units(0, Format::DecimalSi);
    // The scheduler's order: CPU, memory, storage, then the others by name.
    let rank = |name: &str| ["cpu", "memory", "ephemeral-storage"].iter().position(|n| *n == name).unwrap_or(3);
    let mut names: Vec<&String> = wanted.keys().collect();
    names.sort_by_key(|name| rank(name));
    for name in names {
        let amount = &wanted[name];
        // What the node does not know of (and no device offers) is the scheduler's business alone.
        let Some(capacity) = allocatable.get(name).filter(|_| amount.sign() > 0) else { continue };
        if amount.plus(used.get(name).unwrap_or(&zero)) > *capacity {
            out.push(Unmet::Resource {
                name: name.clone(),
                requested: of(name, &wanted),
                used: of(name, &used),
                capacity: of(name, allocatable),
            });
        }
    }
    out
}

/// A pod that asks for AppArmor needs a kernel that has it.
fn app_armor(pod: &Pod) -> Result<(), Rejection> {
    let spec = pod.spec();
    let of_pod = spec.security_context.as_ref().and_then(|s| s.app_armor_profile.as_ref());
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = containers.filter_map(|c| c.security_context.as_ref()?.app_armor_profile.as_ref());
    let profiles: Vec<_> = of_pod.into_iter().chain(own).filter(|p| p.type_ != "Unconfined").collect();
    if profiles.is_empty() {
        return Ok(());
    }
    let refused = |why: &str| Err(("AppArmor".into(), format!("Cannot enforce AppArmor: {why}")));
    if !crate::security_context::has_app_armor() {
        return refused("AppArmor is not enabled on the host");
    }
    let is_empty = |p: &&&AppArmorProfile| p.localhost_profile.as_deref().unwrap_or_default().trim().is_empty();
    match profiles.iter().filter(|p| p.type_ == "Localhost").find(is_empty) {
        Some(_) => refused("invalid empty AppArmor profile name"),
        None => Ok(()),
    }
}

fn user_namespace(ctx: &Context, pod: &Pod) -> Result<(), Rejection> {
    if pod.spec().host_users != Some(false) || ctx.config.runtime.features().user_namespaces {
        return Ok(());
    }
    Err(("PodFeatureUnsupported".into(), "user namespaces are not supported by this node's runtime".into()))
}

fn selectors(node: &Node, pod: &Pod) -> Result<(), Rejection> {
    if pod_accepts_node(pod.spec(), node) {
        return Ok(());
    }
    Err((
        "NodeAffinity".into(),
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
    ))
}

type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod
        .spec()
        .containers
        .iter()
        .chain(pod.spec().init_containers.iter().flatten().filter(|c| crate::pod::is_sidecar(c)));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let of = |p: &api::k8s::core::v1::ContainerPort| {
        let any = |ip: &Option<String>| ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
        Some((any(&p.host_ip), p.protocol.clone().unwrap_or_else(|| "TCP".into()), p.host_port.filter(|p| *p > 0)?))
    };
    ports.filter_map(of).collect()
}

fn ports(pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    let taken: Vec<HostPort> = others.iter().flat_map(|p| host_ports(p)).collect();
    let clash =
        |a: &HostPort, b: &HostPort| a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0");
    if host_ports(pod).iter().any(|a| taken.iter().any(|b| clash(a, b))) {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(("NodePorts".into(), message.into()));
    }
    Ok(())
}

/// NoExecute taints that the pod does not tolerate keep it out.
fn taints(taints: &[Taint], pod: &Pod) -> Result<(), Rejection> {
    match taints.iter().any(|t| t.effect == "NoExecute" && !tolerates(pod, t)) {
        false => Ok(()),
        true => {
            let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
            Err(("TaintToleration".into(), message.into()))
        }
    }
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.spec().tolerations.iter().flatten().any(|t| {
        let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
        let key = t.key.as_deref().unwrap_or_default();
        let value = |v: &Option<String>| v.clone().unwrap_or_default();
        effect
            && match t.operator.as_deref() {
                Some("Exists") => key.is_empty() || key == taint.key,
                _ => key == taint.key && value(&t.value) == value(&taint.value),
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("pod")
    }

    fn allocatable() -> Resources {
        let of = |(k, v): (&str, &str)| (k.to_owned(), Quantity::parse(v).expect("quantity"));
        [("cpu", "1"), ("memory", "1Gi"), ("pods", "2")].map(of).into()
    }

    #[test]
    fn resources_run_out_with_upstreams_words() {
        let with = |cpu: &str| pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}));
        let others = [Arc::new(with("600m"))];
        let first =
            |pod: &Pod, others: &[Arc<Pod>]| resources(&allocatable(), pod, others).first().map(Unmet::rejection);
        assert_eq!(first(&with("400m"), &others), None);
        let message = "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000";
        assert_eq!(first(&with("500m"), &others), Some(("OutOfcpu".into(), message.into())));
        let full = [others[0].clone(), others[0].clone()];
        assert_eq!(first(&pod(json!({"containers": []})), &full).map(|e| e.0), Some("OutOfpods".into()));
        let mut critical = with("500m");
        critical.spec.as_mut().expect("spec").priority = Some(crate::pod::SYSTEM_CRITICAL);
        let unmet = resources(&allocatable(), &critical, &others);
        assert_eq!(recover(&critical, &others, &unmet).map(|v| v.len()), Ok(1), "the other goes");
        assert_eq!(recover(&with("500m"), &others, &unmet).map_err(|e| e.0), Err("OutOfcpu".into()));
    }

    #[test]
    fn ports_and_selectors() {
        let with = |ip: &str| {
            pod(json!({"containers": [{"name": "a", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]}))
        };
        assert!(ports(&with("1.1.1.1"), &[Arc::new(with("2.2.2.2"))]).is_ok());
        assert!(ports(&with("1.1.1.1"), &[Arc::new(with(""))]).is_err());
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"a": "1"}}})).expect("node");
        assert!(selectors(&node, &pod(json!({"containers": [], "nodeSelector": {"a": "1"}}))).is_ok());
        assert!(selectors(&node, &pod(json!({"containers": [], "nodeSelector": {"a": "2"}}))).is_err());
    }
}
