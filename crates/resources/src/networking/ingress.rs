//! Ingresses.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::service::{ingress_status, ingress_warnings};
use crate::field::{Errors, Fields, Path, map_mut};
use crate::{Ctx, MetadataChecks, StatusRules, Strategy, names};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Ingresses.
pub struct Ingress;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] = &[
    NAME,
    Column::string("Class")
        .describe("The name of the IngressClass resource that should be used for additional configuration"),
    Column::string("Hosts").describe("Hosts that incoming requests are matched against before the ingress rule"),
    Column::string("Address").describe("Address is a list containing ingress points for the load-balancer"),
    Column::string("Ports").describe("Ports of TLS configurations that open"),
    AGE,
];
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];
const CLASS: &str = "kubernetes.io/ingress.class";

impl Strategy for Ingress {
    fn default(&self, obj: &mut Object) {
        map_mut(obj, "spec");
        map_mut(obj, "status").and_then(|s| map_mut(s, "loadBalancer"));
    }

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"loadBalancer": {}}))
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn metadata_on_update(&self) -> MetadataChecks {
        MetadataChecks::Both
    }

    fn metadata_on_status_update(&self) -> MetadataChecks {
        MetadataChecks::Update
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, obj.at("spec"));
        if let (Some(class), true) = (api::meta::annotation(obj, CLASS), obj.at("spec").has("ingressClassName")) {
            let path = Path::root("metadata.annotations");
            errors.invalid(&path.key(CLASS), class, "can not be set when the class field is also set");
        }
        errors.0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, _old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec(&mut errors, new.at("spec"));
        errors.0
    }

    fn warnings(&self, obj: &Object, old: Option<&Object>) -> Vec<String> {
        let had = old.is_some_and(|o| api::meta::annotation(o, CLASS).is_some());
        match api::meta::annotation(obj, CLASS) {
            Some(_) if !had => {
                vec![format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead")]
            }
            _ => Vec::new(),
        }
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        let [list, was] = [new, old].map(|obj| obj.at("status").at("loadBalancer").list("ingress"));
        ingress_status(&mut errors, list, was, &Path::root("status.loadBalancer.ingress"), false);
        errors.0
    }

    fn status_warnings(&self, obj: &Object) -> Vec<String> {
        ingress_warnings(obj)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let spec = obj.at("spec");
        let class = if spec.has("ingressClassName") { spec.text("ingressClassName") } else { "<none>" };
        let ports = if spec.list("tls").is_empty() { "80" } else { "80, 443" };
        vec![
            api::meta::name(obj).into(),
            class.into(),
            hosts(spec).into(),
            address(obj).into(),
            ports.into(),
            age::since_creation(obj, now).into(),
        ]
    }
}

fn spec(errors: &mut Errors, spec: &Value) {
    let rules = spec.list("rules");
    if rules.is_empty() && !spec.has("defaultBackend") {
        errors.invalid(&SPEC, spec.at("rules").clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if spec.has("defaultBackend") {
        backend(errors, spec.at("defaultBackend"), &SPEC.field("defaultBackend"));
    }
    let list = SPEC.field("rules");
    for (i, rule) in rules.iter().enumerate() {
        let path = list.index(i);
        let host = rule.text("host");
        if !host.is_empty() {
            if names::parse_ip(host).is_some() {
                errors.invalid(&path.field("host"), host, "must be a DNS name, not an IP address");
            }
            host_name(errors, host, &path.field("host"));
        }
        if rule.has("http") {
            paths(errors, rule.at("http").list("paths"), &path.field("http.paths"));
        }
    }
    let list = SPEC.field("tls");
    for (i, tls) in spec.list("tls").iter().enumerate() {
        let path = list.index(i);
        let hosts = path.field("hosts");
        for (j, host) in tls.texts("hosts").into_iter().enumerate() {
            host_name(errors, host, &hosts.index(j));
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            errors.invalid_each(&path.field("secretName"), secret, names::dns1123_subdomain(secret, false));
        }
    }
    if spec.has("ingressClassName") {
        let name = spec.text("ingressClassName");
        errors.invalid_each(&SPEC.field("ingressClassName"), name, names::dns1123_subdomain(name, false));
    }
}

fn host_name(errors: &mut Errors, host: &str, path: &Path<'_>) {
    let wrong =
        if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns1123_subdomain(host, false) };
    errors.invalid_each(path, host, wrong);
}

fn paths(errors: &mut Errors, list: &[Value], path: &Path<'_>) {
    if list.is_empty() {
        errors.required(path, "");
    }
    for (i, item) in list.iter().enumerate() {
        let at = path.index(i);
        if !item.has("pathType") {
            errors.required(&at.field("pathType"), "pathType must be specified");
            continue;
        }
        let (text, path_of) = (item.text("path"), at.field("path"));
        match item.text("pathType") {
            "Exact" | "Prefix" => {
                if !text.starts_with('/') {
                    errors.invalid(&path_of, text, "must be an absolute path");
                }
                for part in BAD_PARTS.iter().filter(|p| text.contains(**p)) {
                    errors.invalid(&path_of, text, &format!("must not contain '{part}'"));
                }
                for end in BAD_ENDS.iter().filter(|e| text.ends_with(**e)) {
                    errors.invalid(&path_of, text, &format!("cannot end with '{end}'"));
                }
            }
            "ImplementationSpecific" if !text.is_empty() && !text.starts_with('/') => {
                errors.invalid(&path_of, text, "must be an absolute path");
            }
            "ImplementationSpecific" => {}
            other => errors.not_supported(&at.field("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]),
        }
        backend(errors, item.at("backend"), &at.field("backend"));
    }
}

fn backend(errors: &mut Errors, backend: &Value, path: &Path<'_>) {
    let (resource, service) = (backend.at("resource"), backend.at("service"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => return errors.invalid(path, "", "cannot set both resource and service backends"),
        (true, true) => return errors.invalid(path, "", "resource or service backend is required"),
        (false, true) => {
            let path = path.field("resource");
            if resource.has("apiGroup") {
                let group = resource.text("apiGroup");
                errors.invalid_each(&path.field("apiGroup"), group, names::dns1123_subdomain(group, false));
            }
            for field in ["kind", "name"] {
                super::segment(errors, resource.text(field), true, &path.field(field));
            }
            return;
        }
        (true, false) => {}
    }
    match service.text("name") {
        "" => errors.required(&path.field("service.name"), ""),
        name => errors.invalid_each(&path.field("service.name"), name, names::dns1123_label(name, false)),
    }
    let (name, number) = (service.at("port").text("name"), service.at("port").int("number").unwrap_or(0));
    match (name, number) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            if let Some(text) = names::port_number(number) {
                errors.invalid(&path.field("service.port.number"), number, text);
            }
        }
        (name, 0) => errors.invalid_each(&path.field("service.port.name"), name, names::port_name(name)),
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

fn hosts(spec: &Value) -> String {
    let all: Vec<&str> = spec.list("rules").iter().map(|r| r.text("host")).filter(|h| !h.is_empty()).collect();
    match all.len() {
        0 => "*".into(),
        1..=3 => all.join(","),
        count => format!("{} + {} more...", all[..3].join(","), count - 3),
    }
}

fn address(obj: &Object) -> String {
    let ingress = obj.at("status").at("loadBalancer").list("ingress").iter();
    let mut all: Vec<&str> = ingress
        .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") })
        .filter(|t| !t.is_empty())
        .collect();
    all.sort_unstable();
    all.dedup();
    all.join(",")
}
