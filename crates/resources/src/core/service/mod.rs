//! Services. Addresses and node ports are given out by the API server between defaulting and validation.

mod balancer;
mod change;
mod spec;
mod table;
mod warnings;

pub use balancer::{ingress_status, ingress_warnings};
pub use spec::cluster_ip_errors;

use crate::age;
use crate::columns::{AGE, NAME, or_none};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, set_default};
use crate::{Ctx, StatusRules, Strategy, metadata, names};
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

    fn status_rules(&self) -> StatusRules {
        StatusRules::begins(|| json!({"loadBalancer": {}}))
    }

    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        crate::copy_field(new, old, "status");
        change::drop_type_dependent(new, old);
        if new.at("spec").text("type") != "LoadBalancer"
            && let Some(status) = crate::field::field_mut(new, "status")
        {
            status["loadBalancer"] = json!({});
        }
    }

    /// Of what has no endpoints the policy of their traffic is not shown.
    fn prepare_to_store(&self, obj: &mut Object) {
        if obj.at("spec").text("type") == "ExternalName" {
            obj["spec"].as_object_mut().map(|spec| spec.remove("internalTrafficPolicy"));
        }
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        // relaxed in v1.34+: what a DNS label may be, a service may be named
        names::dns1123_label(name, prefix)
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        spec::service(&mut errors, obj, None);
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
        balancer::class(&mut errors, now, &SPEC.field("loadBalancerClass"));
        if needs_health_check(now)
            && needs_health_check(was)
            && now.int("healthCheckNodePort") != was.int("healthCheckNodePort")
        {
            errors.forbidden(&SPEC.field("healthCheckNodePort"), crate::field::IMMUTABLE);
        }
        spec::service(&mut errors, new, Some(old));
        errors.0
    }

    fn validate_status_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let (mut errors, path) = (Errors::default(), Path::root("status.loadBalancer.ingress"));
        let list = new.at("status").at("loadBalancer").list("ingress");
        if !list.is_empty() && new.at("spec").text("type") != "LoadBalancer" {
            errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
            return errors.0;
        }
        let was = old.at("status").at("loadBalancer").list("ingress");
        ingress_status(&mut errors, list, was, &path, true);
        errors.0
    }

    fn selectable_fields(&self, obj: &Object) -> Vec<(&'static str, String)> {
        let spec = obj.at("spec");
        vec![("spec.clusterIP", spec.text("clusterIP").into()), ("spec.type", spec.text("type").into())]
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        warnings::warnings(obj)
    }

    fn status_warnings(&self, obj: &Object) -> Vec<String> {
        ingress_warnings(obj)
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
    spec.texts("clusterIPs") == ["None"]
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
