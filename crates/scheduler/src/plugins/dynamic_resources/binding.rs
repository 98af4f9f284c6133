//! What is written into claims: allocations, users, and their end.

use crate::Handle;
use crate::dynamic_resources::needs::claim_name;
use crate::pod_info::uid;
use api::k8s::core::v1::{ContainerExtendedResourceRequest, Pod};
use api::k8s::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use api::machinery::apis::meta::v1::Time;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use std::sync::Arc;

const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// Attempts against concurrent writers.
const ATTEMPTS: usize = 5;

fn api(handle: &Handle, claim: &ResourceClaim) -> Api<ResourceClaim> {
    Api::namespaced(handle.client.clone(), &claim.namespace().unwrap_or_default())
}

/// Writes an allocation, where there is one to write, and reserves the claim for a pod; returns what was written.
pub(super) async fn bind(
    handle: &Handle,
    claim: &Arc<ResourceClaim>,
    pod: &Pod,
    allocation: Option<AllocationResult>,
) -> Result<ResourceClaim, String> {
    let api = api(handle, claim);
    let mut current = ResourceClaim::clone(claim);
    for attempt in 1..=ATTEMPTS {
        match try_bind(&api, current, pod, allocation.as_ref()).await {
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {
                let again = api.get(&claim.name_any()).await;
                current = again.map_err(|e| format!("get updated claim {} after conflict: {e}", claim_name(claim)))?;
                refuse_changed(claim, &current, allocation.is_some())?;
            }
            Err(error) => {
                let what = if allocation.is_some() { "allocation and reservation" } else { "reservation" };
                return Err(format!("add {what} to claim {}: {error}", claim_name(claim)));
            }
            Ok(written) => return Ok(written),
        }
    }
    Err(format!("claim {} is written by others all the time", claim_name(claim)))
}

fn refuse_changed(claim: &ResourceClaim, current: &ResourceClaim, allocate: bool) -> Result<(), String> {
    let name = claim_name(claim);
    if current.metadata.deletion_timestamp.is_some() || current.metadata.uid != claim.metadata.uid {
        return Err(format!("claim {name} got deleted in the meantime"));
    }
    match (allocate, current.status.as_ref().is_some_and(|s| s.allocation.is_some())) {
        (true, true) => Err(format!("claim {name} got allocated elsewhere in the meantime")),
        (false, false) => Err(format!("claim {name} got deallocated elsewhere in the meantime")),
        _ => Ok(()),
    }
}

async fn try_bind(
    api: &Api<ResourceClaim>,
    mut claim: ResourceClaim,
    pod: &Pod,
    allocation: Option<&AllocationResult>,
) -> Result<ResourceClaim, kube::Error> {
    let name = claim.name_any();
    if allocation.is_some() && !claim.finalizers().iter().any(|f| f == FINALIZER) {
        // Metadata and status are written apart.
        claim.finalizers_mut().push(FINALIZER.into());
        claim = api.replace(&name, &PostParams::default(), &claim).await?;
    }
    let status = claim.status.get_or_insert_default();
    if let Some(allocation) = allocation {
        status.allocation = Some(allocation.clone());
    }
    if let Some(allocation) = status.allocation.as_mut() {
        allocation.allocation_timestamp.get_or_insert_with(now);
    }
    let users = status.reserved_for.get_or_insert_default();
    if !users.iter().any(|user| user.uid == uid(pod)) {
        users.push(ResourceClaimConsumerReference {
            resource: "pods".into(),
            name: pod.name_any(),
            uid: uid(pod).into(),
            ..ResourceClaimConsumerReference::default()
        });
    }
    api.replace_status(&name, &PostParams::default(), &claim).await
}

fn now() -> Time {
    let now = Timestamp::now();
    // The API has whole seconds.
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Takes a pod off the users of a claim.
pub(super) fn unreserve(handle: &Arc<Handle>, claim: Arc<ResourceClaim>, pod_uid: String) {
    let handle = handle.clone();
    tokio::spawn(async move {
        let entry = json!({"$patch": "delete", "uid": pod_uid});
        let patch = json!({"metadata": {"uid": claim.metadata.uid}, "status": {"reservedFor": [entry]}});
        let patch = Patch::Strategic(patch);
        let done = api(&handle, &claim).patch_status(&claim.name_any(), &PatchParams::default(), &patch).await;
        if let Err(error) = done {
            tracing::warn!(claim = claim_name(&claim), %error, "claim stays reserved");
        }
    });
}

/// Gives the allocation of a claim back.
pub(super) fn deallocate(handle: &Handle, claim: Arc<ResourceClaim>) {
    let api = api(handle, &claim);
    tokio::spawn(async move {
        let mut free = ResourceClaim::clone(&claim);
        free.status = None;
        if let Err(error) = api.replace_status(&claim.name_any(), &PostParams::default(), &free).await {
            tracing::warn!(claim = claim_name(&claim), %error, "claim stays allocated");
        }
    });
}

/// Makes a claim for extended resources.
pub(super) async fn create(handle: &Handle, template: &ResourceClaim) -> Result<ResourceClaim, String> {
    let mut claim = template.clone();
    (claim.metadata.name, claim.metadata.uid, claim.status) = (None, None, None);
    let made = api(handle, &claim).create(&PostParams::default(), &claim).await;
    made.map_err(|e| format!("create claim for extended resources {}: {e}", claim_name(&claim)))
}

/// Tells a pod's status which claim serves its extended resources.
pub(super) async fn name_extended(
    handle: &Handle,
    pod: &Pod,
    claim: &ResourceClaim,
    mappings: &[ContainerExtendedResourceRequest],
) -> Result<(), String> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let served = json!({"requestMappings": mappings, "resourceClaimName": claim.metadata.name});
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"extendedResourceClaimStatus": served}});
    let pods: Api<Pod> = Api::namespaced(handle.client.clone(), &namespace);
    let done = pods.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    done.map(drop).map_err(|e| format!("update pod {namespace}/{name} ExtendedResourceClaimStatus: {e}"))
}

/// Deletes a claim that was made here.
pub(super) fn delete(handle: &Handle, claim: Arc<ResourceClaim>) {
    let api = api(handle, &claim);
    tokio::spawn(async move {
        if let Err(error) = try_delete(&api, &claim).await {
            tracing::warn!(claim = claim_name(&claim), %error, "claim for extended resources stays");
        }
    });
}

async fn try_delete(api: &Api<ResourceClaim>, claim: &ResourceClaim) -> Result<(), kube::Error> {
    let name = claim.name_any();
    let mut current = claim.clone();
    for attempt in 1..=ATTEMPTS {
        // The finalizer would hold it up.
        current.finalizers_mut().retain(|f| f != FINALIZER);
        match api.replace(&name, &PostParams::default(), &current).await {
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {
                current = api.get(&name).await?;
                if current.metadata.uid != claim.metadata.uid {
                    // It is gone already, and its name is another's.
                    return Ok(());
                }
            }
            other => {
                other?;
                break;
            }
        }
    }
    let uid = Preconditions { uid: claim.metadata.uid.clone(), resource_version: None };
    api.delete(&name, &DeleteParams::default().preconditions(uid)).await.map(drop)
}
