//! Graceful node shutdown: logind waits until the pods have ended, those of the lowest priority first (KEP-2000).
//!
//! A delay lock of logind is held while the kubelet runs. Its signal `PrepareForShutdown` begins the shutdown: the
//! node is not ready, no pod is admitted, pods end in groups of priority; then the lock is let go. Where there is
//! no logind (or no grace period is configured) nothing of this happens.

pub mod dbus;

use crate::configuration::{KubeletConfiguration, ShutdownGracePeriod};
use crate::context::Context;
use crate::events::{EventType, reason};
use crate::kubelet::Pods;
use crate::mailbox::Failure;
use crate::pod::{PodExt, SYSTEM_CRITICAL};
use api::k8s::core::v1::Pod;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Reason of a pod that comes too late.
pub const NOT_ADMITTED: &str = "NodeShutdown";
/// Its message.
pub const NOT_ADMITTED_MESSAGE: &str = "Pod was rejected as the node is shutting down.";
const REASON: &str = "Terminated";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Words of the node's condition Ready.
pub const NODE_MESSAGE: &str = "node is shutting down";
const RETRY: Duration = Duration::from_secs(5);

/// Whether the node is shutting down.
#[derive(Default)]
pub struct Shutdown(AtomicBool);

impl Shutdown {
    /// Whether it is.
    pub fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The groups of priority with their times, the lowest first; empty: not configured.
pub fn groups(settings: &KubeletConfiguration) -> Vec<ShutdownGracePeriod> {
    let mut groups = settings.shutdown_grace_period_by_pod_priority.clone();
    let (all, critical) = (settings.shutdown_grace_period, settings.shutdown_grace_period_critical_pods);
    if groups.is_empty() && !all.is_zero() {
        let of = |priority: i32, time: Duration| ShutdownGracePeriod {
            priority,
            shutdown_grace_period_seconds: time.as_secs(),
        };
        groups = vec![of(0, all.saturating_sub(critical)), of(SYSTEM_CRITICAL, critical)];
    }
    groups.sort_by_key(|g| g.priority);
    groups
}

/// Which group a priority belongs to: the last that is not above it.
fn group_of(groups: &[ShutdownGracePeriod], priority: i32) -> usize {
    groups.iter().rposition(|g| g.priority <= priority).unwrap_or(0)
}

/// Runs until dropped.
pub async fn run(ctx: Arc<Context>, pods: Arc<Pods>, look: Arc<Notify>) {
    let groups = groups(&ctx.config.settings);
    if groups.is_empty() {
        return std::future::pending().await;
    }
    let wanted: u64 = groups.iter().map(|g| g.shutdown_grace_period_seconds).sum();
    loop {
        match dbus::Inhibitor::take(Duration::from_secs(wanted)).await {
            Ok(mut inhibitor) => {
                while let Ok(begins) = inhibitor.changed().await {
                    ctx.shutdown.0.store(begins, Ordering::Release);
                    look.notify_one();
                    if begins {
                        let about = ctx.node.read().clone();
                        let text = "Shutdown manager detected shutdown event";
                        ctx.recorder.node(&about, EventType::Normal, reason::NODE_SHUTDOWN, text);
                        end_pods(&pods, &groups).await;
                        inhibitor.release();
                    } else {
                        break; // Called off: the lock is taken anew.
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot delay shutdowns of this machine by logind"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Ends the pods group by group; each group has its time and no more.
pub async fn end_pods(pods: &Pods, groups: &[ShutdownGracePeriod]) {
    for (at, group) in groups.iter().enumerate() {
        let time = Duration::from_secs(group.shutdown_grace_period_seconds);
        let members: Vec<_> = pods.active().into_iter().filter(|p| group_of(groups, priority(p)) == at).collect();
        let mut stopped = Vec::new();
        for pod in members {
            let Some(mailbox) = pods.get(pod.uid()) else { continue };
            let own = pod.spec().termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok());
            mailbox.fail(Failure {
                reason: REASON.into(),
                message: MESSAGE.into(),
                grace: Some(own.map_or(time, |own| Duration::from_secs(own).min(time))),
                disruption: Some(("TerminationByKubelet".into(), MESSAGE.into())),
            });
            stopped.push(async move { mailbox.stopped.cancelled().await });
        }
        if tokio::time::timeout(time, futures::future::join_all(stopped)).await.is_err() {
            tracing::warn!(priority = group.priority, "pods did not end within the shutdown grace period");
        }
    }
}

fn priority(pod: &Pod) -> i32 {
    pod.spec().priority.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_priority() {
        let text = "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\n";
        let of = groups(&KubeletConfiguration::parse(text).expect("settings"));
        let shown: Vec<_> = of.iter().map(|g| (g.priority, g.shutdown_grace_period_seconds)).collect();
        assert_eq!(shown, [(0, 20), (SYSTEM_CRITICAL, 10)]);
        assert_eq!([-5, 0, 7, SYSTEM_CRITICAL, SYSTEM_CRITICAL + 1].map(|p| group_of(&of, p)), [0, 0, 0, 1, 1]);
        assert!(groups(&KubeletConfiguration::default()).is_empty());
    }
}
