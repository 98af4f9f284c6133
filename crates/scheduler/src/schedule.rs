//! The scheduling loop and one pod's cycle.

use crate::Handle;
use crate::binding::{self, Bound};
use crate::cache::Cache;
use crate::changes::Changes;
use crate::framework::{ClusterEvent, Code, Failure, Nomination, Rejection, Snapshot};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, node_name, nominated_node, uid};
use crate::profile::Profile;
use crate::queue::{QueuedPod, SchedulingQueue};
use api::k8s::core::v1::{Node, PersistentVolume, Pod};
use informer::{CancellationToken, Subscription};
use rand::RngExt;
use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pods scheduled between two looks at new events.
const BATCH: usize = 16;

/// The owner of cache and queue.
pub(crate) struct Scheduler {
    pub handle: Arc<Handle>,
    pub profile: Arc<Profile>,
    pub cache: Cache,
    pub queue: SchedulingQueue,
    pub changes: Changes,
    bound: mpsc::UnboundedSender<Bound>,
    outcomes: mpsc::UnboundedReceiver<Bound>,
}

/// Why a pod was not placed.
pub(crate) struct Unplaced {
    /// What people are told.
    pub message: String,
    /// Plugins whose rejection counted; empty: an error.
    pub rejected_by: Vec<&'static str>,
    pub nomination: Option<Nomination>,
}

impl Scheduler {
    pub fn new(handle: Arc<Handle>) -> Self {
        // At most one message per pod that is being bound.
        let (bound, outcomes) = mpsc::unbounded_channel();
        let profile = Arc::new(Profile::new());
        let queue = SchedulingQueue::new(profile.queue_sort.clone());
        let mut changes = Changes::default();
        profile.register(&handle, &mut changes);
        Self { handle, profile, cache: Cache::default(), queue, changes, bound, outcomes }
    }

    /// Handles events and schedules pods until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (mut nodes, mut pods) = (self.handle.nodes.subscribe(), self.handle.pods.subscribe());
        while !shutdown.is_cancelled() {
            self.drain(&mut nodes, &mut pods);
            if self.schedule_batch() {
                // The state may have moved on meanwhile: bindings and new pods first.
                tokio::task::yield_now().await;
                continue;
            }
            let wake =
                self.queue.next_wake().unwrap_or_else(|| Instant::now() + std::time::Duration::from_secs(86_400));
            tokio::select! {
                Some(event) = nodes.next() => self.on_node(event),
                Some(event) = pods.next() => self.on_pod(event),
                Some(outcome) = self.outcomes.recv() => self.on_bound(outcome),
                () = self.changes.changed() => self.on_changes(),
                () = tokio::time::sleep_until(wake) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn drain(&mut self, nodes: &mut Subscription<Node>, pods: &mut Subscription<Pod>) {
        while let Some(event) = nodes.try_next() {
            self.on_node(event);
        }
        while let Some(event) = pods.try_next() {
            self.on_pod(event);
        }
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.on_bound(outcome);
        }
        self.on_changes();
    }

    fn on_bound(&mut self, outcome: Bound) {
        let Err(error) = outcome.result else { return };
        self.cache.forget(uid(&outcome.queued.pod));
        // Room and volumes that were kept for it are free again, which nobody else says.
        self.queue.on_event(&ClusterEvent::AssignedPodDeleted, &self.profile);
        self.queue.on_event(&ClusterEvent::Changed(TypeId::of::<PersistentVolume>()), &self.profile);
        // The pod may be gone, going or bound by someone else: what the informer has decides.
        let key = informer::Key::of(outcome.queued.pod.as_ref());
        let current = self.handle.pods.get_key(&key).filter(|p| p.metadata.uid == outcome.queued.pod.metadata.uid);
        let waits = |p: &Arc<Pod>| node_name(p).is_empty() && p.metadata.deletion_timestamp.is_none();
        let Some(current) = current.filter(waits) else { return };
        binding::report_failure(&self.handle, &current, &error, "SchedulerError", None);
        self.queue.put_back(QueuedPod { pod: current, ..outcome.queued }, Vec::new());
    }

    /// Schedules some pods; tells whether there were any.
    fn schedule_batch(&mut self) -> bool {
        for done in 0..BATCH {
            let Some(queued) = self.queue.pop() else { return done > 0 };
            self.schedule(queued);
        }
        true
    }

    fn schedule(&mut self, queued: QueuedPod) {
        let pod = PodInfo::new(queued.pod.clone());
        match self.place(&pod) {
            Ok(node) => self.start_binding(queued, pod, node),
            Err(unplaced) => self.not_placed(queued, unplaced),
        }
    }

    fn start_binding(&mut self, queued: QueuedPod, pod: PodInfo, node: String) {
        for (done, plugin) in self.profile.reserve.iter().enumerate() {
            if let Err(rejection) = plugin.reserve(&queued.pod, &node) {
                self.profile.reserve[..=done].iter().rev().for_each(|p| p.unreserve(&self.handle, &queued.pod, &node));
                let rejected_by = if rejection.code == Code::Error { vec![] } else { vec![plugin.name()] };
                let rejection = rejection.error_in(|| format!("running Reserve plugin {:?}", plugin.name()));
                let unplaced = Unplaced { message: text(&rejection), rejected_by, nomination: None };
                return self.not_placed(queued, unplaced);
            }
        }
        self.cache.assume(Arc::new(pod), &node);
        let (handle, profile, done) = (self.handle.clone(), self.profile.clone(), self.bound.clone());
        tokio::spawn(async move {
            let outcome = binding::bind(&handle, &profile, queued, node, done.closed()).await;
            // The receiver is gone only at shutdown.
            let _ = done.send(outcome);
        });
    }

    fn not_placed(&mut self, queued: QueuedPod, unplaced: Unplaced) {
        let reason = if unplaced.rejected_by.is_empty() { "SchedulerError" } else { "Unschedulable" };
        let nominated = unplaced.nomination.as_ref().map(|n| n.node.clone());
        binding::report_failure(&self.handle, &queued.pod, &unplaced.message, reason, nominated.as_deref());
        let mut queued = queued;
        if let Some(nomination) = unplaced.nomination {
            binding::evict(&self.handle, &queued.pod, &nomination);
            let mut pod = Pod::clone(&queued.pod);
            pod.status.get_or_insert_default().nominated_node_name = Some(nomination.node);
            queued.pod = Arc::new(pod);
        }
        self.queue.put_back(queued, unplaced.rejected_by);
    }

    /// Chooses a node: the best of those that pass every filter.
    fn place(&self, pod: &PodInfo) -> Result<String, Unplaced> {
        let nodes = self.cache.nodes();
        if nodes.is_empty() {
            // Any node that is added may help, which the fit plugin's hint says.
            let message = "no nodes available to schedule pods".to_owned();
            return Err(Unplaced { message, rejected_by: vec!["NodeResourcesFit"], nomination: None });
        }
        let snapshot = Snapshot { nodes, handle: &self.handle, began: std::time::Instant::now() };
        let filters = match self.profile.filters(pod, snapshot) {
            Ok(filters) => filters,
            Err((plugin, rejection)) => return Err(self.rejected_early(pod, snapshot, plugin, rejection)),
        };
        let mut feasible: Vec<&NodeInfo> = Vec::new();
        let mut rejections = Vec::with_capacity(nodes.len());
        let mut rejected_by = Vec::new();
        let reserved = self.nominations(pod);
        for node in nodes {
            match filters.run(node).and_then(|()| self.leaves_room(pod, node, &reserved, &filters)) {
                Ok(()) => feasible.push(node),
                Err((plugin, rejection)) => {
                    rejections.push(rejection);
                    if !rejected_by.contains(&plugin) {
                        rejected_by.push(plugin);
                    }
                }
            }
        }
        if feasible.is_empty() {
            return Err(self.rejected_everywhere(pod, snapshot, rejections, rejected_by));
        }
        Ok(self.best(pod, snapshot, &feasible))
    }

    fn best(&self, pod: &PodInfo, snapshot: Snapshot<'_>, feasible: &[&NodeInfo]) -> String {
        // A preemptor goes where room was made for it.
        if let Some(node) = feasible.iter().find(|n| n.name() == nominated_node(&pod.pod)) {
            return node.name().to_owned();
        }
        if let [only] = feasible {
            return only.name().to_owned();
        }
        let scores = self.profile.score(pod, snapshot, feasible);
        let max = scores.iter().copied().max().unwrap_or(0);
        let best: Vec<&&NodeInfo> =
            feasible.iter().zip(&scores).filter(|(_, score)| **score == max).map(|(node, _)| node).collect();
        best[rand::rng().random_range(0..best.len())].name().to_owned()
    }

    /// Pods of at least this pod's priority that wait for room on a node, by node.
    fn nominations(&self, pod: &PodInfo) -> BTreeMap<String, Vec<Arc<PodInfo>>> {
        let mut out: BTreeMap<String, Vec<Arc<PodInfo>>> = BTreeMap::new();
        for other in self.queue.nominated() {
            if uid(other) != pod.uid() && crate::pod_info::priority(other) >= pod.priority() {
                out.entry(nominated_node(other).to_owned()).or_default().push(Arc::new(PodInfo::new(other.clone())));
            }
        }
        out
    }

    /// Whether the pod fits beside the pods that are nominated to the node, too.
    fn leaves_room(
        &self,
        _pod: &PodInfo,
        node: &Arc<NodeInfo>,
        reserved: &BTreeMap<String, Vec<Arc<PodInfo>>>,
        filters: &crate::profile::Filters<'_>,
    ) -> Result<(), (&'static str, Rejection)> {
        let Some(pods) = reserved.get(node.name()) else { return Ok(()) };
        let mut fuller = NodeInfo::clone(node);
        pods.iter().for_each(|p| fuller.add(p.clone()));
        filters.run(&fuller)
    }

    fn rejected_early(
        &self,
        pod: &PodInfo,
        snapshot: Snapshot<'_>,
        plugin: &'static str,
        rejection: Rejection,
    ) -> Unplaced {
        if rejection.code == Code::Error {
            return Unplaced { message: text(&rejection), rejected_by: Vec::new(), nomination: None };
        }
        let failure = Failure { rejections: vec![rejection.clone(); snapshot.nodes.len()] };
        let (post, nomination) = self.post_filter(pod, snapshot, &failure);
        let message = fit_error(snapshot.nodes.len(), &text(&rejection), &post);
        Unplaced { message, rejected_by: vec![plugin], nomination }
    }

    fn rejected_everywhere(
        &self,
        pod: &PodInfo,
        snapshot: Snapshot<'_>,
        rejections: Vec<Rejection>,
        rejected_by: Vec<&'static str>,
    ) -> Unplaced {
        if let Some(error) = rejections.iter().find(|r| r.code == Code::Error) {
            return Unplaced { message: text(error), rejected_by: Vec::new(), nomination: None };
        }
        let reasons = histogram(&rejections);
        let failure = Failure { rejections };
        let (post, nomination) = self.post_filter(pod, snapshot, &failure);
        let message = fit_error(snapshot.nodes.len(), &reasons, &post);
        Unplaced { message, rejected_by, nomination }
    }

    fn post_filter(&self, pod: &PodInfo, snapshot: Snapshot<'_>, failure: &Failure) -> (String, Option<Nomination>) {
        let mut messages = Vec::new();
        for plugin in &self.profile.post_filter {
            match plugin.post_filter(pod, snapshot, &self.profile, failure) {
                Ok(nomination) => return (String::new(), Some(nomination)),
                Err(message) => messages.push(message),
            }
        }
        (messages.join(", "), None)
    }
}

fn text(rejection: &Rejection) -> String {
    rejection.reasons.join(", ")
}

/// `0/3 nodes are available: why. what was tried to make room`
pub(crate) fn fit_error(nodes: usize, reasons: &str, post: &str) -> String {
    let message = format!("0/{nodes} nodes are available: {reasons}.");
    if post.is_empty() { message } else { format!("{message} {post}") }
}

/// `1 Insufficient cpu, 2 node(s) were unschedulable`, sorted as text.
pub(crate) fn histogram(rejections: &[Rejection]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in rejections.iter().flat_map(|r| &r.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

#[cfg(test)]
mod in_clusters;

#[cfg(test)]
mod tests {
    use super::*;
    use informer::{Event, InformerFactory};
    use serde_json::{Value, json};

    /// A scheduler whose server is not there: only its decisions are looked at.
    fn scheduler() -> Scheduler {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no server"))
        });
        let client = kube::Client::new(service, "default");
        Scheduler::new(Handle::new(&InformerFactory::new(client.clone()), client))
    }

    fn add_node(scheduler: &mut Scheduler, name: &str, zone: &str, spec: Value) {
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
        let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}});
        let node = json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status});
        scheduler.on_node(Event::Added(Arc::new(serde_json::from_value::<Node>(node).expect("node"))));
    }

    fn pod(name: &str, mut spec: Value) -> Arc<Pod> {
        if spec.get("containers").is_none() {
            spec["containers"] = json!([{"name": "c", "image": "i"}]);
        }
        let pod =
            json!({"metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "a"}}, "spec": spec});
        Arc::new(serde_json::from_value(pod).expect("pod"))
    }

    fn requests(cpu: &str) -> Value {
        json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}])
    }

    fn place(scheduler: &Scheduler, spec: Value) -> String {
        scheduler.place(&PodInfo::new(pod("new", spec))).unwrap_or_else(|unplaced| unplaced.message)
    }

    #[tokio::test]
    async fn pods_go_where_every_filter_lets_them() {
        let mut s = scheduler();
        assert_eq!(place(&s, json!({})), "no nodes available to schedule pods");
        add_node(&mut s, "a", "z1", json!({}));
        add_node(&mut s, "b", "z2", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
        add_node(&mut s, "c", "z2", json!({"unschedulable": true}));
        assert_eq!(place(&s, json!({})), "a");
        let tolerations = json!([{"operator": "Exists", "key": "k"}]);
        assert_eq!(
            place(&s, json!({"tolerations": tolerations, "nodeSelector": {"topology.kubernetes.io/zone": "z2"}})),
            "b"
        );
        assert_eq!(
            place(&s, json!({"containers": requests("5")})),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. \
             no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        );
    }

    #[tokio::test]
    async fn affinity_spread_and_load_choose_among_nodes() {
        let mut s = scheduler();
        add_node(&mut s, "a", "z1", json!({}));
        add_node(&mut s, "b", "z2", json!({}));
        s.on_pod(Event::Added(pod("p", json!({"nodeName": "a", "containers": requests("1")}))));
        assert_eq!(place(&s, json!({"containers": requests("1")})), "b");
        let term =
            json!([{"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": {"app": "a"}}}]);
        let required =
            |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
        assert_eq!(place(&s, required("podAffinity")), "a");
        assert_eq!(place(&s, required("podAntiAffinity")), "b");
        let spread = json!([{"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "a"}}}]);
        assert_eq!(place(&s, json!({"topologySpreadConstraints": spread})), "b");
    }

    #[tokio::test]
    async fn a_pod_that_waits_for_room_goes_where_another_shrinks() {
        let mut s = scheduler();
        add_node(&mut s, "a", "z1", json!({}));
        let bound = |cpu: &str| pod("bound", json!({"nodeName": "a", "containers": requests(cpu)}));
        s.on_pod(Event::Added(bound("3")));
        s.on_pod(Event::Added(pod("new", json!({"containers": requests("2")}))));
        s.schedule_batch();
        s.on_pod(Event::Updated { old: bound("3"), new: bound("4") });
        assert!(s.queue.pop().is_none());
        s.on_pod(Event::Updated { old: bound("4"), new: bound("2") });
        assert!(s.queue.pop().is_some());
    }

    #[tokio::test]
    async fn a_pod_that_shrinks_makes_room_once_its_node_has_done_it() {
        let mut s = scheduler();
        add_node(&mut s, "a", "z1", json!({}));
        let bound = |wanted: &str, held: &str| {
            let mut pod = Pod::clone(&pod("bound", json!({"nodeName": "a", "containers": requests(wanted)})));
            let name = pod.spec.as_ref().expect("spec").containers[0].name.clone();
            let status = json!({"containerStatuses": [{"name": name, "image": "i", "imageID": "", "ready": true,
                "restartCount": 0, "allocatedResources": {"cpu": held}}]});
            pod.status = Some(serde_json::from_value(status).expect("status"));
            Arc::new(pod)
        };
        s.on_pod(Event::Added(bound("4", "4")));
        s.on_pod(Event::Added(pod("new", json!({"containers": requests("2")}))));
        s.schedule_batch();
        s.on_pod(Event::Updated { old: bound("4", "4"), new: bound("2", "4") });
        assert!(s.queue.pop().is_none(), "it is held still");
        s.on_pod(Event::Updated { old: bound("2", "4"), new: bound("2", "2") });
        assert!(s.queue.pop().is_some());
    }

    #[tokio::test]
    async fn pods_of_lower_priority_make_room() {
        let mut s = scheduler();
        add_node(&mut s, "a", "z1", json!({}));
        for (name, priority) in [("low", 1), ("mid", 5)] {
            s.on_pod(Event::Added(pod(
                name,
                json!({"nodeName": "a", "priority": priority, "containers": requests("2")}),
            )));
        }
        let check = |priority: i32, cpu: &str, want: Result<&[&str], &str>| {
            let new = PodInfo::new(pod("new", json!({"priority": priority, "containers": requests(cpu)})));
            let unplaced = s.place(&new).expect_err("full");
            let victims = unplaced.nomination.map(|n| n.victims.iter().map(|v| uid(v).to_owned()).collect::<Vec<_>>());
            match want {
                Ok(names) => assert_eq!(victims.expect("nomination"), names),
                Err(end) => assert!(unplaced.message.ends_with(end), "{}", unplaced.message),
            }
        };
        check(9, "2", Ok(&["low"]));
        check(9, "3", Ok(&["mid", "low"]));
        check(0, "2", Err("preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."));
    }
}
