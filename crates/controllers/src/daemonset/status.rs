//! A DaemonSet's status.

use super::{DaemonSets, Sync, nodes};
use crate::pods;
use api::k8s::apps::v1::{DaemonSet, DaemonSetStatus};
use informer::{Error, Requeue};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::PostParams;
use std::time::Duration;

fn calculate(sync: &Sync) -> DaemonSetStatus {
    let (mut desired, mut current, mut misscheduled, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
    for node in &sync.nodes {
        let here = sync.pods_on(&node.name_any());
        let (should_run, _) = nodes::verdict(&sync.spec, node);
        if !should_run {
            misscheduled += i32::from(!here.is_empty());
            continue;
        }
        desired += 1;
        // The newest pod speaks for the node.
        if let Some(pod) = here.iter().rev().find(|p| !pods::is_deleting(p)).or(here.last()) {
            current += 1;
            ready += i32::from(pods::is_ready(pod));
            available += i32::from(pods::is_ready(pod) && sync.is_available(pod));
            updated += i32::from(sync.is_current(pod));
        }
    }
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let old = sync.set.status.clone().unwrap_or_default();
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready,
        updated_number_scheduled: some(updated),
        number_available: some(available),
        number_unavailable: some(desired - available),
        observed_generation: sync.set.metadata.generation,
        collision_count: sync.collisions,
        conditions: old.conditions,
    }
}

impl DaemonSets {
    /// Writes the status where it changed; comes back when a ready pod becomes available.
    pub(super) async fn update_status(&self, sync: &Sync) -> Result<Requeue, Error> {
        let status = calculate(sync);
        if sync.set.status.as_ref() != Some(&status) {
            let api = self.ctx.api::<DaemonSet>(&sync.set.namespace().unwrap_or_default());
            let set = DaemonSet { status: Some(status), ..DaemonSet::clone(&sync.set) };
            api.replace_status(&set.name_any(), &PostParams::default(), &set).await?;
        }
        let (min_ready, now) = (sync.spec.min_ready_seconds.unwrap_or(0), Timestamp::now());
        let waits = sync.by_node.values().flatten().filter(|p| !pods::is_available(p, min_ready, now));
        let wait = waits.filter_map(|p| pods::available_in(p, min_ready, now)).min();
        Ok(wait.map_or(Requeue::Done, |wait| Requeue::After(wait + Duration::from_millis(10))))
    }
}
