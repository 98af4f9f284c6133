//! Scaling ReplicaSets: to the Deployment's size, or in proportion while a rollout is under way.

use super::{Deployments, Sets, annotations, replicas, rolling};
use api::k8s::apps::v1::{Deployment, ReplicaSet};
use informer::Error;
use kube::ResourceExt;
use kube::api::PostParams;
use std::cmp::Reverse;

/// `spec.replicas` of a ReplicaSet.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Whether the Deployment's size changed since its active ReplicaSets were last scaled.
pub(super) fn is_scaling(deployment: &Deployment, sets: &Sets) -> bool {
    let mut active = sets.all().filter(|s| size(s) > 0);
    active.any(|s| annotations::number(s, annotations::DESIRED).is_some_and(|n| n != i64::from(replicas(deployment))))
}

/// The one ReplicaSet that stands for the Deployment: the only active one, or the newest when none is.
fn active_or_latest(sets: &mut Sets) -> Option<&mut ReplicaSet> {
    match sets.all().filter(|s| size(s) > 0).count() {
        0 if sets.new.is_some() => sets.new.as_mut(),
        0 => sets.old.iter_mut().max_by_key(|s| s.metadata.creation_timestamp.clone()),
        1 => sets.old.iter_mut().chain(&mut sets.new).find(|s| size(s) > 0),
        _ => None,
    }
}

fn is_saturated(deployment: &Deployment, new: Option<&ReplicaSet>) -> bool {
    let wanted = replicas(deployment);
    new.is_some_and(|new| {
        size(new) == wanted
            && annotations::number(new, annotations::DESIRED) == Some(i64::from(wanted))
            && new.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0) == wanted
    })
}

/// What one ReplicaSet gets of the `left` pods that are to be added (or removed, when negative).
fn proportion(deployment: &Deployment, set: &ReplicaSet, left: i32) -> i32 {
    if size(set) == 0 || left == 0 {
        return 0;
    }
    let wanted = match replicas(deployment) {
        0 => -size(set),
        replicas => {
            let max = f64::from(replicas + rolling::max_surge(deployment));
            let status = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            let before = annotations::number(set, annotations::MAX).unwrap_or(i64::from(status)).max(1);
            (f64::from(size(set)) * max / before as f64).round() as i32 - size(set)
        }
    };
    if left > 0 { wanted.min(left) } else { wanted.max(left) }
}

/// The sizes of `active` after the Deployment was resized in the middle of a rollout.
fn proportional(deployment: &Deployment, active: &[&ReplicaSet]) -> Vec<i32> {
    let total: i32 = active.iter().map(|s| size(s)).sum();
    let allowed = if replicas(deployment) > 0 { replicas(deployment) + rolling::max_surge(deployment) } else { 0 };
    let (to_add, mut added) = (allowed - total, 0);
    let mut sizes = Vec::with_capacity(active.len());
    for set in active {
        let share = proportion(deployment, set, to_add - added);
        added += share;
        sizes.push(size(set) + share);
    }
    // Rounding leaves a rest for the first, which is the largest.
    if let Some(first) = sizes.first_mut().filter(|_| to_add != 0) {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

impl Deployments {
    /// Brings the active ReplicaSets to the Deployment's size.
    pub(super) async fn scale_all(&self, deployment: &Deployment, sets: &mut Sets) -> Result<(), Error> {
        if let Some(set) = active_or_latest(sets) {
            return self.scale_to(deployment, set, replicas(deployment)).await.map(drop);
        }
        if is_saturated(deployment, sets.new.as_ref()) {
            for set in sets.old.iter_mut().filter(|s| size(s) > 0) {
                self.scale_to(deployment, set, 0).await?;
            }
            return Ok(());
        }
        if super::is_recreate(deployment) {
            return Ok(());
        }
        let mut active: Vec<&mut ReplicaSet> =
            sets.old.iter_mut().chain(&mut sets.new).filter(|s| size(s) > 0).collect();
        let growing = replicas(deployment) + rolling::max_surge(deployment) > active.iter().map(|s| size(s)).sum();
        // Largest first; among equals the newest grows first and the oldest shrinks first.
        active.sort_by_key(|s| Reverse((size(s), s.metadata.creation_timestamp.clone())));
        if !growing {
            active.sort_by_key(|s| (Reverse(size(s)), s.metadata.creation_timestamp.clone()));
        }
        let sizes = proportional(deployment, &active.iter().map(|s| &**s).collect::<Vec<_>>());
        for (set, size) in active.into_iter().zip(sizes) {
            self.scale_to(deployment, set, size).await?;
        }
        Ok(())
    }

    /// Writes a ReplicaSet's size and size annotations where they differ; tells whether the size changed.
    pub(super) async fn scale_to(
        &self,
        deployment: &Deployment,
        set: &mut ReplicaSet,
        wanted: i32,
    ) -> Result<bool, Error> {
        let before = size(set);
        let mut changed = set.clone();
        let annotated = annotations::set_sizes(deployment, &mut changed);
        if before == wanted && !annotated {
            return Ok(false);
        }
        changed.spec.get_or_insert_default().replicas = Some(wanted);
        let api = self.ctx.api::<ReplicaSet>(&set.namespace().unwrap_or_default());
        *set = api.replace(&set.name_any(), &PostParams::default(), &changed).await?;
        if before != wanted {
            self.tell_scaled(deployment, &set.name_any(), before, wanted);
        }
        Ok(before != wanted)
    }

    pub(super) fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        self.ctx.normal(
            deployment,
            "ScalingReplicaSet",
            format!("Scaled {direction} replica set {set} from {from} to {to}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::rolling::tests::{deployment, set};
    use super::*;

    #[test]
    fn scaling_in_the_middle_of_a_rollout_is_proportional() {
        let mut sets = [set(8, 8), set(5, 0)];
        for s in &mut sets {
            annotations::set_sizes(&deployment(10, "3", "2"), s);
        }
        let sizes = proportional(&deployment(15, "3", "2"), &sets.iter().collect::<Vec<_>>());
        assert_eq!(sizes, [11, 7]);
        let sizes = proportional(&deployment(0, "3", "2"), &sets.iter().collect::<Vec<_>>());
        assert_eq!(sizes, [0, 0]);
    }
}
