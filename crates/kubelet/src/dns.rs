//! The resolver configuration of a pod (`dnsPolicy`, `dnsConfig`).

use crate::config::Config;
use crate::pod::PodExt;
use api::k8s::core::v1::Pod;
use cri::DnsConfig;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The pod's resolver configuration, and the event text of each limit that was exceeded.
pub fn pod_dns(config: &Config, pod: &Pod) -> (DnsConfig, Vec<String>) {
    let text = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let host = parse_resolv_conf(&text);
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !pod.host_network());
    let mut out = match policy {
        "None" => DnsConfig::default(),
        _ if cluster && !config.cluster_dns.is_empty() => cluster_first(config, pod.namespace(), &host),
        _ => host,
    };
    if let Some(own) = &spec.dns_config {
        own.nameservers.iter().flatten().for_each(|s| push_unique(&mut out.servers, s));
        own.searches.iter().flatten().for_each(|s| push_unique(&mut out.searches, s));
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            out.options.retain(|o| o.split(':').next() != Some(&name));
            out.options
                .push(option.value.as_ref().filter(|v| !v.is_empty()).map_or(name.clone(), |v| format!("{name}:{v}")));
        }
    }
    let warnings = fit_limits(&mut out);
    (out, warnings)
}

fn cluster_first(config: &Config, namespace: &str, host: &DnsConfig) -> DnsConfig {
    let domain = &config.cluster_domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    }
    host.searches.iter().for_each(|s| push_unique(&mut searches, s));
    DnsConfig {
        servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn push_unique(list: &mut Vec<String>, item: &str) {
    if !list.iter().any(|i| i == item) {
        list.push(item.to_owned());
    }
}

fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut out = DnsConfig::default();
    for line in text.lines().map(|l| l.split(['#', ';']).next().unwrap_or_default()) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => out.servers.extend(words.next()),
            // The last search line wins, as in resolv.conf(5).
            Some("search" | "domain") => {
                out.searches = words.map(|w| w.trim_end_matches('.').to_owned()).filter(|w| !w.is_empty()).collect()
            }
            Some("options") => words.for_each(|w| push_unique(&mut out.options, &w)),
            _ => {}
        }
    }
    out
}

fn fit_limits(config: &mut DnsConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < before {
        let line = config.searches.join(" ");
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
        ));
    }
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        let line = config.servers.join(" ");
        warnings.push(format!("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read() {
        let parsed = parse_resolv_conf("# c\nnameserver 1.1.1.1\nsearch a. b\noptions ndots:2 edns0\n");
        assert_eq!(parsed.servers, ["1.1.1.1"]);
        assert_eq!(parsed.searches, ["a", "b"]);
        assert_eq!(parsed.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn limits_cut_and_tell() {
        let mut config = DnsConfig { servers: (0..5).map(|i| i.to_string()).collect(), ..DnsConfig::default() };
        assert_eq!(fit_limits(&mut config).len(), 1);
        assert_eq!(config.servers.len(), 3);
    }
}
