//! Creating and deleting pods on behalf of a controller, with the events that say so.

use crate::context::Context;
use crate::ownership::{is_namespace_terminating, is_not_found, message};
use api::k8s::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};

/// Creates a pod and tells of it on `owner`.
pub(crate) async fn create<O: Resource<DynamicType = ()>>(
    ctx: &Context,
    owner: &O,
    pod: &Pod,
) -> Result<Pod, kube::Error> {
    let namespace = owner.namespace().unwrap_or_default();
    match ctx.api::<Pod>(&namespace).create(&PostParams::default(), pod).await {
        Ok(created) => {
            ctx.normal(owner, "SuccessfulCreate", format!("Created pod: {}", created.name_any()));
            Ok(created)
        }
        Err(error) => {
            if !is_namespace_terminating(&error) {
                ctx.warning(owner, "FailedCreate", format!("Error creating: {}", message(&error)));
            }
            Err(error)
        }
    }
}

/// Deletes a pod and tells of it on `owner`; one that is gone already counts as deleted.
pub(crate) async fn delete<O: Resource<DynamicType = ()>>(
    ctx: &Context,
    owner: &O,
    pod: &Pod,
) -> Result<(), kube::Error> {
    let namespace = owner.namespace().unwrap_or_default();
    let name = pod.name_any();
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams::default().preconditions(preconditions);
    match ctx.api::<Pod>(&namespace).delete(&name, &params).await {
        Ok(_) => ctx.normal(owner, "SuccessfulDelete", format!("Deleted pod: {name}")),
        Err(error) if is_not_found(&error) => {}
        Err(error) => {
            ctx.warning(owner, "FailedDelete", format!("Error deleting: {}", message(&error)));
            return Err(error);
        }
    }
    Ok(())
}

/// Creates `count` pods in batches of 1, 2, 4 …, so that a quota or admission failure costs few requests.
///
/// Returns how many were created, and the first error.
pub(crate) async fn slow_start<F>(count: usize, create: impl Fn(usize) -> F) -> (usize, Option<kube::Error>)
where
    F: Future<Output = Result<(), kube::Error>>,
{
    let (mut done, mut batch) = (0, 1);
    while done < count {
        let size = batch.min(count - done);
        let results = futures::future::join_all((done..done + size).map(&create)).await;
        let created = results.iter().filter(|r| r.is_ok()).count();
        done += created;
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (done, Some(error));
        }
        batch *= 2;
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn slow_start_stops_after_the_first_failed_batch() {
        let tried = AtomicUsize::new(0);
        let (done, error) = slow_start(20, |n| {
            tried.fetch_add(1, Ordering::Relaxed);
            async move { if n < 2 { Ok(()) } else { Err(kube::Error::LinesCodecMaxLineLengthExceeded) } }
        })
        .await;
        assert_eq!((done, error.is_some(), tried.into_inner()), (2, true, 3));
    }
}
