//! ResourceQuota: what a namespace uses stays within its quotas.
//!
//! [`usage`] says what an object uses, [`scopes`] which quotas cover it. A write is charged to the status of
//! every quota that covers it before it is stored, by a guaranteed update that checks and adds in one step: of
//! several servers or writers none can overdraw. A write that fails after that is given back; what deletions
//! free is counted afresh by the controller.
//! Absent: quotas required by configuration, device classes of resource claims.

mod scopes;
mod usage;

use super::{Attributes, Operation, Plugin};
use crate::server::ApiServer;
use crate::store::{Preconditions, Stored, Update};
use api::quantity::Quantity;
use api::{Object, Status, meta};
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use usage::Kind;

type Amounts = BTreeMap<String, Quantity>;

/// The plugin.
pub struct ResourceQuota;

#[async_trait]
impl Plugin for ResourceQuota {
    async fn validate(&self, server: &ApiServer, a: &Attributes<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(charges) = object.map(|o| charges(server, a, o)).transpose()?.flatten() else { return Ok(()) };
        for (at, (quota, delta)) in charges.iter().enumerate() {
            if let Err(error) = charge(server, a, quota, delta).await {
                give_back(server, a, &charges[..at]).await;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Names of quotas, and what each is charged.
pub type Charges = Vec<(String, Amounts)>;

/// What a write that passed was charged; nothing for a dry run.
pub fn charged(server: &ApiServer, a: &Attributes<'_>, object: &Object) -> Charges {
    if a.dry_run { Charges::new() } else { charges(server, a, object).ok().flatten().unwrap_or_default() }
}

/// What a write adds to which quota; `None` when it adds nothing.
fn charges(server: &ApiServer, a: &Attributes<'_>, object: &Object) -> Result<Option<Charges>, Status> {
    if a.namespace.is_empty() || a.is("", "namespaces") {
        return Ok(None);
    }
    let quotas = server.lives().resource_quotas.in_namespace(a.namespace);
    let old = a.old.filter(|_| a.operation == Operation::Update);
    let Some(kind) = Kind::of(a, object, old).filter(|_| !quotas.is_empty()) else { return Ok(None) };
    let used = kind.usage(object);
    let negative: BTreeSet<_> = used.iter().filter(|(_, q)| q.sign() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let names = negative.into_iter().collect::<Vec<_>>().join(",");
        return Err(a.forbidden(&format!("quota usage is negative for resource(s): {names}")));
    }
    let mut charges = Vec::new();
    for (name, quota) in quotas {
        let hard = amounts(quota.pointer("/status/hard"));
        let covered: BTreeSet<&str> = hard.keys().map(String::as_str).filter(|name| kind.measures(name)).collect();
        if covered.is_empty() || !scopes::cover(&quota, &kind, object) {
            continue;
        }
        if let Some(missing) = kind.missing(&covered, object) {
            return Err(a.forbidden(&format!("failed quota: {name}: must specify {missing}")));
        }
        let before = old.filter(|old| scopes::cover(&quota, &kind, old)).map(|old| kind.usage(old));
        let mut delta = increase(&used, &before.unwrap_or_default());
        delta.retain(|name, _| hard.contains_key(name));
        if !delta.is_empty() {
            charges.push((name, delta));
        }
    }
    Ok(Some(charges))
}

fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
}

/// What is used more than before; decreases are the controller's to see.
fn increase(now: &Amounts, before: &Amounts) -> Amounts {
    let more = now.iter().map(|(name, q)| (name.clone(), before.get(name).map_or(*q, |b| q.minus(b))));
    more.filter(|(_, q)| q.sign() > 0).collect()
}

async fn charge(server: &ApiServer, a: &Attributes<'_>, quota: &str, delta: &Amounts) -> Result<(), Status> {
    let store = server.store("", "resourcequotas").ok_or_else(Status::no_such_path)?;
    let unchecked = a.subresource == "status";
    let change = |_: &Stored, mut object: Object| {
        add(&mut object, delta, unchecked).map_err(|why| a.forbidden(&why))?;
        Ok(Update::Write(object))
    };
    match store.guaranteed_update(a.namespace, quota, &Preconditions::default(), change, a.dry_run).await {
        // A quota that was deleted meanwhile limits nothing.
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Adds to a quota's usage, or says why that is too much.
fn add(quota: &mut Object, delta: &Amounts, unchecked: bool) -> Result<(), String> {
    let name = meta::name(quota).to_owned();
    let (hard, mut used) = (amounts(quota.pointer("/status/hard")), amounts(quota.pointer("/status/used")));
    let limited = || delta.iter().filter(|(name, _)| hard.contains_key(*name));
    let unknown: Vec<_> = limited().map(|(name, _)| name.as_str()).filter(|n| !used.contains_key(*n)).collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let total = |name: &String, more: &Quantity| used.get(name).map_or(*more, |u| u.plus(more));
    let exceeded: BTreeSet<&String> = limited().filter(|(n, q)| total(n, q) > hard[*n]).map(|(n, _)| n).collect();
    if !exceeded.is_empty() && !unchecked {
        let list = |all: &Amounts| {
            let shown = exceeded.iter().filter_map(|n| Some(format!("{n}={}", all.get(*n)?)));
            shown.collect::<Vec<_>>().join(",")
        };
        let (requested, used, hard) = (list(delta), list(&used), list(&hard));
        return Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {hard}"));
    }
    let sums: Amounts = limited().map(|(name, more)| (name.clone(), total(name, more))).collect();
    used.extend(sums);
    set_used(quota, &used);
    Ok(())
}

fn set_used(quota: &mut Object, used: &Amounts) {
    let used: Map<String, Value> = used.iter().map(|(name, q)| (name.clone(), q.to_string().into())).collect();
    meta::field_mut(quota, "status").insert("used".into(), used.into());
}

/// Gives back what was charged for a write that was not stored.
pub async fn give_back(server: &ApiServer, a: &Attributes<'_>, charges: &[(String, Amounts)]) {
    let Some(store) = server.store("", "resourcequotas").filter(|_| !a.dry_run) else { return };
    for (quota, delta) in charges {
        let change = |_: &Stored, mut object: Object| {
            subtract(&mut object, delta);
            Ok(Update::Write(object))
        };
        let outcome = store.guaranteed_update(a.namespace, quota, &Preconditions::default(), change, false).await;
        if let Err(error) = outcome.map_err(|e| e.message) {
            tracing::warn!(error, quota, namespace = a.namespace, "cannot give back what a failed write was charged");
        }
    }
}

/// Takes from a quota's usage; never below nothing, in case it was counted afresh meanwhile.
fn subtract(quota: &mut Object, delta: &Amounts) {
    let mut used = amounts(quota.pointer("/status/used"));
    for (name, less) in delta {
        if let Some(amount) = used.get_mut(name) {
            *amount = amount.minus(less).max(Quantity::from_milli(0));
        }
    }
    set_used(quota, &used);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn quota(hard: Value, used: Value) -> Object {
        json!({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}})
    }

    #[test]
    fn charges_are_added_or_refused() {
        let check = |hard: Value, used: Value, delta: Value, want: Result<Value, &str>| {
            let mut quota = quota(hard, used);
            let done = add(&mut quota, &amounts(Some(&delta)), false);
            let got = done.map(|()| quota["status"]["used"].clone());
            assert_eq!(got, want.map_err(str::to_owned), "{delta}");
        };
        check(json!({"pods": "2"}), json!({"pods": "1"}), json!({"pods": "1"}), Ok(json!({"pods": "2"})));
        check(
            json!({"pods": "2"}),
            json!({"pods": "2"}),
            json!({"pods": "1", "cpu": "1"}),
            Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        );
        check(
            json!({"requests.cpu": "1", "limits.memory": "1Gi", "pods": "9"}),
            json!({"requests.cpu": "600m", "limits.memory": "1Mi", "pods": "1"}),
            json!({"requests.cpu": "600m", "limits.memory": "2Gi", "pods": "1"}),
            Err(
                "exceeded quota: q, requested: limits.memory=2Gi,requests.cpu=600m, used: limits.memory=1Mi,requests.cpu=600m, \
                 limited: limits.memory=1Gi,requests.cpu=1",
            ),
        );
        check(
            json!({"pods": "1"}),
            json!({}),
            json!({"pods": "1"}),
            Err("status unknown for quota: q, resources: pods"),
        );
    }

    #[test]
    fn refunds_stop_at_nothing() {
        let mut quota = quota(json!({}), json!({"pods": "1", "requests.memory": "3Gi"}));
        subtract(&mut quota, &amounts(Some(&json!({"pods": "2", "requests.memory": "1Gi"}))));
        assert_eq!(quota["status"]["used"], json!({"pods": "0", "requests.memory": "2Gi"}));
    }

    #[test]
    fn only_increases_are_charged() {
        let (now, before) =
            (json!({"services": "1", "services.nodeports": "3"}), json!({"services": "1", "services.nodeports": "1"}));
        let more = increase(&amounts(Some(&now)), &amounts(Some(&before)));
        assert_eq!(more, amounts(Some(&json!({"services.nodeports": "2"}))));
    }
}
