//! What is accepted of a service and has no effect, or soon will not.

use super::spec::HINTS;
use crate::field::{Fields, Path};
use crate::names;
use serde_json::Value;

const SPEC: Path<'_> = Path::root("spec");

/// Warnings about a service.
pub fn warnings(service: &Value) -> Vec<String> {
    let spec = service.at("spec");
    let kind = spec.text("type");
    let (external, headless) = (kind == "ExternalName", kind == "ClusterIP" && spec.text("clusterIP") == "None");
    let given = !spec.list("externalIPs").is_empty();
    let mut out = Vec::new();
    if api::meta::annotation(service, HINTS).is_some() {
        out.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    if !external && !["", "None"].contains(&spec.text("clusterIP")) {
        addresses(&mut out, spec, "clusterIPs");
    }
    let ignored = [
        ("spec.loadBalancerIP", !spec.text("loadBalancerIP").is_empty()),
        ("spec.externalIPs", given),
        ("spec.SessionAffinity", spec.text("sessionAffinity") != "None"),
    ];
    for (field, _) in ignored.into_iter().filter(|(_, set)| headless && *set) {
        out.push(format!("{field} is ignored for headless services"));
    }
    addresses(&mut out, spec, "externalIPs");
    if given && !headless && !external {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    let balancer = names::ip_warning(spec.text("loadBalancerIP"));
    out.extend(balancer.map(|text| format!("spec.loadBalancerIP: {text}")));
    for (i, range) in spec.texts("loadBalancerSourceRanges").into_iter().enumerate() {
        let path = SPEC.field("loadBalancerSourceRanges");
        out.extend(names::cidr_warnings(range).into_iter().map(|text| format!("{}: {text}", path.index(i))));
    }
    if external && given {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !external && !spec.text("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec.text("trafficDistribution") == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    out
}

fn addresses(out: &mut Vec<String>, spec: &Value, list: &str) {
    let path = SPEC.field(list);
    for (i, address) in spec.texts(list).into_iter().enumerate() {
        out.extend(names::ip_warning(address).map(|text| format!("{}: {text}", path.index(i))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_no_effect_is_told() {
        let check = |spec: Value, want: &[&str]| assert_eq!(warnings(&json!({"spec": spec})), want);
        check(json!({"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "sessionAffinity": "ClientIP"}), &[]);
        check(
            json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "ClientIP", "externalName": "x"}),
            &[
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ],
        );
        check(
            json!({"type": "ClusterIP", "sessionAffinity": "None", "externalIPs": ["2001:DB8::1"]}),
            &[
                "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            ],
        );
    }
}
