//! Ending containers: preStop within the grace period, the stop signal, KILL; sidecars after the others.

use crate::context::Context;
use crate::events::{EventType, reason};
use crate::lifecycle;
use crate::pod::{PodExt, is_sidecar};
use api::k8s::core::v1::{Container, Pod};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// No container gets less time than this between the stop signal and KILL.
pub const SHORTEST: Duration = Duration::from_secs(2);

/// How a container is ended.
pub struct Kill {
    /// Time it has, preStop included.
    pub grace: Duration,
    /// Text of the `Killing` event; empty: `Stopping container <name>`.
    pub message: String,
    /// The order among the containers of a pod that ends.
    pub order: Option<Arc<Order>>,
}

/// The time the pod's containers have: what the deletion asked for, else the spec's, else 30 s.
pub fn grace_period(pod: &Pod) -> Duration {
    let seconds =
        pod.metadata.deletion_grace_period_seconds.or(pod.spec().termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Ends a container; returns when it has ended.
pub async fn kill(ctx: &Context, pod: &Pod, container: Option<&Container>, id: &str, ip: Option<IpAddr>, kill: Kill) {
    let deadline = Instant::now() + kill.grace;
    if let Some(container) = container {
        let message =
            if kill.message.is_empty() { format!("Stopping container {}", container.name) } else { kill.message };
        ctx.recorder.container(pod, container, EventType::Normal, reason::KILLING, message);
        let mut hook = std::pin::pin!(pre_stop(ctx, pod, container, id, ip, kill.grace));
        let finished = tokio::time::timeout_at(deadline.into(), &mut hook).await.is_ok();
        if let Some(order) = &kill.order {
            let _ = tokio::time::timeout_at(deadline.into(), order.turn(&container.name)).await;
        }
        stop(ctx, pod, id, deadline).await;
        if !finished && is_command(container) {
            // It ends with its container, and then says that it failed.
            let _ = tokio::time::timeout(SHORTEST, hook).await;
        }
    } else {
        stop(ctx, pod, id, deadline).await;
    }
    if let (Some(order), Some(container)) = (&kill.order, container) {
        order.ended(&container.name);
    }
}

async fn stop(ctx: &Context, pod: &Pod, id: &str, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now()).max(SHORTEST);
    match ctx.config.runtime.stop_container(id, left).await {
        Ok(()) | Err(cri::Error::NotFound(_)) => {}
        Err(error) => {
            ctx.recorder.pod(pod, EventType::Warning, reason::FAILED_KILL_POD, format!("error killing pod: {error}"))
        }
    }
}

/// Whether a container's preStop hook is a command.
pub fn is_command(container: &Container) -> bool {
    container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()).is_some_and(|h| h.exec.is_some())
}

async fn pre_stop(ctx: &Context, pod: &Pod, container: &Container, id: &str, ip: Option<IpAddr>, grace: Duration) {
    let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
    if grace.is_zero() {
        return;
    }
    if let Err(why) = lifecycle::run(ctx, pod, container, id, ip, handler).await {
        tracing::info!(pod = crate::format::pod(pod), container = container.name, why, "preStop hook failed");
        ctx.recorder.container(pod, container, EventType::Warning, reason::FAILED_PRE_STOP_HOOK, "PreStopHook failed");
    }
}

/// Who ends before whom: sidecars after all regular containers, and in reverse order among themselves.
pub struct Order {
    running: Mutex<BTreeSet<String>>,
    sidecars: Vec<String>,
    changed: Notify,
}

impl Order {
    /// The order of a pod's running containers; `None` for a pod without sidecars.
    pub fn new(pod: &Pod, running: impl Iterator<Item = String>) -> Option<Arc<Self>> {
        let init = pod.spec().init_containers.iter().flatten();
        let sidecars: Vec<String> = init.filter(|c| is_sidecar(c)).map(|c| c.name.clone()).collect();
        (!sidecars.is_empty())
            .then(|| Arc::new(Self { running: Mutex::new(running.collect()), sidecars, changed: Notify::new() }))
    }

    fn is_turn(&self, name: &str) -> bool {
        let Some(place) = self.sidecars.iter().position(|s| s == name) else { return true };
        let running = self.running.lock();
        let before = |other: &String| match self.sidecars.iter().position(|s| s == other) {
            None => true,
            Some(other) => other > place,
        };
        !running.iter().any(|other| other != name && before(other))
    }

    async fn turn(&self, name: &str) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.is_turn(name) {
                return;
            }
            changed.await;
        }
    }

    fn ended(&self, name: &str) {
        self.running.lock().remove(name);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sidecars_wait_for_the_others() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [{"name": "c"}],
            "initContainers": [{"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}]}}))
        .expect("pod");
        let order = Order::new(&pod, ["c", "s1", "s2"].into_iter().map(str::to_owned)).expect("sidecars");
        let turns = || ["c", "s1", "s2"].map(|n| order.is_turn(n));
        assert_eq!(turns(), [true, false, false]);
        order.ended("c");
        assert_eq!(turns(), [true, false, true]);
        order.ended("s2");
        assert_eq!(turns(), [true, true, true]);
    }

    #[test]
    fn deletion_overrides_the_spec() {
        let check = |meta: serde_json::Value, spec: serde_json::Value, expect: u64| {
            let pod: Pod = serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("pod");
            assert_eq!(grace_period(&pod), Duration::from_secs(expect));
        };
        check(json!({}), json!({"containers": []}), 30);
        check(json!({}), json!({"containers": [], "terminationGracePeriodSeconds": 5}), 5);
        check(
            json!({"deletionGracePeriodSeconds": 1}),
            json!({"containers": [], "terminationGracePeriodSeconds": 5}),
            1,
        );
    }
}
