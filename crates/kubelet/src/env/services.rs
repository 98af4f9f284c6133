//! Environment variables that name the services of a pod's namespace.

use api::k8s::core::v1::Service;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Services a pod of `namespace` sees: `kubernetes` of the default namespace always, its own namespace's with links.
pub fn environment(services: &[Arc<Service>], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut seen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services.iter().filter(|s| cluster_ip(s).is_some()) {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        if of == "default" && name == "kubernetes" {
            seen.entry(name).or_insert(service);
        } else if of == namespace && links {
            seen.insert(name, service);
        }
    }
    seen.into_iter().flat_map(|(name, service)| variables(name, service)).collect()
}

fn cluster_ip(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn variable_name(text: &str) -> String {
    text.replace('-', "_").to_uppercase()
}

fn variables(name: &str, service: &Service) -> Vec<(String, String)> {
    let prefix = variable_name(name);
    let ip = cluster_ip(service).unwrap_or_default();
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let mut out = vec![(format!("{prefix}_SERVICE_HOST"), ip.to_owned())];
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    for (i, port) in ports.iter().enumerate() {
        let number = port.port.to_string();
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{number}", protocol.to_lowercase());
        if i == 0 {
            out.push((format!("{prefix}_SERVICE_PORT"), number.clone()));
            out.push((format!("{prefix}_PORT"), url.clone()));
        }
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{prefix}_SERVICE_PORT_{}", variable_name(name)), number.clone()));
        }
        let one = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        out.push((one.clone(), url));
        out.push((format!("{one}_PROTO"), protocol.to_lowercase()));
        out.push((format!("{one}_PORT"), number));
        out.push((format!("{one}_ADDR"), ip.to_owned()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<Service> {
        let value = json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [{"name": "p-q", "port": 80, "protocol": "TCP"}]}});
        Arc::new(serde_json::from_value(value).expect("service"))
    }

    #[test]
    fn own_namespace_and_kubernetes() {
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("n", "a-b", "10.0.0.2"),
            service("n", "headless", "None"),
            service("m", "c", "10.0.0.3"),
        ];
        let env = environment(&all, "n", true);
        assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.0.0.1");
        assert_eq!(env["A_B_SERVICE_PORT_P_Q"], "80");
        assert_eq!(env["A_B_PORT_80_TCP"], "tcp://10.0.0.2:80");
        assert_eq!(env.len(), 16);
        assert_eq!(environment(&all, "n", false).len(), 8);
    }
}
