//! Ports of a pod's containers that stand in each other's way.

use super::Found;
use crate::core::pod::defaults::CONTAINER_LISTS;
use crate::field::{Fields, Path};
use crate::rules::{each, each_of};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// A port as others can be in its way: of the container, protocol, of the host, address of the host.
type Key<'a> = (i64, &'a str, i64, &'a str);

/// Two containers' ports with one number and protocol.
pub fn definitions(out: &mut Found, spec: &Value, path: &Path<'_>) {
    let (mut places, mut known) = (Vec::new(), BTreeMap::<Key<'_>, Vec<usize>>::new());
    each_port(spec, path, |port, path| {
        let key = key(port);
        if !key.3.is_empty() && key.2 == 0 {
            out.add(path, format_args!("hostIP set without hostPort: {}", printed(port, key)));
        }
        for (other, which) in in_the_way(&known, key, out) {
            out.add(path, format_args!("{which} port definition with {}", places[other]));
        }
        known.entry(key).or_default().push(places.len());
        places.push(path.to_string());
    });
}

/// Names that services and probes could mean twice.
pub fn names(out: &mut Found, spec: &Value, path: &Path<'_>) {
    let mut first = HashMap::new();
    each_port(spec, path, |port, path| match (port.text("name"), first.get(port.text("name"))) {
        ("", _) => {}
        (name, None) => drop(first.insert(name, path.to_string())),
        (name, Some(other)) => {
            let text = format!("duplicate port name {name:?} with {other}");
            out.add(path, format_args!("{text}, services and probes that select ports by name will use {other}"));
        }
    });
}

fn each_port<'a>(spec: &'a Value, path: &Path<'_>, mut visit: impl FnMut(&'a Value, &Path<'_>)) {
    each_of(spec, &CONTAINER_LISTS, path, |c, path| each(c, "ports", path, &mut visit));
}

fn key(port: &Value) -> Key<'_> {
    let number = |field| port.int(field).unwrap_or(0);
    (number("containerPort"), port.text("protocol"), number("hostPort"), port.text("hostIP"))
}

/// As Go prints the struct.
fn printed(port: &Value, (number, protocol, host, ip): Key<'_>) -> String {
    let name = port.text("name");
    format!("{{Name:{name} HostPort:{host} ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}")
}

/// The ports that came before and are in the way, in their order; looked up, as a pod can have thousands of ports on
/// one number that are not. No more than there is room for.
fn in_the_way(known: &BTreeMap<Key<'_>, Vec<usize>>, key: Key<'_>, out: &Found) -> Vec<(usize, &'static str)> {
    if out.is_enough() {
        return Vec::new();
    }
    let (number, protocol, host, ip) = key;
    let on = |host: i64| known.range((number, protocol, host, "")..(number, protocol, host + 1, ""));
    let mut found = Vec::new();
    let mut take = |indices: &[usize], which| found.extend(indices.iter().map(|index| (*index, which)));
    let same = |other: &Key<'_>| other.2 == host && other.3 == ip;
    match host {
        0 => {
            for (other, indices) in known.range((number, protocol, i64::MIN, "")..(number, protocol, i64::MAX, "")) {
                take(indices, if same(other) { "duplicate" } else { "overlapping" });
            }
        }
        _ => {
            on(0).for_each(|(_, indices)| take(indices, "overlapping"));
            known.get(&key).into_iter().for_each(|indices| take(indices, "duplicate"));
            match ip {
                "" => on(host)
                    .filter(|(other, _)| !other.3.is_empty())
                    .for_each(|(_, i)| take(i, "dangerously ambiguous")),
                _ => {
                    known.get(&(number, protocol, host, "")).into_iter().for_each(|i| take(i, "dangerously ambiguous"))
                }
            }
        }
    }
    found.sort_unstable();
    found
}
