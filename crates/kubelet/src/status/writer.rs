//! Writes the statuses of one pod: latest wins, one patch at a time, none that changes nothing.

use crate::context::{Context, api_message, is_not_found};
use crate::pod::PodExt;
use crate::static_pods;
use api::k8s::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a status may wait for a newer one before it is written.
const SOON: Duration = Duration::from_millis(50);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Wanted {
    number: u64,
    urgent: bool,
    content: Option<(Arc<Pod>, PodStatus)>,
}

/// The writer of one pod; its task ends when this is dropped.
pub struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    done: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl StatusWriter {
    /// Starts a writer.
    pub fn new(ctx: Arc<Context>) -> Self {
        let (wanted, receiver) = watch::channel(Wanted { number: 0, urgent: false, content: None });
        let (written, done) = watch::channel(0);
        let task = tokio::spawn(run(ctx, receiver, written));
        Self { wanted, done, task }
    }

    /// Asks for a status to be written; `urgent`: without waiting for a newer one.
    pub fn set(&self, pod: Arc<Pod>, status: PodStatus, urgent: bool) {
        self.wanted.send_modify(|wanted| {
            let content = Some((pod, status));
            *wanted = Wanted { number: wanted.number + 1, urgent, content };
        });
    }

    /// Waits until what was last asked for is written (or the pod is gone).
    pub async fn flush(&self) {
        let number = self.wanted.borrow().number;
        self.wanted.send_modify(|wanted| wanted.urgent = true);
        let mut done = self.done.clone();
        // An error means that the task is gone, and with it whatever there was to wait for.
        let _ = done.wait_for(|written| *written >= number).await;
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(ctx: Arc<Context>, mut wanted: watch::Receiver<Wanted>, written: watch::Sender<u64>) {
    let mut base: Option<Pod> = None;
    let mut retry = FIRST_RETRY;
    while wanted.changed().await.is_ok() {
        if !wanted.borrow().urgent {
            let _ = tokio::time::timeout(SOON, wanted.wait_for(|w| w.urgent)).await;
        }
        loop {
            let now = wanted.borrow_and_update().clone();
            let Some((pod, status)) = now.content else { break };
            // A static pod is shown by its mirror; without one there is nobody to tell yet.
            let shown = if static_pods::is_static(&pod) { ctx.mirrors.get(&pod) } else { Some(pod.clone()) };
            let Some(shown) = shown else {
                written.send_replace(now.number);
                break;
            };
            let known = newest(base.as_ref(), &shown);
            match write(&ctx.config.client, known, &status).await {
                Ok(answer) => {
                    base = answer.or(base);
                    retry = FIRST_RETRY;
                    written.send_replace(now.number);
                    break;
                }
                Err(error) if is_not_found(&error) || is_conflict(&error) => {
                    // The pod is gone, or another of its name has come: nobody is left to tell.
                    written.send_replace(now.number);
                    break;
                }
                Err(error) => {
                    tracing::warn!(
                        pod = crate::format::pod(&pod),
                        error = api_message(&error),
                        "cannot write the pod's status"
                    );
                    let _ = tokio::time::timeout(retry, wanted.changed()).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.message.contains("UID"))
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn newest<'a>(base: Option<&'a Pod>, pod: &'a Pod) -> &'a Pod {
    base.filter(|b| b.uid() == pod.uid() && version(b) >= version(pod)).unwrap_or(pod)
}

async fn write(client: &kube::Client, known: &Pod, status: &PodStatus) -> kube::Result<Option<Pod>> {
    let Some(changes) = changes(known.status.as_ref(), status) else { return Ok(None) };
    let patch = json!({"metadata": {"uid": known.uid()}, "status": changes});
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), known.namespace());
    api.patch_status(known.name(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(Some)
}

/// The strategic merge patch between two statuses; `None` where nothing changes.
fn changes(old: Option<&PodStatus>, new: &PodStatus) -> Option<Map<String, Value>> {
    // Fields of other writers; absent from ours, they must stay.
    const OTHERS: [&str; 4] = ["nominatedNodeName", "resourceClaimStatuses", "extendedResourceClaimStatus", "resize"];
    let object = |status: &PodStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, mut new) = (old.map(object).unwrap_or_default(), object(new));
    new.retain(|key, _| !OTHERS.contains(&key.as_str()));
    let mut out = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        match (key.as_str(), value, old.get(key)) {
            ("conditions", Value::Array(new), before) => {
                let changed = changed_conditions(before, new);
                if !changed.is_empty() {
                    out.insert(key.clone(), changed.into());
                }
            }
            // Merged by key: an old resource would stay.
            ("resources" | "allocatedResources", Value::Object(new), Some(_)) => {
                let mut replaced = new.clone();
                replaced.insert("$patch".into(), "replace".into());
                out.insert(key.clone(), replaced.into());
            }
            // Lists merged by address: an old entry would stay.
            ("podIPs" | "hostIPs", Value::Array(new), Some(_)) => {
                let replaced = std::iter::once(json!({"$patch": "replace"})).chain(new.iter().cloned());
                out.insert(key.clone(), replaced.collect());
            }
            _ => drop(out.insert(key.clone(), value.clone())),
        }
    }
    for key in old.keys().filter(|k| !new.contains_key(*k) && !OTHERS.contains(&k.as_str())) {
        out.insert(key.clone(), Value::Null);
    }
    (!out.is_empty()).then_some(out)
}

fn changed_conditions(old: Option<&Value>, new: &[Value]) -> Vec<Value> {
    let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let owned = |c: &&Value| c["type"].as_str().is_some_and(super::conditions::is_owned);
    let mut out: Vec<Value> = old
        .iter()
        .filter(|c| owned(c) && !new.iter().any(|n| n["type"] == c["type"]))
        .map(|gone| json!({"type": gone["type"], "$patch": "delete"}))
        .collect();
    let written =
        |c: &&Value| super::conditions::is_written(c["type"].as_str().unwrap_or_default(), c["reason"].as_str());
    for condition in new.iter().filter(written) {
        let before = old.iter().find(|c| c["type"] == condition["type"]);
        if before == Some(condition) {
            continue;
        }
        let mut changed = condition.clone();
        // Merged by type: what is absent now must be taken out by name.
        for key in before.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if condition.get(key).is_none() {
                changed[key.as_str()] = Value::Null;
            }
        }
        out.push(changed);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).expect("status")
    }

    #[test]
    fn only_differences_are_sent() {
        let old = status(json!({"phase": "Pending", "reason": "x", "nominatedNodeName": "n",
            "conditions": [{"type": "Ready", "status": "False", "reason": "r"}, {"type": "Theirs", "status": "True"}]}));
        let same = old.clone();
        assert_eq!(changes(Some(&old), &same), None);
        let new = status(
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "Theirs", "status": "False"}]}),
        );
        let want = json!({"phase": "Running", "reason": null, "conditions": [{"type": "Ready", "status": "True", "reason": null}]});
        assert_eq!(changes(Some(&old), &new).map(Value::Object), Some(want));
    }

    #[test]
    fn addresses_replace_each_other() {
        let (old, new) = (status(json!({"podIPs": [{"ip": "a"}]})), status(json!({"podIPs": [{"ip": "b"}]})));
        let want = json!({"podIPs": [{"$patch": "replace"}, {"ip": "b"}]});
        assert_eq!(changes(Some(&old), &new).map(Value::Object), Some(want));
    }
}
