//! DaemonSets: one pod on every node that suits.

mod nodes;
mod rolling;
mod status;

use crate::context::{Context, synced};
use crate::history;
use crate::ownership::{self, Claimant, claim, controlled_by, is_namespace_terminating};
use crate::{pod_control, pods, template};
use api::k8s::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec};
use api::k8s::core::v1::{Node, Pod};
use api::selector::LabelSelector;
use informer::{Controller, Error, Event, Expectations, Informer, Key, Reconcile, Requeue, WorkQueue};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const HASH: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// Pods created or deleted in one reconcile at most.
const BURST: usize = 250;

struct DaemonSets {
    ctx: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    expectations: Arc<Expectations<Key>>,
}

pub(crate) async fn run(ctx: Context) {
    // Failed pods are deleted with this back-off.
    let queue = WorkQueue::with_backoff(Duration::from_millis(5), Duration::from_secs(900));
    let expectations = Arc::new(Expectations::default());
    let (sets, pods) = (ctx.informer::<DaemonSet>(), ctx.informer::<Pod>());
    let (nodes, revisions) = (ctx.informer::<Node>(), ctx.informer::<ControllerRevision>());
    ownership::index(&pods);
    ownership::index(&revisions);
    let enqueue = queue.clone();
    sets.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, all) = (queue.clone(), sets.clone());
    nodes.on_event(move |event| {
        // Heartbeats do not change where daemon pods run.
        if !matches!(event, Event::Updated { old, new } if nodes::same_for_daemons(old, new)) {
            all.list().iter().for_each(|set| enqueue.add(Key::of(set.as_ref())));
        }
    });
    watch_pods(&sets, &pods, &queue, &expectations);
    synced!(sets, pods, nodes, revisions);
    let reconciler = DaemonSets { ctx: ctx.clone(), sets, pods, nodes, revisions, expectations };
    Controller::new("daemonset", queue, reconciler).workers(2).run(ctx.shutdown()).await;
}

fn watch_pods(
    sets: &Informer<DaemonSet>,
    pods: &Informer<Pod>,
    queue: &WorkQueue<Key>,
    expectations: &Arc<Expectations<Key>>,
) {
    let (sets, queue, expectations) = (sets.clone(), queue.clone(), expectations.clone());
    pods.on_event(move |event| {
        let pod = event.object();
        let namespace = pod.namespace().unwrap_or_default();
        if let Some(owner) = controlled_by::<DaemonSet>(pod.as_ref()) {
            let key = Key::new(namespace, owner.name.clone());
            match event {
                Event::Added(_) => expectations.creation_observed(&key),
                Event::Updated { old, new } if pods::is_deleting(old) || !pods::is_deleting(new) => {}
                _ => expectations.deletion_observed(&key, &Key::of(pod.as_ref())),
            }
            queue.add(key);
        } else if ownership::controller_of(pod.as_ref()).is_none() && !matches!(event, Event::Deleted(_)) {
            for set in sets.list_in(&namespace) {
                if selector(&set).is_some_and(|s| s.matches_labels(pod.metadata.labels.as_ref())) {
                    queue.add(Key::of(set.as_ref()));
                }
            }
        }
    });
}

fn selector(set: &DaemonSet) -> Option<LabelSelector> {
    LabelSelector::from_api(set.spec.as_ref().map(|s| &s.selector)).filter(|s| !s.0.is_empty())
}

/// One reconcile of a set.
struct Sync {
    set: Arc<DaemonSet>,
    spec: DaemonSetSpec,
    hash: String,
    /// How often that hash had to be another.
    collisions: Option<i32>,
    /// Pods by the node they are on, or are meant for; oldest first.
    by_node: HashMap<String, Vec<Arc<Pod>>>,
    nodes: Vec<Arc<Node>>,
}

impl Sync {
    fn pods_on(&self, node: &str) -> &[Arc<Pod>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    fn is_current(&self, pod: &Pod) -> bool {
        pods::label(pod, HASH) == Some(&self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), Timestamp::now())
    }
}

/// Nodes that need a pod, and pods that must go.
#[derive(Default)]
struct Plan {
    create: Vec<String>,
    delete: Vec<Arc<Pod>>,
    /// Failed pods are among those that go.
    failed: bool,
}

impl Reconcile for DaemonSets {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(set) = self.sets.get_key(key) else {
            self.expectations.forget(key);
            return Ok(Requeue::Done);
        };
        let Some(selector) = selector(&set) else {
            self.ctx.warning(
                set.as_ref(),
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Requeue::Done);
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Done);
        }
        let spec = set.spec.clone().unwrap_or_default();
        let revisions = self.revisions(&set, &spec, &selector).await?;
        let collisions = revisions.collisions;
        let hash = revisions.current.metadata.labels.as_ref().and_then(|l| l.get(HASH).cloned()).unwrap_or_default();
        let claimant = Claimant { owner: set.as_ref(), selector: &selector, finalizers: &[] };
        let pods = claim(&self.ctx, &claimant, &self.pods).await?;
        let sync = Sync { by_node: nodes::group(&pods), nodes: self.nodes.list(), set, spec, hash, collisions };
        let mut failed = false;
        if self.expectations.satisfied(key) {
            let mut plan = self.plan(&sync);
            failed = plan.failed;
            // Replacing pods waits until none is missing.
            if plan.create.is_empty() && plan.delete.is_empty() {
                plan = rolling::plan(&sync);
            }
            self.execute(key, &sync, plan).await?;
        }
        self.clean_up(&sync, &revisions.others).await?;
        let wait = self.update_status(&sync).await?;
        Ok(if failed { Requeue::Again } else { wait })
    }
}

impl DaemonSets {
    async fn revisions(
        &self,
        set: &Arc<DaemonSet>,
        spec: &DaemonSetSpec,
        selector: &LabelSelector,
    ) -> Result<history::Revisions, Error> {
        let known = history::list(&self.ctx, set.as_ref(), selector, &self.revisions).await?;
        let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|s| s.collision_count);
        let new = history::New { template: &spec.template, labels, hash_label: HASH, hash: |template, _, n| template::hash(template, n), collisions };
        history::current(&self.ctx, set.as_ref(), known, new).await
    }

    /// Nodes without a pod they should have, and pods on nodes that should have none.
    fn plan(&self, sync: &Sync) -> Plan {
        let mut plan = Plan::default();
        for node in &sync.nodes {
            let (should_run, may_stay) = nodes::verdict(&sync.spec, node);
            let here = sync.pods_on(&node.name_any());
            if !may_stay {
                plan.delete.extend(here.iter().filter(|p| !pods::is_deleting(p)).cloned());
                continue;
            }
            let mut running = Vec::new();
            for pod in here.iter().filter(|p| !pods::is_deleting(p)) {
                match pods::phase(pod) {
                    "Failed" | "Succeeded" => {
                        self.tell_ended(sync, pod, &node.name_any());
                        plan.failed = true;
                        plan.delete.push(pod.clone());
                    }
                    _ => running.push(pod.clone()),
                }
            }
            let surging = rolling::limits(sync).0 > 0;
            // A pod that is going is waited for, except where an update may surge.
            let occupied = here.iter().any(|p| pods::is_terminating(p)) && !surging;
            if running.is_empty() && should_run && !occupied && !plan.failed {
                plan.create.push(node.name_any());
            } else if running.len() > 1 && !surging {
                plan.delete.extend(running.into_iter().skip(1));
            }
        }
        let known: Vec<String> = sync.nodes.iter().map(|n| n.name_any()).collect();
        let stray = sync.by_node.iter().filter(|(node, _)| !known.contains(node));
        // Pods of nodes that are gone and that never ran are of no use.
        plan.delete.extend(
            stray
                .flat_map(|(_, list)| list)
                .filter(|p| pods::node_name(p).is_empty() && !pods::is_deleting(p))
                .cloned(),
        );
        plan
    }

    fn tell_ended(&self, sync: &Sync, pod: &Pod, node: &str) {
        let failed = pods::phase(pod) == "Failed";
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        if failed {
            self.ctx.warning(
                sync.set.as_ref(),
                "FailedDaemonPod",
                format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it"),
            );
        } else {
            self.ctx.normal(
                sync.set.as_ref(),
                "SucceededDaemonPod",
                format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it"),
            );
        }
    }

    async fn execute(&self, key: &Key, sync: &Sync, mut plan: Plan) -> Result<(), Error> {
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
        self.expectations.expect(key, plan.create.len(), plan.delete.iter().map(|p| Key::of(p.as_ref())));
        let pods: Vec<Pod> = plan.create.iter().map(|node| pod_for(sync, node)).collect();
        let set = sync.set.as_ref();
        let (created, error) = pod_control::slow_start(pods.len(), |at| {
            let pod = &pods[at];
            async move { pod_control::create(&self.ctx, set, pod).await.map(drop) }
        })
        .await;
        self.expectations.creations_skipped(key, pods.len() - created);
        let mut first = error.filter(|e| !is_namespace_terminating(e));
        for pod in &plan.delete {
            if let Err(error) = pod_control::delete(&self.ctx, set, pod).await {
                self.expectations.deletion_observed(key, &Key::of(pod.as_ref()));
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn clean_up(&self, sync: &Sync, old: &[Arc<ControllerRevision>]) -> Result<(), Error> {
        let hashes: Vec<&str> = sync.by_node.values().flatten().filter_map(|p| pods::label(p, HASH)).collect();
        let used = |r: &Arc<ControllerRevision>| {
            r.metadata.labels.as_ref().and_then(|l| l.get(HASH)).is_some_and(|h| hashes.contains(&h.as_str()))
        };
        let unused: Vec<_> = old.iter().filter(|r| !used(r)).cloned().collect();
        let limit = usize::try_from(sync.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        history::truncate(&self.ctx, &unused, limit).await
    }
}

/// The pod of a node.
fn pod_for(sync: &Sync, node: &str) -> Pod {
    let mut pod = template::pod(&sync.spec.template, &sync.set.name_any(), ownership::reference_to(sync.set.as_ref()));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.into(), sync.hash.clone());
    if let Some(generation) = sync.set.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION)) {
        labels.insert(GENERATION.into(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    nodes::add_tolerations(spec);
    nodes::pin(spec, node);
    pod
}
