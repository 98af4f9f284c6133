//! Replacing daemon pods of an older template, a limited number of nodes at a time.

use super::{Plan, Sync, nodes};
use crate::deployment::resolve;
use crate::pods;
use api::k8s::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;

/// How many nodes may have an extra pod, and how many may be without an available one.
pub(super) fn limits(sync: &Sync) -> (usize, usize) {
    let strategy = sync.spec.update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return (0, 0);
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let wanted = sync.nodes.iter().filter(|n| nodes::verdict(&sync.spec, n).0).count() as i32;
    let surge = usize::try_from(resolve(rolling.max_surge.as_ref(), wanted, true)).unwrap_or(0);
    let unavailable = rolling.max_unavailable.as_ref().map_or(1, |v| resolve(Some(v), wanted, true));
    let unavailable = usize::try_from(unavailable).unwrap_or(0);
    (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
}

/// What one step of the update does.
pub(super) fn plan(sync: &Sync) -> Plan {
    let on_delete = sync.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("OnDelete");
    if on_delete {
        return Plan::default();
    }
    let (surge, unavailable) = limits(sync);
    if surge > 0 { surging(sync, surge) } else { replacing(sync, unavailable) }
}

/// The newest pod of the present template and the one of an older one.
fn pair(sync: &Sync, node: &str) -> (Option<Arc<Pod>>, Option<Arc<Pod>>) {
    let live = || sync.pods_on(node).iter().filter(|p| !pods::is_terminal(p));
    (live().find(|p| sync.is_current(p)).cloned(), live().find(|p| !sync.is_current(p)).cloned())
}

/// Deletes old pods: unavailable ones at once, available ones as far as allowed.
fn replacing(sync: &Sync, max_unavailable: usize) -> Plan {
    let (mut plan, mut candidates, mut unavailable) = (Plan::default(), Vec::new(), 0);
    for node in sync.nodes.iter().filter(|n| nodes::verdict(&sync.spec, n).0) {
        match pair(sync, &node.name_any()) {
            (None, None) => unavailable += 1,
            (Some(new), _) => unavailable += usize::from(!sync.is_available(&new)),
            (None, Some(old)) if pods::is_deleting(&old) => unavailable += 1,
            (None, Some(old)) if !sync.is_available(&old) => {
                unavailable += 1;
                plan.delete.push(old);
            }
            (None, Some(old)) => candidates.push(old),
        }
    }
    candidates.truncate(max_unavailable.saturating_sub(unavailable));
    plan.delete.extend(candidates);
    plan
}

/// Adds new pods beside old ones, and deletes an old one once its successor is available.
fn surging(sync: &Sync, max_surge: usize) -> Plan {
    let (mut plan, mut candidates, mut surged) = (Plan::default(), Vec::new(), 0);
    for node in sync.nodes.iter().filter(|n| nodes::verdict(&sync.spec, n).0) {
        match pair(sync, &node.name_any()) {
            (None, Some(old)) if pods::is_deleting(&old) || !sync.is_available(&old) => {
                plan.create.push(node.name_any())
            }
            (None, Some(_)) => candidates.push(node.name_any()),
            (Some(new), Some(old)) if sync.is_available(&new) => {
                plan.delete.extend(Some(old).filter(|p| !pods::is_deleting(p)))
            }
            (Some(_), Some(_)) => surged += 1,
            _ => {}
        }
    }
    candidates.truncate(max_surge.saturating_sub(surged));
    plan.create.extend(candidates);
    plan
}
