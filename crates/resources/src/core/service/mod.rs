//! Services. Addresses and node ports are given out by the API server between defaulting and validation.

mod change;
mod table;
mod warnings;

use crate::age;
use crate::columns::{AGE, NAME, or_none};
use crate::core::endpoints::endpoint_ip;
use crate::core::pod::port_number_or_name;
use crate::field::{Errors, Fields, Path, go_struct, items_mut, map_mut, set_default};
use crate::{Ctx, Strategy, metadata, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Services.
pub struct Service;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Type").field("io.k8s.api.core.v1.ServiceSpec", "type"),
    Column::string("Cluster-IP").field("io.k8s.api.core.v1.ServiceSpec", "clusterIP"),
    Column::string("External-IP").field("io.k8s.api.core.v1.ServiceSpec", "externalIPs"),
    Column::string("Port(s)").field("io.k8s.api.core.v1.ServiceSpec", "ports"),
    AGE,
    Column::string("Selector").wide().field("io.k8s.api.core.v1.ServiceSpec", "selector"),
];
const SPEC: Path<'_> = Path::root("spec");
const ONLY_LB: &str = "may only be used when `type` is 'LoadBalancer'";
const FIXED: &str = "may not change once set";

impl Strategy for Service {
    fn default(&self, obj: &mut Object) {
        if let Some(spec) = map_mut(obj, "spec") {
            spec_defaults(spec);
        }
        let balanced = obj.at("spec").text("type") == "LoadBalancer";
        let Some(balancer) = map_mut(obj, "status").and_then(|s| map_mut(s, "loadBalancer")) else { return };
        for ingress in items_mut(balancer, "ingress").filter(|i| balanced && !i.text("ip").is_empty()) {
            set_default(ingress, "ipMode", "VIP");
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        obj["status"] = json!({"loadBalancer": {}});
        change::drop_type_dependent(obj, None);
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        crate::copy_field(new, old, "status");
        change::drop_type_dependent(new, Some(old));
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        // relaxed in v1.34+: what a DNS label may be, a service may be named
        names::dns1123_label(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        service(&mut errors, obj);
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let (now, was) = (new.at("spec"), old.at("spec"));
        change::cluster_ips_change(&mut errors, now, was);
        change::families_change(&mut errors, now, was);
        let balanced = |spec: &Value| spec.text("type") == "LoadBalancer";
        if balanced(now) && balanced(was) && now.at("loadBalancerClass") != was.at("loadBalancerClass") {
            errors.invalid(&SPEC.field("loadBalancerClass"), now.at("loadBalancerClass").clone(), FIXED);
        }
        balancer_class(&mut errors, now);
        if needs_health_check(now)
            && needs_health_check(was)
            && now.int("healthCheckNodePort") != was.int("healthCheckNodePort")
        {
            errors.forbidden(&SPEC.field("healthCheckNodePort"), crate::field::IMMUTABLE);
        }
        service(&mut errors, new);
        errors.0
    }

    fn prepare_for_status_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        crate::copy_field(new, old, "spec");
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("status.loadBalancer.ingress"));
        let list = new.at("status").at("loadBalancer").list("ingress");
        if !list.is_empty() && new.at("spec").text("type") != "LoadBalancer" {
            errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
            return errors.0;
        }
        ingress_status(&mut errors, list, &path, true);
        errors.0
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        let spec = obj.at("spec");
        vec![("spec.clusterIP", spec.text("clusterIP").into()), ("spec.type", spec.text("type").into())]
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        warnings::warnings(obj)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let cluster_ip = spec.texts("clusterIPs").first().copied().unwrap_or(spec.text("clusterIP"));
        vec![
            api::meta::name(obj).into(),
            spec.text("type").into(),
            or_none(cluster_ip),
            table::external_ip(obj).into(),
            or_none(&table::ports_text(spec)),
            age::since_creation(obj, now).into(),
            metadata::format_labels(spec.at("selector")).into(),
        ]
    }
}

fn spec_defaults(spec: &mut Value) {
    set_default(spec, "sessionAffinity", "None");
    set_default(spec, "type", "ClusterIP");
    match spec.text("sessionAffinity") {
        "None" => drop(spec.as_object_mut().map(|map| map.remove("sessionAffinityConfig"))),
        "ClientIP" if !spec.at("sessionAffinityConfig").at("clientIP").has("timeoutSeconds") => {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10_800}});
        }
        _ => {}
    }
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let target = port.at("targetPort");
        if target.is_null() || target == &json!(0) || target == &json!("") {
            port["targetPort"] = port.int("port").unwrap_or(0).into();
        }
    }
    if is_external(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&spec.text("type")) {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if spec.text("type") == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn is_headless(spec: &Value) -> bool {
    spec.texts("clusterIPs") == ["None"] || (spec.list("clusterIPs").is_empty() && spec.text("clusterIP") == "None")
}

/// Whether traffic reaches the service from outside the cluster.
fn is_external(spec: &Value) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether load balancers need a port of their own to ask after the service's health.
pub fn needs_health_check(spec: &Value) -> bool {
    spec.text("type") == "LoadBalancer" && spec.text("externalTrafficPolicy") == "Local"
}

fn service(errors: &mut Errors, obj: &Object) {
    let (spec, kind) = (obj.at("spec"), obj.at("spec").text("type"));
    let ports = spec.list("ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&SPEC.field("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let path = SPEC.field("clusterIPs");
            errors.invalid(&path.index(0), "None", &format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => external_name(errors, spec),
        _ => {}
    }
    self::ports(errors, ports);
    metadata::labels(errors, spec.at("selector"), &SPEC.field("selector"));
    affinity(errors, spec);
    if kind != "ExternalName" {
        addresses(errors, spec);
    }
    let external = SPEC.field("externalIPs");
    for (i, ip) in spec.texts("externalIPs").into_iter().enumerate() {
        match names::ip(ip) {
            Some(text) => errors.invalid(&external.index(i), ip, text),
            None => endpoint_ip(errors, ip, &external.index(i)),
        }
    }
    match kind {
        "" => errors.required(&SPEC.field("type"), ""),
        kind => errors.one_of(&SPEC.field("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    }
    port_numbers(errors, ports, kind);
    balancer(errors, obj);
    policies(errors, spec);
}

fn external_name(errors: &mut Errors, spec: &Value) {
    let text = "may not be set for ExternalName services";
    for list in ["clusterIPs", "ipFamilies"] {
        if !spec.list(list).is_empty() {
            errors.forbidden(&SPEC.field(list), text);
        }
    }
    if spec.has("ipFamilyPolicy") {
        errors.forbidden(&SPEC.field("ipFamilyPolicy"), text);
    }
    let name = spec.text("externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => errors.required(&SPEC.field("externalName"), ""),
        name => errors.invalid_each(&SPEC.field("externalName"), name, names::dns1123_subdomain(name, false)),
    }
}

fn ports(errors: &mut Errors, ports: &[Value]) {
    let list = SPEC.field("ports");
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let (path, name) = (list.index(i), port.text("name"));
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.field("name"), "");
            }
        } else {
            errors.invalid_each(&path.field("name"), name, names::dns1123_label(name, false));
            match seen.contains(&name) {
                true => errors.duplicate(&path.field("name"), name),
                false => seen.push(name),
            }
        }
        let number = port.int("port").unwrap_or(0);
        if let Some(text) = names::port_number(number) {
            errors.invalid(&path.field("port"), number, text);
        }
        match port.text("protocol") {
            "" => errors.required(&path.field("protocol"), ""),
            protocol => errors.one_of(&path.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
        }
        port_number_or_name(errors, port.at("targetPort"), &path.field("targetPort"));
        if port.has("appProtocol") {
            let name = port.text("appProtocol");
            errors.invalid_each(&path.field("appProtocol"), name, names::qualified_name(name));
        }
    }
}

fn port_numbers(errors: &mut Errors, ports: &[Value], kind: &str) {
    let list = SPEC.field("ports");
    let node_port = |p: &Value| p.int("nodePort").unwrap_or(0);
    if kind == "ClusterIP" {
        for (i, _) in ports.iter().enumerate().filter(|(_, p)| node_port(p) != 0) {
            errors.forbidden(&list.index(i).field("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    for (i, port) in ports.iter().enumerate().filter(|(_, p)| node_port(p) != 0) {
        let same = |p: &Value| p.text("protocol") == port.text("protocol") && node_port(p) == node_port(port);
        if ports[..i].iter().any(same) {
            errors.duplicate(&list.index(i).field("nodePort"), node_port(port));
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let same = |p: &Value| p.text("protocol") == port.text("protocol") && p.int("port") == port.int("port");
        if ports[..i].iter().any(same) {
            let fields = [
                ("Name", "".into()),
                ("Protocol", port.at("protocol").clone()),
                ("AppProtocol", Value::Null),
                ("Port", port.at("port").clone()),
                ("TargetPort", 0.into()),
                ("NodePort", 0.into()),
            ];
            errors.duplicate_printed(&list.index(i), &go_struct(&fields));
        }
    }
}

fn affinity(errors: &mut Errors, spec: &Value) {
    let (kind, path) = (spec.text("sessionAffinity"), SPEC.field("sessionAffinity"));
    match kind {
        "" => errors.required(&path, ""),
        kind => errors.one_of(&path, kind, &["ClientIP", "None"]),
    }
    let (config, path) = (spec.at("sessionAffinityConfig"), SPEC.field("sessionAffinityConfig"));
    if kind == "None" && !config.is_null() {
        errors.forbidden(&path, "must not be set when session affinity is None");
    }
    if kind == "ClientIP" {
        let seconds = config.at("clientIP").int("timeoutSeconds");
        let path = path.field("clientIP.timeoutSeconds");
        match seconds {
            None => errors.required(&path, "must be set when session affinity is ClientIP"),
            Some(seconds) if !(1..=86_400).contains(&seconds) => {
                errors.invalid(&path, seconds, "must be greater than 0 and less than 86400");
            }
            Some(_) => {}
        }
    }
}

/// Errors of `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`.
fn addresses(errors: &mut Errors, spec: &Value) {
    let (one, many, families) = (spec.text("clusterIP"), spec.texts("clusterIPs"), spec.texts("ipFamilies"));
    let (path, printed) = (SPEC.field("clusterIPs"), spec.at("clusterIPs").clone());
    match (one, many.first()) {
        ("", Some(_)) => errors.invalid(&path, printed.clone(), "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&path, ""),
        (one, Some(first)) if one != *first => {
            errors.invalid(&path, printed.clone(), "first value must match `clusterIP`")
        }
        _ => {}
    }
    let family_path = SPEC.field("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        errors.supported(&family_path.index(i), family, &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            errors.duplicate(&family_path.index(i), *family);
        }
    }
    if spec.has("ipFamilyPolicy") {
        let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.supported(&SPEC.field("ipFamilyPolicy"), spec.text("ipFamilyPolicy"), &policies);
    }
    let mut bad = false;
    for (i, ip) in many.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if many.len() > 1 {
                bad = true;
                errors.invalid(&path, printed.clone(), "'None' must be the first and only value");
            }
        } else if let Some(text) = names::ip(ip) {
            bad = true;
            errors.invalid(&path.index(i), *ip, text);
        }
    }
    if many.len() > 2 {
        errors.invalid(&path, printed.clone(), "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    let v4: Vec<bool> = many.iter().filter_map(|ip| names::parse_ip(ip)).map(|ip| ip.is_ipv4()).collect();
    if v4.len() > 1 && v4.windows(2).any(|pair| pair[0] == pair[1]) {
        errors.invalid(&path, printed, "may specify no more than one IP for each IP family");
    }
    for (i, (family, is_v4)) in families.iter().zip(&v4).enumerate().filter(|_| !is_headless(spec)) {
        if (*family == "IPv4") != *is_v4 && ["IPv4", "IPv6"].contains(family) {
            errors.invalid(
                &path.index(i),
                many[i],
                &format!("expected an {family} value as indicated by `ipFamilies[{i}]`"),
            );
        }
    }
}

fn balancer(errors: &mut Errors, obj: &Object) {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let spec = obj.at("spec");
    let balanced = spec.text("type") == "LoadBalancer";
    let ranges = spec.texts("loadBalancerSourceRanges");
    let annotations = Path::root("metadata.annotations");
    if !ranges.is_empty() {
        let path = SPEC.field("LoadBalancerSourceRanges");
        if !balanced {
            errors.forbidden(&path, ONLY_LB);
        }
        for (i, range) in ranges.into_iter().enumerate() {
            cidr(errors, range.trim(), &path.index(i));
        }
    } else if let Some(text) = api::meta::annotation(obj, RANGES) {
        if !balanced {
            errors.forbidden(&annotations.key(RANGES), ONLY_LB);
        }
        text.split(',')
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .for_each(|t| cidr(errors, t, &annotations.key(RANGES)));
    }
    if spec.has("allocateLoadBalancerNodePorts") && !balanced {
        errors.forbidden(&SPEC.field("allocateLoadBalancerNodePorts"), ONLY_LB);
    }
    balancer_class(errors, spec);
}

fn balancer_class(errors: &mut Errors, spec: &Value) {
    if !spec.has("loadBalancerClass") {
        return;
    }
    let (name, path) = (spec.text("loadBalancerClass"), SPEC.field("loadBalancerClass"));
    match spec.text("type") {
        "LoadBalancer" => errors.invalid_each(&path, name, names::qualified_name(name)),
        _ => errors.forbidden(&path, ONLY_LB),
    }
}

fn cidr(errors: &mut Errors, text: &str, path: &Path<'_>) {
    if let Some(wrong) = names::cidr(text) {
        errors.invalid(path, text, wrong);
    }
}

fn policies(errors: &mut Errors, spec: &Value) {
    let (policy, path) = (spec.text("externalTrafficPolicy"), SPEC.field("externalTrafficPolicy"));
    match (is_external(spec), policy) {
        (false, "") => {}
        (false, policy) => errors.invalid(&path, policy, "may only be set for externally-accessible services"),
        (true, "") => errors.required(&path, ""),
        (true, policy) => errors.one_of(&path, policy, &["Cluster", "Local"]),
    }
    let (port, path) = (spec.int("healthCheckNodePort").unwrap_or(0), SPEC.field("healthCheckNodePort"));
    match (needs_health_check(spec), port) {
        (false, 0) => {}
        (false, port) => {
            let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&path, port, text);
        }
        (true, 0) => errors.required(&path, ""),
        (true, port) => {
            if let Some(text) = names::port_number(port) {
                errors.invalid(&path, port, text);
            }
        }
    }
    let path = SPEC.field("internalTrafficPolicy");
    match spec.text("internalTrafficPolicy") {
        "" if !spec.has("internalTrafficPolicy") => {
            if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&spec.text("type")) {
                errors.required(&path, "");
            }
        }
        policy => errors.one_of(&path, policy, &["Cluster", "Local"]),
    }
    if spec.has("trafficDistribution") {
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.supported(&SPEC.field("trafficDistribution"), spec.text("trafficDistribution"), &supported);
    }
}

/// Errors of where a load balancer is reached, of a service or an ingress.
pub fn ingress_status(errors: &mut Errors, list: &[Value], path: &Path<'_>, modes: bool) {
    for (i, ingress) in list.iter().enumerate() {
        let (item, ip, host) = (path.index(i), ingress.text("ip"), ingress.text("hostname"));
        if !ip.is_empty() {
            if let Some(text) = names::ip(ip) {
                errors.invalid(&item.field("ip"), ip, text);
            }
        }
        let mode = ingress.text("ipMode");
        if modes && !ip.is_empty() && mode.is_empty() {
            errors.required(&item.field("ipMode"), "must be specified when `ip` is set");
        } else if !mode.is_empty() && ip.is_empty() {
            errors.forbidden(&item.field("ipMode"), "may not be specified when `ip` is not set");
        } else if !mode.is_empty() {
            errors.supported(&item.field("ipMode"), mode, &["Proxy", "VIP"]);
        }
        if !host.is_empty() {
            errors.invalid_each(&item.field("hostname"), host, names::dns1123_subdomain(host, false));
            if names::parse_ip(host).is_some() {
                errors.invalid(&item.field("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}
