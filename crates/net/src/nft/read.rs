//! Reading a table back: names and counts, for tests and for taking over after a restart.

use super::{Family, message};
use crate::error::Result;
use crate::netlink::{self, DUMP, Messages, Socket};
use std::collections::{BTreeMap, BTreeSet};

/// What a table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Chains and how many rules each has.
    pub chains: BTreeMap<String, usize>,
    /// Sets and the keys of their elements.
    pub sets: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// Reads a table; empty if there is none.
pub fn read(socket: &mut Socket, family: Family, table: &str) -> Result<Ruleset> {
    let mut ruleset = Ruleset::default();
    each(socket, message::GET_CHAIN, family, table, None, |body| {
        ruleset.chains.extend(name(body, 3).map(|name| (name, 0)));
    })?;
    each(socket, message::GET_RULE, family, table, None, |body| {
        if let Some(count) = name(body, 2).and_then(|chain| ruleset.chains.get_mut(&chain)) {
            *count += 1;
        }
    })?;
    each(socket, message::GET_SET, family, table, None, |body| {
        ruleset.sets.extend(name(body, 2).map(|name| (name, BTreeSet::new())));
    })?;
    for (set, keys) in &mut ruleset.sets {
        each(socket, message::GET_ELEMENT, family, table, Some(set), |body| {
            let list = netlink::attribute(body, 3).unwrap_or_default();
            for (_, element) in netlink::attributes(list) {
                let key = netlink::attribute(element, 1).and_then(|key| netlink::attribute(key, 1));
                keys.extend(key.map(<[u8]>::to_vec));
            }
        })?;
    }
    Ok(ruleset)
}

fn name(body: &[u8], kind: u16) -> Option<String> {
    netlink::attribute(body, kind).map(netlink::text)
}

fn each(
    socket: &mut Socket,
    kind: u8,
    family: Family,
    table: &str,
    set: Option<&str>,
    mut found: impl FnMut(&[u8]),
) -> Result<()> {
    let mut request = Messages::default();
    request.begin(10 << 8 | u16::from(kind), DUMP, &[family.number(), 0, 0, 0]).text(1, table);
    if let Some(set) = set {
        request.text(2, set);
    }
    request.end();
    let done = socket.dump(request, &format!("read nftables table {table:?}"), |_, payload| {
        let body = payload.get(4..).unwrap_or_default();
        // Old kernels do not filter chains by table.
        if payload.first() == Some(&family.number()) && name(body, 1).as_deref() == Some(table) {
            found(body);
        }
    });
    match done {
        Err(e) if e.errno() == Some(rustix::io::Errno::NOENT) => Ok(()),
        other => other,
    }
}
