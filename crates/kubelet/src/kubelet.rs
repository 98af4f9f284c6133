//! The kubelet as a whole: which parts there are and in what order they start.

use crate::admission::{self, Rejection};
use crate::allocation::Allocation;
use crate::config::Config;
use crate::context::Context;
use crate::events::{EventType, Recorder, reason};
use crate::mailbox::{Failure, Mailbox};
use crate::objects::Wake;
use crate::pod::PodExt;
use crate::resource_managers::HintProvider as _;
use crate::state::PodState;
use crate::worker::Worker;
use crate::{cgroups, eviction, gc, image_gc, node, preemption, server, shutdown, static_pods};
use api::k8s::core::v1::{Node, Pod};
use informer::{Event, EventRecorder, InformerFactory};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// The pods of the node by uid, each with its mailbox and its worker.
#[derive(Default)]
pub struct Pods(Mutex<BTreeMap<String, (Arc<Mailbox>, AbortHandle)>>);

impl Pods {
    /// The mailbox of a pod.
    pub fn get(&self, uid: &str) -> Option<Arc<Mailbox>> {
        self.0.lock().get(uid).map(|(mailbox, _)| mailbox.clone())
    }

    /// The pod of a name that is not yet replaced: the newest of them.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.list().into_iter().filter(|p| p.name() == name && p.namespace() == namespace);
        pods.max_by_key(|p| p.metadata.creation_timestamp.clone())
    }

    /// All pods.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.0.lock().values().map(|(m, _)| m.pod()).collect()
    }

    /// The pods that use the node's resources, as admission counts.
    pub fn active(&self) -> Vec<Arc<Pod>> {
        self.0.lock().values().filter(|(m, _)| m.counts()).map(|(m, _)| m.pod()).collect()
    }

    /// Tells every pod something.
    pub fn each(&self, mut tell: impl FnMut(&Mailbox)) {
        self.0.lock().values().for_each(|(m, _)| tell(m));
    }
}

/// A kubelet.
pub struct Kubelet {
    ctx: Arc<Context>,
    pods: Arc<Pods>,
    factory: Arc<InformerFactory>,
}

impl Kubelet {
    /// Puts a kubelet together; nothing runs yet, but informers start (inside a tokio runtime).
    pub fn new(config: Config) -> Self {
        let pods = Arc::new(Pods::default());
        let woken = Arc::downgrade(&pods);
        let wake: Wake = Arc::new(move |uid: &str| {
            if let Some(mailbox) = woken.upgrade().and_then(|pods| pods.get(uid)) {
                mailbox.wake();
            }
        });
        let factory = InformerFactory::new(config.client.clone());
        let events = EventRecorder::new(config.client.clone(), "kubelet", &config.node_name);
        let ctx = Arc::new(Context::new(config, &factory, Recorder::new(Arc::new(events)), wake));
        Self { ctx, pods, factory }
    }

    /// Runs until cancelled. Containers go on: a kubelet that starts later takes them over.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.start()).await;
        self.factory.shutdown();
        // Nothing is ended with its worker: the runtime keeps what runs.
        std::mem::take(&mut *self.pods.0.lock()).into_values().for_each(|(_, worker)| worker.abort());
    }

    async fn start(&self) {
        let ctx = self.ctx.clone();
        // Before anything is listed, so that no event between is lost.
        let events = ctx.config.runtime.subscribe();
        let nodes = self.factory.informer_filtered::<Node>(&format!("metadata.name={}", ctx.config.node_name), "", "");
        let pods = self.factory.informer_filtered::<Pod>(&format!("spec.nodeName={}", ctx.config.node_name), "", "");
        let look = Arc::new(Notify::new());
        let (registered, ()) = tokio::join!(node::register(&ctx), cgroups::make(&ctx));
        cgroups::announce(&ctx);
        node::follow(&ctx, &registered, &nodes, look.clone()).await;
        ctx.recorder.node(&registered, EventType::Normal, reason::STARTING, "Starting kubelet.");
        look.notify_one();
        tokio::join!(
            node::run(ctx.clone(), look.clone()),
            eviction::run(ctx.clone(), self.pods.clone(), look.clone()),
            shutdown::run(ctx.clone(), self.pods.clone(), look),
            image_gc::run(ctx.clone()),
            node::lease::run(ctx.clone()),
            dispatch_events(self.pods.clone(), events),
            self.follow_pods(&pods),
            server::run(ctx.clone(), self.pods.clone()),
            crate::logs::rotation::run(ctx.clone()),
            crate::plugins::run(ctx.clone(), self.pods.clone()),
        );
    }

    async fn follow_pods(&self, informer: &informer::Informer<Pod>) {
        tokio::join!(informer.synced(), self.ctx.services.synced());
        let (mirrors, mut present): (Vec<_>, Vec<_>) = informer.list().into_iter().partition(|p| static_pods::is_mirror(p));
        mirrors.into_iter().for_each(|mirror| self.ctx.mirrors.put(mirror));
        let of_files = static_pods::source::read_once(&self.ctx.config);
        present.extend(of_files.iter().cloned());
        gc::remove_strangers(&self.ctx, &present).await;
        self.ctx.managers.retain(&present);
        for orphan in self.ctx.mirrors.list() {
            self.drop_orphan(&orphan);
        }
        // The oldest first: admission after a restart then decides as it did before.
        present.sort_by_key(|p| p.metadata.creation_timestamp.clone());
        present.into_iter().for_each(|pod| self.upsert(pod));
        let mut news = informer.subscribe();
        let follow = async {
            while let Some(event) = news.next().await {
                self.handle(&event);
            }
        };
        let files = static_pods::source::run(&self.ctx.config, |pods| self.set_static(pods));
        tokio::join!(follow, files);
    }

    fn handle(&self, event: &Event<Pod>) {
        if static_pods::is_mirror(event.object()) {
            return self.handle_mirror(event);
        }
        {
            match event {
                Event::Deleted(pod) => {
                    if let Some(mailbox) = self.pods.get(pod.uid()) {
                        // Its last state says how long its containers have.
                        mailbox.update(pod.clone());
                        mailbox.remove();
                    }
                }
                other => self.upsert(other.object().clone()),
            }
        }
    }

    fn handle_mirror(&self, event: &Event<Pod>) {
        let mirror = event.object();
        match event {
            Event::Deleted(_) => self.ctx.mirrors.remove(mirror),
            _ => {
                let fresh = self.ctx.mirrors.list().iter().all(|known| known.uid() != mirror.uid());
                self.ctx.mirrors.put(mirror.clone());
                self.drop_orphan(mirror);
                if fresh && let Some((_, mailbox)) = self.static_pod(mirror) {
                    // The new mirror has no status yet.
                    mailbox.wake();
                }
            }
        }
    }

    fn static_pod(&self, mirror: &Pod) -> Option<(Arc<Pod>, Arc<Mailbox>)> {
        let name = static_pods::full_name(mirror);
        let mut all = self.pods.list().into_iter().filter(|p| static_pods::is_static(p));
        let pod = all.find(|p| static_pods::full_name(p) == name)?;
        let mailbox = self.pods.get(pod.uid())?;
        Some((pod, mailbox))
    }

    /// Deletes a mirror whose file is gone.
    fn drop_orphan(&self, mirror: &Arc<Pod>) {
        let of_files = static_pods::source::read_once(&self.ctx.config);
        let known = of_files.iter().any(|p| static_pods::full_name(p) == static_pods::full_name(mirror));
        if known || self.static_pod(mirror).is_some() {
            return;
        }
        let (ctx, mirror) = (self.ctx.clone(), mirror.clone());
        tokio::spawn(async move {
            if let Err(error) = static_pods::mirror::delete(&ctx, &mirror).await {
                tracing::warn!(pod = crate::format::pod(&mirror), error = crate::context::api_message(&error), "cannot delete an orphaned mirror pod");
            }
        });
    }

    /// Brings the static pods in line with their files.
    fn set_static(&self, wanted: Vec<Arc<Pod>>) {
        for old in self.pods.list().into_iter().filter(|p| static_pods::is_static(p)) {
            if !wanted.iter().any(|p| p.uid() == old.uid()) {
                self.removed(old.uid());
            }
        }
        wanted.into_iter().filter(|p| self.pods.get(p.uid()).is_none()).for_each(|pod| self.upsert(pod));
    }

    fn removed(&self, uid: &str) {
        if let Some(mailbox) = self.pods.get(uid) {
            mailbox.remove();
        }
    }

    fn upsert(&self, pod: Arc<Pod>) {
        let mut before = Vec::new();
        // Another pod of the same name means that the one before is gone, even if its deletion was missed.
        for old in self.pods.list() {
            if old.name() == pod.name() && old.namespace() == pod.namespace() && old.uid() != pod.uid() {
                self.removed(old.uid());
                before.extend(self.pods.get(old.uid()).filter(|_| static_pods::is_static(&pod)));
            }
        }
        if let Some(mailbox) = self.pods.get(pod.uid()) {
            return mailbox.update(pod);
        }
        let known = Allocation::read(&self.ctx.config.pod_dir(pod.uid()));
        let allocation = known.unwrap_or_else(|| Allocation::asked_by(&pod));
        let rejected = match self.admit(&allocation.apply(&pod)) {
            Ok(victims) => {
                before.extend(self.preempt(&victims));
                None
            }
            Err(rejected) => Some(rejected),
        };
        let mailbox = Arc::new(Mailbox::new(pod.clone(), allocation, rejected));
        let (ctx, pods, uid, given) = (self.ctx.clone(), self.pods.clone(), pod.uid().to_owned(), mailbox.clone());
        // Locked until the entry is there: a worker that ends at once removes it after that.
        let mut entries = self.pods.0.lock();
        let worker = tokio::spawn(async move {
            for other in before {
                other.stopped.cancelled().await;
            }
            ctx.burstable.update(&ctx, &pods).await;
            ctx.managers.apply_shared(&ctx).await;
            let pod = given.pod();
            let mirror = static_pods::is_static(&pod).then(|| tokio::spawn(static_pods::mirror::keep(ctx.clone(), pod.clone())));
            let mirror = mirror.map(tokio_util::task::AbortOnDropHandle::new);
            Worker::new(ctx.clone(), pods.clone(), given).run().await;
            drop(mirror);
            if let Some(left) = ctx.mirrors.get(&pod).filter(|_| static_pods::is_static(&pod)) {
                // A file that changed has a successor, whose task deletes a mirror that is not its own.
                let _ = static_pods::mirror::delete(&ctx, &left).await;
            }
            pods.0.lock().remove(&uid);
            if ctx.managers.release(&uid) {
                ctx.managers.apply_shared(&ctx).await;
            }
            ctx.burstable.update(&ctx, &pods).await;
        });
        entries.insert(pod.uid().to_owned(), (mailbox, worker.abort_handle()));
    }

    /// Decides about a new pod; a rejected one fails with the reason as its status's. Returns who must go for it.
    fn admit(&self, pod: &Pod) -> Result<Vec<Arc<Pod>>, Rejection> {
        if pod.is_deleted() || pod.is_terminal() {
            return Ok(Vec::new());
        }
        let others = self.pods.active();
        admission::admit(&self.ctx, pod, &others).map_err(|(reason, message)| {
            self.ctx.managers.release(pod.uid());
            self.ctx.plugins.devices.give_up(pod);
            self.ctx.recorder.pod(pod, EventType::Warning, &reason, message.clone());
            (reason, format!("Pod was rejected: {message}"))
        })
    }

    /// Ends pods so that a critical one fits.
    fn preempt(&self, victims: &[Arc<Pod>]) -> Vec<Arc<Mailbox>> {
        let mut ending = Vec::new();
        for pod in victims {
            self.ctx.recorder.pod(pod, EventType::Warning, preemption::REASON, preemption::MESSAGE);
            let Some(mailbox) = self.pods.get(pod.uid()) else { continue };
            mailbox.fail(Failure {
                reason: preemption::REASON.into(),
                message: preemption::MESSAGE.into(),
                grace: None,
                disruption: Some(("TerminationByKubelet".into(), preemption::CONDITION.into())),
            });
            ending.push(mailbox);
        }
        ending
    }
}

/// Sends the runtime's events to the pods they are about.
async fn dispatch_events(pods: Arc<Pods>, mut events: tokio::sync::broadcast::Receiver<cri::ContainerEvent>) {
    loop {
        match events.recv().await {
            // Of no concern to a pod's worker: the rotation of logs listens itself.
            Ok(event) if event.kind == cri::ContainerEventKind::LogFull => {}
            Ok(event) => {
                if let Some(mailbox) = pods.get(&event.pod_uid) {
                    mailbox.touch(event.id);
                }
            }
            Err(RecvError::Lagged(_)) => pods.each(Mailbox::relist),
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Uids of the pods the runtime knows.
pub async fn runtime_pods(ctx: &Context) -> cri::Result<BTreeMap<String, PodState>> {
    let mut out: BTreeMap<String, PodState> = BTreeMap::new();
    let uids: BTreeSet<String> =
        ctx.config.runtime.list_pod_sandboxes().await?.into_iter().map(|s| s.metadata.uid).collect();
    for uid in uids {
        let state = PodState::list(&*ctx.config.runtime, &uid).await?;
        out.insert(uid, state);
    }
    Ok(out)
}
