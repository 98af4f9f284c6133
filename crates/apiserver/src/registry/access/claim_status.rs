//! Who may write which part of a claim's status (KEP-4817): its allocation whoever may update `resourceclaims/binding`, what
//! a driver tells of its devices whoever may update `resourceclaims/driver` for it, on the claim's own node or on any.

use super::{Check, Write};
use crate::authn::UserInfo;
use crate::authn::impersonation::service_account_of;
use crate::authz::{self, Attributes};
use api::{Cause, Object};
use async_trait::async_trait;
use resources::field::{Fields, same_but};
use resources::names;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};

/// Allocation and reservations.
pub struct Binding;

/// The state of devices, of each driver by itself.
pub struct Devices;

/// An allocation has no more devices: of more drivers the rest is wrong anyway, and each costs a question.
const DEVICES_MAX: usize = 32;

/// What drivers and their users put there: compared as it is.
const OPAQUE: [&str; 3] = ["data", "networkData", "parameters"];

#[async_trait]
impl Check for Binding {
    async fn causes(&self, write: &Write<'_>) -> Vec<Cause> {
        let (now, was) = (write.new.at("status"), write.old.at("status"));
        if ["allocation", "reservedFor"].iter().all(|field| same_but(&OPAQUE, now.at(field), was.at(field))) {
            return Vec::new();
        }
        let asked = Attributes { subresource: "binding", namespace: "", name: "", ..of(write) };
        let Err(why) = authz::authorize(write.server, &asked, None).await else { return Vec::new() };
        let detail = format!(
            "changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", \
             verb=\"{}\" permission: {}",
            asked.verb, why.message
        );
        vec![Cause::forbidden("status.allocation", &detail)]
    }
}

#[async_trait]
impl Check for Devices {
    async fn causes(&self, write: &Write<'_>) -> Vec<Cause> {
        let (now, was) = (write.new.at("status"), write.old.at("status"));
        let (allocation, request) = (now.at("allocation"), write.attributes.request);
        if allocation.is_null() {
            return Vec::new();
        }
        let own = allocated_node(allocation).is_some_and(|node| runs_on(&request.user, node));
        let prefixes = if own { &["associated-node", "arbitrary-node"][..] } else { &["arbitrary-node"] };
        let verbs: Vec<_> = prefixes.iter().map(|prefix| format!("{prefix}:{}", request.info.verb)).collect();
        let mut causes = Vec::new();
        for driver in changed_drivers(now, was) {
            let Err(why) = may_write(write, &verbs, driver).await else { continue };
            let verbs = verbs.join(" ");
            let detail = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{verbs}]\" permission: {why}"
            );
            causes.push(Cause::forbidden("status.devices", &detail));
            if causes.len() == DEVICES_MAX {
                break;
            }
        }
        causes
    }
}

fn of<'a>(write: &'a Write<'_>) -> Attributes<'a> {
    let request = write.attributes.request;
    Attributes::of(&request.user, &request.info)
}

/// One of the verbs is enough; the error is that of the first.
async fn may_write(write: &Write<'_>, verbs: &[String], driver: &str) -> Result<(), String> {
    let mut first = None;
    for verb in verbs {
        let asked = Attributes { verb, subresource: "driver", name: driver, ..of(write) };
        match authz::authorize(write.server, &asked, None).await {
            Ok(_) => return Ok(()),
            Err(why) => drop(first.get_or_insert(why.message)),
        }
    }
    first.map_or(Ok(()), Err)
}

/// The drivers of devices that a status has more, less or otherwise than before.
fn changed_drivers<'a>(now: &'a Value, was: &'a Value) -> BTreeSet<&'a str> {
    let key = |device: &'a Value| ["driver", "pool", "device", "shareID"].map(|field| device.text(field));
    let mut before: HashMap<_, _> = was.list("devices").iter().map(|device| (key(device), device)).collect();
    let devices = now.list("devices").iter();
    let changed =
        devices.filter(|device| before.remove(&key(device)).is_none_or(|was| !same_but(&OPAQUE, was, device)));
    let mut drivers: BTreeSet<_> = changed.map(|device| device.text("driver")).collect();
    drivers.extend(before.values().map(|device| device.text("driver")));
    drivers
}

/// The one node that an allocation is for, if its selector says no more.
fn allocated_node(allocation: &Object) -> Option<&str> {
    let [term] = allocation.at("nodeSelector").list("nodeSelectorTerms") else { return None };
    let ([], [field]) = (term.list("matchExpressions"), term.list("matchFields")) else { return None };
    match (field.text("key"), field.text("operator"), field.list("values")) {
        ("metadata.name", "In", [node]) => node.as_str().filter(|node| !node.is_empty()),
        _ => None,
    }
}

/// Whether the user is a service account whose pod runs on a node.
fn runs_on(user: &UserInfo, node: &str) -> bool {
    service_account_of(&user.name).is_some()
        && user.pod_node() == Some(node)
        && names::dns1123_subdomain(node, false).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changed_drivers_are_found() {
        let device =
            |driver: &str, data: i32| json!({"driver": driver, "pool": "p", "device": "d", "data": {"n": data}});
        let check = |was: Value, now: Value, want: &[&str]| {
            let (was, now) = (json!({"devices": was}), json!({"devices": now}));
            assert_eq!(changed_drivers(&now, &was).into_iter().collect::<Vec<_>>(), want);
        };
        check(json!(null), json!([device("b", 1), device("a", 1)]), &["a", "b"]);
        check(json!([device("a", 1), device("b", 1)]), json!([device("a", 1), device("b", 2)]), &["b"]);
        check(json!([device("a", 1)]), json!([]), &["a"]);
        check(json!([device("a", 1)]), json!([device("a", 1)]), &[]);
    }

    #[test]
    fn nodes_are_those_of_the_allocation() {
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
        let of = |terms: Value| json!({"nodeSelector": {"nodeSelectorTerms": terms}});
        let check = |terms: Value, want: Option<&str>| assert_eq!(allocated_node(&of(terms)), want);
        check(json!([{"matchFields": [field]}]), Some("n"));
        check(json!([{"matchFields": [field], "matchExpressions": [{"key": "a", "operator": "Exists"}]}]), None);
        check(json!([{"matchFields": [field]}, {"matchFields": [field]}]), None);
        check(json!([]), None);
    }
}
