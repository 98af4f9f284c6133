//! How kubectl shows services.

use crate::field::Fields;
use api::Object;
use serde_json::Value;

/// Where the service is reached from outside.
pub fn external_ip(obj: &Object) -> String {
    let spec = obj.at("spec");
    let external = spec.texts("externalIPs");
    let list = match spec.text("type") {
        "LoadBalancer" => {
            let ingress = obj.at("status").at("loadBalancer").list("ingress").iter();
            let found = ingress.map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") });
            let mut all: Vec<&str> = found.filter(|t| !t.is_empty()).collect();
            all.sort_unstable();
            all.dedup();
            if all.is_empty() && external.is_empty() {
                return "<pending>".into();
            }
            all.extend(external);
            all
        }
        "ExternalName" => return spec.text("externalName").into(),
        "ClusterIP" | "NodePort" => external,
        _ => return "<unknown>".into(),
    };
    if list.is_empty() { "<none>".into() } else { list.join(",") }
}

/// Ports with their node ports and protocols.
pub fn ports_text(spec: &Value) -> String {
    let one = |p: &Value| {
        let (port, protocol) = (p.int("port").unwrap_or(0), p.text("protocol"));
        match p.int("nodePort").unwrap_or(0) {
            0 => format!("{port}/{protocol}"),
            node => format!("{port}:{node}/{protocol}"),
        }
    };
    spec.list("ports").iter().map(one).collect::<Vec<_>>().join(",")
}
