//! Endpoints (the older form of endpoint slices).

use crate::age;
use crate::columns::{AGE, NAME};
use crate::core::pod::PROTOCOL;
use crate::field::{Errors, Fields, Path, items_mut, set_default};
use crate::rules::{self, Check, Rule, each, each_of};
use crate::{Ctx, Strategy, names, semantic};
use api::table::Column;
use api::{Cause, Object};
use jiff::Timestamp;
use serde_json::Value;

/// Endpoints.
pub struct Endpoints;

const COLUMNS: &[Column] = &[NAME, Column::string("Endpoints").field("io.k8s.api.core.v1.Endpoints", "subsets"), AGE];
const SHOWN: usize = 3;

impl Strategy for Endpoints {
    fn default(&self, obj: &mut Object) {
        for port in items_mut(obj, "subsets").flat_map(|s| items_mut(s, "ports")) {
            set_default(port, "protocol", "TCP");
        }
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Ctx<'_>, obj: &Object) -> Vec<Cause> {
        let mut errors = Errors::default();
        each(obj, "subsets", &Path::TOP, |subset, path| {
            if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
                errors.required(path, "must specify `addresses` or `notReadyAddresses`");
            }
            let lists = ["addresses", "notReadyAddresses"];
            each_of(subset, &lists, path, |address, path| self::address(&mut errors, address, path));
            let many = subset.list("ports").len() > 1;
            each(subset, "ports", path, |port, path| self::port(&mut errors, port, many, path));
        });
        errors.0
    }

    /// What was there before may stay, whatever is wrong with it.
    fn validate_update(&self, ctx: &Ctx<'_>, new: &Object, old: &Object) -> Vec<Cause> {
        const SUBSET: &str = "io.k8s.api.core.v1.EndpointSubset";
        let (causes, now, was) = (self.validate(ctx, new), new.list("subsets"), old.list("subsets"));
        let kept = || now.len() == was.len() && now.iter().zip(was).all(|(now, was)| semantic::equal(SUBSET, now, was));
        if causes.is_empty() || kept() { Vec::new() } else { causes }
    }

    fn warnings(&self, obj: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut out = Vec::new();
        if obj.at("metadata").at("labels").text("endpoints.kubernetes.io/managed-by") == "endpoint-controller" {
            return out;
        }
        each(obj, "subsets", &Path::TOP, |subset, path| {
            each_of(subset, &["addresses", "notReadyAddresses"], path, |address, path| {
                let odd = names::ip_warning(address.text("ip"));
                out.extend(odd.map(|why| format!("{}: {why}", path.field("ip"))));
            });
        });
        out
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn metadata_on_update(&self) -> crate::MetadataChecks {
        crate::MetadataChecks::Both
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, obj: &Object, now: Timestamp) -> Vec<Value> {
        vec![api::meta::name(obj).into(), summary(obj).into(), age::since_creation(obj, now).into()]
    }
}

/// Of the two names only the node's is behind a pointer, and may be empty by mistake.
const NAMES: &[Rule] =
    &[("hostname", Check::MaybeNamed(names::label)), ("nodeName", Check::NamedIfThere(names::subdomain))];

fn address(errors: &mut Errors, address: &Value, path: &Path<'_>) {
    let ip = address.text("ip");
    errors.ip(&path.field("ip"), ip);
    rules::check(errors, address, path, NAMES);
    endpoint_ip(errors, ip, &path.field("ip"));
}

const PORT: &[Rule] =
    &[("port", Check::Port), ("protocol", PROTOCOL), ("appProtocol", Check::NamedIfThere(names::qualified_name))];

/// Only a port that stands alone needs no name.
fn port(errors: &mut Errors, port: &Value, require_name: bool, path: &Path<'_>) {
    let name = if require_name { Check::Named(names::label) } else { Check::MaybeNamed(names::label) };
    rules::check(errors, port, path, &[("name", name)]);
    rules::check(errors, port, path, PORT);
}

/// Errors of an address that traffic is sent to.
pub fn endpoint_ip(errors: &mut Errors, text: &str, path: &Path<'_>) {
    let Some(ip) = names::parse_ip(text) else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    // Go knows an IPv4 address in whatever form it is written.
    let ip = ip.to_canonical();
    let (local, multicast) = match ip {
        std::net::IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, &format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if local {
        errors.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn summary(obj: &Object) -> String {
    let (mut shown, mut count) = (Vec::new(), 0);
    for subset in obj.list("subsets") {
        let ports = subset.list("ports");
        let pairs = match ports.is_empty() {
            true => subset.list("addresses").iter().map(|a| a.text("ip").to_owned()).collect::<Vec<_>>(),
            false => ports
                .iter()
                .flat_map(|p| subset.list("addresses").iter().map(|a| join(a.text("ip"), p.int("port").unwrap_or(0))))
                .collect(),
        };
        count += pairs.len();
        shown.extend(pairs);
    }
    if count == 0 {
        return "<none>".into();
    }
    shown.truncate(SHOWN);
    let list = shown.join(",");
    if count > SHOWN { format!("{list} + {} more...", count - SHOWN) } else { list }
}

fn join(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_there_may_stay() {
        let check = |now: &str, labels: bool, count: usize| {
            let of = |ip: &str| json!({"subsets": [{"addresses": [{"ip": ip}]}]});
            let (mut new, old) = (of(now), of("127.0.0.1"));
            if labels {
                new["metadata"] = json!({"labels": {"a": "b"}});
            }
            let ctx = Ctx { user: "u", groups: &[], now: Timestamp::UNIX_EPOCH, dry_run: false };
            assert_eq!(Endpoints.validate_update(&ctx, &new, &old).len(), count, "{now}");
        };
        check("127.0.0.1", true, 0);
        check("127.0.0.2", false, 1);
        check("10.0.0.1", false, 0);
    }

    #[test]
    fn an_endpoint_is_on_no_host_itself() {
        let check = |ip: &str, count: usize| {
            let mut errors = Errors::default();
            endpoint_ip(&mut errors, ip, &Path::root("ip"));
            assert_eq!(errors.0.len(), count, "{ip}: {:?}", errors.0);
        };
        check("10.0.0.1", 0);
        check("fd00::1", 0);
        ["127.0.0.1", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "224.0.0.1", "0.0.0.0"]
            .iter()
            .for_each(|ip| check(ip, 1));
    }
}
