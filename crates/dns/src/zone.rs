//! Answers for the names of the cluster.

use crate::Error;
use crate::names::{self, Asked};
use crate::source::{Source, cluster_ips, service_key};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::net::IpAddr;
use std::sync::Arc;

/// Short, because a query costs no more than a cache's lookup would.
const TTL: u32 = 5;
const ALIASES_MAX: usize = 8;
const VERSION: &str = "1.1.0";

/// The outcome of a lookup.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The name exists; no records means it has none of this type.
    Found(Found),
    /// It does not exist.
    NxDomain,
    /// Data are not complete yet.
    NotReady,
    /// Not ours: ask upstream.
    Forward,
}

/// Records of an answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub answers: Vec<Record>,
    pub additionals: Vec<Record>,
    /// Where an alias leads outside: its addresses are to be fetched.
    pub alias: Option<Name>,
}

/// The cluster's domain.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    name: Name,
    labels: Vec<String>,
}

impl Domain {
    pub fn parse(domain: &str) -> Result<Domain, Error> {
        let trimmed = domain.trim_matches('.').to_lowercase();
        let name = Name::from_ascii(format!("{trimmed}.")).map_err(|_| Error::Domain(domain.to_owned()))?;
        if trimmed.is_empty() {
            return Err(Error::Domain(domain.to_owned()));
        }
        Ok(Domain { name, labels: trimmed.split('.').map(str::to_owned).collect() })
    }
}

pub(crate) struct Zone<S> {
    domain: Domain,
    source: S,
}

/// An address of a service, and the ports behind it.
struct Target {
    ip: IpAddr,
    /// Label below the service, for endpoints.
    host: Option<String>,
    /// `(name, protocol, number)`
    ports: Vec<(String, String, u16)>,
}

impl<S: Source> Zone<S> {
    pub fn new(domain: Domain, source: S) -> Zone<S> {
        Zone { domain, source }
    }

    /// Answers a query; records carry the name as it was asked.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let asked = self.read(name);
        if asked == Asked::Foreign {
            return Answer::Forward;
        }
        if !self.source.synced() {
            return Answer::NotReady;
        }
        self.lookup(name, kind, asked)
    }

    /// The start of authority that goes with negative answers.
    pub fn authority(&self) -> Record {
        Record::from_rdata(self.domain.name.clone(), TTL, RData::SOA(self.soa()))
    }

    fn read(&self, name: &Name) -> Asked {
        let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).to_lowercase()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let domain: Vec<&str> = self.domain.labels.iter().map(String::as_str).collect();
        names::read(&labels, &domain)
    }

    fn lookup(&self, name: &Name, kind: RecordType, asked: Asked) -> Answer {
        match asked {
            Asked::Apex => self.apex(name, kind),
            Asked::Version if kind == RecordType::TXT => found(name, RData::TXT(TXT::new(vec![VERSION.to_owned()]))),
            Asked::Version | Asked::Branch => Answer::Found(Found::default()),
            Asked::NameServer => self.service(name, kind, "kube-system", "kube-dns", None),
            Asked::Namespace(namespace) if self.source.has_services(&namespace) => Answer::Found(Found::default()),
            Asked::Service { namespace, service } => self.service(name, kind, &namespace, &service, None),
            Asked::Port { namespace, service, port, protocol } => {
                self.service(name, kind, &namespace, &service, Some((&port, &protocol)))
            }
            Asked::Endpoint { namespace, service, host } => self.endpoint(name, kind, &namespace, &service, &host),
            Asked::Pod(ip) => Answer::Found(Found { answers: addresses(name, kind, [ip]), ..Found::default() }),
            Asked::Reverse(ip) => self.reverse(name, kind, ip),
            Asked::Namespace(_) | Asked::Unknown => Answer::NxDomain,
            Asked::Foreign => Answer::Forward,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType) -> Answer {
        match kind {
            RecordType::SOA => found(name, RData::SOA(self.soa())),
            RecordType::NS => self.below(&["ns", "dns"]).map_or(Answer::NxDomain, |ns| found(name, RData::NS(NS(ns)))),
            _ => Answer::Found(Found::default()),
        }
    }

    fn service(
        &self,
        name: &Name,
        kind: RecordType,
        namespace: &str,
        service: &str,
        port: Option<(&str, &str)>,
    ) -> Answer {
        let Some(object) = self.source.service(namespace, service) else { return Answer::NxDomain };
        if let Some(alias) = external_name(&object) {
            return if port.is_some() { Answer::NxDomain } else { self.alias(name, kind, &alias, 0) };
        }
        let mut targets = self.targets(&object, namespace, service);
        if let Some((port, protocol)) = port {
            for target in &mut targets {
                target.ports.retain(|(n, p, _)| n.eq_ignore_ascii_case(port) && p.eq_ignore_ascii_case(protocol));
            }
            targets.retain(|target| !target.ports.is_empty());
        }
        // The specification: a headless service without ready endpoints does not exist.
        if targets.is_empty() {
            Answer::NxDomain
        } else {
            Answer::Found(self.records(name, kind, namespace, service, targets))
        }
    }

    fn endpoint(&self, name: &Name, kind: RecordType, namespace: &str, service: &str, host: &str) -> Answer {
        let slices = self.source.slices(namespace, service);
        let mut targets = endpoints(&slices);
        targets.retain(|target| target.host.as_deref() == Some(host));
        if targets.is_empty() || self.source.service(namespace, service).is_none() {
            return Answer::NxDomain;
        }
        Answer::Found(self.records(name, kind, namespace, service, targets))
    }

    fn targets(&self, object: &Service, namespace: &str, service: &str) -> Vec<Target> {
        let ips = cluster_ips(object);
        if ips.is_empty() {
            return endpoints(&self.source.slices(namespace, service));
        }
        let ports = object.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let ports: Vec<_> = ports
            .filter_map(|port| {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                Some((port.name.clone().unwrap_or_default(), protocol, u16::try_from(port.port).ok()?))
            })
            .collect();
        ips.into_iter().map(|ip| Target { ip, host: None, ports: ports.clone() }).collect()
    }

    fn records(&self, name: &Name, kind: RecordType, namespace: &str, service: &str, targets: Vec<Target>) -> Found {
        if kind != RecordType::SRV {
            return Found {
                answers: addresses(name, kind, targets.iter().map(|target| target.ip)),
                ..Found::default()
            };
        }
        let mut found = Found::default();
        let count = targets.iter().map(|target| target.ports.len()).sum::<usize>().max(1);
        let weight = (100 / count).max(1) as u16;
        for target in &targets {
            let owner = match &target.host {
                Some(host) => self.below(&[host, service, namespace, "svc"]),
                None => self.below(&[service, namespace, "svc"]),
            };
            let Some(owner) = owner.filter(|_| !target.ports.is_empty()) else { continue };
            let kind = if target.ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
            found.additionals.extend(addresses(&owner, kind, [target.ip]));
            for (_, _, port) in &target.ports {
                let record =
                    Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, weight, *port, owner.clone())));
                // The addresses of a dual-stack service share one name.
                if !found.answers.contains(&record) {
                    found.answers.push(record);
                }
            }
        }
        found
    }

    fn alias(&self, name: &Name, kind: RecordType, to: &Name, depth: usize) -> Answer {
        let mut found = Found {
            answers: vec![Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(to.clone())))],
            ..Found::default()
        };
        if kind == RecordType::CNAME {
            return Answer::Found(found);
        }
        let target = match self.aliased(to) {
            Some(next) if depth < ALIASES_MAX => self.alias(to, kind, &next, depth + 1),
            Some(_) => Answer::NxDomain,
            None => self.answer(to, kind),
        };
        match target {
            Answer::Found(more) => {
                found.answers.extend(more.answers);
                found.additionals = more.additionals;
                found.alias = more.alias;
            }
            Answer::Forward => found.alias = Some(to.clone()),
            Answer::NxDomain | Answer::NotReady => {}
        }
        Answer::Found(found)
    }

    /// Where a name leads that is itself an external-name service.
    fn aliased(&self, name: &Name) -> Option<Name> {
        match self.read(name) {
            Asked::Service { namespace, service } => external_name(&*self.source.service(&namespace, &service)?),
            _ => None,
        }
    }

    fn reverse(&self, name: &Name, kind: RecordType, ip: IpAddr) -> Answer {
        let mut owners = Vec::new();
        for service in self.source.services_at(ip) {
            let (Some(namespace), Some(service)) = (&service.metadata.namespace, &service.metadata.name) else {
                continue;
            };
            owners.extend(self.below(&[service, namespace, "svc"]));
        }
        if owners.is_empty() {
            for slice in self.source.slices_at(ip) {
                let key = service_key(&slice).unwrap_or_default();
                let Some((namespace, service)) = key.split_once('/') else { continue };
                let hosts = endpoints(std::slice::from_ref(&slice))
                    .into_iter()
                    .filter(|target| target.ip == ip)
                    .filter_map(|target| target.host);
                owners.extend(hosts.filter_map(|host| self.below(&[&host, service, namespace, "svc"])));
            }
        }
        if owners.is_empty() {
            return Answer::Forward;
        }
        owners.sort();
        owners.dedup();
        let records = owners.into_iter().filter(|_| kind == RecordType::PTR);
        let answers = records.map(|owner| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(owner)))).collect();
        Answer::Found(Found { answers, ..Found::default() })
    }

    fn soa(&self) -> SOA {
        let ns = self.below(&["ns", "dns"]).unwrap_or_else(|| self.domain.name.clone());
        let mail = self.below(&["hostmaster"]).unwrap_or_else(|| self.domain.name.clone());
        // Seconds since the epoch, as CoreDNS numbers its zone.
        let serial =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |at| at.as_secs() as u32);
        SOA::new(ns, mail, serial, 7200, 1800, 86400, TTL)
    }

    fn below(&self, labels: &[&str]) -> Option<Name> {
        let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
        name.append_domain(&self.domain.name).ok()
    }
}

fn found(name: &Name, data: RData) -> Answer {
    Answer::Found(Found { answers: vec![Record::from_rdata(name.clone(), TTL, data)], ..Found::default() })
}

fn addresses(name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
    let mut ips: Vec<IpAddr> = ips.into_iter().collect();
    ips.sort();
    ips.dedup();
    let data = ips.into_iter().filter_map(|ip| match (kind, ip) {
        (RecordType::A | RecordType::ANY, IpAddr::V4(ip)) => Some(RData::A(A(ip))),
        (RecordType::AAAA | RecordType::ANY, IpAddr::V6(ip)) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    });
    data.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect()
}

fn external_name(service: &Service) -> Option<Name> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"))?;
    let name = spec.external_name.as_deref()?.trim_end_matches('.');
    Name::from_ascii(format!("{name}.")).ok()
}

/// Ready endpoints of slices.
fn endpoints(slices: &[Arc<EndpointSlice>]) -> Vec<Target> {
    let mut targets = Vec::new();
    for slice in slices {
        let ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                Some((port.name.clone().unwrap_or_default(), protocol, u16::try_from(port.port?).ok()?))
            })
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(false) {
                continue;
            }
            for ip in endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()) {
                let host = endpoint.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| names::dash(ip));
                targets.push(Target { ip, host: Some(host.to_lowercase()), ports: ports.clone() });
            }
        }
    }
    targets
}

#[cfg(test)]
#[path = "zone_tests.rs"]
pub(crate) mod tests;
