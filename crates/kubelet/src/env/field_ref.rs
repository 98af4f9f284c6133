//! Fields of a pod as text (`fieldRef`) and amounts of a container (`resourceFieldRef`).

use crate::format;
use crate::pod::PodExt;
use crate::qos::Resources;
use api::k8s::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use api::quantity::{Format, Quantity};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the downward API knows besides the spec.
pub struct Facts<'a> {
    /// Addresses of the pod; those of the node with host networking.
    pub pod_ips: &'a [IpAddr],
    /// Addresses of the node.
    pub host_ips: &'a [IpAddr],
    /// Allocatable resources of the node: the default of limits that are not set.
    pub allocatable: &'a Resources,
}

/// The text of a field, `metadata.labels['x']` and whole maps included.
pub fn field(selector: &ObjectFieldSelector, pod: &Pod, facts: &Facts<'_>) -> Result<String, String> {
    let path = selector.field_path.as_str();
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.annotations" => &pod.metadata.annotations,
            "metadata.labels" => &pod.metadata.labels,
            _ => return Err(format!("fieldPath {} does not support subscript", format::quote(path))),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name().into(),
        "metadata.namespace" => pod.namespace().into(),
        "metadata.uid" => pod.uid().into(),
        "metadata.labels" => map_text(pod.metadata.labels.as_ref()),
        "metadata.annotations" => map_text(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => pod.spec().node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "spec.restartPolicy" => pod.restart_policy().into(),
        "status.phase" => pod.phase().into(),
        "status.hostIP" => first(facts.host_ips),
        "status.hostIPs" => join(facts.host_ips),
        "status.podIP" => first(facts.pod_ips),
        "status.podIPs" => join(facts.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines in order, values quoted as Go's `%q` does.
fn map_text(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(k, v)| format!("{k}={}", format::quote(v))).collect::<Vec<_>>().join("\n")
}

/// The amount of a container's resource in whole divisors, rounded up.
pub fn resource(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
    facts: &Facts<'_>,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let found = if name.is_empty() { own.cloned() } else { pod.container(name).map(|(_, c)| c) };
    let container = found.ok_or_else(|| format!("container {name} not found"))?;
    let (kind, resource) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let list = container.resources.as_ref();
    let amount = |list: Option<&BTreeMap<String, _>>| crate::qos::parse(list).get(resource).copied();
    let limit = amount(list.and_then(|r| r.limits.as_ref()));
    let value = match kind {
        // A limit that is not set is the node's.
        "limits" => limit.or_else(|| facts.allocatable.get(resource).copied()),
        "requests" => amount(list.and_then(|r| r.requests.as_ref())).or(limit),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().and_then(|d| Quantity::parse(&d.0).ok()).filter(|d| d.sign() > 0);
    let divisor = divisor.unwrap_or_else(|| Quantity::from_units(1, Format::DecimalSi));
    Ok(divide(value.unwrap_or_else(|| Quantity::from_units(0, Format::DecimalSi)), divisor, resource == "cpu")
        .to_string())
}

fn divide(value: Quantity, divisor: Quantity, milli: bool) -> i64 {
    let (value, divisor) =
        if milli { (value.milli_value(), divisor.milli_value()) } else { (value.value(), divisor.value()) };
    let divisor = divisor.max(1);
    value / divisor + i64::from(value % divisor > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"b": "2", "a": "x\"y"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}}))
        .expect("pod")
    }

    #[test]
    fn fields_become_text() {
        let (allocatable, ip) = (Resources::new(), ["10.0.0.1".parse().expect("ip")]);
        let facts = Facts { pod_ips: &ip, host_ips: &[], allocatable: &allocatable };
        let check = |path: &str, expect: &str| {
            let selector = ObjectFieldSelector { api_version: None, field_path: path.into() };
            assert_eq!(field(&selector, &pod(), &facts).as_deref(), Ok(expect));
        };
        check("metadata.name", "p");
        check("metadata.labels['b']", "2");
        check("metadata.labels", "a=\"x\\\"y\"\nb=\"2\"");
        check("status.podIP", "10.0.0.1");
        let selector = ObjectFieldSelector { api_version: None, field_path: "spec.x".into() };
        assert!(field(&selector, &pod(), &facts).is_err());
    }

    #[test]
    fn amounts_divide_and_default_to_the_node() {
        let allocatable =
            Resources::from([("ephemeral-storage".to_owned(), Quantity::from_units(7, Format::DecimalSi))]);
        let facts = Facts { pod_ips: &[], host_ips: &[], allocatable: &allocatable };
        let check = |name: &str, divisor: &str, expect: &str| {
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"containerName": "c", "resource": name, "divisor": divisor}))
                    .expect("selector");
            assert_eq!(resource(&selector, &pod(), None, &facts).as_deref(), Ok(expect));
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.memory", "1Mi", "64");
        check("limits.ephemeral-storage", "0", "7");
    }
}
