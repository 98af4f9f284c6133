//! How many pods a rolling update may add and remove: pure arithmetic, and the steps that use it.

use super::{Deployments, Sets, annotations, replicas, scale, spec};
use api::k8s::apps::v1::{Deployment, ReplicaSet};
use api::machinery::util::intstr::IntOrString;
use informer::Error;

/// A number or a percentage of `total`; a text that is neither counts as 0.
pub(crate) fn resolve(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            (if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) }) as i32
        }
        None => 0,
    }
}

/// Surge and unavailability in pods. Both zero would stall, so then one may be unavailable.
fn limits(deployment: &Deployment) -> (i32, i32) {
    let strategy = spec(deployment).strategy.unwrap_or_default();
    if strategy.type_.as_deref() == Some("Recreate") {
        return (0, 0);
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let surge = resolve(rolling.max_surge.as_ref(), replicas(deployment), true);
    let unavailable = resolve(rolling.max_unavailable.as_ref(), replicas(deployment), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub(crate) fn max_surge(deployment: &Deployment) -> i32 {
    limits(deployment).0
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if replicas(deployment) == 0 { 0 } else { limits(deployment).1.min(replicas(deployment)) }
}

/// The size the new ReplicaSet may have now.
pub(super) fn new_size(deployment: &Deployment, total: i32, current: i32) -> i32 {
    if super::is_recreate(deployment) {
        return replicas(deployment);
    }
    let room = replicas(deployment) + max_surge(deployment) - total;
    if room <= 0 { current } else { current + room.min(replicas(deployment) - current) }
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// The sizes of old ReplicaSets (oldest first) after one step: unhealthy pods go first.
fn old_sizes(deployment: &Deployment, sets: &Sets) -> Vec<i32> {
    let mut sizes: Vec<i32> = sets.old.iter().map(scale::size).collect();
    if sizes.iter().sum::<i32>() == 0 {
        return sizes;
    }
    let min_available = replicas(deployment) - max_unavailable(deployment);
    let new_unavailable = sets.new.as_ref().map_or(0, |new| scale::size(new) - available(new));
    let mut removable = sets.total() - min_available - new_unavailable;
    if removable <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(&sets.old) {
        let unhealthy = (*size - available(set)).clamp(0, removable.max(0));
        *size -= unhealthy;
        removable -= unhealthy;
    }
    let mut surplus = sets.all().map(available).sum::<i32>() - min_available;
    for size in &mut sizes {
        let step = (*size).clamp(0, surplus.max(0));
        *size -= step;
        surplus -= step;
    }
    sizes
}

impl Deployments {
    /// Grows (or shrinks) the new ReplicaSet as far as allowed; tells whether it changed.
    pub(super) async fn scale_new(&self, deployment: &Deployment, sets: &mut Sets) -> Result<bool, Error> {
        let total = sets.total();
        let Some(new) = &mut sets.new else { return Ok(false) };
        let wanted = match scale::size(new) > replicas(deployment) {
            true => replicas(deployment),
            false => new_size(deployment, total, scale::size(new)),
        };
        if wanted == scale::size(new) && annotations::number(new, annotations::DESIRED).is_some() {
            return Ok(false);
        }
        self.scale_to(deployment, new, wanted).await
    }

    /// Shrinks old ReplicaSets as far as availability allows; tells whether any changed.
    pub(super) async fn scale_old(&self, deployment: &Deployment, sets: &mut Sets) -> Result<bool, Error> {
        sets.old.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        let sizes = old_sizes(deployment, sets);
        let mut scaled = false;
        for (set, size) in sets.old.iter_mut().zip(sizes) {
            if size != scale::size(set) {
                scaled |= self.scale_to(deployment, set, size).await?;
            }
        }
        Ok(scaled)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
        let parse = |text: &str| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n));
        let rolling = json!({"maxSurge": parse(surge), "maxUnavailable": parse(unavailable)});
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).expect("deployment")
    }

    pub(crate) fn set(replicas: i32, available: i32) -> ReplicaSet {
        let spec = json!({"replicas": replicas, "selector": {}});
        serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec, "status": {"replicas": replicas, "availableReplicas": available}}))
            .expect("set")
    }

    #[test]
    fn limits_round_surge_up_and_unavailability_down() {
        for (replicas, surge, unavailable, want) in
            [(4, "25%", "25%", (1, 1)), (3, "25%", "25%", (1, 0)), (10, "0", "0", (0, 1)), (0, "25%", "25%", (0, 1))]
        {
            assert_eq!(limits(&deployment(replicas, surge, unavailable)), want, "{replicas} {surge} {unavailable}");
        }
    }

    #[test]
    fn steps_keep_enough_available() {
        let check = |new: (i32, i32), old: &[(i32, i32)], want_new: i32, want_old: &[i32]| {
            let d = deployment(4, "1", "1");
            let sets = Sets { new: Some(set(new.0, new.1)), old: old.iter().map(|(r, a)| set(*r, *a)).collect() };
            assert_eq!(new_size(&d, sets.total(), new.0), want_new, "new of {new:?} {old:?}");
            assert_eq!(old_sizes(&d, &sets), want_old, "old of {new:?} {old:?}");
        };
        check((0, 0), &[(4, 4)], 1, &[3]);
        check((1, 0), &[(4, 4)], 1, &[3]);
        check((1, 1), &[(4, 4)], 1, &[2]);
        check((2, 0), &[(3, 3)], 2, &[3]);
        check((2, 2), &[(2, 0)], 3, &[1]);
        check((4, 4), &[(1, 1)], 4, &[0]);
    }
}
