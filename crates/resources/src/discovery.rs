//! `discovery.k8s.io`: endpoint slices.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::endpoints::endpoint_ip;
use crate::field::{Errors, Fields, IMMUTABLE, Path, items_mut, map_mut, repeated, same, set_default};
use crate::{Ctx, MetadataChecks, Strategy, metadata, names, rules, semantic};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Endpoint slices.
pub struct EndpointSlice;

const COLUMNS: &[Column] = &[
    NAME,
    Column::string("AddressType").field("io.k8s.api.discovery.v1.EndpointSlice", "addressType"),
    Column::string("Ports").field("io.k8s.api.discovery.v1.EndpointSlice", "ports"),
    Column::string("Endpoints").field("io.k8s.api.discovery.v1.EndpointSlice", "endpoints"),
    AGE,
];
const MAX_ENDPOINTS: usize = 1000;
const MAX_HINTS: usize = 8;
const MAX_TOPOLOGY: usize = 16;
const MAX_PORTS: usize = 20_000;
const MAX_ADDRESSES: usize = 100;

impl Strategy for EndpointSlice {
    fn default(&self, obj: &mut Object) {
        for endpoint in items_mut(obj, "endpoints") {
            map_mut(endpoint, "conditions");
        }
        if !obj.has("endpoints") {
            obj["endpoints"] = Value::Null;
        }
        if !obj.has("ports") {
            obj["ports"] = Value::Null;
        }
        for port in items_mut(obj, "ports") {
            if !port.has("name") {
                port["name"] = "".into();
            }
            set_default(port, "protocol", "TCP");
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, _ctx: &Ctx<'_>, obj: &mut Object) {
        // written by clients of an older version only
        for endpoint in items_mut(obj, "endpoints") {
            endpoint.as_object_mut().map(|map| map.remove("deprecatedTopology"));
        }
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        // labels count, the rest of the metadata does not
        let differs = !same(new.at("metadata").at("labels"), old.at("metadata").at("labels"));
        if differs || !same_parts(&["endpoints", "ports", "addressType"], new, old) {
            api::meta::set(new, "generation", api::meta::generation(old) + 1);
        }
        if same_endpoints(new, old) {
            return;
        }
        let label = "kubernetes.io/hostname";
        let topologies = old.list("endpoints").iter().map(|endpoint| endpoint.at("deprecatedTopology").text(label));
        let nodes: Vec<&str> = topologies.filter(|node| !node.is_empty()).collect();
        for endpoint in items_mut(new, "endpoints") {
            // that is where older clients left the node
            let node = endpoint.at("deprecatedTopology").text(label).to_owned();
            if !endpoint.has("nodeName") && nodes.contains(&node.as_str()) && names::subdomain(&node).is_empty() {
                endpoint["nodeName"] = node.into();
            }
            endpoint.as_object_mut().map(|map| map.remove("deprecatedTopology"));
        }
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn generation_changes(&self, _new: &Object, _old: &Object) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        slice(obj, None).0
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Create
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::new();
        if old.is_none() && obj.text("addressType") == "FQDN" {
            out.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let controllers = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
        let manager = obj.at("metadata").at("labels").text("endpointslice.kubernetes.io/managed-by");
        if controllers.contains(&manager) {
            return out;
        }
        rules::each(obj, "endpoints", &Path::TOP, |endpoint, path| {
            rules::each_text(endpoint, "addresses", path, |address, path| {
                out.extend(names::ip_warning(address).map(|why| format!("{path}: {why}")));
            });
        });
        out
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = slice(new, Some(old));
        if new.at("addressType") != old.at("addressType") {
            errors.invalid(&Path::root("addressType"), new.at("addressType").clone(), IMMUTABLE);
        }
        errors.0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let addresses: Vec<&str> = obj.list("endpoints").iter().flat_map(|e| e.texts("addresses")).collect();
        vec![
            api::meta::name(obj).into(),
            obj.text("addressType").into(),
            ports_text(obj.list("ports")).into(),
            list_text(&addresses).into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

/// Errors of a slice; of a changed one (`old`) the endpoints are looked at only if they are other than they were.
fn slice(obj: &Object, old: Option<&Object>) -> Errors {
    let mut errors = Errors::default();
    let kind = obj.text("addressType");
    let path = Path::root("addressType");
    match kind {
        "" => errors.required(&path, ""),
        kind => errors.one_of(&path, kind, &["FQDN", "IPv4", "IPv6"]),
    }
    ports(&mut errors, obj.list("ports"), &Path::root("ports"));
    if old.is_none_or(|old| !same_endpoints(obj, old)) {
        endpoints(&mut errors, obj.list("endpoints"), kind, &Path::root("endpoints"));
    }
    errors
}

fn same_endpoints(new: &Object, old: &Object) -> bool {
    same_parts(&["endpoints"], new, old)
}

fn same_parts(parts: &[&str], new: &Object, old: &Object) -> bool {
    let of = |obj: &Object| parts.iter().map(|part| (*part, obj.at(part).clone())).collect::<Value>();
    semantic::equal("io.k8s.api.discovery.v1.EndpointSlice", &of(new), &of(old))
}

fn endpoints(errors: &mut Errors, list: &[Value], kind: &str, path: &Path<'_>) {
    if list.len() > MAX_ENDPOINTS {
        return errors.too_many(path, list.len(), MAX_ENDPOINTS);
    }
    for (i, endpoint) in list.iter().enumerate() {
        let path = path.index(i);
        let (addresses, at) = (endpoint.texts("addresses"), path.field("addresses"));
        match addresses.len() {
            0 => errors.required(&at, "must contain at least 1 address"),
            count if count > MAX_ADDRESSES => errors.too_many(&at, count, MAX_ADDRESSES),
            _ => {}
        }
        for (j, address) in addresses.into_iter().enumerate() {
            self::address(errors, address, kind, &at, j);
        }
        let node = endpoint.text("nodeName");
        if endpoint.has("nodeName") {
            errors.invalid_each(&path.field("nodeName"), node, names::dns1123_subdomain(node, false));
        }
        let topology = path.field("deprecatedTopology");
        let labels = endpoint.entries("deprecatedTopology").count();
        if labels > MAX_TOPOLOGY {
            errors.too_many(&topology, labels, MAX_TOPOLOGY);
        }
        metadata::labels(errors, endpoint.at("deprecatedTopology"), &topology);
        let host = endpoint.text("hostname");
        if endpoint.has("hostname") {
            errors.invalid_each(&path.field("hostname"), host, names::dns1123_label(host, false));
        }
        let hints = path.field("hints");
        for (list, rule) in [("forZones", zone as names::NameRule), ("forNodes", names::dns1123_subdomain)] {
            if !self::hints(errors, endpoint.at("hints").list(list), rule, &hints.field(list)) {
                break;
            }
        }
    }
}

fn zone(name: &str, _prefix: bool) -> Vec<String> {
    names::label_value(name)
}

/// Errors of the zones or nodes that an endpoint is meant for; whether there are not too many.
fn hints(errors: &mut Errors, list: &[Value], rule: names::NameRule, path: &Path<'_>) -> bool {
    if !errors.at_most(path, list, MAX_HINTS) {
        return false;
    }
    let twice = repeated(list.iter().map(|hint| hint.text("name")));
    for (i, hint) in list.iter().enumerate() {
        let (item, name) = (path.index(i), hint.text("name"));
        if twice[i] {
            errors.duplicate(&item.field("name"), name);
        }
        errors.invalid_each(&item.field("name"), name, rule(name, false));
    }
    true
}

/// Upstream reports some errors at the list, some at the address.
fn address(errors: &mut Errors, text: &str, kind: &str, list: &Path<'_>, index: usize) {
    let item = list.index(index);
    match kind {
        "IPv4" | "IPv6" => {
            let is_v4 = kind == "IPv4";
            // the older fields of IPv4 take more than one form
            let wrong =
                if is_v4 { names::ip(text).map(str::to_owned).into_iter().collect() } else { names::strict_ip(text) };
            if !wrong.is_empty() {
                return errors.invalid_each(&item, text, wrong);
            }
            if names::parse_ip(text).is_some_and(|ip| ip.to_canonical().is_ipv4() != is_v4) {
                errors.invalid(list, text, &format!("must be an {kind} address"));
            }
            endpoint_ip(errors, text, &item);
        }
        "FQDN" if text.is_empty() => errors.required(&item, ""),
        "FQDN" => {
            names::fully_qualified(text).into_iter().for_each(|(part, why)| errors.invalid(&item, part, &why));
        }
        _ => {}
    }
}

fn ports(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    if list.len() > MAX_PORTS {
        return errors.too_many(path, list.len(), MAX_PORTS);
    }
    let twice = repeated(list.iter().map(|port| port.text("name")));
    for (i, port) in list.iter().enumerate() {
        let (item, name) = (path.index(i), port.text("name"));
        if !name.is_empty() {
            errors.invalid_each(&item.field("name"), name, names::dns1123_label(name, false));
        }
        if twice[i] {
            errors.duplicate(&item.field("name"), name);
        }
        errors.one_of(&item.field("protocol"), port.text("protocol"), &["SCTP", "TCP", "UDP"]);
        if port.has("appProtocol") {
            let name = port.text("appProtocol");
            errors.invalid_each(&item.field("appProtocol"), name, names::qualified_name(name));
        }
    }
}

fn ports_text(ports: &[Value]) -> String {
    let text = |p: &Value| match p.int("port") {
        Some(number) => number.to_string(),
        None if p.text("name").is_empty() => "*".into(),
        None => p.text("name").to_owned(),
    };
    let all: Vec<String> = ports.iter().map(text).collect();
    if all.is_empty() { "<unset>".into() } else { list_text(&all.iter().map(String::as_str).collect::<Vec<_>>()) }
}

fn list_text(all: &[&str]) -> String {
    match all.len() {
        0 => "<unset>".into(),
        1..=3 => all.join(","),
        count => format!("{} + {} more...", all[..3].join(","), count - 3),
    }
}
