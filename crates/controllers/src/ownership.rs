//! Controller references: finding, adopting and releasing what a controller owns.

use crate::context::Context;
use api::machinery::apis::meta::v1::OwnerReference;
use api::selector::LabelSelector;
use informer::{Error, Informer, Stored};
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::fmt::Debug;
use std::sync::Arc;

/// Name of the index from a controller's UID (or [`orphans_of`]) to what it controls.
const CONTROLLER: &str = "controller";

/// The reference of the managing controller.
pub(crate) fn controller_of<K: Resource>(obj: &K) -> Option<&OwnerReference> {
    obj.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The controller's reference, when it is of this kind.
pub(crate) fn controlled_by<'a, O: Resource<DynamicType = ()>>(obj: &'a impl Resource) -> Option<&'a OwnerReference> {
    controller_of(obj).filter(|owner| owner.kind == O::kind(&()) && owner.api_version == O::api_version(&()))
}

/// A controller reference to `owner`.
pub(crate) fn reference_to<O: Resource<DynamicType = ()>>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Adds the index that [`claim`] and [`owned`] read.
pub(crate) fn index<K: Stored>(informer: &Informer<K>) {
    informer.add_index(CONTROLLER, |obj| match controller_of(obj) {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![orphans_of(obj.meta().namespace.as_deref().unwrap_or(""))],
    });
}

fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// What the object with this UID controls.
pub(crate) fn owned<K: Stored>(informer: &Informer<K>, uid: &str) -> Vec<Arc<K>> {
    informer.by_index(CONTROLLER, uid)
}

/// Objects of a namespace that nothing controls.
pub(crate) fn orphans<K: Stored>(informer: &Informer<K>, namespace: &str) -> Vec<Arc<K>> {
    informer.by_index(CONTROLLER, &orphans_of(namespace))
}

/// Whose objects [`claim`] looks for.
pub(crate) struct Claimant<'a, O> {
    pub owner: &'a O,
    pub selector: &'a LabelSelector,
    /// Finalizers an adopted object gets.
    pub finalizers: &'a [&'a str],
}

/// Objects that `claimant` controls after adopting orphans that match and releasing what no longer does.
pub(crate) async fn claim<O, K>(
    ctx: &Context,
    claimant: &Claimant<'_, O>,
    informer: &Informer<K>,
) -> Result<Vec<Arc<K>>, Error>
where
    O: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
    K: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let Claimant { owner, selector, .. } = claimant;
    let namespace = owner.namespace().unwrap_or_default();
    let api: Api<K> = ctx.api(&namespace);
    let deleting = owner.meta().deletion_timestamp.is_some();
    let mut claimed = Vec::new();
    for obj in owned(informer, owner.meta().uid.as_deref().unwrap_or("")) {
        if selector.matches_labels(obj.meta().labels.as_ref()) {
            claimed.push(obj);
        } else if !deleting {
            release(&api, *owner, obj.as_ref()).await?;
        }
    }
    if deleting {
        return Ok(claimed);
    }
    let mut may_adopt = false;
    for obj in orphans(informer, &namespace) {
        if obj.meta().deletion_timestamp.is_some() || !selector.matches_labels(obj.meta().labels.as_ref()) {
            continue;
        }
        // The informer may be behind: a deleted or recreated owner must not adopt.
        if !may_adopt {
            check_live(ctx, *owner).await?;
            may_adopt = true;
        }
        if let Some(adopted) = adopt(&api, claimant, obj.as_ref()).await? {
            claimed.push(Arc::new(adopted));
        }
    }
    Ok(claimed)
}

async fn check_live<O>(ctx: &Context, owner: &O) -> Result<(), Error>
where
    O: Stored<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
{
    let live: O = ctx.api::<O>(&owner.namespace().unwrap_or_default()).get(&owner.name_any()).await?;
    if live.meta().uid != owner.meta().uid || live.meta().deletion_timestamp.is_some() {
        return Err(Error::Transient(format!("{} {} is being replaced or deleted", O::kind(&()), owner.name_any())));
    }
    Ok(())
}

async fn adopt<O, K>(api: &Api<K>, claimant: &Claimant<'_, O>, obj: &K) -> Result<Option<K>, Error>
where
    O: Stored<DynamicType = ()>,
    K: Stored<DynamicType = ()> + Clone + Debug,
{
    let mut metadata = json!({"ownerReferences": [reference_to(claimant.owner)], "uid": obj.meta().uid});
    if !claimant.finalizers.is_empty() {
        metadata["finalizers"] = json!(claimant.finalizers);
    }
    let patch = Patch::Strategic(json!({"metadata": metadata}));
    match api.patch(&obj.name_any(), &PatchParams::default(), &patch).await {
        Ok(adopted) => Ok(Some(adopted)),
        Err(error) => gone(error).map(|()| None),
    }
}

async fn release<O, K>(api: &Api<K>, owner: &O, obj: &K) -> Result<(), Error>
where
    O: Stored<DynamicType = ()>,
    K: Stored<DynamicType = ()> + Clone + Debug,
{
    let reference = json!({"$patch": "delete", "uid": owner.meta().uid});
    let patch = Patch::Strategic(json!({"metadata": {"ownerReferences": [reference], "uid": obj.meta().uid}}));
    match api.patch(&obj.name_any(), &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) => gone(error),
    }
}

/// An object that vanished or was recreated needs no further care.
fn gone(error: kube::Error) -> Result<(), Error> {
    match &error {
        kube::Error::Api(status) if status.code == 404 || status.code == 422 => Ok(()),
        _ => Err(error.into()),
    }
}

/// Whether an API call failed because the object is not there (any more).
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the object was changed since it was read, or is another one of the same name.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "Conflict")
}

/// Whether a create failed because the name is taken.
pub(crate) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// The message of an API error as Kubernetes words it, without the client's decoration.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether the namespace is being deleted, which ends creation for good.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let causes = |s: &kube::core::Status| {
        s.details.iter().flat_map(|d| d.causes.clone()).any(|c| c.reason == "NamespaceTerminating")
    };
    matches!(error, kube::Error::Api(status) if status.code == 403 && causes(status))
}
