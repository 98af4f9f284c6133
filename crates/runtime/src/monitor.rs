//! Follows the shim of a sandbox: its changes become states and events.

use crate::client::Connection;
use crate::protocol::{Phase, Record, Reply, Request};
use crate::state::{Container, Sandbox};
use crate::{Runtime, records};
use cri::ContainerEventKind;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// Pause before a lost connection is made anew: either the shim has ended, or we were too slow for it.
const RECONNECT: Duration = Duration::from_millis(1);

impl Runtime {
    /// Starts following a sandbox and returns when its present state is known, or that it is dead.
    pub(crate) async fn monitor(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let (known, wait) = oneshot::channel();
        let task = tokio::spawn(follow(Arc::downgrade(self), sandbox.clone(), known));
        *sandbox.monitor.lock() = Some(task.abort_handle());
        // A dropped sender means that the task ended: as good as known.
        let _ = wait.await;
    }

    /// Takes over what the shim says of a container.
    fn changed(&self, sandbox: &Sandbox, record: Record) {
        let Some(container) = self.state.any_container(&record.id) else { return };
        let before = container.phase();
        let after = record.phase;
        container.state.send_replace(record);
        let kind = match (before, after) {
            (Phase::Created, Phase::Running) => ContainerEventKind::Started,
            (Phase::Created | Phase::Running, Phase::Exited) => ContainerEventKind::Stopped,
            _ => return,
        };
        self.emit(kind, &container.id, &sandbox.record.config.metadata.uid);
    }

    /// The shim is gone: containers without an exit record were lost with it.
    fn shim_ended(&self, sandbox: &Sandbox) {
        for container in self.state.containers_of(&sandbox.id) {
            if container.phase() != Phase::Exited {
                let record = last_words(&container);
                self.kill_cgroup(sandbox, &container);
                self.changed(sandbox, record);
            }
        }
        if sandbox.alive.send_replace(false) {
            self.emit(ContainerEventKind::Stopped, &sandbox.id, &sandbox.record.config.metadata.uid);
        }
    }

    fn kill_cgroup(&self, sandbox: &Sandbox, container: &Container) {
        if let Ok(cgroup) = self.container_cgroup(sandbox, &container.id) {
            cgroup.kill();
        }
    }
}

/// The exit a shim wrote down, or one that says that nobody knows.
pub(crate) fn last_words(container: &Container) -> Record {
    let path = container.dir.join("state.json");
    if let Ok(record) = records::read::<Record>(&path) {
        if record.phase == Phase::Exited {
            return record;
        }
    }
    let lost = Record {
        phase: Phase::Exited,
        pid: None,
        finished_at: records::now(),
        exit_code: 255,
        reason: "Unknown".into(),
        message: "the container's shim ended without an exit code".into(),
        ..container.state.borrow().clone()
    };
    // Kept, so that the time does not move with every restart of the agent.
    let _ = records::write(&path, &lost);
    lost
}

async fn follow(runtime: Weak<Runtime>, sandbox: Arc<Sandbox>, known: oneshot::Sender<()>) {
    let mut known = Some(known);
    let mut shim = None;
    // A connection that ends while the shim lives was too slow: a new one begins with all records.
    while let Ok(mut connection) = Connection::open(&sandbox.dir).await {
        shim = connection.peer();
        if connection.send(&Request::Subscribe, &[]).await.is_err() {
            continue;
        }
        while let Ok(Some((reply, _))) = connection.receive().await {
            let Some(runtime) = runtime.upgrade() else { return };
            match reply {
                Reply::Snapshot(records) => {
                    sandbox.alive.send_replace(true);
                    records.into_iter().for_each(|record| runtime.changed(&sandbox, record));
                    known.take();
                }
                Reply::Changed(record) => runtime.changed(&sandbox, record),
                Reply::LogFull(id) => {
                    runtime.emit(ContainerEventKind::LogFull, &id, &sandbox.record.config.metadata.uid);
                }
                other => tracing::warn!(sandbox = sandbox.id, ?other, "unexpected word of a shim"),
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
    reap(shim).await;
    if let Some(runtime) = runtime.upgrade() {
        runtime.shim_ended(&sandbox);
    }
}

/// Reaps a shim if it is our child; one of an earlier agent is not.
pub(crate) async fn reap(shim: Option<i32>) {
    let Some(pid) = shim.and_then(rustix::process::Pid::from_raw) else { return };
    let wait = move || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    // No child of ours: nothing to reap.
    let _ = tokio::task::spawn_blocking(wait).await;
}
