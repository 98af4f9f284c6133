//! Which endpoints of a service port get traffic.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Label that names a slice's service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An address and port that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
    /// On this node.
    pub local: bool,
}

/// Endpoints by what traffic policy may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// For policy Cluster.
    pub cluster: Vec<Endpoint>,
    /// For policy Local.
    pub local: Vec<Endpoint>,
}

#[derive(Clone, Copy, Default)]
struct Conditions {
    ready: bool,
    serving: bool,
    terminating: bool,
}

/// Chooses for one port: those that are ready; where none is, those that terminate but still serve.
pub(crate) fn choose(slices: &[Arc<EndpointSlice>], port_name: &str, protocol: &str, node: &str) -> Endpoints {
    let mut found: BTreeMap<Endpoint, Conditions> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        for (endpoint, conditions) in of_slice(slice, port_name, protocol, node) {
            let known = found.entry(endpoint).or_default();
            // While it moves between slices, the better news counts.
            if !known.ready {
                *known = conditions;
            }
        }
    }
    let pick = |local: bool| {
        let usable = |want: fn(&Conditions) -> bool| -> Vec<Endpoint> {
            found.iter().filter(|(e, c)| (e.local || !local) && want(c)).map(|(e, _)| *e).collect()
        };
        let ready = usable(|c| c.ready);
        if ready.is_empty() { usable(|c| c.serving && c.terminating) } else { ready }
    };
    Endpoints { cluster: pick(false), local: pick(true) }
}

fn of_slice<'a>(
    slice: &'a EndpointSlice,
    port_name: &'a str,
    protocol: &'a str,
    node: &'a str,
) -> impl Iterator<Item = (Endpoint, Conditions)> + 'a {
    let ports = slice.ports.iter().flatten().filter(move |port| {
        port.name.as_deref().unwrap_or_default() == port_name && port.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    let ports = ports.filter_map(|port| u16::try_from(port.port?).ok().filter(|port| *port != 0));
    ports.flat_map(move |port| {
        slice.endpoints.iter().flatten().filter_map(move |endpoint| {
            let ip = endpoint.addresses.first()?.parse().ok()?;
            let local = endpoint.node_name.as_deref() == Some(node);
            let given = endpoint.conditions.clone().unwrap_or_default();
            let ready = given.ready.unwrap_or(true);
            let serving = given.serving.unwrap_or(ready);
            let terminating = given.terminating.unwrap_or(false);
            Some((Endpoint { ip, port, local }, Conditions { ready, serving, terminating }))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(endpoints: serde_json::Value, cluster: &[u8], local: &[u8]) {
        let slice = serde_json::json!({
            "addressType": "IPv4", "metadata": {}, "ports": [{"name": "p", "port": 80}], "endpoints": endpoints,
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let chosen = choose(&[Arc::new(slice)], "p", "TCP", "here");
        let last = |list: &[Endpoint]| list.iter().map(|e| e.ip.octets()[3]).collect::<Vec<_>>();
        assert_eq!((last(&chosen.cluster), last(&chosen.local)), (cluster.to_vec(), local.to_vec()));
    }

    #[test]
    fn ready_before_terminating() {
        let one = |n: u8, node: &str, conditions: serde_json::Value| serde_json::json!({"addresses": [format!("10.0.0.{n}")], "nodeName": node, "conditions": conditions});
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let (ready, gone) = (json("{}"), json(r#"{"ready":false,"serving":false,"terminating":true}"#));
        let leaving = json(r#"{"ready":false,"serving":true,"terminating":true}"#);
        let unready = json(r#"{"ready":false}"#);
        check(json("[]"), &[], &[]);
        check(serde_json::json!([one(1, "here", ready.clone()), one(2, "there", ready.clone())]), &[1, 2], &[1]);
        check(serde_json::json!([one(1, "here", leaving.clone()), one(2, "there", ready.clone())]), &[2], &[1]);
        check(serde_json::json!([one(1, "here", leaving), one(2, "there", gone.clone())]), &[1], &[1]);
        check(serde_json::json!([one(1, "here", unready), one(2, "there", gone)]), &[], &[]);
    }
}
