//! Network policies.

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, items_mut, map_mut, set_default};
use crate::{Ctx, Strategy, metadata, names, rules};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Network policies.
pub struct NetworkPolicy;

const SPEC: Path<'_> = Path::root("spec");
const COLUMNS: &[Column] =
    &[NAME, Column::string("Pod-Selector").field("io.k8s.api.networking.v1.NetworkPolicySpec", "podSelector"), AGE];

impl Strategy for NetworkPolicy {
    fn default(&self, obj: &mut Object) {
        let Some(spec) = map_mut(obj, "spec") else { return };
        map_mut(spec, "podSelector");
        for list in ["ingress", "egress"] {
            for port in items_mut(spec, list).flat_map(|r| items_mut(r, "ports")) {
                set_default(port, "protocol", "TCP");
            }
        }
        if spec.list("policyTypes").is_empty() {
            let both = !spec.list("egress").is_empty();
            spec["policyTypes"] = if both { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::new();
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            rules::each(obj.at("spec"), list, &SPEC, |rule, path| {
                rules::each(rule, peers, path, |peer, path| {
                    odd_block(&mut out, peer.at("ipBlock"), &path.field("ipBlock"))
                });
            });
        }
        out
    }

    /// Of its rules even empty ones and none differ.
    fn prepare_for_update(&self, _ctx: &Ctx<'_>, new: &mut Object, old: &Object) {
        if new.at("spec") != old.at("spec") {
            api::meta::set(new, "generation", api::meta::generation(old) + 1);
        }
    }

    fn generation_changes(&self, _new: &Object, _old: &Object) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        policy(obj.at("spec"), &[]).0
    }

    fn validate_update(&self, _ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        let mut known = Vec::new();
        for (list, peers) in [("ingress", "from"), ("egress", "to")] {
            for peer in old.at("spec").list(list).iter().flat_map(|rule| rule.list(peers)) {
                known.push(peer.at("ipBlock").text("cidr"));
                known.extend(peer.at("ipBlock").texts("except"));
            }
        }
        policy(new.at("spec"), &known).0
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        let selector = metadata::format_selector(obj.at("spec").at("podSelector"));
        vec![api::meta::name(obj).into(), selector.into(), age::since_creation(obj, now).into()]
    }
}

/// Errors of a policy's spec; `known`: the ranges that were in it before, which may stay whatever they are.
fn policy(spec: &Value, known: &[&str]) -> Errors {
    let mut errors = Errors::default();
    metadata::label_selector(&mut errors, spec.at("podSelector"), &SPEC.field("podSelector"));
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        let list_path = SPEC.field(list);
        for (i, rule) in spec.list(list).iter().enumerate() {
            let path = list_path.index(i);
            let ports = path.field("ports");
            for (j, port) in rule.list("ports").iter().enumerate() {
                self::port(&mut errors, port, &ports.index(j));
            }
            let peers_path = path.field(peers);
            for (j, peer) in rule.list(peers).iter().enumerate() {
                self::peer(&mut errors, peer, known, &peers_path.index(j));
            }
        }
    }
    let (types, path) = (spec.texts("policyTypes"), SPEC.field("policyTypes"));
    if types.len() > 2 {
        errors.invalid(&path, spec.at("policyTypes").clone(), "may not specify more than two policyTypes");
        return errors;
    }
    for (i, kind) in types.into_iter().enumerate() {
        errors.supported(&path.index(i), kind, &["Ingress", "Egress"]);
    }
    errors
}

fn port(errors: &mut Errors, port: &Value, path: &Path<'_>) {
    if port.has("protocol") {
        errors.supported(&path.field("protocol"), port.text("protocol"), &["TCP", "UDP", "SCTP"]);
    }
    let (at, end) = (path.field("endPort"), port.int("endPort"));
    match port.at("port") {
        Value::Null => {
            if let Some(end) = end {
                errors.invalid(&at, end, "may not be specified when `port` is not specified");
            }
        }
        Value::String(name) => {
            if let Some(end) = end {
                errors.invalid(&at, end, "may not be specified when `port` is non-numeric");
            }
            errors.invalid_each(&path.field("port"), name, names::port_name(name));
        }
        number => {
            let number = number.as_i64().unwrap_or(0);
            if let Some(text) = names::port_number(number) {
                errors.invalid(&path.field("port"), number, text);
            }
            if let Some(end) = end {
                if end < number {
                    errors.invalid(&at, number, "must be greater than or equal to `port`");
                }
                if let Some(text) = names::port_number(end) {
                    errors.invalid(&at, end, text);
                }
            }
        }
    }
}

fn peer(errors: &mut Errors, peer: &Value, known: &[&str], path: &Path<'_>) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if peer.has(field) {
            count += 1;
            metadata::label_selector(errors, peer.at(field), &path.field(field));
        }
    }
    if peer.has("ipBlock") {
        ip_block(errors, peer.at("ipBlock"), known, &path.field("ipBlock"));
        if count > 0 {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
    } else if count == 0 {
        errors.required(path, "must specify a peer");
    }
}

fn ip_block(errors: &mut Errors, block: &Value, known: &[&str], path: &Path<'_>) {
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        return errors.required(&path.field("cidr"), "");
    }
    errors.new_cidr(&path.field("cidr"), cidr, known);
    let Some((network, bits)) = names::parse_cidr(cidr) else { return };
    let list = path.field("except");
    for (i, except) in block.texts("except").into_iter().enumerate() {
        errors.new_cidr(&list.index(i), except, known);
        let Some((inner, inner_bits)) = names::parse_cidr(except) else { continue };
        if inner_bits <= bits || prefix(network, bits) != prefix(inner, bits) {
            errors.invalid(&list.index(i), except, "must be a strict subset of `cidr`");
        }
    }
}

/// Warnings about the addresses that a peer has.
fn odd_block(out: &mut Vec<String>, block: &Value, path: &Path<'_>) {
    let mut odd = |text: &str, path: &Path<'_>| {
        out.extend(names::cidr_warnings(text).into_iter().map(|why| format!("{path}: {why}")));
    };
    odd(block.text("cidr"), &path.field("cidr"));
    rules::each_text(block, "except", path, odd);
}

/// The first bits of an address, with its family.
fn prefix(ip: std::net::IpAddr, bits: u8) -> (bool, u128) {
    let (number, width) = match ip {
        std::net::IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        std::net::IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    (width == 32, number.checked_shr(width - u32::from(bits).min(width)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_lie_inside() {
        for (except, errors_wanted) in [("10.1.0.0/16", 0), ("10.0.0.0/8", 1), ("11.0.0.0/16", 1), ("fd00::/64", 1)] {
            let mut errors = Errors::default();
            ip_block(&mut errors, &json!({"cidr": "10.0.0.0/8", "except": [except]}), &[], &Path::root("b"));
            assert_eq!(errors.0.len(), errors_wanted, "{except}");
        }
    }
}
