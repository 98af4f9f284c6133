//! Deployments: roll pod templates out through ReplicaSets.
//!
//! One reconcile: claim ReplicaSets, note pause and resume, then either follow a scaling (also when
//! paused) or take one step of the rollout, and last write the status that the ReplicaSets show.

mod annotations;
mod rolling;
mod scale;
mod status;
mod sync;

use crate::context::{Context, synced};
use crate::ownership::{self, Claimant, claim, controlled_by};
use crate::pods;
use api::k8s::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use api::k8s::core::v1::Pod;
use api::selector::LabelSelector;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
pub(crate) use rolling::resolve;
use std::sync::Arc;

struct Deployments {
    ctx: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (deployments, sets, pods) = (ctx.informer::<Deployment>(), ctx.informer::<ReplicaSet>(), ctx.informer::<Pod>());
    ownership::index(&sets);
    ownership::index(&pods);
    let enqueue = queue.clone();
    deployments.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    watch_sets(&deployments, &sets, &queue);
    watch_pods(&deployments, &sets, &pods, &queue);
    synced!(deployments, sets, pods);
    let reconciler = Deployments { ctx: ctx.clone(), deployments, sets, pods };
    Controller::new("deployment", queue, reconciler).run(ctx.shutdown()).await;
}

fn watch_sets(deployments: &Informer<Deployment>, sets: &Informer<ReplicaSet>, queue: &WorkQueue<Key>) {
    let (deployments, queue) = (deployments.clone(), queue.clone());
    sets.on_event(move |event| {
        let set = event.object();
        if let Event::Updated { old, .. } = event {
            owner_key(old).into_iter().for_each(|key| queue.add(key));
        }
        match owner_key(set) {
            Some(key) => queue.add(key),
            None if ownership::controller_of(set.as_ref()).is_some() => {}
            None => {
                for deployment in deployments.list_in(&set.namespace().unwrap_or_default()) {
                    if selector(&deployment).is_some_and(|s| s.matches_labels(set.metadata.labels.as_ref())) {
                        queue.add(Key::of(deployment.as_ref()));
                    }
                }
            }
        }
    });
}

/// A Deployment of type Recreate goes on when the last old pod is gone.
fn watch_pods(
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<Key>,
) {
    let (deployments, sets, queue) = (deployments.clone(), sets.clone(), queue.clone());
    pods.on_event(move |event| {
        let Event::Deleted(pod) = event else { return };
        let namespace = pod.namespace().unwrap_or_default();
        let set = controlled_by::<ReplicaSet>(pod.as_ref()).and_then(|owner| sets.get(&namespace, &owner.name));
        let Some(key) = set.and_then(|set| owner_key(&set)) else { return };
        if deployments.get_key(&key).is_some_and(|d| is_recreate(&d)) {
            queue.add(key);
        }
    });
}

fn owner_key(set: &ReplicaSet) -> Option<Key> {
    let owner = controlled_by::<Deployment>(set)?;
    Some(Key::new(set.namespace().unwrap_or_default(), owner.name.clone()))
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

fn selector(deployment: &Deployment) -> Option<LabelSelector> {
    LabelSelector::from_api(deployment.spec.as_ref().map(|s| &s.selector)).filter(|s| !s.0.is_empty())
}

fn spec(deployment: &Deployment) -> DeploymentSpec {
    deployment.spec.clone().unwrap_or_default()
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// The ReplicaSets of one reconcile. They are changed here as they are changed on the server.
struct Sets {
    new: Option<ReplicaSet>,
    old: Vec<ReplicaSet>,
}

impl Sets {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    fn total(&self) -> i32 {
        self.all().map(scale::size).sum()
    }
}

impl Reconcile for Deployments {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(shared) = self.deployments.get_key(key) else { return Ok(Requeue::Done) };
        let mut deployment = Deployment::clone(&shared);
        let Some(selector) = selector(&deployment) else {
            let why = "This deployment is selecting all pods. A non-empty selector is required.";
            self.ctx.warning(&deployment, "SelectingAll", why);
            return Ok(Requeue::Done);
        };
        let claimant = Claimant { owner: shared.as_ref(), selector: &selector, finalizers: &[] };
        let sets = claim(&self.ctx, &claimant, &self.sets).await?;
        let sets = sync::classify(&deployment, sets.iter().map(|s| ReplicaSet::clone(s)).collect());
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.sync_status_only(&deployment, &sets).await;
        }
        self.check_paused(&mut deployment);
        let paused = spec(&deployment).paused == Some(true);
        if paused || scale::is_scaling(&deployment, &sets) {
            return self.follow_scaling(deployment, sets, paused).await;
        }
        if is_recreate(&deployment) {
            self.roll_recreate(deployment, sets).await
        } else {
            self.roll(deployment, sets).await
        }
    }
}

impl Deployments {
    /// Scales what exists; a paused Deployment gets no new ReplicaSet.
    async fn follow_scaling(&self, mut deployment: Deployment, mut sets: Sets, paused: bool) -> Result<Requeue, Error> {
        self.sync_revision(&mut deployment, &mut sets, false).await?;
        self.scale_all(&deployment, &mut sets).await?;
        if paused {
            self.clean_up(&deployment, &sets).await?;
        }
        self.sync_status_only(&deployment, &sets).await
    }

    async fn roll_recreate(&self, mut deployment: Deployment, mut sets: Sets) -> Result<Requeue, Error> {
        self.sync_revision(&mut deployment, &mut sets, false).await?;
        let mut scaled = false;
        for set in sets.old.iter_mut().filter(|s| scale::size(s) > 0) {
            scaled |= self.scale_to(&deployment, set, 0).await?;
        }
        if scaled || self.old_pods_running(&sets) {
            return self.sync_rollout_status(&deployment, &sets).await;
        }
        if sets.new.is_none() {
            self.sync_revision(&mut deployment, &mut sets, true).await?;
        }
        if let Some(new) = &mut sets.new {
            self.scale_to(&deployment, new, replicas(&deployment)).await?;
        }
        self.finish_rollout(&deployment, &sets).await
    }

    async fn roll(&self, mut deployment: Deployment, mut sets: Sets) -> Result<Requeue, Error> {
        self.sync_revision(&mut deployment, &mut sets, true).await?;
        if self.scale_new(&deployment, &mut sets).await? || self.scale_old(&deployment, &mut sets).await? {
            return self.sync_rollout_status(&deployment, &sets).await;
        }
        self.finish_rollout(&deployment, &sets).await
    }

    async fn finish_rollout(&self, deployment: &Deployment, sets: &Sets) -> Result<Requeue, Error> {
        if status::is_complete(deployment, &deployment.status.clone().unwrap_or_default()) {
            self.clean_up(deployment, sets).await?;
        }
        self.sync_rollout_status(deployment, sets).await
    }

    fn old_pods_running(&self, sets: &Sets) -> bool {
        let uid = |s: &ReplicaSet| s.metadata.uid.clone().unwrap_or_default();
        let mut pods = sets.old.iter().flat_map(|set| ownership::owned(&self.pods, &uid(set)));
        pods.any(|pod: Arc<Pod>| !pods::is_terminal(&pod))
    }
}
