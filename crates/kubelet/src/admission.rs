//! Whether a pod may run here: resources, ports, selectors. Its hook runs before all others, in order of arrival.

use crate::context::Context;
use crate::pod::PodExt;
use crate::qos::{self, Resources};
use api::k8s::core::v1::{Node, NodeSelectorTerm, Pod, Taint};
use api::quantity::{Format, Quantity};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a pod is rejected: reason and message of its status.
pub type Rejection = (String, String);

/// Decides about a pod next to those that are already there.
pub fn admit(ctx: &Context, pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    let node = ctx.node.read().clone();
    let spec = pod.spec();
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(("PodOSNotSupported".into(), message.into()));
    }
    resources(&ctx.allocatable(), pod, others)?;
    selectors(&node, pod)?;
    ports(pod, others)?;
    taints(node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default(), pod)
}

/// Whether the resources of a pod fit beside those of others.
pub fn fits(ctx: &Context, pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    resources(&ctx.allocatable(), pod, others)
}

fn resources(allocatable: &Resources, pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    let of = |name: &str, list: &Resources| {
        let amount = list.get(name);
        amount.map_or(0, |q| if name == "cpu" { q.milli_value() } else { q.value() })
    };
    let out_of = |reason: String, name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err((reason, message))
    };
    let most = of("pods", allocatable);
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > most {
        return out_of("OutOfpods".into(), "pods", 1, count, most);
    }
    let mut used = Resources::new();
    for other in others {
        for (name, amount) in qos::pod_requests(other) {
            used.entry(name).and_modify(|u| *u = u.plus(&amount)).or_insert(amount);
        }
    }
    let wanted = qos::pod_requests(pod);
    let zero = Quantity::from_units(0, Format::DecimalSi);
    for (name, amount) in wanted.iter().filter(|(_, a)| a.sign() > 0) {
        // What the node does not know of (and no device offers) is the scheduler's business alone.
        let Some(capacity) = allocatable.get(name) else { continue };
        if amount.plus(used.get(name).unwrap_or(&zero)) > *capacity {
            return out_of(format!("OutOf{name}"), name, of(name, &wanted), of(name, &used), of(name, allocatable));
        }
    }
    Ok(())
}

fn selectors(node: &Node, pod: &Pod) -> Result<(), Rejection> {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let selected = pod.spec().node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let affinity = pod.spec().affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let fits = required.is_none_or(|r| r.node_selector_terms.iter().any(|term| matches(term, node, labels)));
    if selected && fits {
        return Ok(());
    }
    Err((
        "NodeAffinity".into(),
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
    ))
}

fn matches(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    use api::selector::Requirement;
    let requirement = |key: &str, operator: &str, values: &Option<Vec<String>>| {
        let (key, values) = (key.to_owned(), values.clone().unwrap_or_default());
        let number = || values.first().and_then(|v| v.parse().ok());
        Some(match operator {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::NotExists(key),
            "Gt" => Requirement::Greater(key, number()?),
            "Lt" => Requirement::Less(key, number()?),
            _ => return None,
        })
    };
    let (expressions, fields) =
        (term.match_expressions.as_deref().unwrap_or_default(), term.match_fields.as_deref().unwrap_or_default());
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_label = expressions.iter().all(|e| {
        requirement(&e.key, &e.operator, &e.values).is_some_and(|r| r.matches(labels.get(&e.key).map(String::as_str)))
    });
    let name = node.metadata.name.as_deref();
    by_label
        && fields.iter().all(|e| {
            e.key == "metadata.name" && requirement(&e.key, &e.operator, &e.values).is_some_and(|r| r.matches(name))
        })
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
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let tolerated = |taint: &Taint| {
        tolerations.iter().any(|t| {
            let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
            let key = t.key.as_deref().unwrap_or_default();
            match t.operator.as_deref() {
                Some("Exists") => effect && (key.is_empty() || key == taint.key),
                _ => {
                    effect
                        && key == taint.key
                        && t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
                }
            }
        })
    };
    match taints.iter().find(|t| t.effect == "NoExecute" && !tolerated(t)) {
        None => Ok(()),
        Some(taint) => {
            let shown = format!("{{{}: {}}}", taint.key, taint.value.as_deref().unwrap_or_default());
            Err((
                "TaintToleration".into(),
                format!("Predicate TaintToleration failed: node(s) had untolerated taint {shown}"),
            ))
        }
    }
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
        assert_eq!(resources(&allocatable(), &with("400m"), &others), Ok(()));
        let message = "Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000";
        assert_eq!(resources(&allocatable(), &with("500m"), &others), Err(("OutOfcpu".into(), message.into())));
        let full = [others[0].clone(), others[0].clone()];
        assert_eq!(
            resources(&allocatable(), &pod(json!({"containers": []})), &full).map_err(|e| e.0),
            Err("OutOfpods".into())
        );
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
