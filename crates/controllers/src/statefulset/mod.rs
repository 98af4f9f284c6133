//! StatefulSets: pods with names, claims and an order.

mod plan;
mod pods_of;
mod status;

use crate::context::{Context, synced};
use crate::history;
use crate::ownership::{self, Claimant, claim, controlled_by, is_already_exists, is_not_found, message};
use crate::{pods, template};
use api::k8s::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use api::k8s::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use api::selector::LabelSelector;
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams, Preconditions};
use plan::Step;
use serde_json::Value;
use std::sync::Arc;

const HASH: &str = "controller.kubernetes.io/hash";
/// Label of a pod that names its revision.
const REVISION: &str = "controller-revision-hash";

struct StatefulSets {
    ctx: Context,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    let (sets, pods) = (ctx.informer::<StatefulSet>(), ctx.informer::<Pod>());
    let (claims, revisions) = (ctx.informer::<PersistentVolumeClaim>(), ctx.informer::<ControllerRevision>());
    ownership::index(&pods);
    ownership::index(&revisions);
    let enqueue = queue.clone();
    sets.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, known) = (queue.clone(), sets.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(owner) = controlled_by::<StatefulSet>(pod.as_ref()) {
            enqueue.add(Key::new(namespace, owner.name.clone()));
        } else if ownership::controller_of(pod.as_ref()).is_none() && !matches!(event, Event::Deleted(_)) {
            for set in known.list_in(&namespace) {
                if selector(&set).is_some_and(|s| s.matches_labels(pod.metadata.labels.as_ref())) {
                    enqueue.add(Key::of(set.as_ref()));
                }
            }
        }
    });
    synced!(sets, pods, claims, revisions);
    let reconciler = StatefulSets { ctx: ctx.clone(), sets, pods, claims, revisions };
    Controller::new("statefulset", queue, reconciler).run(ctx.shutdown()).await;
}

fn selector(set: &StatefulSet) -> Option<LabelSelector> {
    LabelSelector::from_api(set.spec.as_ref().map(|s| &s.selector)).filter(|s| !s.0.is_empty())
}

/// One reconcile of a set.
struct Sync {
    set: Arc<StatefulSet>,
    spec: StatefulSetSpec,
    pods: Vec<Arc<Pod>>,
    /// The revision pods had before the present update, and the newest.
    current: ControllerRevision,
    update: ControllerRevision,
    /// How often the hash of the newest had to be another.
    collisions: i32,
}

fn revision_hash(_: &PodTemplateSpec, data: &Value, collisions: Option<i32>) -> String {
    template::revision_hash(data, collisions.unwrap_or(0))
}

impl Sync {
    fn replicas(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn first(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
    }

    fn ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    /// The pod of an ordinal, if there is one.
    fn pod(&self, ordinal: i32) -> Option<&Arc<Pod>> {
        self.pods.iter().find(|p| pods_of::ordinal(&self.set, p) == Some(ordinal))
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), jiff::Timestamp::now())
    }
}

fn revision_of(pod: &Pod) -> &str {
    pods::label(pod, REVISION).unwrap_or("")
}

impl Reconcile for StatefulSets {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(set) = self.sets.get_key(key) else { return Ok(Requeue::Done) };
        let Some(selector) = selector(&set) else { return Ok(Requeue::Done) };
        let claimant = Claimant { owner: set.as_ref(), selector: &selector, finalizers: &[] };
        let mut pods = claim(&self.ctx, &claimant, &self.pods).await?;
        pods.retain(|p| pods_of::ordinal(&set, p).is_some());
        let spec = set.spec.clone().unwrap_or_default();
        let (before, revisions) = self.revisions(&set, &spec, &selector).await?;
        let (update, collisions) = (revisions.current, revisions.collisions.unwrap_or(0));
        let current = before.unwrap_or_else(|| update.clone());
        let sync = Sync { set, spec, pods, current, update, collisions };
        let done = match sync.set.metadata.deletion_timestamp {
            Some(_) => Ok(()),
            None => self.execute(&sync).await,
        };
        let wait = self.update_status(&sync).await?;
        done?;
        self.clean_up(&sync, &revisions.others).await?;
        Ok(wait)
    }
}

impl StatefulSets {
    /// The revision pods had before the present update, where it is known, and all.
    async fn revisions(
        &self,
        set: &Arc<StatefulSet>,
        spec: &StatefulSetSpec,
        selector: &LabelSelector,
    ) -> Result<(Option<ControllerRevision>, history::Revisions), Error> {
        let known = history::list(&self.ctx, set.as_ref(), selector, &self.revisions).await?;
        let named = set.status.as_ref().and_then(|s| s.current_revision.clone());
        let current = known.iter().find(|r| r.metadata.name == named).map(|r| ControllerRevision::clone(r));
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let new = history::New { template: &spec.template, labels, hash_label: HASH, hash: revision_hash, collisions };
        Ok((current, history::current(&self.ctx, set.as_ref(), known, new).await?))
    }

    async fn execute(&self, sync: &Sync) -> Result<(), Error> {
        for step in plan::steps(sync) {
            match step {
                Step::Create { ordinal, update } => self.create(sync, ordinal, update).await?,
                Step::Replace(pod) => {
                    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                    let (reason, word) = if pods::phase(&pod) == "Failed" {
                        ("RecreatingFailedPod", "failed")
                    } else {
                        ("RecreatingTerminatedPod", "terminated")
                    };
                    let text =
                        format!("StatefulSet {namespace}/{} is recreating {word} Pod {name}", sync.set.name_any());
                    self.ctx.warning(sync.set.as_ref(), reason, text);
                    self.delete(sync, &pod).await?;
                }
                Step::Delete(pod) => self.delete(sync, &pod).await?,
            }
        }
        Ok(())
    }

    async fn create(&self, sync: &Sync, ordinal: i32, update: bool) -> Result<(), Error> {
        let revision = if update { &sync.update } else { &sync.current };
        let template = history::template_of(revision).unwrap_or_else(|| sync.spec.template.clone());
        let pod = pods_of::pod(sync, &template, revision, ordinal);
        let (set, name) = (sync.set.as_ref(), pod.name_any());
        for claim in pods_of::claims(sync, ordinal) {
            self.create_claim(sync, &claim, &name).await?;
        }
        match self.ctx.api::<Pod>(&set.namespace().unwrap_or_default()).create(&PostParams::default(), &pod).await {
            Ok(_) => self.ctx.normal(
                set,
                "SuccessfulCreate",
                format!("create Pod {name} in StatefulSet {} successful", set.name_any()),
            ),
            // The informer is behind, or someone else's pod has the name; either way its event brings us back.
            Err(error) if is_already_exists(&error) => {}
            Err(error) => {
                let text =
                    format!("create Pod {name} in StatefulSet {} failed error: {}", set.name_any(), message(&error));
                self.ctx.warning(set, "FailedCreate", text);
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn create_claim(&self, sync: &Sync, claim: &PersistentVolumeClaim, pod: &str) -> Result<(), Error> {
        let (set, name) = (sync.set.as_ref(), claim.name_any());
        let namespace = set.namespace().unwrap_or_default();
        if self.claims.get(&namespace, &name).is_some() {
            return Ok(());
        }
        match self.ctx.api::<PersistentVolumeClaim>(&namespace).create(&PostParams::default(), claim).await {
            Ok(_) => self.ctx.normal(
                set,
                "SuccessfulCreate",
                format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.name_any()),
            ),
            Err(error) if is_already_exists(&error) => {}
            Err(error) => {
                let text = format!(
                    "create Claim {name} for Pod {pod} in StatefulSet {} failed error: {}",
                    set.name_any(),
                    message(&error)
                );
                self.ctx.warning(set, "FailedCreate", text);
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn delete(&self, sync: &Sync, pod: &Pod) -> Result<(), Error> {
        let (set, name) = (sync.set.as_ref(), pod.name_any());
        let guard = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let api = self.ctx.api::<Pod>(&set.namespace().unwrap_or_default());
        match api.delete(&name, &DeleteParams::default().preconditions(guard)).await {
            Ok(_) => self.ctx.normal(
                set,
                "SuccessfulDelete",
                format!("delete Pod {name} in StatefulSet {} successful", set.name_any()),
            ),
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                let text =
                    format!("delete Pod {name} in StatefulSet {} failed error: {}", set.name_any(), message(&error));
                self.ctx.warning(set, "FailedDelete", text);
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn clean_up(&self, sync: &Sync, old: &[Arc<ControllerRevision>]) -> Result<(), Error> {
        let used = |r: &Arc<ControllerRevision>| {
            let name = r.metadata.name.as_deref().unwrap_or("");
            r.metadata.name == sync.current.metadata.name || sync.pods.iter().any(|p| revision_of(p) == name)
        };
        let unused: Vec<_> = old.iter().filter(|r| !used(r)).cloned().collect();
        let limit = usize::try_from(sync.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        history::truncate(&self.ctx, &unused, limit).await
    }
}
