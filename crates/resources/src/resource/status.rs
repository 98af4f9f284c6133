//! The status of a claim: what was allocated, who it is reserved for, and what drivers tell of the devices.

use super::Requests;
use super::device::{self, Limits};
use crate::core::pod::affinity;
use crate::field::{Errors, Fields, IMMUTABLE, Path, repeated, same_but};
use crate::names;
use crate::rules::each;
use api::{Cause, Object};
use serde_json::Value;
use std::collections::HashSet;

const ALLOCATION: &str = "io.k8s.api.resource.v1.AllocationResult";
const RESERVED_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 64;
const CONDITIONS_MAX: usize = 8;
const INTERFACE_MAX: usize = 256;
const HARDWARE_ADDRESS_MAX: usize = 128;
const IPS_MAX: usize = 16;
const DATA_MAX: usize = 10 * 1024;

/// Which device something is about, maybe a share of it.
type Id<'a> = [&'a str; 4];

fn id(of: &Value) -> Id<'_> {
    ["driver", "pool", "device", "shareID"].map(|field| of.text(field))
}

fn printed(id: Id<'_>) -> String {
    let [driver, pool, device, share] = id;
    format!("{{\"Driver\":{driver:?},\"Pool\":{pool:?},\"Device\":{device:?},\"ShareID\":{share:?}}}")
}

/// Errors of a changed status.
pub(super) fn check(claim: &Object, old: &Object) -> Vec<Cause> {
    let (mut errors, path) = (Errors::default(), Path::root("status"));
    let (now, was) = (claim.at("status"), old.at("status"));
    reserved(&mut errors, now, &path.field("reservedFor"));
    devices(&mut errors, now, &path.field("devices"));
    reservation(&mut errors, claim, was, &path.field("reservedFor"));
    let (allocation, path) = (now.at("allocation"), path.field("allocation"));
    match (allocation.is_null(), was.at("allocation")) {
        (true, _) => {}
        (false, Value::Null) => {
            let requests = Requests::of(claim.at("spec").at("devices"));
            self::allocation(&mut errors, allocation, &requests, &path);
        }
        (false, before) if !same_but(&["parameters"], allocation, before) => {
            errors.invalid_struct(&path, ALLOCATION, allocation, IMMUTABLE)
        }
        _ => {}
    }
    errors.0
}

/// Takes what a driver told of devices along with them when they are allocated no more.
pub(super) fn drop_deallocated(claim: &mut Object, old: &Object) {
    let results =
        |of: &Object| -> Vec<Value> { of.at("status").at("allocation").at("devices").list("results").to_vec() };
    let (now, was) = (results(claim), results(old));
    let kept: HashSet<Id<'_>> = now.iter().map(id).collect();
    let gone: HashSet<Id<'_>> = was.iter().map(id).filter(|id| !kept.contains(id)).collect();
    let Some(devices) = claim.pointer_mut("/status/devices").and_then(Value::as_array_mut) else { return };
    devices.retain(|device| !gone.contains(&id(device)));
    if devices.is_empty() {
        crate::field::drop_empty(&mut claim["status"], "devices");
    }
}

fn reserved(errors: &mut Errors, status: &Value, path: &Path<'_>) {
    let list = status.list("reservedFor");
    if !errors.at_most(path, list, RESERVED_MAX) {
        return;
    }
    for (i, consumer) in list.iter().enumerate() {
        for field in ["resource", "name", "uid"].into_iter().filter(|field| consumer.text(field).is_empty()) {
            errors.required(&path.index(i).field(field), "");
        }
    }
    let twice = repeated(list.iter().map(|consumer| consumer.text("uid")));
    for (i, consumer) in list.iter().enumerate().filter(|(i, _)| twice[*i]) {
        errors.duplicate(&path.index(i), consumer.text("uid"));
    }
}

/// Only what is allocated is reserved, and nothing more once the claim is to go.
fn reservation(errors: &mut Errors, claim: &Object, was: &Value, path: &Path<'_>) {
    let list = claim.at("status").list("reservedFor");
    if list.is_empty() {
        return;
    }
    if !claim.at("status").has("allocation") {
        return errors.forbidden(path, "may not be specified when `allocated` is not set");
    }
    let whom = |consumer: &Value| ["apiGroup", "resource", "name", "uid"].map(|field| consumer.text(field).to_owned());
    let before: HashSet<_> = was.list("reservedFor").iter().map(whom).collect();
    if api::meta::is_deleting(claim) && list.iter().any(|consumer| !before.contains(&whom(consumer))) {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(path, detail);
    }
}

fn devices(errors: &mut Errors, status: &Value, path: &Path<'_>) {
    let allocated: HashSet<Id<'_>> = status.at("allocation").at("devices").list("results").iter().map(id).collect();
    let list = status.list("devices");
    for (i, device) in list.iter().enumerate() {
        self::device(errors, device, &allocated, &path.index(i));
    }
    let twice = repeated(list.iter().map(id));
    for (i, device) in list.iter().enumerate().filter(|(i, _)| twice[*i]) {
        errors.duplicate_printed(&path.index(i), || printed(id(device)));
    }
}

fn device(errors: &mut Errors, device: &Value, allocated: &HashSet<Id<'_>>, path: &Path<'_>) {
    names_of(errors, device, path);
    share(errors, device, path);
    if !allocated.contains(&id(device)) {
        errors.invalid_printed(path, || printed(id(device)), "must be an allocated device in the claim");
    }
    let (list, conditions) = (device.list("conditions"), path.field("conditions"));
    errors.at_most(&conditions, list, CONDITIONS_MAX);
    crate::conditions::conditions(errors, list, &conditions);
    if device.has("data") {
        device::parameters(errors, device.at("data"), DATA_MAX, &path.field("data"));
    }
    network(errors, device.at("networkData"), &path.field("networkData"));
}

fn names_of(errors: &mut Errors, device: &Value, path: &Path<'_>) {
    device::driver_name(errors, device.text("driver"), &path.field("driver"));
    device::pool_name(errors, device.text("pool"), &path.field("pool"));
    let name = device.text("device");
    errors.invalid_each(&path.field("device"), name, names::dns1123_label(name, false));
}

/// A share is named by a UUID in its usual form.
fn share(errors: &mut Errors, of: &Value, path: &Path<'_>) {
    let Some(share) = of.at("shareID").as_str() else { return };
    let dashes = [8, 13, 18, 23];
    let well_formed = |(i, c): (usize, char)| if dashes.contains(&i) { c == '-' } else { c.is_ascii_hexdigit() };
    let path = path.field("shareID");
    match share.len() {
        36 if !share.chars().enumerate().all(well_formed) => {
            errors.invalid(&path, share, "error validating uid: invalid UUID format");
        }
        36 if share.chars().any(|c| c.is_ascii_uppercase()) => {
            errors.invalid(&path, share, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters");
        }
        36 => {}
        length => errors.invalid(&path, share, &format!("error validating uid: invalid UUID length: {length}")),
    }
}

fn network(errors: &mut Errors, data: &Value, path: &Path<'_>) {
    for (field, max) in [("interfaceName", INTERFACE_MAX), ("hardwareAddress", HARDWARE_ADDRESS_MAX)] {
        if data.text(field).len() > max {
            errors.too_long(&path.field(field), max);
        }
    }
    let (ips, path) = (data.texts("ips"), path.field("ips"));
    if !errors.at_most(&path, data.list("ips"), IPS_MAX) {
        return;
    }
    for (i, ip) in ips.iter().enumerate() {
        match names::parse_interface_address(ip) {
            None => errors.invalid(&path.index(i), *ip, INTERFACE_FORM),
            Some(canonical) if canonical != *ip => {
                errors.invalid(&path.index(i), *ip, &format!("must be in canonical form ({canonical:?})"));
            }
            Some(_) => {}
        }
    }
    let twice = repeated(ips.iter());
    (ips.iter().enumerate().filter(|(i, _)| twice[*i])).for_each(|(i, ip)| errors.duplicate(&path.index(i), *ip));
}

const INTERFACE_FORM: &str = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";

fn allocation(errors: &mut Errors, allocation: &Value, requests: &Requests<'_>, path: &Path<'_>) {
    let (devices, at) = (allocation.at("devices"), path.field("devices"));
    if errors.at_most(&at.field("results"), devices.list("results"), RESULTS_MAX) {
        each(devices, "results", &at, |result, path| {
            requests.reference(errors, result.text("request"), &path.field("request"));
            names_of(errors, result, path);
            device::binding(errors, result, path);
            share(errors, result, path);
        });
    }
    if errors.at_most(&at.field("config"), devices.list("config"), CONFIGS_MAX) {
        each(devices, "config", &at, |config, path| {
            match config.text("source") {
                "" => errors.required(&path.field("source"), ""),
                source => errors.one_of(&path.field("source"), source, &["FromClaim", "FromClass"]),
            }
            requests.references(errors, config, &path.field("requests"));
            device::configuration(errors, config, Limits::New, path);
        });
    }
    if allocation.has("nodeSelector") {
        affinity::node_selector(errors, allocation.at("nodeSelector"), &path.field("nodeSelector"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_told_of_devices_goes_with_them() {
        let result = |device: &str| json!({"request": "r", "driver": "d.test", "pool": "p", "device": device});
        let told = |device: &str| json!({"driver": "d.test", "pool": "p", "device": device});
        let claim = |results: Value, told: Value| json!({"status": {"allocation": {"devices": {"results": results}}, "devices": told}});
        let old = claim(json!([result("a"), result("b")]), json!([told("a"), told("b")]));
        let check = |results: Value, want: Value| {
            let mut new = claim(results, json!([told("a"), told("b")]));
            drop_deallocated(&mut new, &old);
            assert_eq!(new.at("status").at("devices"), &want);
        };
        check(json!([result("a"), result("b")]), json!([told("a"), told("b")]));
        check(json!([result("a")]), json!([told("a")]));
        check(json!([]), Value::Null);
    }

    #[test]
    fn devices_are_allocated_ones() {
        let check = |status: Value, want: &[&str]| {
            let claim = json!({"spec": {"devices": {"requests": [{"name": "r", "exactly": {}}]}}, "status": status});
            let got = check(&claim, &json!({"status": {}}));
            let got: Vec<String> = got.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
            assert_eq!(got, want);
        };
        let result = json!({"request": "r", "driver": "d.test", "pool": "p", "device": "x"});
        let device = json!({"driver": "d.test", "pool": "p", "device": "x"});
        check(json!({"allocation": {"devices": {"results": [result]}}, "devices": [device]}), &[]);
        check(
            json!({"devices": [device]}),
            &[
                "status.devices[0]: Invalid value: {\"Driver\":\"d.test\",\"Pool\":\"p\",\"Device\":\"x\",\"ShareID\":\"\"}: must be an allocated device in the claim",
            ],
        );
        check(
            json!({"reservedFor": [{"resource": "pods", "name": "a"}]}),
            &[
                "status.reservedFor[0].uid: Required value",
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            ],
        );
        check(
            json!({"allocation": {"devices": {"config": [{"source": "x"}]}}}),
            &[
                "status.allocation.devices.config[0].source: Unsupported value: \"x\": supported values: \"FromClaim\", \"FromClass\"",
                "status.allocation.devices.config[0].opaque: Required value",
            ],
        );
    }
}
