//! What earlier lives of the kubelet left behind: sandboxes of pods that are gone, their directories and logs.

use crate::context::Context;
use crate::pod::PodExt;
use crate::volumes;
use crate::{ending, kubelet, termination};
use api::k8s::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Ends and removes everything that belongs to none of the pods present.
pub async fn remove_strangers(ctx: &Arc<Context>, present: &[Arc<Pod>]) {
    let known: BTreeSet<&str> = present.iter().map(|p| p.uid()).collect();
    let mut gone = BTreeSet::new();
    match kubelet::runtime_pods(ctx).await {
        Ok(pods) => {
            for (uid, state) in pods.into_iter().filter(|(uid, _)| !known.contains(uid.as_str())) {
                gone.insert(uid.clone());
                tokio::spawn(remove_pod(ctx.clone(), uid, state));
            }
        }
        Err(error) => tracing::warn!(%error, "cannot list the runtime's pods"),
    }
    let keep = |uid: &str| known.contains(uid) || gone.contains(uid);
    for uid in names(&ctx.config.root_dir.join("pods")).filter(|uid| !keep(uid)) {
        if let Err(error) = volumes::tear_down(ctx, &uid).await {
            tracing::warn!(uid, %error, "cannot remove the directory of a pod that is gone");
        }
    }
    for name in names(&ctx.config.log_dir) {
        // `<namespace>_<name>_<uid>`
        if name.rsplit('_').next().is_some_and(|uid| !keep(uid)) {
            let _ = cri::remove_tree(&ctx.config.log_dir.join(name));
        }
    }
}

async fn remove_pod(ctx: Arc<Context>, uid: String, state: crate::state::PodState) {
    let pod = Pod::default();
    let stops = state.running().map(|container| {
        let seconds =
            container.annotations.get(crate::state::label::GRACE_PERIOD).and_then(|g| g.parse().ok()).unwrap_or(30);
        let kill = termination::Kill { grace: Duration::from_secs(seconds), message: String::new(), order: None };
        termination::kill(&ctx, &pod, None, &container.id, None, kill)
    });
    futures::future::join_all(stops).await;
    let logs = state.newest_sandbox().map(|s| ctx.config.pod_log_dir(&s.metadata.namespace, &s.metadata.name, &uid));
    ending::remove(&*ctx.config.runtime, &state).await;
    if let Err(error) = volumes::tear_down(&ctx, &uid).await {
        tracing::warn!(uid, %error, "cannot remove the directory of a pod that is gone");
    }
    if let Err(error) = ctx.plugins.dra.unprepare(&uid).await {
        tracing::warn!(uid, error, "cannot give dynamic resources of a pod that is gone back");
    }
    ctx.plugins.devices.release(&uid);
    ctx.release(&uid);
    for class in ["", "/burstable", "/besteffort"] {
        let _ = ctx.config.runtime.remove_pod_cgroup(&format!("/kubepods{class}/pod{uid}")).await;
    }
    if let Some(logs) = logs {
        let _ = cri::remove_tree(&logs);
    }
}

fn names(dir: &std::path::Path) -> impl Iterator<Item = String> + use<> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned())
}
