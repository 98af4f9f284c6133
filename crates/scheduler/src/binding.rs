//! What is written for a pod: its binding, or why there is none.

use crate::Handle;
use crate::framework::{Nomination, Rejection};
use crate::profile::Profile;
use crate::queue::QueuedPod;
use api::k8s::core::v1::{Pod, PodCondition};
use informer::{EventType, reference};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use std::sync::Arc;

/// The outcome of a binding task.
pub(crate) struct Bound {
    pub queued: QueuedPod,
    pub result: Result<(), String>,
}

/// Permits, prepares and binds a pod to a node.
///
/// Its preparation, which may wait for others, ends with `shutdown`.
pub(crate) async fn bind(
    handle: &Arc<Handle>,
    profile: &Profile,
    queued: QueuedPod,
    node: String,
    shutdown: impl Future<Output = ()>,
) -> Bound {
    let result = try_bind(handle, profile, &queued.pod, &node, shutdown).await;
    match &result {
        Ok(()) => {
            let message = format!(
                "Successfully assigned {}/{} to {node}",
                queued.pod.namespace().unwrap_or_default(),
                queued.pod.name_any()
            );
            handle.recorder.action(&reference(queued.pod.as_ref()), EventType::Normal, "Scheduled", "Binding", message);
            profile.post_bind.iter().for_each(|plugin| plugin.post_bind(&queued.pod, &node));
        }
        Err(_) => profile.reserve.iter().rev().for_each(|plugin| plugin.unreserve(handle, &queued.pod, &node)),
    }
    let result = result.map_err(|rejection| rejection.reasons.join(", "));
    Bound { queued, result }
}

async fn try_bind(
    handle: &Handle,
    profile: &Profile,
    pod: &Pod,
    node: &str,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Rejection> {
    for plugin in &profile.permit {
        let place = || format!("running Permit plugin {:?}", plugin.name());
        plugin.permit(handle, pod, node).await.map_err(|r| r.error_in(place))?;
    }
    tokio::select! {
        done = pre_bind(handle, profile, pod, node) => done?,
        () = shutdown => return Err(Rejection::error("the scheduler is shutting down")),
    }
    let place = || format!("running Bind plugin {:?}", profile.bind.name());
    profile.bind.bind(handle, pod, node).await.map_err(|r| r.error_in(place))
}

async fn pre_bind(handle: &Handle, profile: &Profile, pod: &Pod, node: &str) -> Result<(), Rejection> {
    for plugin in &profile.pre_bind {
        let place = || format!("running PreBind plugin {:?}", plugin.name());
        plugin.pre_bind(handle, pod, node).await.map_err(|r| r.error_in(place))?;
    }
    Ok(())
}

/// Tells people and the pod's status why it is not scheduled; nothing is written that is there already.
pub(crate) fn report_failure(
    handle: &Arc<Handle>,
    pod: &Arc<Pod>,
    message: &str,
    reason: &str,
    nominated: Option<&str>,
) {
    handle.recorder.action(&reference(pod.as_ref()), EventType::Warning, "FailedScheduling", "Scheduling", message);
    let status = pod.status.as_ref();
    let known = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten().find(|c| c.type_ == "PodScheduled");
    let same = known.is_some_and(|c| {
        c.status == "False"
            && c.reason.as_deref() == Some(reason)
            && c.message.as_deref() == Some(message)
            && c.observed_generation == pod.metadata.generation
    });
    if same && nominated.is_none() {
        return;
    }
    let patch = failure_patch(pod, known, message, reason, nominated);
    let (handle, pod) = (handle.clone(), pod.clone());
    tokio::spawn(async move {
        if let Err(error) = patch_status(&handle, &pod, &patch).await {
            tracing::debug!(pod = pod.name_any(), %error, "condition was not written");
        }
    });
}

fn failure_patch(
    pod: &Pod,
    known: Option<&PodCondition>,
    message: &str,
    reason: &str,
    nominated: Option<&str>,
) -> Value {
    let now = now();
    let since = known
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or_else(|| now, |t| t.0.to_string());
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "observedGeneration": pod.metadata.generation, "lastProbeTime": null, "lastTransitionTime": since});
    let mut status = json!({"conditions": [condition]});
    if let Some(node) = nominated {
        status["nominatedNodeName"] = node.into();
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn patch_status(handle: &Handle, pod: &Pod, patch: &Value) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(handle.client.clone(), &pod.namespace().unwrap_or_default());
    api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// Deletes the victims of a preemption, each with the condition and event that say why.
pub(crate) fn evict(handle: &Arc<Handle>, preemptor: &Arc<Pod>, nomination: &Nomination) {
    for victim in nomination.victims.iter().filter(|v| v.metadata.deletion_timestamp.is_none()) {
        let (handle, victim, preemptor, node) =
            (handle.clone(), victim.clone(), preemptor.clone(), nomination.node.clone());
        tokio::spawn(async move {
            if let Err(error) = evict_one(&handle, &victim, &preemptor, &node).await {
                tracing::warn!(pod = victim.name_any(), %error, "victim of preemption was not deleted");
            }
        });
    }
}

async fn evict_one(handle: &Handle, victim: &Pod, preemptor: &Pod, node: &str) -> Result<(), kube::Error> {
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{}: preempting to accommodate a higher priority pod", crate::NAME),
        "observedGeneration": victim.metadata.generation, "lastProbeTime": null, "lastTransitionTime": now()});
    let patch = json!({"metadata": {"uid": victim.metadata.uid}, "status": {"conditions": [condition]}});
    patch_status(handle, victim, &patch).await?;
    let api: Api<Pod> = Api::namespaced(handle.client.clone(), &victim.namespace().unwrap_or_default());
    let uid = Preconditions { uid: victim.metadata.uid.clone(), resource_version: None };
    api.delete(&victim.name_any(), &DeleteParams::default().preconditions(uid)).await?;
    let message = format!("Preempted by pod {} on node {node}", preemptor.metadata.uid.as_deref().unwrap_or(""));
    handle.recorder.action(&reference(victim), EventType::Normal, "Preempted", "Preempting", message);
    Ok(())
}
