//! The task of one pod: it brings what runs in line with what the API says, for as long as the pod lives.
//!
//! Every sync starts from the spec and the runtime's state and walks the same list of [`hooks`](crate::hooks);
//! a sync that finds nothing to do changes nothing. When the pod is to end, the worker ends its containers,
//! writes the last status, gives everything back, and finishes the deletion.

use crate::backoff::Backoff;
use crate::context::Context;
use crate::hooks::{self, Flow};
use crate::kubelet::Pods;
use crate::mailbox::{Mailbox, News};
use crate::pod::{PodExt, TERMINAL, restarts_after};
use crate::probes::ProbeTasks;
use crate::state::PodState;
use crate::static_pods;
use crate::status::container::Waiting;
use crate::status::writer::StatusWriter;
use crate::status::{self, Facts};
use crate::volumes::MountedVolumes;
use api::k8s::core::v1::{Pod, PodStatus};
use cri::ContainerState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long to wait before the runtime is asked again after it failed to answer.
const RUNTIME_RETRY: Duration = Duration::from_secs(1);

/// One pod's worker.
pub struct Worker {
    /// The kubelet.
    pub ctx: Arc<Context>,
    /// The pod as last seen, with what it was granted.
    pub pod: Arc<Pod>,
    /// The pod as last seen, with what it asks for.
    pub asked: Arc<Pod>,
    /// The pods of the node.
    pub pods: Arc<Pods>,
    /// Its news.
    pub mailbox: Arc<Mailbox>,
    /// The runtime's state of it.
    pub state: PodState,
    /// Its volumes, once set up.
    pub volumes: MountedVolumes,
    /// Why its containers wait.
    pub waiting: BTreeMap<String, Waiting>,
    /// Before when a container is not tried again, whatever wakes the pod: pulls that failed.
    pub not_before: BTreeMap<String, SystemTime>,
    /// Delays of its containers' restarts and its volumes' retries.
    pub backoff: Backoff,
    /// Why it failed as a whole.
    pub failure: Option<(String, String)>,
    /// Time its containers have when the node ends it.
    pub grace: Option<Duration>,
    /// Reason and message of `DisruptionTarget`, where the node ends it.
    pub disruption: Option<(String, String)>,
    /// Its probes.
    pub probes: ProbeTasks,
    /// Its status as last made.
    pub status: PodStatus,
    /// Whether its cgroup and directories were made.
    pub prepared: bool,
    /// Why a resize waits: reason and message.
    pub resize_pending: Option<(&'static str, String)>,
    /// Whether a resize is under way.
    pub resizing: bool,
    /// Delay before its volumes are tried again.
    pub volume_retry: Duration,
    /// Delay before a gitRepo volume is cloned again.
    pub clone_retry: Duration,
    /// Writes its status.
    pub writer: StatusWriter,
    removed: bool,
    wake_at: Option<SystemTime>,
}

impl Worker {
    /// Makes the worker of a pod.
    pub fn new(ctx: Arc<Context>, pods: Arc<Pods>, mailbox: Arc<Mailbox>) -> Self {
        let pod = mailbox.pod();
        let longest_restart = ctx.config.settings.crash_loop_back_off.max_container_restart_period;
        let longest_restart = longest_restart.unwrap_or(crate::backoff::LONGEST);
        Self {
            status: known_status(&ctx, &pod),
            writer: StatusWriter::new(ctx.clone()),
            ctx,
            asked: pod.clone(),
            pod,
            pods,
            mailbox,
            state: PodState::default(),
            volumes: MountedVolumes::new(),
            waiting: BTreeMap::new(),
            not_before: BTreeMap::new(),
            backoff: Backoff::up_to(longest_restart),
            failure: None,
            grace: None,
            disruption: None,
            probes: ProbeTasks::default(),
            prepared: false,
            resize_pending: None,
            resizing: false,
            volume_retry: Duration::ZERO,
            clone_retry: Duration::ZERO,
            removed: false,
            wake_at: None,
        }
    }

    /// Lives the pod's life; returns when nothing of it is left.
    pub async fn run(mut self) {
        self.receive().await;
        self.adopt();
        loop {
            if self.is_over() {
                break;
            }
            self.wake_at = None;
            let changed = hooks::sync(&mut self).await;
            if self.is_over() {
                break;
            }
            self.publish(true);
            if changed == Flow::Again {
                self.receive().await;
                continue;
            }
            self.wait().await;
            self.receive().await;
        }
        crate::ending::end(&mut self).await;
    }

    /// Takes news and reads what they are about from the runtime.
    pub async fn receive(&mut self) {
        let News { pod, asked, removed, relist, collect, dirty, rejected, failure } = self.mailbox.take();
        (self.pod, self.asked, self.removed) = (pod, asked, removed);
        if let Some(rejected) = rejected {
            self.failure = Some(rejected);
        }
        if let Some(failure) = failure.filter(|_| self.failure.is_none()) {
            self.failure = Some((failure.reason, failure.message));
            (self.grace, self.disruption) = (failure.grace, failure.disruption);
        }
        if collect {
            self.forget_dead_instances().await;
        }
        let runtime = self.ctx.config.runtime.clone();
        if relist {
            match PodState::list(&*runtime, self.pod.uid()).await {
                Ok(state) => self.state = state,
                Err(error) => {
                    tracing::warn!(pod = crate::format::pod(&self.pod), %error, "cannot list the runtime");
                    self.mailbox.relist();
                    tokio::time::sleep(RUNTIME_RETRY).await;
                }
            }
        }
        for id in dirty {
            self.refresh(&id).await;
        }
    }

    /// Reads one sandbox or container anew.
    pub async fn refresh(&mut self, id: &str) {
        let runtime = self.ctx.config.runtime.clone();
        if let Err(error) = self.state.refresh(&*runtime, id).await {
            tracing::warn!(pod = crate::format::pod(&self.pod), id, %error, "cannot read the runtime's state");
            self.mailbox.touch(id.to_owned());
        }
    }

    /// Takes over what ran before the kubelet was restarted: readiness stays until a probe says otherwise.
    fn adopt(&mut self) {
        use crate::probes::results::ProbeKind;
        let (runtime, _) = self.ctx.config.runtime.version();
        for old in crate::pod::container_statuses(&self.status) {
            let id = old.container_id.as_deref().and_then(|id| id.strip_prefix(&format!("{runtime}://")));
            let Some(running) = id.filter(|id| self.state.running().any(|c| c.id == **id)) else { continue };
            for (kind, holds) in [(ProbeKind::Startup, old.started == Some(true)), (ProbeKind::Readiness, old.ready)] {
                if holds {
                    self.ctx.probes.set(self.pod.uid(), running, kind, true);
                }
            }
        }
    }

    /// Whether the pod is to end, or has ended by itself.
    fn is_over(&mut self) -> bool {
        if self.removed || self.failure.is_some() || self.pod.is_deleted() || self.pod.is_terminal() {
            return true;
        }
        let status = self.make_status(false);
        self.is_finished() || status.phase.as_deref().is_some_and(|phase| TERMINAL.contains(&phase))
    }

    /// Whether every regular container has ended for good: sidecars do not keep a pod alive.
    fn is_finished(&self) -> bool {
        self.pod.spec().containers.iter().all(|container| {
            let ended = self.state.latest(&container.name).filter(|s| s.state == ContainerState::Exited);
            ended.is_some_and(|s| !restarts_after(container, &self.pod, s.exit_code))
        })
    }

    /// Whether the API has the pod no more.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Makes the status as it is now; `over`: no container is started again.
    pub fn make_status(&self, over: bool) -> PodStatus {
        status::generate(&Facts {
            ctx: &self.ctx,
            pod: &self.pod,
            state: &self.state,
            old: &self.status,
            waiting: &self.waiting,
            failure: self.failure.as_ref(),
            disruption: self.disruption.as_ref(),
            resize_pending: self.resize_pending.as_ref(),
            resizing: self.resizing,
            over,
        })
    }

    /// Has the status written, `urgent` at once; a terminal phase only when nothing runs any more.
    pub fn publish(&mut self, urgent: bool) {
        let mut status = self.make_status(false);
        if status.phase.as_deref().is_some_and(|p| TERMINAL.contains(&p)) && !self.pod.is_terminal() {
            (status.phase, status.reason, status.message) =
                (self.status.phase.clone(), self.status.reason.clone(), self.status.message.clone());
        }
        self.status = status;
        self.writer.set(self.pod.clone(), self.status.clone(), urgent);
    }

    /// The other pods of the node that use its resources.
    pub fn neighbours(&self) -> Vec<Arc<Pod>> {
        self.pods.active().into_iter().filter(|p| p.uid() != self.pod.uid()).collect()
    }

    /// Asks for a sync at a time; the earliest asked for counts.
    pub fn wake_at(&mut self, at: SystemTime) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Waits for news, or for the time that was asked for.
    pub async fn wait(&self) {
        match self.wake_at {
            None => self.mailbox.wait().await,
            Some(at) => {
                let left = at.duration_since(SystemTime::now()).unwrap_or_default();
                let _ = tokio::time::timeout(left, self.mailbox.wait()).await;
            }
        }
    }

    /// Waits as [`Self::wait`] does, then takes the news.
    pub async fn wait_for_news(&mut self) {
        self.wait().await;
        self.wake_at = None;
        self.receive().await;
    }

    /// Which instance of a container comes next: one more than the runtime, or else the API, knows of.
    pub fn next_attempt(&self, name: &str) -> u32 {
        if let Some(latest) = self.state.latest(name) {
            return latest.metadata.attempt + 1;
        }
        let known = crate::pod::container_statuses(&self.status).find(|s| s.name == name);
        known.filter(|s| s.container_id.is_some()).map_or(0, |s| u32::try_from(s.restart_count + 1).unwrap_or(0))
    }

    /// Removes all but the newest two instances of a container.
    pub async fn forget_old_instances(&mut self, name: &str) {
        let old: Vec<String> = self.state.history(name).into_iter().skip(2).map(|s| s.id.clone()).collect();
        for id in old {
            self.remove_container(&id).await;
        }
    }

    /// Removes every ended container but the newest of each name, which the status shows.
    async fn forget_dead_instances(&mut self) {
        let names: std::collections::BTreeSet<String> =
            self.state.containers.values().map(|c| c.status.metadata.name.clone()).collect();
        for name in names {
            let dead = self.state.history(&name).into_iter().skip(1).filter(|s| s.state == ContainerState::Exited);
            let ids: Vec<String> = dead.map(|s| s.id.clone()).collect();
            for id in ids {
                self.remove_container(&id).await;
            }
        }
    }

    /// Removes a container that does not run, with its log.
    pub async fn remove_container(&mut self, id: &str) {
        match self.ctx.config.runtime.remove_container(id).await {
            Ok(()) => {
                if let Some(gone) = self.state.containers.remove(id) {
                    crate::logs::rotation::remove(std::path::Path::new(&gone.status.log_path));
                }
                self.ctx.probes.remove(id);
            }
            Err(error) => tracing::warn!(pod = crate::format::pod(&self.pod), id, %error, "cannot remove container"),
        }
    }
}

/// The status as last written: that of the mirror for a static pod.
fn known_status(ctx: &Context, pod: &Pod) -> PodStatus {
    let mirror = Some(pod).filter(|p| static_pods::is_static(p)).and_then(|p| ctx.mirrors.get(p));
    mirror.and_then(|m| m.status.clone()).or_else(|| pod.status.clone()).unwrap_or_default()
}
