//! A StatefulSet's status.

use super::{StatefulSets, Sync, revision_of};
use crate::pods;
use api::k8s::apps::v1::{StatefulSet, StatefulSetStatus};
use informer::{Error, Requeue};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::PostParams;
use std::time::Duration;

fn calculate(sync: &Sync) -> StatefulSetStatus {
    let (current, update) = (sync.current.name_any(), sync.update.name_any());
    let count = |test: &dyn Fn(&api::k8s::core::v1::Pod) -> bool| sync.pods.iter().filter(|p| test(p)).count() as i32;
    let live = |p: &api::k8s::core::v1::Pod| pods::is_active(p);
    let some = |n: i32| Some(n).filter(|n| *n != 0);
    let replicas = count(&|p| !pods::phase(p).is_empty());
    let ready = count(&pods::is_ready);
    let updated = count(&|p| live(p) && revision_of(p) == update);
    let old = sync.set.status.clone().unwrap_or_default();
    let mut status = StatefulSetStatus {
        observed_generation: sync.set.metadata.generation,
        replicas,
        ready_replicas: some(ready),
        current_replicas: some(count(&|p| live(p) && revision_of(p) == current)),
        updated_replicas: some(updated),
        available_replicas: Some(count(&|p| sync.is_available(p))),
        current_revision: Some(current),
        update_revision: Some(update),
        collision_count: Some(sync.collisions),
        conditions: old.conditions,
    };
    let rolling = sync.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    if rolling && updated == replicas && ready == replicas && replicas == sync.replicas() {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
    status
}

impl StatefulSets {
    /// Writes the status where it changed; comes back when a ready pod becomes available.
    pub(super) async fn update_status(&self, sync: &Sync) -> Result<Requeue, Error> {
        let status = calculate(sync);
        if sync.set.status.as_ref() != Some(&status) {
            let set = StatefulSet { status: Some(status), ..StatefulSet::clone(&sync.set) };
            let api = self.ctx.api::<StatefulSet>(&set.namespace().unwrap_or_default());
            api.replace_status(&set.name_any(), &PostParams::default(), &set).await?;
        }
        let (min_ready, now) = (sync.spec.min_ready_seconds.unwrap_or(0), Timestamp::now());
        let waits = sync.pods.iter().filter(|p| !pods::is_available(p, min_ready, now));
        let wait = waits.filter_map(|p| pods::available_in(p, min_ready, now)).min();
        Ok(wait.map_or(Requeue::Done, |wait| Requeue::After(wait + Duration::from_millis(10))))
    }
}
