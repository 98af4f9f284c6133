//! ClusterRoles with an aggregation rule get the rules of the roles it selects.

use crate::context::{Context, synced};
use api::k8s::rbac::v1::{ClusterRole, PolicyRule};
use api::selector::LabelSelector;
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::api::PostParams;
use std::sync::Arc;

struct Aggregation {
    ctx: Context,
    roles: Informer<ClusterRole>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let roles = ctx.informer::<ClusterRole>();
    let (enqueue, all) = (queue.clone(), roles.clone());
    roles.on_event(move |event| {
        enqueue.add(Key::of(event.object().as_ref()));
        // Aggregated roles are few: each looks again.
        all.list().iter().filter(|r| r.aggregation_rule.is_some()).for_each(|r| enqueue.add(Key::of(r.as_ref())));
    });
    synced!(roles);
    let reconciler = Aggregation { ctx: ctx.clone(), roles };
    Controller::new("clusterrole-aggregation", queue, reconciler).run(ctx.shutdown()).await;
}

/// The rules of every selected role, in the order of the selectors and of names, each once.
fn aggregate(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.clone().unwrap_or_default();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.iter().filter_map(|s| LabelSelector::from_api(Some(s))) {
        let others = all.iter().filter(|r| r.metadata.name != role.metadata.name);
        for other in others.filter(|r| selector.matches_labels(r.metadata.labels.as_ref())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

impl Reconcile for Aggregation {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(role) = self.roles.get_key(key) else { return Ok(Requeue::Done) };
        let Some(rules) = aggregate(&role, &self.roles.list()) else { return Ok(Requeue::Done) };
        if role.rules.clone().unwrap_or_default() == rules {
            return Ok(Requeue::Done);
        }
        let wanted = ClusterRole { rules: Some(rules), ..ClusterRole::clone(&role) };
        self.ctx.cluster_api::<ClusterRole>().replace(&key.name, &PostParams::default(), &wanted).await?;
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selected_rules_are_united() {
        let role = |name: &str, label: &str, verb: &str| -> Arc<ClusterRole> {
            let role = json!({"metadata": {"name": name, "labels": {"agg": label}}, "rules": [{"verbs": [verb]}]});
            Arc::new(serde_json::from_value(role).expect("role"))
        };
        let into: ClusterRole = serde_json::from_value(json!({"metadata": {"name": "into"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"agg": "x"}}]}}))
        .expect("role");
        let rules = aggregate(&into, &[role("a", "x", "get"), role("b", "y", "list"), role("c", "x", "get")])
            .expect("aggregates");
        assert_eq!(rules.iter().map(|r| r.verbs.clone()).collect::<Vec<_>>(), [["get"]]);
    }
}
