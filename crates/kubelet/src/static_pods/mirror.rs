//! Mirror pods: what the API shows of static pods.
//!
//! Each static pod's task of this module brings its mirror in line: absent → made; another hash, or being deleted →
//! deleted and made again. The mirrors seen by the pods' informer are kept here, for the writer of statuses.

use super::{HASH, MIRROR, full_name};
use crate::context::{Context, api_message, is_not_found};
use crate::pod::PodExt;
use api::k8s::core::v1::Pod;
use api::machinery::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Mirror pods by full name.
#[derive(Default)]
pub struct Mirrors {
    known: Mutex<BTreeMap<String, Arc<Pod>>>,
    changed: Notify,
}

impl Mirrors {
    /// The mirror of a static pod.
    pub fn get(&self, pod: &Pod) -> Option<Arc<Pod>> {
        self.known.lock().get(&full_name(pod)).cloned()
    }

    /// A mirror is seen in the API.
    pub fn put(&self, mirror: Arc<Pod>) {
        self.known.lock().insert(full_name(&mirror), mirror);
        self.changed.notify_waiters();
    }

    /// A mirror is gone from the API.
    pub fn remove(&self, mirror: &Pod) {
        let mut known = self.known.lock();
        if known.get(&full_name(mirror)).is_some_and(|k| k.uid() == mirror.uid()) {
            known.remove(&full_name(mirror));
        }
        drop(known);
        self.changed.notify_waiters();
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.known.lock().values().cloned().collect()
    }
}

fn hash<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    super::annotation(pod, name)
}

/// Keeps the mirror of a static pod; runs until dropped.
pub async fn keep(ctx: Arc<Context>, pod: Arc<Pod>) {
    let mut retry = RETRY;
    loop {
        let changed = ctx.mirrors.changed.notified();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        let result = match ctx.mirrors.get(&pod) {
            Some(mirror) if mirror.is_deleted() || hash(&mirror, MIRROR) != hash(&pod, HASH) => {
                delete(&ctx, &mirror).await
            }
            Some(_) => Ok(()),
            None => create(&ctx, &pod).await,
        };
        match result {
            Ok(()) => {
                retry = RETRY;
                changed.await;
            }
            Err(error) => {
                tracing::warn!(
                    pod = crate::format::pod(&pod),
                    error = api_message(&error),
                    "cannot keep the mirror pod"
                );
                let _ = tokio::time::timeout(retry, changed).await;
                retry = (retry * 2).min(LONGEST_RETRY);
            }
        }
    }
}

async fn create(ctx: &Context, pod: &Pod) -> kube::Result<()> {
    let mut mirror = pod.clone();
    let node = ctx.node.read().clone();
    let meta = &mut mirror.metadata;
    (meta.uid, meta.resource_version, meta.creation_timestamp) = (None, None, None);
    let digest = hash(pod, HASH).unwrap_or_default().to_owned();
    meta.annotations.get_or_insert_default().insert(MIRROR.into(), digest);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: ctx.config.node_name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    let api: kube::Api<Pod> = kube::Api::namespaced(ctx.config.client.clone(), pod.namespace());
    match api.create(&PostParams::default(), &mirror).await {
        Ok(made) => {
            // The informer tells of it too, but later than the status may be written.
            ctx.mirrors.known.lock().entry(full_name(pod)).or_insert_with(|| Arc::new(made));
            (ctx.wake)(pod.uid());
            Ok(())
        }
        // The informer has not shown it yet.
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes exactly this mirror at once.
pub async fn delete(ctx: &Context, mirror: &Pod) -> kube::Result<()> {
    let preconditions = Preconditions { uid: mirror.metadata.uid.clone(), ..Preconditions::default() };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    let api: kube::Api<Pod> = kube::Api::namespaced(ctx.config.client.clone(), mirror.namespace());
    match api.delete(mirror.name(), &parameters).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}
