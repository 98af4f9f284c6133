//! Answers of the zone.

use super::*;
use serde_json::{Value, json};

pub(crate) struct Fixed {
    pub services: Vec<Arc<Service>>,
    pub slices: Vec<Arc<EndpointSlice>>,
    pub synced: bool,
}

impl Source for Fixed {
    fn synced(&self) -> bool {
        self.synced
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let same = |s: &&Arc<Service>| {
            s.metadata.namespace.as_deref() == Some(namespace) && s.metadata.name.as_deref() == Some(name)
        };
        self.services.iter().find(same).cloned()
    }
    fn has_services(&self, namespace: &str) -> bool {
        self.services.iter().any(|s| s.metadata.namespace.as_deref() == Some(namespace))
    }
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let key = format!("{namespace}/{service}");
        self.slices.iter().filter(|s| service_key(s).as_deref() == Some(&key)).cloned().collect()
    }
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.iter().filter(|s| cluster_ips(s).contains(&ip)).cloned().collect()
    }
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let has = |s: &&Arc<EndpointSlice>| s.endpoints.iter().flatten().any(|e| e.addresses.contains(&ip.to_string()));
        self.slices.iter().filter(has).cloned().collect()
    }
}

fn service(name: &str, spec: Value) -> Arc<Service> {
    Arc::new(serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap())
}

pub(crate) fn zone() -> Zone<Fixed> {
    let ports =
        json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let slice = json!({"metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": "headless"}}, "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.0.1"], "hostname": "web-0"}, {"addresses": ["10.1.0.2"]},
            {"addresses": ["10.1.0.3"], "conditions": {"ready": false}}]});
    let source = Fixed {
        services: vec![
            service("web", json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "ports": ports})),
            service("headless", json!({"clusterIP": "None", "ports": ports})),
            service("empty", json!({"clusterIP": "None"})),
            service("out", json!({"type": "ExternalName", "externalName": "example.com"})),
            service("in", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"})),
            service("loop", json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"})),
        ],
        slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
        synced: true,
    };
    Zone::new(Domain::parse("cluster.local").unwrap(), source)
}

fn check(name: &str, kind: RecordType, expect: &str) {
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    let text = match zone().answer(&name, kind) {
        Answer::Found(found) => {
            let mut texts: Vec<String> = found.answers.iter().map(|r| r.data.to_string()).collect();
            texts.extend(found.additionals.iter().map(|r| format!("+{} {}", r.name, r.data)));
            texts.extend(found.alias.map(|alias| format!("->{alias}")));
            texts.join(", ")
        }
        other => format!("{other:?}"),
    };
    assert_eq!(text, expect, "{name} {kind}");
}

#[test]
fn services() {
    use RecordType::{A, AAAA, CNAME, MX, SRV};
    check("web.ns.svc.cluster.local", A, "10.96.0.5");
    check("WEB.ns.SVC.cluster.local", A, "10.96.0.5");
    check("web.ns.svc.cluster.local", AAAA, "fd00::5");
    check("web.ns.svc.cluster.local", MX, "");
    check("none.ns.svc.cluster.local", A, "NxDomain");
    check("web.other.svc.cluster.local", A, "NxDomain");
    check("headless.ns.svc.cluster.local", A, "10.1.0.1, 10.1.0.2");
    check("empty.ns.svc.cluster.local", A, "NxDomain");
    check("web-0.headless.ns.svc.cluster.local", A, "10.1.0.1");
    check("10-1-0-2.headless.ns.svc.cluster.local", A, "10.1.0.2");
    check("web-1.headless.ns.svc.cluster.local", A, "NxDomain");
    check("ns.svc.cluster.local", A, "");
    check("other.svc.cluster.local", A, "NxDomain");
    check("10-1-2-3.ns.pod.cluster.local", A, "10.1.2.3");
    check("out.ns.svc.cluster.local", CNAME, "example.com.");
    check("out.ns.svc.cluster.local", A, "example.com., ->example.com.");
    check("in.ns.svc.cluster.local", A, "web.ns.svc.cluster.local., 10.96.0.5");
    check("example.com", A, "Forward");
    let host = "0 50 80 web.ns.svc.cluster.local.";
    let extra = "+web.ns.svc.cluster.local. 10.96.0.5, +web.ns.svc.cluster.local. fd00::5";
    check("_http._tcp.web.ns.svc.cluster.local", SRV, &format!("{host}, {extra}"));
    check("_nope._tcp.web.ns.svc.cluster.local", SRV, "NxDomain");
    check("_http._udp.web.ns.svc.cluster.local", SRV, "NxDomain");
    let pods = "0 50 8080 web-0.headless.ns.svc.cluster.local., 0 50 8080 10-1-0-2.headless.ns.svc.cluster.local.";
    let extra = "+web-0.headless.ns.svc.cluster.local. 10.1.0.1, +10-1-0-2.headless.ns.svc.cluster.local. 10.1.0.2";
    check("_http._tcp.headless.ns.svc.cluster.local", SRV, &format!("{pods}, {extra}"));
}

#[test]
fn reverse_and_odds() {
    use RecordType::{A, NS, PTR, TXT};
    check("5.0.96.10.in-addr.arpa", PTR, "web.ns.svc.cluster.local.");
    check("1.0.1.10.in-addr.arpa", PTR, "web-0.headless.ns.svc.cluster.local.");
    check("8.8.8.8.in-addr.arpa", PTR, "Forward");
    check("dns-version.cluster.local", TXT, "1.1.0");
    check("cluster.local", NS, "ns.dns.cluster.local.");
    check("what.cluster.local", A, "NxDomain");
    // An alias of itself ends.
    let name = Name::from_ascii("loop.ns.svc.cluster.local.").unwrap();
    let Answer::Found(found) = zone().answer(&name, A) else { panic!("not found") };
    assert!(found.answers.len() <= ALIASES_MAX + 1);
}

#[test]
fn says_nothing_before_it_knows() {
    let mut zone = zone();
    zone.source.synced = false;
    let name = |text: &str| Name::from_ascii(text).unwrap();
    assert_eq!(zone.answer(&name("web.ns.svc.cluster.local."), RecordType::A), Answer::NotReady);
    assert_eq!(zone.answer(&name("example.com."), RecordType::A), Answer::Forward);
}
