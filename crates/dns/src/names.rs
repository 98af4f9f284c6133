//! The forms a name of the cluster can have (Kubernetes DNS-Based Service Discovery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The domain itself.
    Apex,
    /// `dns-version`
    Version,
    /// `ns.dns`, the name server.
    NameServer,
    /// `svc` and `pod`, which have names below them.
    Branch,
    /// `<namespace>.svc`
    Namespace(String),
    /// `<service>.<namespace>.svc`
    Service { namespace: String, service: String },
    /// `_<port>._<protocol>.<service>.<namespace>.svc`
    Port { namespace: String, service: String, port: String, protocol: String },
    /// `<host>.<service>.<namespace>.svc`
    Endpoint { namespace: String, service: String, host: String },
    /// `<a-b-c-d>.<namespace>.pod`
    Pod(IpAddr),
    /// Reverse lookup.
    Reverse(IpAddr),
    /// In the domain, but of no known form.
    Unknown,
    /// Of another domain.
    Foreign,
}

/// Reads lower-case labels, given the labels of the cluster's domain.
pub(crate) fn read(labels: &[&str], domain: &[&str]) -> Asked {
    if let Some(ip) = reverse(labels) {
        return Asked::Reverse(ip);
    }
    let Some(below) = labels.strip_suffix(domain) else { return Asked::Foreign };
    let own = |text: &&str| (*text).to_owned();
    match below {
        [] => Asked::Apex,
        ["dns-version"] => Asked::Version,
        ["ns", "dns"] => Asked::NameServer,
        ["dns" | "svc" | "pod"] => Asked::Branch,
        [namespace, "svc"] => Asked::Namespace(own(namespace)),
        [service, namespace, "svc"] => Asked::Service { namespace: own(namespace), service: own(service) },
        // The branch above `_port._tcp`.
        [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
            Asked::Service { namespace: own(namespace), service: own(service) }
        }
        [host, service, namespace, "svc"] => {
            Asked::Endpoint { namespace: own(namespace), service: own(service), host: own(host) }
        }
        [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
            (Some(port), Some(protocol)) => Asked::Port {
                namespace: own(namespace),
                service: own(service),
                port: port.to_owned(),
                protocol: protocol.to_owned(),
            },
            _ => Asked::Unknown,
        },
        [ip, _namespace, "pod"] => dashed(ip).map_or(Asked::Unknown, Asked::Pod),
        _ => Asked::Unknown,
    }
}

/// `10-0-0-1` or `fd00--1`.
fn dashed(label: &str) -> Option<IpAddr> {
    if label.matches('-').count() == 3 && !label.contains("--") {
        return label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::from);
    }
    label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from)
}

/// The label of an endpoint without a host name.
pub(crate) fn dash(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

fn reverse(labels: &[&str]) -> Option<IpAddr> {
    match labels {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::from),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let mut number = 0u128;
            for nibble in nibbles.iter().rev() {
                let digit = Some(nibble).filter(|n| n.len() == 1).and_then(|n| u128::from_str_radix(n, 16).ok())?;
                number = number << 4 | digit;
            }
            Some(Ipv6Addr::from(number).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expect: Asked) {
        let labels: Vec<&str> = name.split('.').collect();
        assert_eq!(read(&labels, &["cluster", "local"]), expect, "{name}");
    }

    #[test]
    fn forms() {
        let own = str::to_owned;
        check("cluster.local", Asked::Apex);
        check("svc.cluster.local", Asked::Branch);
        check("ns.svc.cluster.local", Asked::Namespace(own("ns")));
        check("s.ns.svc.cluster.local", Asked::Service { namespace: own("ns"), service: own("s") });
        check("h.s.ns.svc.cluster.local", Asked::Endpoint { namespace: own("ns"), service: own("s"), host: own("h") });
        let port = Asked::Port { namespace: own("ns"), service: own("s"), port: own("http"), protocol: own("tcp") };
        check("_http._tcp.s.ns.svc.cluster.local", port);
        check("a.b.s.ns.svc.cluster.local", Asked::Unknown);
        check("10-1-2-3.ns.pod.cluster.local", Asked::Pod("10.1.2.3".parse().unwrap()));
        check("fd00--1.ns.pod.cluster.local", Asked::Pod("fd00::1".parse().unwrap()));
        check("10-1-2-300.ns.pod.cluster.local", Asked::Unknown);
        check("4.3.2.1.in-addr.arpa", Asked::Reverse("1.2.3.4".parse().unwrap()));
        check("3.2.1.in-addr.arpa", Asked::Foreign);
        check("example.com", Asked::Foreign);
        check("xcluster.local", Asked::Foreign);
    }
}
