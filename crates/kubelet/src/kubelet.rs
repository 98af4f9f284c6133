//! The kubelet as a whole: which parts there are and in what order they start.

use crate::admission::{self, Rejection};
use crate::config::Config;
use crate::context::Context;
use crate::events::{EventType, Recorder, reason};
use crate::mailbox::Mailbox;
use crate::objects::Wake;
use crate::pod::PodExt;
use crate::state::PodState;
use crate::worker::Worker;
use crate::{gc, node, qos, server};
use api::k8s::core::v1::{Node, Pod};
use cri::LinuxContainerResources;
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

    fn each(&self, mut tell: impl FnMut(&Mailbox)) {
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
        let (registered, ()) = tokio::join!(node::register(&ctx), make_cgroups(&ctx));
        node::follow(&ctx, &registered, &nodes, look.clone()).await;
        ctx.recorder.node(&registered, EventType::Normal, reason::STARTING, "Starting kubelet.");
        look.notify_one();
        tokio::join!(
            node::run(ctx.clone(), look),
            node::lease::run(ctx.clone()),
            dispatch_events(self.pods.clone(), events),
            self.follow_pods(&pods),
            server::run(ctx.clone(), self.pods.clone()),
            crate::logs::rotation::run(ctx.clone()),
        );
    }

    async fn follow_pods(&self, informer: &informer::Informer<Pod>) {
        tokio::join!(informer.synced(), self.ctx.services.synced());
        let mut present = informer.list();
        gc::remove_strangers(&self.ctx, &present).await;
        // The oldest first: admission after a restart then decides as it did before.
        present.sort_by_key(|p| p.metadata.creation_timestamp.clone());
        present.into_iter().for_each(|pod| self.upsert(pod));
        let mut news = informer.subscribe();
        while let Some(event) = news.next().await {
            match &event {
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

    fn removed(&self, uid: &str) {
        if let Some(mailbox) = self.pods.get(uid) {
            mailbox.remove();
        }
    }

    fn upsert(&self, pod: Arc<Pod>) {
        // Another pod of the same name means that the one before is gone, even if its deletion was missed.
        for old in self.pods.list() {
            if old.name() == pod.name() && old.namespace() == pod.namespace() && old.uid() != pod.uid() {
                self.removed(old.uid());
            }
        }
        if let Some(mailbox) = self.pods.get(pod.uid()) {
            return mailbox.update(pod);
        }
        let rejected = self.admit(&pod);
        let mailbox = Arc::new(Mailbox::new(pod.clone(), rejected));
        let (ctx, pods, uid, given) = (self.ctx.clone(), self.pods.clone(), pod.uid().to_owned(), mailbox.clone());
        // Locked until the entry is there: a worker that ends at once removes it after that.
        let mut entries = self.pods.0.lock();
        let worker = tokio::spawn(async move {
            Worker::new(ctx, pods.clone(), given).run().await;
            pods.0.lock().remove(&uid);
        });
        entries.insert(pod.uid().to_owned(), (mailbox, worker.abort_handle()));
    }

    /// Decides about a new pod; a rejected one fails with the reason as its status's.
    fn admit(&self, pod: &Pod) -> Option<Rejection> {
        if pod.is_deleted() || pod.is_terminal() {
            return None;
        }
        let others = self.pods.active();
        let (reason, message) = admission::admit(&self.ctx, pod, &others).err()?;
        self.ctx.recorder.pod(pod, EventType::Warning, &reason, message.clone());
        Some((reason, format!("Pod was rejected: {message}")))
    }
}

/// Sends the runtime's events to the pods they are about.
async fn dispatch_events(pods: Arc<Pods>, mut events: tokio::sync::broadcast::Receiver<cri::ContainerEvent>) {
    loop {
        match events.recv().await {
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

/// Makes the cgroups that pods' cgroups are in.
async fn make_cgroups(ctx: &Context) {
    let allocatable = ctx.allocatable();
    let milli = allocatable.get("cpu").map_or(0, api::quantity::Quantity::milli_value);
    let memory = allocatable.get("memory").map_or(0, api::quantity::Quantity::value);
    let root = LinuxContainerResources {
        cpu_shares: qos::cpu_shares(milli),
        memory_limit_in_bytes: memory,
        ..Default::default()
    };
    let class = LinuxContainerResources { cpu_shares: 2, ..Default::default() };
    for (path, resources) in
        [("/kubepods", root), ("/kubepods/burstable", class.clone()), ("/kubepods/besteffort", class)]
    {
        if let Err(error) = ctx.config.runtime.update_pod_cgroup(path, resources).await {
            tracing::warn!(path, %error, "cannot make cgroup");
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
