//! Endpoints (the older form of endpoint slices).

use crate::age;
use crate::columns::{AGE, NAME};
use crate::field::{Errors, Fields, Path, items_mut, set_default};
use crate::{Ctx, Strategy, names};
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
        let (mut errors, path) = (Errors::default(), Path::root("subsets"));
        for (i, subset) in obj.list("subsets").iter().enumerate() {
            let path = path.index(i);
            if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                let list_path = path.field(list);
                for (j, address) in subset.list(list).iter().enumerate() {
                    self::address(&mut errors, address, &list_path.index(j));
                }
            }
            let ports = path.field("ports");
            let many = subset.list("ports").len() > 1;
            for (j, port) in subset.list("ports").iter().enumerate() {
                self::port(&mut errors, port, many, &ports.index(j));
            }
        }
        errors.0
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

fn address(errors: &mut Errors, address: &Value, path: &Path<'_>) {
    let ip = address.text("ip");
    if let Some(text) = names::ip(ip) {
        errors.invalid(&path.field("ip"), ip, text);
    }
    for (field, rule) in [("hostname", names::dns1123_label as names::NameRule), ("nodeName", names::dns1123_subdomain)]
    {
        let name = address.text(field);
        // of the two only the node is behind a pointer, and may be empty by mistake
        if !name.is_empty() || (field == "nodeName" && address.has(field)) {
            errors.invalid_each(&path.field(field), name, rule(name, false));
        }
    }
    endpoint_ip(errors, ip, &path.field("ip"));
}

fn port(errors: &mut Errors, port: &Value, require_name: bool, path: &Path<'_>) {
    match port.text("name") {
        "" if require_name => errors.required(&path.field("name"), ""),
        "" => {}
        name => errors.invalid_each(&path.field("name"), name, names::dns1123_label(name, false)),
    }
    let number = port.int("port").unwrap_or(0);
    if let Some(text) = names::port_number(number) {
        errors.invalid(&path.field("port"), number, text);
    }
    match port.text("protocol") {
        "" => errors.required(&path.field("protocol"), ""),
        protocol => errors.one_of(&path.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
    }
    if port.has("appProtocol") {
        let name = port.text("appProtocol");
        errors.invalid_each(&path.field("appProtocol"), name, names::qualified_name(name));
    }
}

/// Errors of an address that traffic is sent to.
pub fn endpoint_ip(errors: &mut Errors, text: &str, path: &Path<'_>) {
    let Some(ip) = names::parse_ip(text) else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
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
